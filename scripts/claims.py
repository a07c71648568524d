"""Tests the paper's seven claims (Ranaldi & Freitas, arXiv 2405.00402) on the study's judged answers.

claims.md     the verdict on each claim, then every comparison behind it
claims.json   the same, with all numbers: accuracies, variance components, McNemar's test per seed, files of answers
"""

import argparse
import collections
import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from selfrefine import claims, cli
from selfrefine.files import whole_file, write_json
from selfrefine.formats import Table

NONE = "–"
READING = """## How to read this

Each claim is split into comparisons: one for each student, teacher, benchmark and share that it speaks of, over all training
seeds and paired by item. A comparison is decided when its two-sided p, corrected by Holm over all comparisons of the claim, is at
most {alpha:g}: it is supported if the difference lies where the claim says, and contradicted if not. A claim is contradicted if
one comparison is, supported if all are and no part is untested, undecided otherwise.

Differences are in accuracy points with {percent:g} % intervals, which are not corrected. "Reach" means less than {margin:g} points below,
"about as good" means within {margin:g} points on both sides; their p is that of a difference of {margin:g} points. "Detectable" is the
distance from 0, or from the margin, that one comparison by itself would have found with power 0.8. "Would decide" is how many
items (under as many seeds) or seeds (on the same items) would find the difference, if it is what it is estimated to be, with
power 0.8 after the correction; numbers are rounded up. It rests on variances estimated from few seeds: take it for an order of
magnitude.

A verdict that holds for "these checkpoints" rests on one seed: it takes in the chance of items, and says nothing of other
training runs. One that holds for "new seeds" takes in both. With two or three seeds that asks for large differences, because so
few say little about how much seeds vary. Its errors are as rare as promised where accuracies vary about normally over seeds; it
is too sure where a training run in several collapses, and the few at hand did not (`python bench/simulate.py`).
"""


class ClaimsRecipe(BaseModel):
    """What the claims stage reads beside the answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: float = Field(gt=0.5, lt=1, description="Of the intervals; 1 - level is the tests' alpha.")
    margin: float = Field(gt=0, lt=100, description="Accuracy points that 'reaches' and 'about as good' allow for.")
    extractor: str = Field(description="Whose verdict on an answer counts.")
    titles: dict[str, str] = Field(description="What the claims call each benchmark.")


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, ClaimsRecipe)
    cli.add_index(parser, "tables")
    cli.add_record(parser)
    return parser.parse_args()


def percent(value: float, sign: str = "") -> str:
    """A share of 1 in points; never -0.0."""
    return f"{round(100 * value, 1) + 0.0:{sign}.1f}"


def about(number: int) -> str:
    """A number rounded up to two digits."""
    step = 10 ** max(len(str(number)) - 2, 0)
    return f"{math.ceil(number / step) * step:,}"


def deciding(rows: list[dict]) -> str:
    """How many items or seeds would decide all of the open comparisons."""
    rows = [row for row in rows if row["verdict"] == "undecided"]
    if not rows:
        return ""
    ways = []
    for unit in ("items", "seeds"):
        needed = [row[f"{unit}_needed"] for row in rows]
        if None not in needed:
            ways.append(f"{about(max(needed))} {unit}")
    return " or ".join(ways) or "no number of items or seeds"


def name_of(claim: dict, margin: float) -> str:
    """A claim's number and title, the preference recipe it was tested with, and the margin that it allows for."""
    notes = [claim["recipe"], "" if claim["says"] == "above" else f"margin {margin:g} points"]
    shown = ", ".join(note for note in notes if note)
    return f"{claim['claim']}. {claim['title']}" + (f" ({shown})" if shown else "")


def verdicts_table(assessed: list[dict], margin: float) -> Table:
    """One row per claim, and one per part of those that have parts."""
    rows = []
    for claim in assessed:
        parts = claim["parts"]
        lines = [(name_of(claim, margin), claim["verdict"], parts)]
        if len(parts) > 1:
            lines += [(f"– {part['title']}", part["verdict"], [part]) for part in parts]
        for name, verdict, members in lines:
            comparisons = [row for part in members for row in part["comparisons"]]
            counts = collections.Counter(row["verdict"] for row in comparisons)
            lacking = "; ".join(dict.fromkeys(f"needs {part['missing']}" for part in members if part["missing"]))
            holds = {0: NONE, 1: "these checkpoints"}.get(claim["seeds"], "new seeds") if comparisons else NONE
            rows.append([name, verdict, *(str(counts[v]) for v in claims.VERDICTS[:3]), holds])
            rows[-1].append("; ".join(text for text in (deciding(comparisons), lacking) if text) or NONE)
    header = ["claim", "verdict", "supported", "contradicted", "undecided", "holds for", "would decide"]
    caption = "Supported, contradicted and undecided count the comparisons of the claim, or of its part."
    return Table("claims", caption, header, rows, list("llrrrll"))


def comparisons_table(claim: dict, part: dict, titles: dict[str, str]) -> Table:
    """One row per comparison of a part of a claim."""
    rows = []
    for row in part["comparisons"]:
        teacher = f"{row['teacher']} against {row['against_teacher']}"
        trained = row["task"] if row["refine_task"] in ("", row["task"]) else f"{row['task']} → {row['refine_task']}"
        rows.append(
            [row["student"], teacher if row["against_teacher"] not in ("", row["teacher"]) else row["teacher"]]
            + [trained, titles.get(row["evaluation"], row["evaluation"]), f"{row['share']} %"]
            + [f"{row['items']:,}", str(row["seeds"])]
            + [f"{percent(row['accuracy'])} against {percent(row['against_accuracy'])}"]
            + [f"{percent(row['difference'], '+')} [{percent(row['low'], '+')}, {percent(row['high'], '+')}]"]
            + [f"{row['p']:.2g}", f"{row['corrected_p']:.2g}", row["verdict"]]
            + [NONE if row["detectable"] is None else percent(row["detectable"]), deciding([row]) or NONE]
        )
    header = ["student", "teacher", "trained on", "benchmark", "share", "items", "seeds", "accuracy", "difference"]
    header += ["p", "corrected p", "verdict", "detectable", "would decide"]
    sides = {(row["arm"], row["against"]) for row in part["comparisons"]}
    caption = "; ".join(f"{arm} against {against}" for arm, against in sorted(sides))
    return Table(f"claim-{claim['claim']}", caption, header, rows, list("lllllrrlrrrlrl"))


def markdown(assessed: list[dict], recipe: ClaimsRecipe) -> str:
    """The verdicts first, then how they come about, then every comparison."""
    alpha = round(1 - recipe.level, 10)
    sections = [
        "# The paper's claims",
        "Ranaldi & Freitas, *Self-Refine Instruction-Tuning for Aligning Reasoning in Language Models*, arXiv 2405.00402.",
        verdicts_table(assessed, recipe.margin).markdown().rstrip(),
        READING.format(alpha=alpha, percent=100 * recipe.level, margin=recipe.margin).rstrip(),
    ]
    for claim in assessed:
        sections.append(f"## {name_of(claim, recipe.margin)}: {claim['verdict']}")
        for part in claim["parts"]:
            if part["title"]:
                sections.append(f"### {part['title'].capitalize()}: {part['verdict']}")
            if part["comparisons"]:
                sections.append(comparisons_table(claim, part, recipe.titles).markdown().rstrip())
            else:
                sections.append(f"Not tested: the study would need {part['missing']}.")
    return "\n\n".join(sections) + "\n"


def main() -> None:
    args = arguments()
    cells = cli.read_index(args.index)["cells"]
    inputs = [args.index, *dict.fromkeys(Path(cell["samples"]) for cell in cells)]
    with cli.begin(__file__, args, inputs) as run:
        if not run.made:
            recipe = args.recipe
            assessed = claims.assess_all(cells, recipe.extractor, recipe.level, recipe.margin / 100)
            numbers = run.file.with_suffix(".json")
            write_json(numbers, {"recipe": recipe.model_dump(), "claims": assessed})
            with whole_file(run.file) as file:
                file.write(markdown(assessed, recipe))
            counts = collections.Counter(claim["verdict"] for claim in assessed)
            run.record([run.file, numbers], verdicts=dict(counts))


if __name__ == "__main__":
    cli.run(main)
