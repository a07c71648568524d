"""What a study comes to: tables, figures, claims and pages, as artifacts, and the listings that say what they are made of.

A listing is a text that the configuration alone decides; its key is that of its content.
"""

import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from selfrefine import outputs
from selfrefine.errors import UserError
from selfrefine.files import KnownHashes, digest, whole_file
from selfrefine.keys import STORE, Artifact, Artifacts
from selfrefine.names import FILES, TRAINING
from selfrefine.provenance import note_text
from selfrefine.store import named
from selfrefine.study import Refinement, facts_of, refined, refinements_of

# By listing, its file, and of those that name artifacts, of which kinds.
LISTINGS = {
    "tables": "tables.json",
    "training": "training.json",
    "reading": "reading.json",
    "asked": "asked.json",
    "configuration": "configuration.yaml",
    "sources": "sources.csv",
}
NAMED = {
    "tables": ("cells", "answers", "demonstrations", "training", "paths", "pairs", "origins", "records"),
    "training": ("training",),
    "reading": ("items", "paths", "pairs"),
}
TABLES = (
    "accuracy",
    "arms",
    "comparisons",
    "lengths",
    "demonstrations",
    "paths",
    "solving",
    "pairs",
    "stages",
    "costs",
)
# Stages of which a study has one artifact.
ONE = ("tables", "claims", "summarise", "read")


class Finals:
    """The final artifacts of a study, made up when they are first asked for; `hashes` are those of the local files that it reads."""

    def __init__(self, artifacts: Artifacts, hashes: KnownHashes | None = None):
        self.artifacts = artifacts
        self.hashes = hashes
        self.study = artifacts.study

    # What lies behind the tables.

    @functools.cached_property
    def cells(self) -> list[tuple[dict, Artifact]]:
        """The cells of the accuracy table, each with the artifact of its judged answers."""
        found = []
        for cell in self.study.cells():
            if cell["arm"] == "teacher":
                made = self.artifacts.answers(cell["teacher"], cell["evaluation"], "test", "cot")
            else:
                made = self.artifacts.evaluation(cell["checkpoint"], cell["evaluation"])
            found.append((cell, made))
        return found

    @functools.cached_property
    def behind(self) -> dict[str, list[Artifact]]:
        """The artifacts of each kind that the study's checkpoints come from, by what the listings call them."""
        artifacts, checkpoints = self.artifacts, self.study.checkpoints()
        refinements = [row for row in checkpoints if row["refine_task"]]
        taught = {(row["teacher"], row["task"]) for row in checkpoints if row["teacher"]}
        taught |= {
            (row["teacher"], row["refine_task"])
            for row in refinements
            if row["teacher"]
            and any(self.study.recipes[step].needs_teacher for step in self.study.steps(row["recipe"]))
        }
        sampled = dict.fromkeys((s.start, s.task, s.share, s.seed) for s in self.steps)
        return {
            "answers": [artifacts.answers(teacher, task, "train", "cot") for teacher, task in sorted(taught)],
            "demonstrations": [artifacts.demonstrations(teacher, task) for teacher, task in sorted(taught)],
            "training": [artifacts.checkpoint(name) for name in self.trained],
            "paths": [artifacts.paths(*of) for of in sorted(sampled)],
            "pairs": [artifacts.pairs(*step) for step in self.steps],
            "items": [artifacts.items(task, "train") for task in sorted({row["refine_task"] for row in refinements})],
        }

    @functools.cached_property
    def steps(self) -> list[Refinement]:
        """The refinements of the study, each once."""
        names = [row["checkpoint"] for row in self.study.checkpoints() if row["refine_task"]]
        return list(dict.fromkeys(step for name in names for step in refinements_of(name)))

    @functools.cached_property
    def trained(self) -> list[str]:
        """The checkpoints whose training the study shows."""
        instructed = [row["checkpoint"] for row in self.study.checkpoints() if row["arm"] == "instruct"]
        return [*instructed, *(refined(*step) for step in self.steps)]

    @functools.cached_property
    def _index(self) -> dict:
        """Where everything that the tables and figures are made of lies."""
        behind, origins = self.behind, {}
        for step, pairs in zip(self.steps, behind["pairs"], strict=True):
            facts = facts_of(step)
            origins[str(pairs.file)] = facts
            paths = self.artifacts.paths(step.start, step.task, step.share, step.seed)
            origins[str(paths.file)] = {name: value for name, value in facts.items() if name != "recipe"}
        made = [one for kind in ("answers", "demonstrations", "training", "paths", "pairs") for one in behind[kind]]
        samples = dict.fromkeys(one for _, one in self.cells)
        return {
            "cells": [{**cell, "samples": str(one.file)} for cell, one in self.cells],
            **{kind: [str(one.file) for one in found] for kind, found in behind.items() if kind != "training"},
            "training": {
                name: str(one.folder / TRAINING) for name, one in zip(self.trained, behind["training"], strict=True)
            },
            "origins": origins,
            "records": [str(one.record) for one in itertools.chain(samples, made)],
        }

    # Listings.

    def listing(self, part: str) -> Artifact:
        """One of the study's listings."""
        return self.artifacts.once(
            ("listing", part),
            lambda: Artifact("listing", (part,), {"part": part}, {"text": digest(self.text(part), 64)}, {}, "", ""),
        )

    def listed(self, part: str) -> Path:
        """Where the text of a listing lies."""
        return self.listing(part).folder / LISTINGS[part]

    def text(self, part: str) -> str:
        """What a listing says."""
        return self.artifacts.once(("text", part), lambda: self._text(part))

    def _text(self, part: str) -> str:
        if part == "configuration":
            return self.study.yaml()
        if part == "sources":
            return self.study.sources_csv()
        if part == "asked":
            return json.dumps(self._asked(), indent=1) + "\n"
        index = self._index
        return json.dumps({kind: index[kind] for kind in NAMED[part]}, indent=1) + "\n"

    def _asked(self) -> list[dict]:
        """What is asked of served teachers, {teacher, items, recipe, server} per file of answers."""
        served = [one for one in self._teachers_answers() if one.of["teacher"] in self.study.served()]
        return [
            {
                "teacher": one.of["teacher"],
                "items": str(self.artifacts.items(one.of["task"], one.of["split"]).file),
                "recipe": one.settings,
                "server": self.study.teachers[one.of["teacher"]].server.model_dump(),
            }
            for one in served
        ]

    def asked_items(self) -> list[Artifact]:
        """The items that served teachers are asked."""
        served = [one for one in self._teachers_answers() if one.of["teacher"] in self.study.served()]
        return list(dict.fromkeys(self.artifacts.items(one.of["task"], one.of["split"]) for one in served))

    def _teachers_answers(self) -> list[Artifact]:
        """The teachers' answers that a study has, in every style that they are asked in."""
        known = [*self.behind["answers"], *(one for cell, one in self.cells if cell["arm"] == "teacher")]
        of = sorted({(one.of["teacher"], one.of["task"], one.of["split"]) for one in known})
        return [self.artifacts.answers(*each, style) for each in of for style in self.study.study.teacher_styles]

    # Tables and what is drawn from them.

    def tables(self) -> Artifact:
        """The study's tables."""

        def make() -> Artifact:
            made = [
                one for kind in ("answers", "demonstrations", "training", "paths", "pairs") for one in self.behind[kind]
            ]
            return self.artifacts.artifact(
                "tables",
                (),
                {},
                index=self.listing("tables"),
                samples=tuple(dict.fromkeys(one for _, one in self.cells)),
                behind=tuple(dict.fromkeys(made)),
            )

        return self.artifacts.once(("tables",), make)

    def claims(self) -> Artifact:
        """The verdicts on the paper's claims."""
        return self.artifacts.once(
            ("claims",),
            lambda: self.artifacts.artifact(
                "claims",
                (),
                {},
                index=self.listing("tables"),
                samples=tuple(dict.fromkeys(one for _, one in self.cells)),
            ),
        )

    def summarise(self) -> Artifact:
        """The summary."""
        return self.artifacts.once(
            ("summarise",), lambda: self.artifacts.artifact("summarise", (), {}, tables=self.tables())
        )

    def read(self) -> Artifact:
        """The page of sampled paths and pairs."""
        behind = (one for kind in ("items", "paths", "pairs") for one in self.behind[kind])
        return self.artifacts.once(
            ("read",),
            lambda: self.artifacts.artifact("read", (), {}, {}, index=self.listing("reading"), behind=tuple(behind)),
        )

    def plot(self, figure: str) -> Artifact:
        """A figure."""

        def make() -> Artifact:
            kind, _ = outputs.kind_of(figure)
            if outputs.FIGURES[kind]:
                inputs = {"tables": self.tables()}
            else:
                inputs = {"index": self.listing("training"), "behind": tuple(self.behind["training"])}
            return self.artifacts.artifact("plot", (figure,), {"figure": figure}, **inputs)

        return self.artifacts.once(("plot", figure), make)

    def layout(self, name: str) -> Artifact:
        """A laid-out table."""

        def make() -> Artifact:
            settings, behind = self._layout(name)
            tables = self.tables() if outputs.LAYOUTS[settings["layout"]] else None
            inputs = {"tables": tables, "behind": tuple(behind) or None}
            return self.artifacts.artifact("layout", (name,), {"layout": name}, settings, **inputs)

        return self.artifacts.once(("layout", name), make)

    def _layout(self, name: str) -> tuple[dict, list[Artifact]]:
        """What the layout stage reads to lay out one table, and the artifacts that it is made of beside the tables."""
        study, (kind, student) = self.study, outputs.kind_of(name)
        settings = {"layout": kind, "student": student, "titles": {}, "rows": [], "level": None, "extractor": ""}
        behind: list[Artifact] = []
        if kind == "prompts":
            settings["rows"], behind = self._prompts()
            return settings, behind
        if kind == "teachers":
            behind = self._teachers_answers()
            settings["rows"] = [{**one.of, "answers": str(one.file)} for one in behind]
            settings |= {"level": study.statistics.level, "extractor": study.extractor}
        if kind == "splits":
            behind = self._splits()
            settings["rows"] = [{**one.of, "items": str(one.file), "record": str(one.record)} for one in behind]
        return settings if kind == "cost" else settings | {"titles": study.titles()}, behind

    def _prompts(self) -> tuple[list[dict], list[Artifact]]:
        """What is asked of each teacher and student, {name, kind, style, prompt, request, system, items}, by kind of benchmark."""
        study, checkpoints = self.study, self.study.checkpoints()
        styles = {study.evaluation.style}
        styles |= {"cot"} if any(row["task"] for row in checkpoints) else set()
        styles |= {"cot", "plain"} if any(row["refine_task"] for row in checkpoints) else set()
        asked = [
            (name, study.teachers[name], style) for style in study.study.teacher_styles for name in study.study.teachers
        ]
        asked += [(name, study.students[name], style) for style in sorted(styles) for name in study.study.students]
        examples: dict[str, Artifact] = {}
        for task in study.study.evaluate:
            examples.setdefault(study.benchmarks[task].kind, self.artifacts.items(task, "test"))
        rows = [
            {
                "name": name,
                "kind": kind,
                "style": style,
                "prompt": study.prompts[kind].model_dump(include={"instruction", style}),
                "request": getattr(model, "request", {}).get(kind, "") if style == "cot" else "",
                "system": model.system,
                "items": str(items.file),
            }
            for kind, items in examples.items()
            for name, model, style in asked
        ]
        return rows, list(examples.values())

    def _splits(self) -> list[Artifact]:
        """The splits that a study uses."""
        design = self.study.study
        trained = {task for row in self.study.checkpoints() for task in (row["task"], row["refine_task"]) if task}
        used = {(task, "train") for task in design.tasks if task in trained}
        used |= {(task, "test") for task in design.evaluate}
        return [self.artifacts.items(*of) for of in sorted(used, key=lambda pair: (pair[0], pair[1] == "test"))]

    # All of them.

    def all(self) -> list[Artifact]:
        """What the study is asked for."""
        return [
            self.listing("configuration"),
            self.listing("sources"),
            self.tables(),
            self.summarise(),
            self.claims(),
            self.read(),
            *map(self.plot, self.study.figures()),
            *map(self.layout, self.study.layouts()),
        ]

    def behind_all(self) -> Iterator[Artifact]:
        """Every artifact that the study is made of, each once, those that others are made of first."""
        seen: set[Path] = set()
        for final in self.all():
            for one in final.behind():
                if one.folder not in seen:
                    seen.add(one.folder)
                    yield one

    def missing(self) -> list[Artifact]:
        """The artifacts that are still to be made: finals, and what these need, in the order in which they can be made."""
        found: dict[Path, Artifact] = {}
        for final in self.all():
            stack = [(final, False)]
            while stack:
                one, entered = stack.pop()
                if entered:
                    found[one.folder] = one
                elif one.folder not in found and not one.record.exists():
                    stack.append((one, True))
                    stack += [(each, False) for inputs in one.inputs.values() for each in inputs]
        return list(found.values())

    def key(self) -> str:
        """Stands for all of the study's results."""
        return digest([str(one.folder) for one in self.all()], 12)

    def files(self, final: Artifact) -> list[Path]:
        """The files of a final artifact that readers look at."""
        name = final.names[-1] if final.names else ""
        match final.stage:
            case "listing":
                files = [LISTINGS[name]]
            case "tables":
                files = [f"{table}.csv" for table in TABLES]
            case "plot":
                files = [f"{name}.{form}" for form in outputs.DRAWN]
            case "layout":
                files = [f"{name}.{form}" for form in outputs.LAID_OUT]
            case "claims":
                files = [FILES["claims"], "claims.json"]
            case _:
                files = [FILES[final.stage]]
        return [final.folder / file for file in files]

    @staticmethod
    def name_of(final: Artifact, file: Path) -> str:
        """What a file of a final artifact is called below the folder of the study's results."""
        return named(final.stage, file.name)

    def shown(self) -> str:
        """The marker of this study's results under their names: another one each time that some of them are gone."""
        folder = Path("results", self.study.study.name)
        marker = folder / ".shown" / self.key()
        numbers = [int(path.suffix[1:]) for path in marker.parent.glob(f"{marker.name}.*")]
        links = (folder / self.name_of(one, file) for one in self.all() for file in self.files(one))
        gone = bool(numbers) and not all(path.exists() for path in links)
        return f"{marker}.{max(numbers, default=0) + gone}"

    def at(self, stage: str, names: str, key: str) -> Artifact:
        """The artifact of a path's parts; `UserError` where this configuration has none with these names and this key."""
        if stage not in (*ONE, "plot", "layout", "listing"):
            return self.artifacts.at(stage, names, key)
        known = {"plot": self.study.figures(), "layout": self.study.layouts(), "listing": LISTINGS}
        place = "/".join(part for part in (str(STORE), stage, names, key) if part)
        if stage not in ONE and names not in known[stage]:
            raise UserError(f"{place}: this configuration has no such artifact; it has {', '.join(known[stage])}")
        made = getattr(self, stage)(*([] if stage in ONE else [names]))
        if made.key != key:
            raise UserError(f"{place}: in this configuration its key is {made.key}")
        return made


def write_listing(record: Path, text: str) -> None:
    """Writes a listing and its record."""
    record = Path(record)
    path = record.parent / LISTINGS[record.parent.parent.name]
    with whole_file(path) as file:
        file.write(text)
    note_text(record, path, digest(text, 64))
