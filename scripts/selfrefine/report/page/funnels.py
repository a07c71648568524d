"""From questions to preference pairs: what each step of a refinement left over."""

from typing import NamedTuple

from selfrefine.report.labels import unrefined_mark
from selfrefine.report.page.model_titles import who
from selfrefine.report.page.page_inputs import PageInputs
from selfrefine.schema.results import PairRow
from selfrefine.schema.ways import choice_of, named_share
from selfrefine.store.locations import place_of

# Why an answer of the teacher's is none.
UNANSWERED = ("cut", "uncommitted")


class Step(NamedTuple):
    """One bar of a funnel; `share` is its length in percent of the longest of its part."""

    title: str
    number: int
    share: float
    note: str


class Funnel(NamedTuple):
    """One refinement's steps, in two parts: what the teacher gave, and what the student sampled."""

    label: str
    taught: list[Step]
    sampled: list[Step]


def funnels(inputs: PageInputs) -> list[Funnel]:
    """One for each row of pairs.csv."""
    return [_funnel(inputs, row) for row in inputs.tables.pairs()]


def _funnel(inputs: PageInputs, row: PairRow) -> Funnel:
    title = inputs.titles[row["refine_task"]]
    start = {**row, "arm": "instruct", "refine_task": "", "recipe": "", "unrefined": 0}
    label = f"{who(start, inputs.titles, set(), inputs.models)}, samples for {title} ({row['recipe']})"
    label += f", {row['share']} %" if "share" in inputs.several else ""
    label += f", seed {row['seed']}" if "seed" in inputs.several else ""
    label += unrefined_mark(row)
    return Funnel(label, _taught(inputs, row), _sampled(inputs, row))


def _taught(inputs: PageInputs, row: PairRow) -> list[Step]:
    """Questions, answers and demonstrations of the teacher that instructed; nothing where none did."""
    for demonstrations in inputs.tables.demonstrations():
        place = place_of(demonstrations["demonstrations"])
        if row["task"] and place and place.names == (row["teacher"], demonstrated(row)):
            questions, dropped = demonstrations["answers"], demonstrations["dropped"]
            without = {reason: dropped[reason] for reason in UNANSWERED if reason in dropped}
            others = {reason: number for reason, number in dropped.items() if reason not in UNANSWERED}
            answered, kept = questions - sum(without.values()), demonstrations["kept"]
            teacher, reasons = inputs.models.teacher(row["teacher"]), _reasons(without)
            return [
                Step("Questions", questions, 100.0, f"{inputs.titles[row['task']]}, training split"),
                Step(
                    "Answered by the teacher",
                    answered,
                    percent(answered, questions),
                    "; ".join(filter(None, (teacher, reasons))),
                ),
                Step("Demonstrations", kept, percent(kept, questions), _reasons(others)),
            ]
    return []


def demonstrated(row: PairRow) -> str:
    """What the demonstrations that instructed are called in paths, beside their teacher."""
    choice = choice_of(row["student"], named_share(int(row["share"]), row["select"]), row["seed"])
    return f"{row['task']}-{choice.name}" if choice else row["task"]


def _sampled(inputs: PageInputs, row: PairRow) -> list[Step]:
    """Paths, correct ones, and pairs."""
    facts = ("student", "teacher", "task", "after", "refine_task", "share", "select", "seed")
    of = [row.get(name) for name in facts]
    paths = [path for path in inputs.tables.paths() if [path.get(name) for name in facts] == of]
    number, correct = sum(path["paths"] for path in paths), sum(path["correct"] for path in paths)
    styles = ", ".join(f"{path['paths']:,} {path['style']}" for path in paths)
    used = f"for {row['items_with_pairs']:,} of {row['items']:,} questions"
    missing = _reasons(row["dropped"])
    return [
        Step("Sampled paths", number, 100.0, f"for {row['items']:,} questions: {styles}"),
        Step("Correct paths", correct, percent(correct, number), ""),
        Step(
            "Preference pairs", row["pairs"], percent(row["pairs"], number), used + (f"; {missing}" if missing else "")
        ),
    ]


def _reasons(dropped: dict[str, int]) -> str:
    """Why others were dropped, such as "dropped: 11 cut, 27 incorrect"."""
    told = [f"{number:,} {WORDS.get(reason, reason.replace('_', ' '))}" for reason, number in dropped.items() if number]
    return "dropped: " + ", ".join(told) if told else ""


WORDS = {"uncommitted": "without an answer", "wrong": "incorrect", "no_chosen": "with nothing to choose"}
WORDS |= {"no_rejected": "with nothing to reject", "same_text": "with equal responses", "cut": "cut off"}
WORDS |= {"length_ratio": "with lengths too far apart"}


def percent(part: int, whole: int) -> float:
    """A share in percent; 0 of nothing."""
    return 100 * part / whole if whole else 0.0
