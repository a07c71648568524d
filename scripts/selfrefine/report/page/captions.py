"""Titles and captions of figures and paper tables, shared with Snakemake's report (report/*.rst)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from selfrefine.report.model_names import Models
from selfrefine.report.page.model_titles import SPELLED


class Caption(NamedTuple):
    """What stands above and below a figure or a table."""

    title: str
    text: str


FIGURES = {
    "accuracy": Caption(
        "Accuracy of every checkpoint",
        "Accuracy of every checkpoint on every benchmark, with intervals. Lines and bands: the teachers on "
        "the same items.",
    ),
    "in-family": Caption(
        "In-family alignment",
        "Each student on the benchmark that it was trained on, taught by a teacher of its family (Figure 2 "
        "of the paper). "
        "Lines and bands: the teacher itself.",
    ),
    "out-family": Caption(
        "Out-family alignment",
        "Each student on the benchmark that it was trained on, by teacher; in-family teachers come first "
        "(Figure 3 of the "
        "paper). Lines and bands: the teacher itself.",
    ),
    "low-resource": Caption(
        "With fewer demonstrations",
        "Accuracy by the share of the demonstrations, with intervals (Figure 4 of the paper); points are set "
        "apart sideways. "
        "Grey line and band: the student before training.",
    ),
    "selection": Caption(
        "By the way of choosing items",
        "Accuracy by the share of the items that the teacher is asked, a curve for each way of choosing them, with "
        "intervals; points are set apart sideways. Grey line and band: the student before training.",
    ),
    "lengths": Caption(
        "Length of answers",
        "Tokens per answer on the benchmark trained on: whether preference tuning merely lengthens answers.",
    ),
    "solving": Caption(
        "Training items that sampling solves",
        "Training items that k sampled chains of thought solve: at least one correct (pass@k), or the majority correct "
        "(maj@k), with intervals over items and seeds.",
    ),
    "pass-at-k": Caption(
        "Test items that sampling solves",
        "Test items that k sampled answers solve, in-domain: at least one correct (pass@k), or the majority correct "
        "(maj@k), with intervals over samples, items and seeds.",
    ),
    "yields": Caption(
        "From sampled paths to pairs",
        "How sampled paths came out (left), and which training items gave preference pairs (right). Lines: "
        "intervals of the "
        "first part.",
    ),
    "cost": Caption(
        "Cost by arm",
        "Wall time and tokens of one checkpoint of each arm, from its teacher's answers to its evaluation. A "
        "job that several "
        "checkpoints share counts for each.",
    ),
    "training": Caption(
        "Training curves",
        "Loss by update, and for refinements the rewards' margin (chosen minus rejected) and accuracy, and the mean "
        "log-probability of a token of the chosen and the rejected responses. If both fall, a rising margin hides that "
        "the chosen responses become less likely. Dots: held-out pairs.",
    ),
    "claims": Caption(
        "The comparisons behind the claims",
        "Differences in accuracy points, paired by item; below each, a dot per seed. Filled: decided. Broken lines: the "
        "margin. Thin: the interval for new training runs; thick: for these checkpoints. Where a margin is judged, "
        "reaching or being about as good, intervals have 90 % for a level of 95 %, as the tests are one-sided.",
    ),
    "flips": Caption(
        "Verdicts under other choices",
        "Each claim judged again under other choices, one a row: + supported, − contradicted, × not tested, empty "
        "undecided. Framed: the verdict flips; broad frames: it is reversed. Pale: there is nothing to choose. "
        "Below, the number of flips. Fewer seeds, a single benchmark or a higher level lose power by themselves, "
        "so a lost verdict says less than a reversed one.",
    ),
}
LAYOUTS = {
    "transfer": Caption(
        "Accuracy by what was trained on",
        "Accuracy (%) of one student by what it was instructed and refined on, against what it is evaluated "
        "on (Tables 1, 10 "
        "and 11 of the paper), with intervals.",
    ),
    "teachers": Caption(
        "The teachers",
        "The teachers' accuracy (%) on training and test split, by how they were asked (Table 5 of the "
        "paper), with intervals. "
        "A student can hardly learn more than its demonstrations hold.",
    ),
    "prompts": Caption(
        "The prompts",
        "What teachers and students are asked, one question of each kind (Table 6 of the paper).",
    ),
    "splits": Caption(
        "The splits",
        "How large each split is, which rows were dropped and why, and one example (Table 9 of the paper).",
    ),
    "lengths": Caption(
        "Length of answers",
        "Tokens per answer, and how many more than before the training: a gain of a longer answer may be one "
        "of length.",
    ),
    "solving": Caption(
        "Training items that sampling solves",
        "How many training items (%) k sampled paths solve: at least one correct (pass@k), or the majority "
        "correct (maj@k).",
    ),
    "pass-at-k": Caption(
        "Test items that sampling solves",
        "How many test items (%) k sampled answers solve: at least one correct (pass@k), or the majority correct "
        "(maj@k), with intervals.",
    ),
    "yields": Caption(
        "Yield of preference pairs",
        "How many training items gave preference pairs (%), and why the others did not.",
    ),
    "cost": Caption(
        "Cost by arm and stage",
        "Wall time and tokens of one checkpoint of each arm, from its teacher's answers to its evaluation.",
    ),
    "chains": Caption(
        "Short and long chains",
        "Accuracy (%) of each student by the length of the demonstrations that it learned from, with intervals. Small "
        "students may learn less from long chains than large ones do (arXiv 2502.12143).",
    ),
}


def kind_of(name: str, kinds: Mapping[str, Caption]) -> str:
    """The kind of a figure or laid-out table by its name, which a student's name may follow."""
    return name if name in kinds else next(kind for kind in kinds if name.startswith(f"{kind}-"))


def caption_of(name: str, kinds: Mapping[str, Caption], students: Sequence[str], models: Models = SPELLED) -> Caption:
    """What stands above and below a figure or laid-out table; one of a student names it where there are several."""
    kind = kind_of(name, kinds)
    title, text = kinds[kind]
    student = name.removeprefix(kind).removeprefix("-")
    return Caption(f"{title}: {models.student(student)}" if student and len(students) > 1 else title, text)
