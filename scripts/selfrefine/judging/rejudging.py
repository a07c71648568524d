"""Verdicts of a further extractor on answers that are kept: nothing is generated."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from selfrefine.answers.extraction import verify
from selfrefine.schema.rows import Document, item_of
from selfrefine.store.files import read_jsonl

# Answers of one task of a worker, fewer are judged here; workers at most, as this runs where snakemake does.
CHUNK, MOST = 200, 8


def rejudge(files: Mapping[Path, str], documents: Mapping[str, Path]) -> dict[Path, str]:
    """math-verify's verdicts on the rows of files, as 1 and 0; `files`: the benchmark of each.

    Only of benchmarks whose `documents` are of a kind that it judges: not of options, nor of lm-eval's own tasks.
    """
    judged: dict[Path, list[tuple[str, str]]] = {}
    for benchmark, place in documents.items():
        known: list[Document] = read_jsonl(place)
        answers = {row["id"]: row["answer"] for row in known if row["kind"] != "choice"}
        for path in (path for path, of in files.items() if of == benchmark and answers):
            judged[path] = [(row["text"], answers[item_of(row)]) for row in read_jsonl(path)]
    # Checkpoints often give the same answer: each is judged once.
    distinct = list(dict.fromkeys(pair for pairs in judged.values() for pair in pairs))
    verdicts = dict(zip(distinct, _verified(distinct), strict=True))
    return {path: "".join(str(int(verdicts[pair])) for pair in pairs) for path, pairs in judged.items()}


def _verified(pairs: Sequence[tuple[str, str]]) -> Iterable[bool]:
    workers = min(os.cpu_count() or 1, MOST, len(pairs) // CHUNK)
    if workers < 2:
        return [_verify(pair) for pair in pairs]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(_verify, pairs, chunksize=CHUNK))


def _verify(pair: tuple[str, str]) -> bool:
    return verify(*pair)
