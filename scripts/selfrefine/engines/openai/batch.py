"""Asks a served teacher through files of the OpenAI Batch API, at its lower price and pace.

`export` writes the requests that the store does not answer as batch input; `import_answers` takes the batch's output
and error files into the store, where the study finds the answers.
"""

import collections
import json
import sys
from pathlib import Path
from typing import Any

from selfrefine.engines.interface import Request
from selfrefine.engines.openai.bodies import (
    KeptAnswer,
    Malformed,
    answer_of,
    body_of,
    error_in,
    filtered,
    is_filtered,
)
from selfrefine.engines.openai.cost_estimate import Asked
from selfrefine.errors import UserError
from selfrefine.store.files import read_jsonl, write_jsonl

# How many requests the API takes in one file.
LARGEST = 50_000


def asked_of(asked: list[Asked], teacher: str) -> Asked:
    """What a study asks of one served teacher."""
    found = {one.teacher: one for one in asked}
    if teacher not in found:
        raise UserError(
            f"--teacher: the study asks no served teacher {teacher!r}; it asks {', '.join(found) or 'none'}"
        )
    return found[teacher]


def export(asked: Asked, output: Path, url: str, limit_field: str) -> None:
    """Writes the unanswered requests to `output`, or to several files if they are more than the API takes in one.

    Each line names the path `url`; `limit_field` is what the server calls the limit on a completion's tokens.
    """
    engine = asked.engine
    if not asked.missing:
        print(f"{asked.teacher}: every request is answered in {engine.store.folder}; nothing to export")
        return
    rows = [
        {
            "custom_id": request.key,
            "method": "POST",
            "url": url,
            "body": body_of(request, engine.served, engine.extra, limit_field),
        }
        for request in asked.missing
    ]
    pieces = [rows[start : start + LARGEST] for start in range(0, len(rows), LARGEST)]
    for number, piece in enumerate(pieces, 1):
        path = output if len(pieces) == 1 else output.with_stem(f"{output.stem}-{number}")
        write_jsonl(path, piece)
        print(f"{path}: {len(piece)} requests")


def import_answers(asked: Asked, files: list[Path]) -> None:
    """Takes the answers in a batch's output and error files into the store; `UserError` if some rows hold none."""
    requests = {request.key: request for request in asked.requests}
    rows = [(path, number, row) for path in files for number, row in enumerate(read_jsonl(path), 1)]
    store = asked.engine.store
    counts: collections.Counter[str] = collections.Counter()
    failed = []
    with store.held():
        store.read()
        try:
            for path, number, row in rows:
                request = requests.get(row.get("custom_id"))
                if request is None:
                    counts["not of this study"] += 1
                elif request.key in store.answers:
                    counts["known already"] += 1
                else:
                    answer = _answer_in(request, row)
                    if isinstance(answer, str):
                        failed.append(f"{path}:{number}: {request.id}: {answer}")
                        continue
                    store.append(answer)
                    store.answers[request.key] = answer
                    counts["taken"] += 1
        finally:
            store.close()
    left = sum(key not in store.answers for key in requests)
    taken = ", ".join(f"{count} {what}" for what, count in counts.items()) or "none taken"
    print(f"{store.folder}: {taken}; {left} requests are not answered yet")
    if failed:
        print("\n".join(failed[:20]), file=sys.stderr)
        more = ", the first 20 are listed above" if len(failed) > 20 else ""
        raise UserError(f"{len(failed)} rows failed{more}; the rest is kept, export again to ask what is left")


def _answer_in(request: Request, row: dict[str, Any]) -> KeptAnswer | str:
    """The answer in a row of a batch's output, as the store keeps it; or why there is none."""
    response = row.get("response") or {}
    body = response.get("body")
    error = error_in(body) or error_in(row)
    status = response.get("status_code", 200 if body else None)
    if status != 200:
        if is_filtered(error):
            return filtered(request)
        message = error.get("message") or json.dumps(body, ensure_ascii=False)[:200]
        return f"status {status}: {message}" if status else f"no response: {error.get('code') or ''} {message}"
    try:
        return answer_of(request, body or {})
    except Malformed as fault:
        return str(fault)
