"""The paper's seven claims (Ranaldi & Freitas, arXiv 2405.00402) as comparisons of arms."""

from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, Protocol

from selfrefine.schema.results import SELECT, EvaluatedCell


class Arm(NamedTuple):
    """One arm on one benchmark: the judged answers of each seed. "" stands where a fact does not apply."""

    arm: str
    student: str
    teacher: str
    family: str
    task: str
    refine_task: str
    recipe: str
    share: int | str
    select: str
    evaluation: str
    samples: dict[int | str, Path]  # by seed; by "" where training has none

    @property
    def in_domain(self) -> bool:
        """Whether it is evaluated on the benchmark that it was trained on last."""
        return self.evaluation == (self.refine_task or self.task)


FACTS = Arm._fields[:-1]


def arms_of(cells: Iterable[EvaluatedCell]) -> list[Arm]:
    """The cells of the index, their seeds put together."""
    arms: dict[tuple[object, ...], Arm] = {}
    for cell in cells:
        one = Arm._make((*itemgetter(*FACTS)({SELECT: "", **cell}), {}))
        arms.setdefault(one[:-1], one).samples[cell["seed"]] = Path(cell["samples"])
    return list(arms.values())


class Comparisons(Protocol):
    """How a study's own claim finds its comparisons."""

    def pairs(self, arms: Iterable[Arm]) -> Iterator[tuple[Arm, Arm]]:
        """(treated, control) of each comparison."""

    def told(self, treated: Arm, control: Arm) -> list[str]:
        """The two sides in words."""


class Part(NamedTuple):
    """What a claim says of two arms: which are compared, and what a study must hold for it."""

    title: str
    treated: str
    control: str
    alike: tuple[str, ...]  # facts that both sides share, beside the benchmark
    where: Callable[[Arm, Arm], bool]
    needs: str
    own: Comparisons | None = None


class Claim(NamedTuple):
    """A claim of the paper, or of a study's own, whose name stands in the place of the number.

    `every_share`: a claim of the paper is about all shares; without it, only the largest counts.
    """

    number: int | str
    title: str
    says: str  # above: better at all; not below: by less than the margin worse; about: within the margin
    parts: tuple[Part, ...]
    every_share: bool = False
    effect: float | None = None  # accuracy points that power is computed for

    @property
    def is_own(self) -> bool:
        """Whether it is a study's own, which says itself which recipes and shares it is about."""
        return isinstance(self.number, str)


IN_DOMAIN = "a benchmark both trained and evaluated on"
OUT_DOMAIN = "a benchmark evaluated on and not trained on"
AS_INSTRUCTED = ("student", "teacher", "task", "share", "select")


def _in_domain(treated: Arm, control: Arm) -> bool:
    return treated.in_domain


def _out_domain(treated: Arm, control: Arm) -> bool:
    return not treated.in_domain


def _taught_by(family: str) -> Callable[[Arm, Arm], bool]:
    return lambda treated, control: treated.in_domain and treated.family == family


CLAIMS = (
    Claim(
        1,
        "Instructed students beat the baseline",
        "above",
        (Part("", "instruct", "baseline", ("student",), _in_domain, IN_DOMAIN),),
    ),
    Claim(
        2,
        "Refined students beat instructed ones",
        "above",
        tuple(
            Part(
                f"with an {family}-family teacher",
                "refine",
                "instruct",
                AS_INSTRUCTED,
                _taught_by(family),
                f"an {family}-family teacher, and {IN_DOMAIN}",
            )
            for family in ("in", "out")
        ),
    ),
    Claim(
        3,
        "Refined students reach their teacher",
        "not below",
        (Part("", "refine", "teacher", ("teacher",), _in_domain, IN_DOMAIN),),
    ),
    Claim(
        4,
        "Out-family teachers make stronger refined students than in-family ones",
        "above",
        (
            Part(
                "",
                "refine",
                "refine",
                ("student", "task", "refine_task", "recipe", "share", "select"),
                lambda treated, control: treated.in_domain and (treated.family, control.family) == ("out", "in"),
                f"an in-family and an out-family teacher of one student, and {IN_DOMAIN}",
            ),
        ),
    ),
    Claim(
        5,
        "Out of domain, refined students beat instructed ones, and these the baseline",
        "above",
        (
            Part("refined against instructed", "refine", "instruct", AS_INSTRUCTED, _out_domain, OUT_DOMAIN),
            Part("instructed against baseline", "instruct", "baseline", ("student",), _out_domain, OUT_DOMAIN),
        ),
    ),
    Claim(
        6,
        "Students refined on another benchmark are about as good as in-domain ones",
        "about",
        (
            Part(
                "",
                "cross",
                "refine",
                ("student", "teacher", "refine_task", "recipe", "share", "select"),
                _in_domain,
                f"two tasks, and {IN_DOMAIN}",
            ),
        ),
    ),
    Claim(
        7,
        "At every share of the demonstrations, refining pays",
        "above",
        (
            Part("refined against instructed", "refine", "instruct", AS_INSTRUCTED, _in_domain, IN_DOMAIN),
            Part(
                "refined without instruction against instructed",
                "refine-only",
                "instruct",
                ("student", "share", "select"),
                lambda treated, control: treated.in_domain and treated.refine_task == control.task,
                IN_DOMAIN,
            ),
        ),
        every_share=True,
    ),
)
