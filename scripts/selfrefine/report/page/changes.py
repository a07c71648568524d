"""What training changed item by item: answers that became correct, and correct ones that were lost."""

from pathlib import Path
from typing import NamedTuple

from selfrefine.report.page.model_titles import ARMS, who
from selfrefine.report.page.page_inputs import PageInputs
from selfrefine.schema.rows import item_of, judged_correct
from selfrefine.store.files import read_jsonl


class Change(NamedTuple):
    """One checkpoint against the one that it was trained from, on one benchmark: numbers of items."""

    label: str
    step: str
    benchmark: str
    treated: str
    """The file of its judged answers, which the reader knows it by."""
    control: str
    stayed_correct: int
    gained: int
    lost: int
    stayed_incorrect: int

    @property
    def items(self) -> int:
        return self.stayed_correct + self.gained + self.lost + self.stayed_incorrect


def changes(inputs: PageInputs) -> list[Change]:
    """Every comparison of the study's comparisons.csv, counted again from the judged answers."""
    found, several = [], inputs.several
    for row in inputs.tables.comparisons():
        treated, control = row["samples"].split(" ")
        after, before = (correct_by_item(path, inputs.extractor) for path in (treated, control))
        pairs = [(before[item], correct) for item, correct in after.items()]
        counts = (pairs.count(pair) for pair in ((True, True), (False, True), (True, False), (False, False)))
        label = who(row, inputs.titles, several, inputs.models)
        step = f"{ARMS[row['against']]} → {ARMS[row['arm']].lower()}"
        found.append(Change(label, step, inputs.titles[row["evaluation"]], treated, control, *counts))
    return found


def correct_by_item(path: str, extractor: str) -> dict[str, bool]:
    """Which items a file of judged answers has correct; of several answers to an item, most of them."""
    answers: dict[str, list[bool]] = {}
    for row in read_jsonl(Path(path)):
        answers.setdefault(item_of(row), []).append(judged_correct(row, extractor))
    return {item: 2 * sum(verdicts) > len(verdicts) for item, verdicts in answers.items()}
