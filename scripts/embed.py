"""Reads the training questions with a student: its perplexity and its embedding of each.

Resumes an interrupted run. Which items a teacher is asked can be chosen by these (choose.py), before anyone is asked.
"""

import argparse
import math
from pathlib import Path

import numpy as np

from selfrefine.data.items import read_items
from selfrefine.data.prompts import question_text
from selfrefine.models.checkpoints import load_checkpoint, prepare_torch
from selfrefine.programs import cli
from selfrefine.schema.rows import ReadQuestion
from selfrefine.schema.stages import EmbedSettings
from selfrefine.store.files import whole_file, write_jsonl
from selfrefine.store.locations import EMBEDDINGS
from selfrefine.store.run import Run


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, EmbedSettings)
    parser.add_argument("--checkpoint", required=True, type=Path, help="the record of the student's model")
    parser.add_argument("--items", required=True, type=cli.file_of("prepare"), help="the training items")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads that torch uses")
    cli.add_compute(parser)
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with cli.begin(__file__, args, [args.items], checkpoint=args.checkpoint) as run:
        if not run.made:
            read(args, run)


def read(args: argparse.Namespace, run: Run) -> None:
    prepare_torch(args.threads)
    # It imports torch, which was just prepared.
    from selfrefine.engines.embeddings import embed

    settings, items = args.settings, read_items(args.items)
    # Questions are read as plain text: any chat template will do.
    model, tokenizer, identity = load_checkpoint(
        args.checkpoint, settings.dtype, settings.quantisation, compute=args.compute, chat_template="plain"
    )
    model.eval()
    texts, vectors_file = [question_text(item) for item in items.values()], run.folder / EMBEDDINGS
    made = embed(model, tokenizer, texts, settings.batch_size, identity, run.file, vectors_file)
    rows: list[ReadQuestion] = [
        {"item": item_id, "tokens": tokens, "nll": float(nll), "perplexity": math.exp(min(float(nll), 700.0))}
        for item_id, tokens, nll in zip(items, made.tokens, made.nll, strict=True)
    ]
    with whole_file(vectors_file, "wb") as file:
        np.save(file, made.vectors)
    write_jsonl(run.file, rows)
    figures = {"items": len(rows), "cut": made.cut, "width": made.vectors.shape[1], "tokens_seen": sum(made.tokens)}
    computed = str(model.dtype).removeprefix("torch.")
    run.record([run.file, vectors_file], computed, mean_nll=round(float(np.mean(made.nll)), 4), **figures)


if __name__ == "__main__":
    cli.run(main)
