"""Which artifacts a study is made of, and the key of each, known from the validated configuration before anything runs.

An artifact lies in `results/store/STAGE/NAMES/KEY/`. Its names are what a scientist varies, for readers; its key says what it
is: the first digits of a SHA-256 over the stage, the settings that the stage reads, the version of its code, its rule's command,
the contents of the local files it reads, and the keys of its inputs. So the path of an artifact says how it was made, all the
way down, and that it is there says that it need not be made.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from selfrefine.errors import UserError
from selfrefine.files import digest
from selfrefine.names import FILES
from selfrefine.provenance import RECORD
from selfrefine.study import Study, base, instructed, origin_of, refined, refinements_of, student_of, teacher_of

STORE = Path("results/store")
DIGITS = 12


@dataclasses.dataclass(frozen=True, eq=False)
class Artifact:
    """One artifact of a study: what it is called, and all that decides what it holds.

    `of` are the study's own names for it, as `Study.settings` and the planner take them. `inputs` are by the flag that hands them
    to the stage's script, whose version is `code`; `command` is its rule's text without what belongs to the machine; `sources`
    are the contents of local files.
    """

    stage: str
    names: tuple[str, ...]
    of: dict[str, str]
    settings: dict
    inputs: dict[str, tuple["Artifact", ...]]
    code: str
    command: str
    sources: tuple[tuple[str, str], ...] = ()

    @functools.cached_property
    def key(self) -> str:
        """The digits that tell it from all others of its names."""
        inputs = {flag: [artifact.key for artifact in artifacts] for flag, artifacts in self.inputs.items()}
        return digest(
            [self.stage, self.settings, self.code, self.command, [content for _, content in self.sources], inputs],
            DIGITS,
        )

    @functools.cached_property
    def folder(self) -> Path:
        """Where it lies."""
        return STORE.joinpath(self.stage, *self.names, self.key)

    @functools.cached_property
    def record(self) -> Path:
        """Its record, written last: the artifact is whole where it is there."""
        return self.folder / RECORD

    @functools.cached_property
    def file(self) -> Path:
        """The file that others read of it."""
        return self.folder / FILES[self.stage]

    def behind(self) -> Iterator["Artifact"]:
        """All artifacts that it is made of, each once, itself last."""
        seen: set[int] = set()
        stack = [(self, False)]
        while stack:
            artifact, entered = stack.pop()
            if entered:
                yield artifact
            elif id(artifact) not in seen:
                seen.add(id(artifact))
                stack.append((artifact, True))
                stack += [(one, False) for artifacts in artifact.inputs.values() for one in artifacts]


class Artifacts:
    """The artifacts of one study; each is made up once, when it is first asked for.

    `code(script)` gives the version of a script's code, `command(rule)` a rule's text without what belongs to the machine, and
    `sha256(path)` the content of a local file, None if it is not there.
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
        self._made: dict[tuple, Artifact] = {}
        # By stage and names, those that are made up so far.
        self._places: dict[tuple[str, tuple[str, ...]], list[Artifact]] = {}

    def artifact(
        self, stage: str, names: tuple[str, ...], of: dict[str, str], settings: dict | None = None, sources=(), **inputs
    ) -> Artifact:
        """An artifact with these inputs, by flag one, several or, for None, none; `settings` are the study's unless given."""
        by_flag = {flag: one if isinstance(one, tuple) else (one,) for flag, one in inputs.items() if one is not None}
        settings = self.study.settings(stage, **of) if settings is None else settings
        made = Artifact(stage, names, of, settings, by_flag, self.code(stage), self._command(stage), tuple(sources))
        self._places.setdefault((stage, names), []).append(made)
        return made

    def once(self, of: tuple, make: Callable[[], Artifact]) -> Artifact:
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

    def _fetched(self, stage: str, name: str, of: dict[str, str], source) -> Artifact:
        known = {"suffix": source.suffix, "sha256": source.sha256}
        # What a pinned source holds, its hash says, wherever it comes from.
        if source.sha256:
            return self.artifact(stage, (name,), of, known)
        sources = [(str(path), self._content(path, f"source {source.source!r}")) for path in source.local_files()]
        # Files of a folder count by their names too.
        known |= {"files": [Path(path).name for path, _ in sources]} if len(sources) > 1 else {}
        known |= {} if sources else {"source": source.source, "parts": source.parts}
        return self.artifact(stage, (name,), of, known, sources)

    def _content(self, path: Path, where: str) -> str:
        content = self._sha256(path)
        if content is None:
            raise UserError(f"configuration: {where}: there is no file {path}")
        return content

    def items(self, task: str, split: str) -> Artifact:
        """A benchmark's split, as items."""

        def make() -> Artifact:
            benchmark = self.study.benchmarks[task]
            apart = split == "train" and "test" in benchmark.splits
            raw = self.raw(task, benchmark.splits[split].file)
            held_out = self.items(task, "test") if apart else None
            of = {"task": task, "split": split}
            return self.artifact("prepare", (f"{task}-{split}",), of, raw=raw, held_out=held_out)

        return self.once(("prepare", task, split), make)

    # Phase 1.

    def answers(self, teacher: str, task: str, split: str, style: str) -> Artifact:
        """What a teacher answers to a split."""

        def make() -> Artifact:
            entry = self.study.teachers[teacher]
            sources, model = [], None
            if entry.engine == "recorded":
                where = f"teachers.{teacher}.recording"
                sources = [(entry.recording, self._content(Path(entry.recording), where))]
            elif entry.engine != "openai":
                model = self.model(entry.model)
            names, of = (teacher, f"{task}-{split}-{style}"), {"teacher": teacher, "task": task}
            of |= {"split": split, "style": style}
            return self.artifact("teach", names, of, None, sources, items=self.items(task, split), model=model)

        return self.once(("teach", teacher, task, split, style), make)

    def demonstrations(self, teacher: str, task: str) -> Artifact:
        """What a teacher's answers to the training items leave to learn from."""
        return self.once(
            ("demonstrate", teacher, task),
            lambda: self.artifact(
                "demonstrate",
                (teacher, task),
                {"teacher": teacher, "task": task},
                answers=self.answers(teacher, task, "train", "cot"),
            ),
        )

    # Checkpoints, by the names that study.py gives them.

    def checkpoint(self, name: str) -> Artifact:
        """A checkpoint: a student as it comes, instructed, or refined."""
        return self.once(("checkpoint", name), lambda: self._checkpoint(name))

    def _checkpoint(self, name: str) -> Artifact:
        student = student_of(name)
        if name == base(student):
            return self.model(self.study.students[student].model)
        if steps := refinements_of(name):
            step = steps[-1]
            restarts = self.study.recipes[step.recipe].objective.restart
            return self.artifact(
                "refine",
                names_of(name),
                step._asdict(),
                start=self.checkpoint(origin_of(step.start) if restarts else step.start),
                items=self.items(step.task, "train"),
                pairs=self.pairs(*step),
            )
        _, _, teacher, task, share, seed = name.split("/")
        varied = {"student": student, "teacher": teacher, "task": task, "share": share, "seed": seed}
        return self.artifact(
            "instruct",
            names_of(name),
            varied,
            start=self.checkpoint(base(student)),
            items=self.items(task, "train"),
            demonstrations=self.demonstrations(teacher, task),
        )

    def paths(self, start: str, task: str, share: str, seed: str) -> Artifact:
        """What a checkpoint samples for the training items."""
        of = {"start": start, "task": task, "share": share, "seed": seed}

        def make() -> Artifact:
            names = (*names_of(start), f"{task}-{share}-seed{seed}")
            return self.artifact(
                "sample", names, of, checkpoint=self.checkpoint(start), items=self.items(task, "train")
            )

        return self.once(("sample", *of.values()), make)

    def pairs(self, start: str, task: str, recipe: str, share: str, seed: str) -> Artifact:
        """What a recipe makes of a checkpoint's paths."""
        of = {"start": start, "task": task, "recipe": recipe, "share": share, "seed": seed}

        def make() -> Artifact:
            demonstrations, teacher = None, teacher_of(start)
            if self.study.recipes[recipe].needs_teacher:
                if teacher is None:
                    raise UserError(f"recipe {recipe!r} draws on a teacher, but {start} was instructed by none")
                demonstrations = self.demonstrations(teacher, task)
            names = (*names_of(start), f"{task}-{recipe}-{share}-seed{seed}")
            paths = self.paths(start, task, share, seed)
            return self.artifact("pair", names, of, paths=paths, demonstrations=demonstrations)

        return self.once(("pair", *of.values()), make)

    # Evaluation.

    def lm_eval_task(self, task: str) -> Artifact:
        """A test split as an lm-eval task."""
        return self.once(
            ("export_task", task),
            lambda: self.artifact(
                "export_task",
                (task,),
                {"task": task},
                items=self.items(task, "test"),
            ),
        )

    def evaluation(self, checkpoint: str, task: str) -> Artifact:
        """A checkpoint's judged answers to a test split."""

        def make() -> Artifact:
            names, of = (*names_of(checkpoint), task), {"checkpoint": checkpoint, "task": task}
            return self.artifact(
                "evaluate", names, of, checkpoint=self.checkpoint(checkpoint), task=self.lm_eval_task(task)
            )

        return self.once(("evaluate", checkpoint, task), make)

    # From a path back to what lies there.

    def at(self, stage: str, names: str, key: str) -> Artifact:
        """The artifact of a path's parts; `UserError` where this configuration has none with these names and this key."""
        parts = tuple(names.split("/"))
        if known := next((one for one in self._places.get((stage, parts), ()) if one.key == key), None):
            return known
        keys = set()
        for artifact in self._called(stage, parts):
            if artifact.key == key:
                return artifact
            keys.add(artifact.key)
        place = f"{STORE}/{stage}/{names}"
        if not keys:
            raise UserError(f"{place}/{key}: this configuration has no such artifact")
        raise UserError(f"{place}/{key}: in this configuration its key is {' or '.join(sorted(keys))}")

    def _called(self, stage: str, names: tuple[str, ...]) -> Iterator[Artifact]:
        """The artifacts of a stage that have these names: one, or several where a name's hyphens can be read in two ways."""
        tasks, (*before, last) = self.study.benchmarks, names
        if stage == "fetch":
            found = (
                self.raw(task, file) for task, file in _halves(last) if task in tasks and file in tasks[task].files
            )
        elif stage == "fetch_model":
            found = (self.model(name) for name in self.study.models if name == last)
        elif stage == "prepare":
            found = (
                self.items(task, split)
                for task, split in _halves(last)
                if task in tasks and split in tasks[task].splits
            )
        elif stage == "export_task":
            found = (self.lm_eval_task(task) for task in tasks if task == last)
        elif stage in ("teach", "demonstrate"):
            found = self._of_teacher(stage, before[0], last)
        elif stage in ("instruct", "refine"):
            found = map(self.checkpoint, self._checkpoints_called(names))
        else:
            found = self._of_checkpoint(stage, tuple(before), last)
        return (artifact for artifact in found if artifact.names == names)

    def _of_teacher(self, stage: str, teacher: str, last: str) -> Iterator[Artifact]:
        for task in self.study.benchmarks if teacher in self.study.teachers else ():
            if stage == "demonstrate":
                if task == last:
                    yield self.demonstrations(teacher, task)
                continue
            split, _, style = last.removeprefix(f"{task}-").partition("-")
            if split in self.study.benchmarks[task].splits and style in ("cot", "plain"):
                yield self.answers(teacher, task, split, style)

    def _of_checkpoint(self, stage: str, names: tuple[str, ...], last: str) -> Iterator[Artifact]:
        tasks = self.study.benchmarks
        for checkpoint in self._checkpoints_called(names):
            if stage == "evaluate" and last in tasks:
                yield self.evaluation(checkpoint, last)
            elif stage != "evaluate" and (found := SHARE.fullmatch(last)):
                what, *cell = found.groups()
                if stage == "sample" and what in tasks:
                    yield self.paths(checkpoint, what, *cell)
                for task, recipe in _halves(what) if stage == "pair" else ():
                    if task in tasks and recipe in self.study.recipes:
                        yield self.pairs(checkpoint, task, recipe, *cell)

    def _checkpoints_called(self, names: tuple[str, ...]) -> Iterator[str]:
        """The checkpoints that have these names in paths."""
        student, *rest = names
        if student not in self.study.students:
            return
        if rest == ["base"]:
            yield base(student)
            return
        if not rest or not (found := SHARE.fullmatch(rest[0])):
            return
        origin, share, seed = found.groups()
        starts = [base(student)] if origin == "base" else []
        for teacher, task in _halves(origin):
            if teacher in self.study.teachers and task in self.study.benchmarks:
                starts.append(instructed(student, teacher, task, int(share), int(seed)))
        if len(rest) == 1:
            yield from (start for start in starts if teacher_of(start))
        elif len(rest) == 2 and (step := ROUND.fullmatch(rest[1])):
            for start, (task, recipe) in itertools.product(starts, _halves(step[1])):
                if task in self.study.benchmarks and recipe in self.study.recipes:
                    yield from self._rounds(start, task, recipe, int(step[2]), int(share), int(seed))

    def _rounds(self, start: str, task: str, recipe: str, number: int, share: int, seed: int) -> Iterator[str]:
        """The checkpoints that any recipe or schedule of the study has after `number` steps, the last by `recipe`."""
        chains = (self.study.steps(name) for name in self.study.study.recipes)
        for steps in {tuple(steps[:number]) for steps in chains if len(steps) >= number}:
            if steps[-1] == recipe:
                name = start
                for step in steps:
                    name = refined(name, task, step, share, seed)
                yield name


# The last part of a path of what has a share and a seed, and of a refinement's.
SHARE = re.compile(r"(.+)-([0-9]+)-seed([0-9]+)")
ROUND = re.compile(r"(.+)-round([0-9]+)")


def _halves(joined: str) -> Iterator[tuple[str, str]]:
    """The ways to read a name as two with a hyphen between them."""
    parts = joined.split("-")
    return (("-".join(parts[:i]), "-".join(parts[i:])) for i in range(1, len(parts)))


def names_of(checkpoint: str) -> tuple[str, ...]:
    """A checkpoint's names in paths, as few for its twentieth refinement as for its first."""
    student, teacher = student_of(checkpoint), teacher_of(checkpoint)
    steps = refinements_of(checkpoint)
    if not steps and teacher is None:
        return student, "base"
    if not steps:
        task, share, seed = checkpoint.split("/")[3:6]
        return student, f"{teacher}-{task}-{share}-seed{seed}"
    step, origin = steps[-1], origin_of(checkpoint)
    before = f"{teacher}-{origin.split('/')[3]}" if teacher else "base"
    return student, f"{before}-{step.share}-seed{step.seed}", f"{step.task}-{step.recipe}-round{len(steps)}"
