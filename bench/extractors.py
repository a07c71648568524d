"""Judges a store's answers by every extractor: how often they agree, and the answers on which they do not.

python bench/extractors.py results --show 20

With --math-verify, a column more: the verdicts of that library (envs/math-verify.txt), on numbers and free text.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from selfrefine.answers.extraction import EXTRACTORS, MATH_VERIFY, extract, matches, missing_package, verify  # noqa: E402
from selfrefine.data.items import read_items  # noqa: E402
from selfrefine.schema.rows import Item  # noqa: E402
from selfrefine.store.files import read_jsonl  # noqa: E402
from selfrefine.store.locations import FILES  # noqa: E402

STAGES = ("teach", "sample", "evaluate")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="a folder with a store")
    parser.add_argument("--math-verify", action="store_true", help="judge by math-verify too, if it is installed")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N answers on which extractors differ")
    args = parser.parse_args()
    if args.math_verify and (missing := missing_package(MATH_VERIFY)):
        parser.error(missing)
    return args


def answers(store: Path, stage: str, items: dict[str, Item]) -> Iterator[tuple[Item, str]]:
    """Each answer of a stage once, with its item."""
    seen = set()
    for path in sorted(store.glob(f"{stage}/**/{FILES[stage]}")):
        for row in read_jsonl(path):
            name = row.get("item", row["id"])
            if name in items and (name, row["text"]) not in seen:
                seen.add((name, row["text"]))
                yield items[name], row["text"]


def main() -> None:
    args = arguments()
    store = args.results / "store"
    items = {
        name: item for path in store.glob(f"prepare/*/*/{FILES['prepare']}") for name, item in read_items(path).items()
    }
    pairs = list(itertools.combinations(EXTRACTORS, 2))
    print("| answers of | n |", " | ".join(f"{name} correct" for name in EXTRACTORS), "|", end=" ")
    further = ["math-verify correct", "math-verify alone", "strict alone"] if args.math_verify else []
    print(" | ".join([*(f"{one} = {other}" for one, other in pairs), *further]), "|")
    print("|---" * (2 + len(EXTRACTORS) + len(pairs) + len(further)) + "|")
    differing = []
    for stage in STAGES:
        found = [
            (item, text, {name: extract(text, item["kind"], item["choices"], name) for name in EXTRACTORS})
            for item, text in answers(store, stage, items)
        ]
        if args.math_verify:
            found = [row for row in found if row[0]["kind"] != "choice"]
        if not found:
            continue
        correct = [sum(matches(f[name], item["answer"], item["kind"]) for item, _, f in found) for name in EXTRACTORS]
        same = [sum(f[one] == f[other] for *_, f in found) / len(found) for one, other in pairs]
        cells = [stage, str(len(found)), *map(str, correct), *(f"{100 * share:.1f} %" for share in same)]
        if args.math_verify:
            ours = [matches(f["strict"], item["answer"], item["kind"]) for item, _, f in found]
            theirs = [verify(text, item["answer"]) for item, text, _ in found]
            cells += [str(sum(theirs)), str(sum(t and not o for t, o in zip(theirs, ours, strict=True)))]
            cells += [str(sum(o and not t for t, o in zip(theirs, ours, strict=True)))]
            for row, one, other in zip(found, ours, theirs, strict=True):
                differing += [(*row[:2], {**row[2], "math-verify": f"correct: {other}"})] if one != other else []
        else:
            differing += [row for row in found if len({*row[2].values()}) > 1]
        print(f"| {' | '.join(cells)} |")
    for item, text, each in differing[: args.show]:
        print(f"\n{item['question'][:200]}  (correct answer: {item['answer']})\n{text[-300:]}\n{each}")


if __name__ == "__main__":
    main()
