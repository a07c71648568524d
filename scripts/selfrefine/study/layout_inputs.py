"""What each table laid out as in the paper is made of: settings, and artifacts beside the tables."""

from typing import Any

from selfrefine.schema.config import Student
from selfrefine.schema.prompt import Asking
from selfrefine.schema.teacher import Teacher
from selfrefine.store.hashing import canonical_json
from selfrefine.study.artifact import Artifact
from selfrefine.study.costs import costs_of
from selfrefine.study.figures_and_layouts import kind_of
from selfrefine.study.mixtures import asked_teachers
from selfrefine.study.resolve import request_of
from selfrefine.study.stage_settings import prompt
from selfrefine.study.table_inputs import TableInputs


def layout_inputs(inputs: TableInputs, name: str) -> tuple[dict[str, Any], list[Artifact]]:
    """What the layout stage reads to lay out one table, and the artifacts that it is made of beside the tables."""
    study, (kind, student) = inputs.study, kind_of(name)
    settings: dict[str, Any] = {"layout": kind, "student": student, "titles": {}, "rows": []}
    settings |= {"level": None, "extractor": ""}
    names = study.shown_names()
    if kind == "cost":
        names["titles"] = {}
        settings["costs"] = costs_of(study).model_dump()
    behind: list[Artifact] = []
    if kind == "prompts":
        settings["rows"], behind = _prompts(inputs)
        return settings, behind
    if kind == "teachers":
        # Of the items that were chosen, a teacher's accuracy is none of the split's.
        behind = [one for one in inputs.teachers_answers if "choice" not in one.of]
        shown = [names["teachers"].get(one.of["teacher"], one.of["teacher"]) for one in behind]
        settings["rows"] = [
            {**one.of, "teacher": teacher, "answers": str(one.file)} for teacher, one in zip(shown, behind, strict=True)
        ]
        settings |= {"level": study.statistics.level, "extractor": study.extractor}
    if kind == "chains":
        behind = inputs.behind["demonstrations"]
        settings["rows"] = [
            {
                "teacher": names["teachers"].get(one.of["teacher"], one.of["teacher"]),
                "task": one.of["task"],
                "demonstrations": str(one.file),
            }
            for one in behind
        ]
        settings |= {"level": study.statistics.level}
    if kind == "splits":
        behind = inputs.splits()
        settings["rows"] = [{**one.of, "items": str(one.file), "record": str(one.record)} for one in behind]
    return settings | names, behind


def _prompts(inputs: TableInputs) -> tuple[list[dict[str, Any]], list[Artifact]]:
    """What each teacher and student is asked, {name, kind, style, prompt, request, system, items}."""
    study = inputs.study
    # Benchmarks of a kind that are asked alike are one example.
    examples: dict[str, str] = {}
    for task in study.study.benchmarks:
        benchmark = study.benchmarks[task]
        own = benchmark.model_dump(include={"kind", *Asking.model_fields}, exclude={"stop", "answer_phrases"})
        examples.setdefault(canonical_json(own), task)
    rows, behind = [], []
    for task in examples.values():
        items, shots = inputs.artifacts.items(task, "test"), inputs.artifacts.shots(task)
        behind += [items, *([shots] if shots else [])]
        rows += [
            {
                "name": model.title or name,
                "kind": study.benchmarks[task].kind,
                "style": style,
                "prompt": prompt(study, task, style),
                "request": request_of(study, name, task) if isinstance(model, Teacher) and style == "cot" else "",
                "system": model.system,
                "items": str(items.file),
                "shots": str(shots.file) if shots else None,
            }
            for name, model, style in _asked(inputs)
        ]
    return rows, list(dict.fromkeys(behind))


def _asked(inputs: TableInputs) -> list[tuple[str, Teacher | Student, str]]:
    """Who is asked in which style: teachers, then students."""
    study, checkpoints = inputs.study, inputs.study.checkpoints()
    styles = {str(study.evaluation.style)}
    styles |= {"cot"} if any(row["task"] for row in checkpoints) else set()
    styles |= {"cot", "plain"} if any(row["refine_task"] for row in checkpoints) else set()
    asked: list[tuple[str, Teacher | Student, str]] = []
    for style in study.study.teacher_styles:
        asked += [(name, study.teachers[name], style) for name in asked_teachers(study)]
    for each in sorted(styles):
        asked += [(name, study.students[name], each) for name in study.study.students]
    return asked
