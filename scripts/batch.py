"""Asks a served teacher through files of the OpenAI Batch API, at its lower price and pace, instead of one by one.

export   writes the requests that the store does not answer as batch input
import   takes a batch's output file, and its error file, into the store

The study then finds the answers in the teacher's store. `snakemake estimate` makes the listing of what is asked, and the items.
"""

import argparse
import collections
import json
import sys
from pathlib import Path

from selfrefine import cli
from selfrefine.asking import Asked, asked_file, read_asked
from selfrefine.engines.chat import Malformed, answer_of, body_of, error_in, filtered, is_filtered
from selfrefine.errors import UserError
from selfrefine.files import read_jsonl, write_jsonl
from selfrefine.opening import open_study

# What the API takes in one file.
LARGEST = 50_000


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="write the requests that are not answered yet")
    export.add_argument("--output", required=True, type=Path, help="the batch input, JSON Lines")
    export.add_argument("--url", default="/v1/chat/completions", help="the path that each line names")
    export.add_argument(
        "--limit-field",
        default="max_completion_tokens",
        choices=["max_completion_tokens", "max_tokens"],
        help="what the server calls the limit on a completion's tokens (default: max_completion_tokens)",
    )
    taking = commands.add_parser("import", help="take answers into the store")
    taking.add_argument("files", nargs="+", type=Path, help="the batch's output and error files")
    for command in (export, taking):
        command.add_argument("--teacher", required=True, help="the teacher's name in the study")
        command.add_argument("--configfile", type=Path, nargs="*", default=[], help="as for snakemake")
        command.add_argument("--asked", type=asked_file, help="the listing of what a study asks (default: the study's)")
    return parser.parse_args()


def asked_of(args: argparse.Namespace) -> Asked:
    """What the study asks of the teacher."""
    path = args.asked or open_study(args.configfile).listed("asked")
    found = {asked.teacher: asked for asked in read_asked(path)}
    if args.teacher not in found:
        raise UserError(f"{path}: no served teacher {args.teacher!r}; it names {', '.join(found) or 'none'}")
    return found[args.teacher]


def export(args: argparse.Namespace) -> None:
    asked = asked_of(args)
    if not asked.missing:
        print(f"{args.teacher}: every request is answered in {asked.engine.store.folder}; nothing to export")
        return
    engine = asked.engine
    rows = [
        {
            "custom_id": request.key,
            "method": "POST",
            "url": args.url,
            "body": body_of(request, engine.served, engine.extra, args.limit_field),
        }
        for request in asked.missing
    ]
    pieces = [rows[start : start + LARGEST] for start in range(0, len(rows), LARGEST)]
    for number, piece in enumerate(pieces, 1):
        path = args.output if len(pieces) == 1 else args.output.with_stem(f"{args.output.stem}-{number}")
        write_jsonl(path, piece)
        print(f"{path}: {len(piece)} requests")


def take(args: argparse.Namespace) -> None:
    asked = asked_of(args)
    requests = {request.key: request for request in asked.requests}
    rows = [(path, number, row) for path in args.files for number, row in enumerate(read_jsonl(path), 1)]
    store = asked.engine.store
    counts: collections.Counter = collections.Counter()
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
                    answer = answer_in(request, row)
                    if isinstance(answer, dict):
                        store.append(answer)
                        store.answers[request.key] = answer
                        counts["taken"] += 1
                    else:
                        failed.append(f"{path}:{number}: {request.id}: {answer}")
        finally:
            store.close()
    left = sum(key not in store.answers for key in requests)
    told = ", ".join(f"{count} {what}" for what, count in counts.items()) or "none taken"
    print(f"{store.folder}: {told}; {left} requests are not answered yet")
    if failed:
        print("\n".join(failed[:20]), file=sys.stderr)
        more = ", the first 20 are listed above" if len(failed) > 20 else ""
        raise UserError(f"{len(failed)} rows failed{more}; the rest is kept, export again to ask what is left")


def answer_in(request, row: dict) -> dict | str:
    """What a row of a batch's output answers, to be kept; or why it answers nothing."""
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
        return answer_of(request, body)
    except Malformed as fault:
        return str(fault)


def main() -> None:
    args = arguments()
    {"export": export, "import": take}[args.command](args)


if __name__ == "__main__":
    cli.run(main)
