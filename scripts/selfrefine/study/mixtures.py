"""Mixtures of teachers in a study: who is asked for which items."""

from collections.abc import Iterator

from selfrefine.schema.base import did_you_mean
from selfrefine.schema.config import Configuration
from selfrefine.schema.stages import Drawn, MixSettings


def parts_of(study: Configuration, teacher: str) -> list[str]:
    """The teachers that answer for one: those that a mixture mixes, by name; else itself."""
    return sorted(study.teachers[teacher].mixture) or [teacher]


def asked_teachers(study: Configuration) -> list[str]:
    """The teachers that answer in a study, mixtures replaced by those that they mix."""
    return list(dict.fromkeys(part for teacher in study.study.teachers for part in parts_of(study, teacher)))


def mixture_of(study: Configuration, teacher: str) -> MixSettings:
    """How a mixture draws."""
    entry = study.teachers[teacher]
    return MixSettings(shares=entry.mixture, seed=entry.mixture_seed)


def drawn_for(study: Configuration, teacher: str, split: str) -> Drawn | None:
    """The items of a split that a teacher is asked for mixtures alone; None where it is asked every item.

    It is asked every training item where a student learns from it by itself, and every test item where the study
    counts its accuracy.
    """
    design = study.study
    if teacher in design.teachers:
        own = (study.students[student].teachers for student in design.students)
        if split == "test" or any(named is None or teacher in named for named in own):
            return None
    mixtures = [mixture_of(study, name) for name in design.teachers if teacher in study.teachers[name].mixture]
    return Drawn(teacher=teacher, mixtures=mixtures) if mixtures else None


def family_of(study: Configuration, teacher: str, student: str) -> str:
    """Whether a teacher is of a student's family, "in" or "out"; "" for a mixture of both, which is neither."""
    own = study.students[student].family
    alike = {study.teachers[part].family == own for part in parts_of(study, teacher)}
    return "" if len(alike) > 1 else "in" if alike.pop() else "out"


def asks_in_several_ways(study: Configuration) -> bool:
    """Whether teachers of the study are one model that is asked in several ways, or mixtures."""
    entries = [study.teachers[name] for name in study.study.teachers]
    models = [entry.model for entry in entries if entry.model]
    return len(set(models)) < len(models) or any(entry.mixture for entry in entries)


def mixtures(study: Configuration) -> Iterator[str]:
    """Mixtures mix teachers that are defined, and no mixtures."""
    for name, entry in study.teachers.items():
        for part in entry.mixture:
            key = f"teachers.{name}.mixture.{part}"
            if part not in study.teachers:
                others = {other for other, each in study.teachers.items() if not each.mixture}
                yield f"{key}: {part!r} is not defined{did_you_mean(part, others)}"
            elif study.teachers[part].mixture:
                yield f"{key}: is a mixture itself; name the teachers that it mixes, with their shares"
