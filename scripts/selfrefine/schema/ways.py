"""Ways to choose the training items of a share, and what a choice is called."""

import re
from typing import Literal, NamedTuple

WayName = Literal["random", "uncertainty", "diversity", "dpp"]
Preferred = Literal["low", "high"]
# A share as names have it, with the way in which its items are chosen, if they are: `25`, `dpp25`.
SHARE = "[a-z]*[0-9]+"


class Way(NamedTuple):
    """What a way of choosing looks at: the student's perplexity of each question, how alike their embeddings are."""

    perplexity: bool
    spread: bool

    @property
    def reads_student(self) -> bool:
        """Whether it looks at the student at all; otherwise the study's seed decides alone."""
        return self.perplexity or self.spread


WAYS: dict[str, Way] = {
    "random": Way(perplexity=False, spread=False),
    "uncertainty": Way(perplexity=True, spread=False),
    "diversity": Way(perplexity=False, spread=True),
    "dpp": Way(perplexity=True, spread=True),
}


def named_share(share: int, way: str = "") -> str:
    """A share as it stands in names, with the way in which its items are chosen; all items need no choosing."""
    return f"{way}{share}" if share < 100 else str(share)


def way_of(share: str) -> str:
    """The way in which the items of a named share are chosen; "" where they are not."""
    return re.split("[0-9]", share, maxsplit=1)[0]


def percent_of(share: str) -> int:
    """The percentage of a named share."""
    return int(share.removeprefix(way_of(share)))


class Choice(NamedTuple):
    """A choice of training items: the student and seed that decide, "" where they do not, and the named share."""

    student: str
    share: str
    seed: str

    @property
    def name(self) -> str:
        """What it is called in paths."""
        return "-".join(filter(None, (self.student, self.share, self.seed and f"seed{self.seed}")))


def choice_of(student: str, share: str, seed: int | str) -> Choice | None:
    """How the items of a named share are chosen; None where they are not chosen before a teacher is asked."""
    way = way_of(share)
    if not way:
        return None
    return Choice(student, share, "") if WAYS[way].reads_student else Choice("", share, str(seed))
