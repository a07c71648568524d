"""What a study's tables and figures are made of: cells, and what the checkpoints come from."""

import functools
import itertools
from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict

from selfrefine.schema.results import Cell, EvaluatedCell
from selfrefine.schema.ways import Choice, choice_of
from selfrefine.store.locations import DOCUMENTS, TRAINING
from selfrefine.study.artifact import Artifact
from selfrefine.study.artifacts import Artifacts
from selfrefine.study.checkpoint_names import (
    Refinement,
    facts_of,
    origin_of,
    refined,
    refinements_of,
    student_of,
    teacher_of,
)
from selfrefine.study.resolve import steps_of

Kind = Literal["chosen", "answers", "parts", "demonstrations", "training", "paths", "pairs", "items"]
# Those that the tables read, and whose records they count.
COUNTED: tuple[Kind, ...] = ("chosen", "answers", "parts", "demonstrations", "training", "paths", "pairs")


class Index(TypedDict):
    """Where everything lies that the tables and figures are made of."""

    cells: list[EvaluatedCell]
    chosen: list[str]
    """What students made of training items, and the items that were chosen by it."""
    answers: list[str]
    parts: NotRequired[list[str]]
    """The answers that those of mixtures are taken from, where there are others than `answers`."""
    demonstrations: list[str]
    paths: list[str]
    pairs: list[str]
    items: dict[str, str]
    """By benchmark, the training items that students sampled paths for."""
    tasks: dict[str, str]
    """By benchmark, the test items with their prompts."""
    shots: dict[str, str]
    """By benchmark, the training items that prompts show as worked examples."""
    styles: dict[str, dict[str, str]]
    """By prompt style in which teachers are asked too: by the file of answers that counts, the one in that style."""
    training: dict[str, str]
    """By checkpoint, its losses by update."""
    origins: dict[str, dict[str, str]]
    """By file of paths or pairs, and by log of a refinement, what it is of."""
    records: list[str]


class TableInputs:
    """What the tables and figures of a study are made of."""

    def __init__(self, artifacts: Artifacts):
        self.artifacts = artifacts
        self.study = artifacts.study

    @functools.cached_property
    def cells(self) -> list[tuple[Cell, Artifact]]:
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
    def samples(self) -> tuple[Artifact, ...]:
        """The artifacts of judged answers, each once."""
        return tuple(dict.fromkeys(one for _, one in self.cells))

    @functools.cached_property
    def behind(self) -> dict[Kind, list[Artifact]]:
        """The artifacts of each kind that the study's checkpoints come from."""
        artifacts, checkpoints = self.artifacts, self.study.checkpoints()
        refinements = [row for row in checkpoints if row["refine_task"]]
        # Who is asked what: a teacher, a benchmark, and the choice of its items, () for all of them.
        taught = {
            (row["teacher"], row["task"], _choice_behind(row["checkpoint"])) for row in checkpoints if row["teacher"]
        }
        taught |= {
            (row["teacher"], row["refine_task"], _choice_behind(row["checkpoint"]))
            for row in refinements
            if row["teacher"]
            and any(self.study.recipes[step].needs_teacher for step in steps_of(self.study, row["recipe"]))
        }
        asked = [(teacher, task, Choice(*choice) if choice else None) for teacher, task, choice in sorted(taught)]
        sampled = dict.fromkeys((s.start, s.task, s.share, s.seed) for s in self.offline)
        return {
            "chosen": self._chosen(),
            "answers": [artifacts.answers(teacher, task, "train", "cot", choice) for teacher, task, choice in asked],
            # The answers that those of mixtures are taken from.
            "parts": self._mixed(asked),
            "demonstrations": [artifacts.demonstrations(*of) for of in asked],
            "training": [artifacts.checkpoint(name) for name in self.trained],
            "paths": [artifacts.paths(*of) for of in sorted(sampled)],
            "pairs": [artifacts.pairs(*step) for step in self.offline],
            "items": [artifacts.items(task, "train") for task in sorted({row["refine_task"] for row in refinements})],
        }

    def _chosen(self) -> list[Artifact]:
        """The choices of items behind the checkpoints, and the embeddings behind these."""
        choices: dict[Artifact, None] = {}
        for row in self.study.checkpoints():
            of = _choice_behind(row["checkpoint"])
            for task in sorted({row["task"], row["refine_task"]} - {""}) if of else ():
                choices[self.artifacts.chosen(task, Choice(*of))] = None
        embeddings = dict.fromkeys(each for one in choices for each in one.inputs.get("embeddings", ()))
        return [*embeddings, *choices]

    def _mixed(self, asked: Sequence[tuple[str, str, Choice | None]]) -> list[Artifact]:
        """The answers that mixtures take their own from, but those of teachers that the study has by themselves."""
        own = [self.artifacts.answers(teacher, task, "train", "cot", choice) for teacher, task, choice in asked]
        own += [one for cell, one in self.cells if cell["arm"] == "teacher"]
        parts = dict.fromkeys(part for one in own for part in one.inputs.get("answers", ()))
        return [part for part in parts if part not in own]

    @functools.cached_property
    def tasks(self) -> dict[str, Artifact]:
        """By benchmark, the test split that is evaluated on, as an lm-eval task."""
        return {
            task: self.artifacts.lm_eval_task(task)
            for task in dict.fromkeys(cell["evaluation"] for cell, _ in self.cells)
            if task in self.study.study.benchmarks
        }

    @functools.cached_property
    def shots(self) -> dict[str, Artifact]:
        """By benchmark, the training split whose items its prompts show as worked examples."""
        asked = dict.fromkeys([*self.study.study.tasks, *self.study.study.benchmarks])
        found = {task: self.artifacts.shots(task) for task in asked}
        return {task: one for task, one in found.items() if one is not None}

    def of(self, kinds: tuple[Kind, ...]) -> tuple[Artifact, ...]:
        """The artifacts of some kinds, in their order."""
        return tuple(one for kind in kinds for one in self.behind[kind])

    @functools.cached_property
    def steps(self) -> list[Refinement]:
        """The refinements of the study, each once."""
        names = [row["checkpoint"] for row in self.study.checkpoints() if row["refine_task"]]
        return list(dict.fromkeys(step for name in names for step in refinements_of(name)))

    @functools.cached_property
    def offline(self) -> list[Refinement]:
        """Those that learn from pairs of sampled paths, not from what they sample themselves."""
        return [step for step in self.steps if not self.study.recipes[step.recipe].online]

    @functools.cached_property
    def trained(self) -> list[str]:
        """The checkpoints whose training the study shows."""
        instructed = [row["checkpoint"] for row in self.study.checkpoints() if row["arm"] == "instruct"]
        return [*instructed, *(refined(*step) for step in self.steps)]

    @functools.cached_property
    def index(self) -> Index:
        """Where everything that the tables and figures are made of lies."""
        files = {kind: [str(one.file) for one in found] for kind, found in self.behind.items() if kind != "training"}
        logs = (str(one.folder / TRAINING) for one in self.behind["training"])
        index: Index = {
            "cells": [{**cell, "samples": str(one.file)} for cell, one in self.cells],
            "chosen": files["chosen"],
            "answers": files["answers"],
            "demonstrations": files["demonstrations"],
            "paths": files["paths"],
            "pairs": files["pairs"],
            "items": {one.of["task"]: str(one.file) for one in self.behind["items"]},
            "tasks": {task: str(one.folder / DOCUMENTS) for task, one in self.tasks.items()},
            "shots": {task: str(one.file) for task, one in self.shots.items()},
            "styles": {
                style: {str(one.file): str(other.file) for one, other in found.items()}
                for style, found in self.styles.items()
            },
            "training": dict(zip(self.trained, logs, strict=True)),
            "origins": self._origins(),
            "records": [str(one.record) for one in itertools.chain(self.samples, self.of(COUNTED))],
        }
        if files["parts"]:
            index["parts"] = files["parts"]
        return index

    def _origins(self) -> dict[str, dict[str, str]]:
        """By file of sampled paths or pairs, and by log, the facts of the refinement that it was made for."""
        origins = {
            str(self.artifacts.checkpoint(refined(*step)).folder / TRAINING): facts_of(step) for step in self.steps
        }
        for step, pairs in zip(self.offline, self.behind["pairs"], strict=True):
            facts = facts_of(step)
            origins[str(pairs.file)] = facts
            paths = self.artifacts.paths(step.start, step.task, step.share, step.seed)
            origins[str(paths.file)] = {name: value for name, value in facts.items() if name != "recipe"}
        return origins

    @functools.cached_property
    def teachers_answers(self) -> list[Artifact]:
        """The teachers' answers that a study has, in every style that they are asked in."""
        asked = [one for one in self.behind["answers"] if "choice" not in one.of]
        chosen = [one for one in self.behind["answers"] if "choice" in one.of]
        known = [*asked, *(one for cell, one in self.cells if cell["arm"] == "teacher")]
        of = sorted({(one.of["teacher"], one.of["task"], one.of["split"]) for one in known})
        whole = [self.artifacts.answers(*each, style) for each in of for style in self.study.study.teacher_styles]
        return [*whole, *chosen]

    @functools.cached_property
    def asked_for(self) -> list[Artifact]:
        """The answers that teachers are asked for: of a mixture, those that its own are taken from."""
        found = (part for one in self.teachers_answers for part in one.inputs.get("answers", (one,)))
        return list(dict.fromkeys(found))

    @functools.cached_property
    def styles(self) -> dict[str, dict[Artifact, Artifact]]:
        """By prompt style, the teachers' answers to test splits in that style, by those that count."""
        teachers = {one: cell for cell, one in self.cells if cell["arm"] == "teacher"}
        return {
            style: {
                one: self.artifacts.answers(cell["teacher"], cell["evaluation"], "test", style)
                for one, cell in teachers.items()
            }
            for style in self.study.study.teacher_styles
            if style != "cot" and teachers
        }

    def splits(self) -> list[Artifact]:
        """The splits that a study uses."""
        design = self.study.study
        trained = {task for row in self.study.checkpoints() for task in (row["task"], row["refine_task"]) if task}
        used = {(task, "train") for task in design.tasks if task in trained}
        used |= {(task, "test") for task in design.benchmarks}
        return [self.artifacts.items(*of) for of in sorted(used, key=lambda pair: (pair[0], pair[1] == "test"))]


def _choice_behind(checkpoint: str) -> tuple[str, ...]:
    """How the items were chosen that a checkpoint was trained on; () where they were not, and for base models."""
    steps = refinements_of(checkpoint)
    if steps:
        share, seed = steps[-1].share, steps[-1].seed
    elif teacher_of(checkpoint):
        *_, share, seed = origin_of(checkpoint).split("/")
    else:
        return ()
    return choice_of(student_of(checkpoint), share, seed) or ()
