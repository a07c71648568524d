"""Checks of names and titles: names stand in paths, titles tell benchmarks apart."""

import re
import unicodedata
from collections.abc import Iterator, Mapping

from selfrefine.schema.base import NAME, TASK_NAME
from selfrefine.schema.config import Configuration
from selfrefine.store.locations import ASIDE
from selfrefine.store.locations import NAME as STORE_NAME
from selfrefine.study.mixtures import asked_teachers

# Characters of a name: the names of two sections and more stand in one part of a path, which holds 255.
LONGEST = 80
# Snakemake takes a path that ends in twenty times the same for one that it makes up without end.
PERIODIC = re.compile(r"(?P<part>.+?)(?P=part){19,}$")


def names(study: Configuration) -> Iterator[str]:
    """Names can be parts of paths."""
    for section in ("models", "students", "teachers", "benchmarks", "recipes", "schedules"):
        yield from _cases(study, section)
        pattern = TASK_NAME if section in ("benchmarks", "recipes", "schedules") else NAME
        for name in getattr(study, section):
            if not re.fullmatch(pattern, name):
                allowed = "letters, digits, - and _" + (" and ." if pattern == NAME else "")
                yield f"{section}: {name!r} cannot be a name: it stands in paths; use {allowed}"
            elif len(name) > LONGEST:
                yield f"{section}: {name!r} has {len(name)} characters; names stand in paths: use {LONGEST} at most"
            elif PERIODIC.search(name):
                yield f"{section}: {name!r} ends in 20 times the same, which Snakemake refuses in paths; rename it"
    if len(study.study.name) > LONGEST or PERIODIC.search(study.study.name):
        yield (
            f"study.name: has {len(study.study.name)} characters, or ends in 20 times the same; it is a folder's name: "
            f"use {LONGEST} at most, and others"
        )
    if study.study.name in (STORE_NAME, ASIDE):
        yield f"study.name: {study.study.name!r} is a folder of the store's own below results/; choose another name"


def _cases(study: Configuration, section: str) -> Iterator[str]:
    """Names differ in more than case: some file systems take such for one folder."""
    known: dict[str, str] = {}
    for name in getattr(study, section):
        if name.casefold() in known:
            yield (
                f"{section}: {name!r} and {known[name.casefold()]!r} differ in case alone, which some file systems take "
                "for one name; rename one"
            )
        known.setdefault(name.casefold(), name)


def titles(study: Configuration) -> Iterator[str]:
    """The benchmarks of a study, its students and its teachers have titles: tables tell them apart by these."""
    tasks = dict.fromkeys([*study.study.tasks, *study.study.benchmarks])
    yield from _titles("benchmarks", {task: study.benchmarks[task].title for task in tasks})
    yield from _titles("students", {name: study.students[name].title for name in study.study.students})
    teachers = dict.fromkeys([*study.study.teachers, *asked_teachers(study)])
    yield from _titles("teachers", {name: study.teachers[name].title for name in teachers})


def _titles(section: str, given: Mapping[str, str | None]) -> Iterator[str]:
    """Each title of a section is a line of its own; where there is none, the name stands for it."""
    known: dict[str, str] = {}
    for name, whole in given.items():
        title = " ".join((name if whole is None else whole).split())
        if not title:
            yield f"{section}.{name}.title: is empty"
        elif odd := [sign for sign in whole or "" if unicodedata.category(sign) in ("Cc", "Cs")]:
            yield f"{section}.{name}.title: has {odd[0]!r}, which cannot be shown; write it in one line"
        elif title in known:
            yield (
                f"{section}.{name}.title: {title!r} is also the title of {section.removesuffix('s')} {known[title]!r}, "
                f"and tables and figures tell {section} apart by their titles; give one another title"
            )
        known.setdefault(title, name)
