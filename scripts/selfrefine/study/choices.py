"""Which choices of training items a study's design asks for."""

import itertools
from collections.abc import Sequence

from selfrefine.schema.config import Configuration
from selfrefine.schema.ways import Choice, choice_of, named_share


def named_shares(study: Configuration) -> list[str]:
    """The shares of a study, with the ways in which their items are chosen; each once."""
    ways: Sequence[str] = study.demonstrations.select or [""]
    return list(dict.fromkeys(named_share(share, way) for way in ways for share in study.study.shares))


def choices_of(study: Configuration) -> list[Choice]:
    """How the training items of a study are chosen before teachers are asked; each choice once."""
    of = itertools.product(study.study.students, named_shares(study), study.study.seeds)
    found = (choice_of(*each) for each in of)
    return list(dict.fromkeys(choice for choice in found if choice))


def embeds(study: Configuration) -> bool:
    """Whether some choice looks at the student."""
    return any(choice.student for choice in choices_of(study))
