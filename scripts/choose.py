"""Chooses training items before a teacher is asked, by what the student makes of them.

The items are written as they were prepared; the order in which they were chosen is beside them.
"""

import argparse
from pathlib import Path

import numpy as np

from selfrefine.data.choosing import chosen
from selfrefine.data.items import read_items
from selfrefine.errors import UserError
from selfrefine.programs import cli
from selfrefine.schema.rows import ReadQuestion
from selfrefine.schema.stages import ChooseSettings
from selfrefine.schema.ways import WAYS
from selfrefine.store.files import read_jsonl, write_json, write_jsonl
from selfrefine.store.locations import CHOSEN_ORDER, EMBEDDINGS
from selfrefine.store.run import Run


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, ChooseSettings)
    parser.add_argument("--items", required=True, type=cli.file_of("prepare"), help="the training items")
    parser.add_argument(
        "--embeddings", type=cli.file_of("embed"), help="what the student made of them (all ways but random)"
    )
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    way = WAYS[args.settings.way]
    if way.reads_student and args.embeddings is None:
        raise UserError(f"way {args.settings.way}: name what the student made of the items with --embeddings")
    read = [args.embeddings] if way.reads_student else []
    read += [args.embeddings.with_name(EMBEDDINGS)] if way.spread else []
    with cli.begin(__file__, args, [args.items, *read], args.settings.seed) as run:
        if not run.made:
            choose(args, run)


def choose(args: argparse.Namespace, run: Run) -> None:
    settings, items = args.settings, read_items(args.items)
    way, ids = WAYS[settings.way], list(items)
    nll = perplexities(args.embeddings, ids) if way.reads_student else None
    vectors = np.load(args.embeddings.with_name(EMBEDDINGS), mmap_mode="r") if way.spread else None
    if vectors is not None and len(vectors) != len(ids):
        raise UserError(f"{args.embeddings}: has embeddings of {len(vectors)} items, not {len(ids)}; make it again")
    order, counts = chosen(ids, settings, nll, vectors)
    if not order:
        raise UserError(
            f"{args.items}: {settings.share} % of its {len(ids)} items is none; raise `study.shares` or use more"
        )
    write_jsonl(run.file, [items[item_id] for item_id in sorted(order)])
    order_file = run.folder / CHOSEN_ORDER
    write_json(order_file, order)
    figures: dict[str, float] = {"items": len(ids), "chosen": len(order), **counts}
    if nll is not None:
        mine = set(order)
        figures |= {
            "mean_nll": round(float(nll.mean()), 4),
            "mean_nll_of_chosen": round(float(np.mean([one for i, one in zip(ids, nll, strict=True) if i in mine])), 4),
        }
    run.record([run.file, order_file], **figures)


def perplexities(path: Path, ids: list[str]) -> np.ndarray:
    """The logarithm of the perplexity of each item."""
    rows: list[ReadQuestion] = read_jsonl(path)
    if [row["item"] for row in rows] != ids:
        raise UserError(f"{path}: is of other items than the training split; make it again")
    return np.array([row["nll"] for row in rows])


if __name__ == "__main__":
    cli.run(main)
