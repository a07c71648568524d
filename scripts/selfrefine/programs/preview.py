"""Shows a benchmark's items as a student will see them, and what became of the file's rows."""

import collections
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfrefine.data.fetching import fetch, local_files
from selfrefine.data.lookup import LABELS
from selfrefine.data.prompts import messages
from selfrefine.data.shots import items_to_show, taken_from
from selfrefine.data.splits import Pool, answer_of, read_pool, split_of_pool
from selfrefine.errors import UserError
from selfrefine.programs.cli import file_of
from selfrefine.schema.base import did_you_mean
from selfrefine.schema.prompt import Shots, TaskPrompt
from selfrefine.schema.rows import Item
from selfrefine.schema.source import Source
from selfrefine.schema.stages import PrepareSettings
from selfrefine.store.hashing import sha256_of
from selfrefine.store.run import Run
from selfrefine.study import stage_settings
from selfrefine.study.artifact import Artifact
from selfrefine.study.final_artifacts import FinalArtifacts
from selfrefine.study.open_study import ROOT
from selfrefine.study.resolve import split_of

BAR, BINS, FAULTS, MOST_COMMON = 40, 8, 5, 8


class Preview(NamedTuple):
    """What is printed, and whether the workflow would refuse the benchmark."""

    lines: list[str]
    refused: bool


def preview(finals: FinalArtifacts, task: str, split: str | None, number: int) -> Preview:
    """A split of a benchmark in lines: `number` items with their prompts, counts, answers, lengths."""
    study = finals.study
    if task not in study.benchmarks:
        raise UserError(f"benchmark {task!r} is not defined{did_you_mean(task, study.benchmarks)}")
    splits = study.benchmarks[task].splits
    split = split or ("test" if "test" in splits else "train")
    if split not in splits:
        raise UserError(f"benchmarks.{task}.splits: has no {split!r} split; it has {', '.join(splits)}")
    path, settings = _raw_file(finals, task, split, fetched=True), _settings(finals, task, split)
    assert path is not None, "a file that is not there is fetched"
    pool = read_pool(path, settings)
    lines, refusals = [f"{study.benchmarks[task].title} ({task}), {split} split, from {path}", ""], []
    if pool.faults and not settings.drop_unmapped:
        refusals.append(f"{len(pool.faults)} rows cannot be mapped; correct them, or set `drop_unmapped: true`")
    held_out, missing = _held_out(finals, task) if split == "train" else ({}, [])
    counts: dict[str, Any] = {"read": pool.read, "dropped": pool.dropped}
    try:
        items, counts = split_of_pool(pool, settings, held_out)
    except UserError as error:
        items = pool.items
        refusals.append(f"{error} (shown are all items of the file)")
    asked = _Asked(finals, task)
    try:
        asked.shots = _examples(finals, task, asked.prompt.shots)
    except UserError as error:
        refusals.append(str(error))
    lines += _shown(asked, items[:number], len(items))
    lines += [*_counted(counts, pool, missing), "", *_answers(items), "", *_lengths(asked, items)]
    lines += ["", *(f"REFUSED: {refusal}" for refusal in refusals)] if refusals else []
    return Preview(lines, bool(refusals))


def _settings(finals: FinalArtifacts, task: str, split: str) -> PrepareSettings:
    return PrepareSettings.model_validate(stage_settings.settings(finals.study, "prepare", task=task, split=split))


def _raw_file(finals: FinalArtifacts, task: str, split: str, fetched: bool) -> Path | None:
    """A split's raw file: where it lies on this machine, or its place in the store.

    With `fetched` it is fetched there if it is missing, as the workflow does; otherwise None is given then.
    """
    file = split_of(finals.study, task, split).file
    source = finals.study.benchmarks[task].files[file]
    if source.source.startswith("file:") and source.parts == 1:
        (path,) = local_files(source)
        if not path.is_file():
            raise UserError(f"{source.source}: no such file (seen from {Path.cwd()})")
        if source.sha256 and sha256_of(path) != source.sha256:
            raise UserError(f"{path}: its sha256 is not that of benchmarks.{task}.files.{file}; correct one of them")
        return path
    artifact = finals.artifacts.raw(task, file)
    if not artifact.record.exists() and not fetched:
        return None
    if not artifact.record.exists():
        _fetch(artifact, Source.model_validate(source.model_dump(include=set(Source.model_fields))))
    return file_of("fetch")(str(artifact.record))


def _fetch(artifact: Artifact, source: Source) -> None:
    """Fetches a raw file to its place in the store, as the stage `fetch` does."""
    sources = dict(artifact.sources)
    script = ROOT / "scripts/fetch.py"
    with Run(script, artifact.settings, [], artifact.record, version=artifact.code, sources=sources) as run:
        if not run.made:
            path = run.folder / f"raw{source.suffix}"
            fetch(source, path)
            run.record([path], source=source.model_dump())


def _held_out(finals: FinalArtifacts, task: str) -> tuple[dict[str, Sequence[Item]], list[str]]:
    """The test splits that a training split must not repeat, and the benchmarks whose files are not fetched yet."""
    found: dict[str, Sequence[Item]] = {}
    missing = []
    for other in finals.artifacts.held_apart(task):
        path = _raw_file(finals, other, "test", fetched=other == task)
        if path is None:
            missing.append(other)
            continue
        settings = _settings(finals, other, "test")
        found[other], _ = split_of_pool(read_pool(path, settings), settings, {})
    return found, missing


class _Asked:
    """How a student is asked the items of a benchmark."""

    def __init__(self, finals: FinalArtifacts, task: str):
        settings = stage_settings.settings(finals.study, "export_task", task=task)
        self.prompt, self.style = TaskPrompt.model_validate(settings["prompt"]), settings["style"]
        self.shots: list[Item] = []

    def lines(self, item: Item) -> list[str]:
        """The lines of one item's prompt."""
        chat = messages(item, self.prompt, self.style, shots=self.shots)
        return [line for message in chat for line in message["content"].split("\n")]


def _examples(finals: FinalArtifacts, task: str, shots: Shots | None) -> list[Item]:
    """The worked examples of a benchmark's prompts; its training split is made for them, if they come from there."""
    if shots is None or not shots.of_training_split or shots.number is None:
        return items_to_show(TaskPrompt(instruction=task, shots=shots), None)
    path, settings = _raw_file(finals, task, "train", fetched=True), _settings(finals, task, "train")
    assert path is not None, "a file that is not there is fetched"
    items, _ = split_of_pool(read_pool(path, settings), settings, _held_out(finals, task)[0])
    return taken_from({item["id"]: item for item in items}, shots.number, shots.seed, f"benchmarks.{task}.shots")


def _shown(asked: _Asked, items: Sequence[Item], total: int) -> list[str]:
    lines = []
    for number, item in enumerate(items, 1):
        lines.append(f"--- item {number} of {total}, {item['id']}")
        label = f"{item['answer']}) "
        options = {f"{label}{item['choices'][LABELS.index(item['answer'])]}"} if item["choices"] else set()
        lines += [f"{'=>' if line in options else '  '} {line}" for line in asked.lines(item)]
        lines += [f"=> correct answer: {item['answer']}", ""]
    return lines


def _counted(counts: dict[str, Any], pool: Pool, missing: list[str]) -> list[str]:
    """What became of the rows, and why."""
    lines = [f"rows read: {counts['read']}"]
    lines += [
        f"  dropped, {reason.replace('_', ' ')}: {number}" for reason, number in counts["dropped"].items() if number
    ]
    for benchmark, found in counts.get("held_apart_from", {}).items():
        same, near = found["in_test"], found["near_duplicate_of_test"]
        lines.append(f"  held apart from the test split of {benchmark}: {same} the same, {near} nearly so")
    if missing:
        lines.append(f"  not compared yet, since their files are not fetched: {', '.join(missing)}")
    if "items" in counts:
        lines += [f"  not needed: {counts['not_needed']}", f"items: {counts['items']}"]
    if pool.faults:
        lines += ["", "rows that cannot be mapped, for example:", *(f"  {fault}" for fault in pool.faults[:FAULTS])]
    return lines


def _answers(items: Sequence[Item]) -> list[str]:
    """How often each label or text is correct, or what kinds of numbers the answers are."""
    if items[0]["kind"] == "choice":
        found = collections.Counter(item["answer"] for item in items)
        return ["correct options:", *_bars(sorted(found.items()))]
    if items[0]["kind"] == "text":
        same: dict[str, list[str]] = {}
        for item in items:
            same.setdefault(answer_of(item), []).append(item["answer"])
        groups = sorted(same.values(), key=lambda group: (-len(group), group[0]))
        longest = max(len(item["answer"]) for item in items)
        lines = [f"answers: {len(same)} different ones, the longest of {longest} characters; the most common:"]
        return lines + _bars((_shortened(group[0]), len(group)) for group in groups[:MOST_COMMON])
    answers = [item["answer"] for item in items]
    kinds = {
        "whole": sum(answer.lstrip("-").isdigit() for answer in answers),
        "decimal": sum("." in answer for answer in answers),
        "fraction": sum("/" in answer for answer in answers),
        "negative": sum(answer.startswith("-") for answer in answers),
    }
    return [f"answers: {len(set(answers))} different numbers", *_bars((k, n) for k, n in kinds.items() if n)]


def _shortened(answer: str) -> str:
    return answer if len(answer) <= BAR else f"{answer[:BAR].rstrip()} …"


def _lengths(asked: _Asked, items: Sequence[Item]) -> list[str]:
    """A histogram of the prompts' lengths."""
    lengths = [len("\n".join(asked.lines(item))) for item in items]
    low, high = min(lengths), max(lengths)
    width = max(1, -(-(high - low + 1) // BINS))
    found = collections.Counter((length - low) // width for length in lengths)
    bins = [(f"{low + i * width}-{low + (i + 1) * width - 1}", found[i]) for i in range((high - low) // width + 1)]
    return [f"prompts in characters: median {statistics.median(lengths):g}, longest {high}", *_bars(bins)]


def _bars(counted: Iterable[tuple[str, int]]) -> list[str]:
    rows = list(counted)
    most, width = max((number for _, number in rows), default=1) or 1, max((len(name) for name, _ in rows), default=0)
    return [f"  {name:>{width}}  {number:6}  {'#' * round(BAR * number / most)}".rstrip() for name, number in rows]
