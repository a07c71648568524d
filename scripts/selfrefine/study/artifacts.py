"""The artifacts of a study up to its evaluations and their inputs, known before anything runs."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from selfrefine.data.fetching import local_files
from selfrefine.errors import UserError
from selfrefine.schema.config import STOCK
from selfrefine.schema.source import Source
from selfrefine.schema.ways import Choice, choice_of
from selfrefine.study import stage_settings
from selfrefine.study.artifact import Artifact
from selfrefine.study.checkpoint_names import (
    Refinement,
    base,
    names_of,
    origin_of,
    refinements_of,
    student_of,
    teacher_of,
)
from selfrefine.study.design import Study
from selfrefine.study.mixtures import parts_of
from selfrefine.study.resolve import model_of_teacher, split_of, stock_task, training_of

# By the flag that hands them to the stage's script, one artifact, several, or none.
Inputs = Mapping[str, Artifact | tuple[Artifact, ...] | None]


class Artifacts:
    """The artifacts of one study; each is made up once, when it is first asked for.

    `code(script)` gives the version of a script's code, `command(rule)` a rule's text without what belongs to the
    machine, and `sha256(path)` the content of a local file, None if it is not there.
    """

    def __init__(
        self,
        study: Study,
        code: Callable[[str], str],
        command: Callable[[str], str],
        sha256: Callable[[Path], str | None],
    ):
        self.study = study
        self.code, self._command, self._sha256 = code, command, sha256
        self._made: dict[tuple[str, ...], Artifact] = {}
        self._known: dict[tuple[str, tuple[str, ...]], list[Artifact]] = {}

    def artifact(
        self,
        stage: str,
        names: tuple[str, ...],
        of: dict[str, str],
        inputs: Inputs,
        settings: dict[str, Any] | None = None,
        sources: Iterable[tuple[str, str]] = (),
    ) -> Artifact:
        """An artifact with these inputs; `settings` are those that the study has for the stage, unless given."""
        by_flag = {flag: one if isinstance(one, tuple) else (one,) for flag, one in inputs.items() if one is not None}
        settings = stage_settings.settings(self.study, stage, **of) if settings is None else settings
        made = Artifact(stage, names, of, settings, by_flag, self.code(stage), self._command(stage), tuple(sources))
        self._known.setdefault((stage, names), []).append(made)
        return made

    def known(self, stage: str, names: tuple[str, ...]) -> list[Artifact]:
        """The artifacts of a stage with these names that have been asked for so far."""
        return self._known.get((stage, names), [])

    def once(self, of: tuple[str, ...], make: Callable[[], Artifact]) -> Artifact:
        """What `make` gives, made the first time that it is asked for."""
        if of not in self._made:
            self._made[of] = make()
        return self._made[of]

    # Data and weights.

    def raw(self, task: str, file: str) -> Artifact:
        """A benchmark's file as it was fetched."""
        source = self.study.benchmarks[task].files[file]
        return self.once(
            ("fetch", task, file),
            lambda: self._fetched("fetch", f"{task}-{file}", {"task": task, "file": file}, source),
        )

    def model(self, model: str) -> Artifact:
        """A model's weights."""
        source = self.study.models[model]
        return self.once(("fetch_model", model), lambda: self._fetched("fetch_model", model, {"model": model}, source))

    def _fetched(self, stage: str, name: str, of: dict[str, str], source: Source) -> Artifact:
        known: dict[str, Any] = {"suffix": source.suffix, "sha256": source.sha256}
        # What a pinned source holds, its hash says, wherever it comes from.
        if source.sha256:
            return self.artifact(stage, (name,), of, {}, known)
        sources = [(str(path), self._content(path, f"source {source.source!r}")) for path in local_files(source)]
        # Files of a folder count by their names too.
        known |= {"files": [Path(path).name for path, _ in sources]} if len(sources) > 1 else {}
        known |= {} if sources else {"source": source.source, "parts": source.parts}
        return self.artifact(stage, (name,), of, {}, known, sources)

    def _content(self, path: Path, where: str) -> str:
        content = self._sha256(path)
        if content is None:
            raise UserError(f"configuration: {where}: there is no file {path}")
        return content

    def items(self, task: str, split: str) -> Artifact:
        """A benchmark's split, as items."""

        def make() -> Artifact:
            raw = self.raw(task, split_of(self.study, task, split).file)
            held_out = tuple(self.items(other, "test") for other in self.held_apart(task)) if split == "train" else ()
            inputs = {"raw": raw, "held_out": held_out or None}
            return self.artifact("prepare", (f"{task}-{split}",), {"task": task, "split": split}, inputs)

        return self.once(("prepare", task, split), make)

    def held_apart(self, task: str) -> list[str]:
        """The benchmarks whose test splits a training split must not repeat: its own, and all that are evaluated."""
        named = dict.fromkeys([task, *self.study.study.benchmarks])
        return [name for name in named if "test" in self.study.benchmarks[name].splits]

    def shots(self, task: str) -> Artifact | None:
        """The training split whose items a benchmark's prompts show as worked examples; None where it shows none."""
        shots = self.study.benchmarks[task].shots
        return self.items(task, "train") if shots is not None and shots.of_training_split else None

    # Choosing what a teacher is asked.

    def embeddings(self, student: str, task: str) -> Artifact:
        """A student's perplexity and embedding of each training item."""
        of = {"student": student, "task": task}

        def make() -> Artifact:
            inputs = {"checkpoint": self.checkpoint(base(student)), "items": self.items(task, "train")}
            return self.artifact("embed", (student, task), of, inputs)

        return self.once(("embed", student, task), make)

    def chosen(self, task: str, choice: Choice) -> Artifact:
        """The training items of a share that are chosen before a teacher is asked."""

        def make() -> Artifact:
            embeddings = self.embeddings(choice.student, task) if choice.student else None
            inputs = {"items": self.items(task, "train"), "embeddings": embeddings}
            return self.artifact(
                "choose", (f"{task}-{choice.name}",), {"task": task, "choice": "/".join(choice)}, inputs
            )

        return self.once(("choose", task, *choice), make)

    def items_of_share(self, student: str, task: str, share: str, seed: str) -> Artifact:
        """The items that a stage takes its share of: those that were chosen, or the training split."""
        choice = choice_of(student, share, seed)
        return self.chosen(task, choice) if choice else self.items(task, "train")

    # Phase 1.

    def answers(self, teacher: str, task: str, split: str, style: str, choice: Choice | None = None) -> Artifact:
        """What a teacher answers to a split, or to the items of it that were chosen; of a mixture, what its parts do."""
        of = {"teacher": teacher, "task": task, "split": split, "style": style, **_named(choice)}
        name = f"{task}-{split}-{style}" + (f"-{choice.name}" if choice else "")
        items = self.chosen(task, choice) if choice else self.items(task, split)

        def mix() -> Artifact:
            parts = tuple(self.answers(part, task, split, style, choice) for part in parts_of(self.study, teacher))
            inputs: Inputs = {"items": items, "answers": parts}
            return self.artifact("mix", (teacher, name), of, inputs)

        def make() -> Artifact:
            entry = self.study.teachers[teacher]
            sources = []
            if entry.engine == "recorded" and entry.recording is not None:
                where = f"teachers.{teacher}.recording"
                sources = [(entry.recording, self._content(Path(entry.recording), where))]
            loaded = model_of_teacher(self.study, teacher)
            model = self.model(loaded) if loaded else None
            inputs = {"items": items, "shots": self.shots(task), "model": model}
            return self.artifact("teach", (teacher, name), of, inputs, sources=sources)

        key = ("teach", teacher, task, split, style, *(choice or ()))
        return self.once(key, mix if self.study.teachers[teacher].mixture else make)

    def demonstrations(self, teacher: str, task: str, choice: Choice | None = None) -> Artifact:
        """What a teacher's answers to the training items, or to those chosen, leave to learn from."""
        return self.once(
            ("demonstrate", teacher, task, *(choice or ())),
            lambda: self.artifact(
                "demonstrate",
                (teacher, f"{task}-{choice.name}" if choice else task),
                {"teacher": teacher, "task": task, **_named(choice)},
                {"answers": self.answers(teacher, task, "train", "cot", choice)},
            ),
        )

    # Checkpoints, by the names of checkpoints.py.

    def checkpoint(self, name: str) -> Artifact:
        """A checkpoint: a student as it comes, instructed, or refined."""
        return self.once(("checkpoint", name), lambda: self._checkpoint(name))

    def _checkpoint(self, name: str) -> Artifact:
        student = student_of(name)
        if name == base(student):
            return self.model(self.study.students[student].model)
        if steps := refinements_of(name):
            return self._refined(name, steps[-1])
        _, _, teacher, task, share, seed = name.split("/")
        varied = {"student": student, "teacher": teacher, "task": task, "share": share, "seed": seed}
        inputs = {
            "start": self.checkpoint(base(student)),
            "items": self.items(task, "train"),
            "shots": self.shots(task),
            "demonstrations": self.demonstrations(teacher, task, choice_of(student, share, seed)),
        }
        return self.artifact("instruct", names_of(name), varied, inputs)

    def _refined(self, name: str, step: Refinement) -> Artifact:
        recipe = self.study.recipes[step.recipe]
        start = self.checkpoint(origin_of(step.start) if recipe.objective.restart else step.start)
        inputs: Inputs = {"start": start, "items": self.items(step.task, "train"), "shots": self.shots(step.task)}
        if recipe.online:
            chosen = self.items_of_share(student_of(name), step.task, step.share, step.seed)
            return self.artifact("refine_online", names_of(name), step._asdict(), {**inputs, "items": chosen})
        inputs = {**inputs, "pairs": self.pairs(*step)}
        if training_of(self.study, student_of(name), "refine", step.recipe).tokens:
            # What was sampled counts in the budget.
            inputs = {**inputs, "paths": self.paths(step.start, step.task, step.share, step.seed)}
        return self.artifact("refine", names_of(name), step._asdict(), inputs)

    def paths(self, start: str, task: str, share: str, seed: str) -> Artifact:
        """What a checkpoint samples for the training items."""
        of = {"start": start, "task": task, "share": share, "seed": seed}

        def make() -> Artifact:
            names = (*names_of(start), f"{task}-{share}-seed{seed}")
            items = self.items_of_share(student_of(start), task, share, seed)
            inputs = {"checkpoint": self.checkpoint(start), "items": items, "shots": self.shots(task)}
            return self.artifact("sample", names, of, inputs)

        return self.once(("sample", *of.values()), make)

    def pairs(self, start: str, task: str, recipe: str, share: str, seed: str) -> Artifact:
        """What a recipe makes of a checkpoint's paths."""
        of = {"start": start, "task": task, "recipe": recipe, "share": share, "seed": seed}

        def make() -> Artifact:
            demonstrations, teacher = None, teacher_of(start)
            if self.study.recipes[recipe].needs_teacher:
                if teacher is None:
                    raise UserError(f"recipe {recipe!r} draws on a teacher, but {start} was instructed by none")
                demonstrations = self.demonstrations(teacher, task, choice_of(student_of(start), share, seed))
            names = (*names_of(start), f"{task}-{recipe}-{share}-seed{seed}")
            inputs = {"paths": self.paths(start, task, share, seed), "demonstrations": demonstrations}
            return self.artifact("pair", names, of, inputs)

        return self.once(("pair", *of.values()), make)

    # Evaluation.

    def lm_eval_task(self, task: str) -> Artifact:
        """A test split as an lm-eval task."""

        def make() -> Artifact:
            inputs = {"items": self.items(task, "test"), "shots": self.shots(task)}
            return self.artifact("export_task", (task,), {"task": task}, inputs)

        return self.once(("export_task", task), make)

    def stock_task(self, task: str) -> Artifact:
        """The data of one of lm-eval's own tasks."""

        def make() -> Artifact:
            include = self.study.lm_eval.include
            sources = []
            if include and stock_task(self.study, task).path.is_relative_to(include):
                files = sorted(path for path in Path(include).rglob("*") if path.is_file())
                kept = [path for path in files if "__pycache__" not in path.parts]
                sources = [(str(path), self._content(path, "lm_eval.include")) for path in kept]
            return self.artifact("fetch_task", (task.removeprefix(STOCK),), {"task": task}, {}, sources=sources)

        return self.once(("fetch_task", task), make)

    def evaluation(self, checkpoint: str, task: str) -> Artifact:
        """A checkpoint's judged answers to a test split, or to one of lm-eval's own tasks."""

        def make() -> Artifact:
            is_stock = task.startswith(STOCK)
            # A colon in a path is more than some tools take.
            names = (*names_of(checkpoint), task.replace(":", "-") if is_stock else task)
            of = {"checkpoint": checkpoint, "task": task}
            asked = self.stock_task(task) if is_stock else self.lm_eval_task(task)
            inputs = {"checkpoint": self.checkpoint(checkpoint), "task": asked}
            return self.artifact("evaluate", names, of, inputs)

        return self.once(("evaluate", checkpoint, task), make)


def _named(choice: Choice | None) -> dict[str, str]:
    """A choice among an artifact's own names; nothing where there is none."""
    return {"choice": "/".join(choice)} if choice else {}
