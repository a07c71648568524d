"""A study: a checked configuration, the checkpoints that its design asks for, and its sources."""

import csv
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import PrivateAttr, ValidationError

from selfrefine.analysis import own_claims
from selfrefine.analysis.paper_claims import Arm, arms_of
from selfrefine.errors import UserError
from selfrefine.schema.base import describe, suggestion
from selfrefine.schema.config import STOCK, Configuration, StockTask, Weights
from selfrefine.schema.demonstrating import Demonstrations
from selfrefine.schema.generation import STUDENT_ENGINES
from selfrefine.schema.prompt import Shots
from selfrefine.schema.results import Cell, CheckpointFacts
from selfrefine.schema.source import Source
from selfrefine.schema.stages import DemonstrateSettings
from selfrefine.schema.ways import percent_of, way_of
from selfrefine.store.hashing import canonical_json
from selfrefine.study import figures_and_layouts
from selfrefine.study.checkpoint_names import (
    base,
    instructed,
    refined,
)
from selfrefine.study.checks import check
from selfrefine.study.choices import named_shares
from selfrefine.study.mixtures import asked_teachers, asks_in_several_ways, family_of
from selfrefine.study.resolve import recipes_in, steps_of, stock_task


class Study(Configuration):
    """A configuration that passed all checks, and what its design asks for."""

    # Of a located study, the one as it was given: what is written of it names no place of this machine.
    _given: "Study | None" = PrivateAttr(None)

    @classmethod
    def read(cls, config: dict[str, Any]) -> "Study":
        """Validates a configuration; `UserError` lists each fault as `key: what is wrong`."""
        try:
            study = cls.model_validate(config)
        except ValidationError as error:
            faults = [describe(fault) + suggestion(cls, fault) for fault in error.errors()]
            raise UserError("configuration: " + "; ".join(faults)) from None
        check(study)
        if found := list(own_claims.faults(study.claims, study.arms())):
            raise UserError("configuration: " + "; ".join(found))
        return study

    def located(self, root: Path) -> "Study":
        """The study with its local files found: those that are not here are in the workflow's folder."""

        def found(name: str) -> str:
            return str(root / name) if not Path(name).exists() and (root / name).exists() else name

        def of(source: Source) -> Source:
            if not source.source.startswith("file:"):
                return source
            return source.model_copy(update={"source": f"file:{found(source.source.removeprefix('file:'))}"})

        def shots_of(shots: Shots | None) -> Shots | None:
            return shots.model_copy(update={"file": found(shots.file)}) if shots and shots.file else shots

        benchmarks = {
            name: benchmark.model_copy(
                update={
                    "files": {file: of(each) for file, each in benchmark.files.items()},
                    "shots": shots_of(benchmark.shots),
                }
            )
            for name, benchmark in self.benchmarks.items()
        }
        teachers = {
            name: teacher.model_copy(update={"recording": found(teacher.recording)}) if teacher.recording else teacher
            for name, teacher in self.teachers.items()
        }
        models = {name: of(model) for name, model in self.models.items()}
        update: dict[str, Any] = {"benchmarks": benchmarks, "teachers": teachers, "models": models}
        if self.lm_eval.include:
            update["lm_eval"] = self.lm_eval.model_copy(update={"include": found(self.lm_eval.include)})
        study = self.model_copy(update=update)
        study._given = self
        return study

    # What the study needs.

    def checkpoints(self) -> list[CheckpointFacts]:
        """Each checkpoint to evaluate."""
        design = self.study
        rows = []
        for student in design.students:
            if "baseline" in design.arms:
                rows.append(self._facts("baseline", student, base(student)))
            for share, seed in itertools.product(named_shares(self), design.seeds):
                rows += self._refined_only(student, share, seed)
                for teacher, task in itertools.product(self.teachers_of(student), design.tasks):
                    rows += self._instructed(student, teacher, task, share, seed)
        return rows

    def _refined_only(self, student: str, share: str, seed: int) -> Iterator[CheckpointFacts]:
        """A student's checkpoints of the arm that is refined without having been instructed."""
        design, recipes = self.study, recipes_in(self, "refine-only")
        for task, recipe in itertools.product(design.tasks, recipes if "refine-only" in design.arms else ()):
            *_, name = self.chain(base(student), task, recipe, share, seed)
            yield self._facts("refine-only", student, name, "", "", task, recipe, share, seed)

    def _instructed(self, student: str, teacher: str, task: str, share: str, seed: int) -> Iterator[CheckpointFacts]:
        """A student's checkpoints that a teacher instructed on a benchmark: itself, and refined."""
        design = self.study
        start = instructed(student, teacher, task, share, seed)
        if "instruct" in design.arms:
            yield self._facts("instruct", student, start, teacher, task, "", "", share, seed)
        for refine_task, recipe in itertools.product(design.tasks, design.recipes):
            arm = "refine" if refine_task == task else "cross"
            if (
                arm in design.arms
                and recipe in recipes_in(self, arm)
                and (arm == "refine" or design.transfers(percent_of(share)))
            ):
                *_, name = self.chain(start, refine_task, recipe, share, seed)
                yield self._facts(arm, student, name, teacher, task, refine_task, recipe, share, seed)

    def _facts(
        self,
        arm: str,
        student: str,
        checkpoint: str,
        teacher: str = "",
        task: str = "",
        refine_task: str = "",
        recipe: str = "",
        share: str = "",
        seed: int | str = "",
    ) -> CheckpointFacts:
        return {
            "arm": arm,
            "teacher": teacher,
            "family": family_of(self, teacher, student) if teacher else "",
            "task": task,
            "refine_task": refine_task,
            "recipe": recipe,
            "share": percent_of(share) if share else "",
            "select": way_of(share),
            "seed": seed,
            "student": student,
            "checkpoint": checkpoint,
        }

    def teachers_of(self, student: str) -> list[str]:
        """The teachers of the study that teach a student."""
        own = self.students[student].teachers
        return [teacher for teacher in self.study.teachers if own is None or teacher in own]

    def chain(self, start: str, task: str, name: str, share: int | str, seed: int) -> list[str]:
        """The checkpoints that a recipe or schedule makes one from the other, the last one last."""
        made: list[str] = []
        for recipe in steps_of(self, name):
            made.append(refined(made[-1] if made else start, task, recipe, share, seed))
        return made

    def cells(self) -> list[Cell]:
        """The cells of the accuracy table; a teacher is a row of arm `teacher`, judged on the same items."""
        cells: list[Cell] = []
        for row in self.checkpoints():
            everywhere = isinstance(row["share"], str) or self.study.transfers(row["share"])
            tasks = [task for task in self.study.evaluate if everywhere or task in (row["task"], row["refine_task"])]
            cells += [{**row, "evaluation": task} for task in tasks]
        for teacher, task in itertools.product(self.study.teachers, self.study.benchmarks):
            cells.append(
                {
                    "arm": "teacher",
                    "student": "",
                    "family": "",
                    "task": "",
                    "refine_task": "",
                    "recipe": "",
                    "share": "",
                    "select": "",
                    "seed": "",
                    "checkpoint": "",
                    "teacher": teacher,
                    "evaluation": task,
                }
            )
        return cells

    def arms(self) -> list[Arm]:
        """What claims compare: the cells, their seeds put together; their answers are not known yet."""
        return arms_of([{**cell, "samples": ""} for cell in self.cells()])

    def served(self) -> list[str]:
        """The teachers that a server answers for."""
        return self.teaches_with("openai")

    def teaches_with(self, engine: str) -> list[str]:
        """The teachers that an engine answers for."""
        return [name for name in asked_teachers(self) if self.teachers[name].engine == engine]

    def asked_here(self) -> list[str]:
        """The teachers that load no weights: a server or a recording answers for them."""
        return [name for name in asked_teachers(self) if self.teachers[name].engine not in STUDENT_ENGINES]

    def sources_csv(self) -> str:
        """What the study uses, from where, under which licence, as CSV."""
        text = io.StringIO()
        writer = csv.DictWriter(text, ("role", "name", "source", "licence", "sha256"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.sources())
        return text.getvalue()

    def yaml(self) -> str:
        """The configuration, defaults included; neither what only a cluster asks for nor the order of entries shows."""
        if self._given:
            return self._given.yaml()
        ordered = Study.model_validate_json(canonical_json(self.model_dump(mode="json")))
        sizes = Weights.model_fields.keys() - Source.model_fields.keys()
        unseen: dict[str, Any] = {"cluster": True, "models": dict.fromkeys(self.models, sizes)}
        if self.demonstrations.select is None:
            unseen["demonstrations"] = {*Demonstrations.model_fields} - {*DemonstrateSettings.model_fields}
        unseen |= {"costs": True} if self.costs is None else {}
        return yaml.safe_dump(ordered.model_dump(mode="json", exclude=unseen), sort_keys=False)

    def figures(self) -> list[str]:
        """The figures that the study's design gives content to."""
        return figures_and_layouts.figures(self.checkpoints(), self.study.evaluate, self._samples(), self._online())

    def layouts(self) -> list[str]:
        """The laid-out tables that the study's design gives content to."""
        asked = asks_in_several_ways(self)
        return figures_and_layouts.layouts(self.checkpoints(), self._samples(), self._online(), asked)

    def _samples(self) -> int:
        """Answers to each item of the study's own benchmarks; tasks of lm-eval say themselves how they are answered."""
        return self.evaluation.samples if self.study.benchmarks else 1

    def _online(self) -> list[str]:
        """The recipes and schedules of the study that sample online alone."""
        return [name for name in self.study.recipes if all(self.recipes[one].online for one in steps_of(self, name))]

    def _used(self) -> list[str]:
        return sorted({*self.study.tasks, *self.study.benchmarks})

    def stock(self) -> list[str]:
        """The tasks of lm-eval that the study evaluates on."""
        return [name for name in self.study.evaluate if name.startswith(STOCK)]

    def titles(self) -> dict[str, str]:
        """What the tables call each benchmark of the study."""
        titles = {task: self.benchmarks[task].title for task in self._used()}
        for name in self.stock():
            task = name.removeprefix(STOCK)
            titles[name] = self.lm_eval.tasks.get(task, StockTask()).title or task
        return titles

    def shown_names(self) -> dict[str, dict[str, str]]:
        """What readers see of the study's names: all benchmarks' titles, and those of models that have one."""
        students = {name: self.students[name].title for name in self.study.students}
        named = dict.fromkeys([*self.study.teachers, *asked_teachers(self)])
        teachers = {name: self.teachers[name].title for name in named}
        given = {"students": students, "teachers": teachers}
        of_models = {section: {name: title for name, title in of.items() if title} for section, of in given.items()}
        return {"titles": self.titles(), **of_models}

    def sources(self) -> list[dict[str, str]]:
        """What the study uses, {role, name, source, licence, sha256}: benchmarks, students and teachers."""
        if self._given:
            return self._given.sources()
        rows: list[tuple[str, str, Source]] = []
        for task in self._used():
            files = {split.file for split in self.benchmarks[task].splits.values()}
            rows += [("benchmark", task, self.benchmarks[task].files[name]) for name in sorted(files)]
        rows += [("student", name, self.models[self.students[name].model]) for name in self.study.students]
        for name in asked_teachers(self):
            model = self.teachers[name].model
            if model and name not in self.served():
                rows.append(("teacher", name, self.models[model]))
        listed = [
            {"role": role, "name": name, "source": s.source, "licence": s.licence, "sha256": s.sha256 or ""}
            for role, name, s in rows
        ]
        blank = {"licence": "", "sha256": ""}
        for name in self.stock():
            data = stock_task(self, name).data
            source = f"hf:{data}" if data else name
            listed.append({"role": "benchmark", "name": name, "source": source, **blank})
        for name in asked_teachers(self):
            teacher = self.teachers[name]
            known = {"role": "teacher", "name": name, "licence": teacher.licence, "sha256": ""}
            if teacher.engine == "openai":
                listed.append({**known, "source": f"served:{teacher.served}"})
            elif teacher.engine == "recorded" and teacher.licence and not teacher.model:
                listed.append({**known, "source": f"file:{teacher.recording}"})
        return listed
