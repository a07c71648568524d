"""What those who use a model need of it; checked in the dry run where its files are at hand."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfrefine.errors import UserError
from selfrefine.schema.model_use import ModelUse
from selfrefine.study.artifacts import Artifacts
from selfrefine.study.content_checks import refined_with
from selfrefine.study.design import Study
from selfrefine.study.mixtures import asked_teachers
from selfrefine.study.resolve import loaded_models, model_of_teacher, training_of

# What models call their head, and the embeddings that they may tie to it.
HEADS = ("lm_head", "embed_out")
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "tok_embeddings", "word_embeddings")


def uses_of(study: Study, model: str) -> list[ModelUse]:
    """The study's students and teachers that a model answers for."""
    students = [name for name in study.study.students if study.students[name].model == model]
    teachers = [name for name in asked_teachers(study) if model_of_teacher(study, name) == model]
    return [
        *(_student(study, name) for name in students),
        *(ModelUse(key=f"teachers.{name}", system=study.teachers[name].system) for name in teachers),
    ]


def _student(study: Study, name: str) -> ModelUse:
    entry = study.students[name]
    targets = {}
    own = [recipe for recipe in refined_with(study) if study.recipes[recipe].refine]
    for phase, recipe in (("instruct", None), ("refine", None), *(("refine", recipe) for recipe in own)):
        training = training_of(study, name, phase, recipe)
        if training.method == "lora" and isinstance(training.lora.targets, list):
            where = f"students.{name}." if "lora" in (entry.instruct if phase == "instruct" else entry.refine) else ""
            where = f"recipes.{recipe}." if recipe and "lora" in study.recipes[recipe].refine else where
            targets[f"{where}{phase}.lora.targets"] = training.lora.targets
    return ModelUse(key=f"students.{name}", system=entry.system, chat_template=entry.chat_template, targets=targets)


def check_models(artifacts: Artifacts) -> None:
    """`UserError` for `lora.targets` that a model lacks, if it lies in a folder here or has been fetched.

    It reads names only. Other models are checked when they are fetched, in full (models/suitability.py).
    """
    study = artifacts.study
    for model in loaded_models(study):
        made, source = artifacts.model(model), study.models[model].source
        folder = made.record.parent if made.record.exists() else Path(source.removeprefix("file:"))
        if not (made.record.exists() or source.startswith("file:")) or not (folder / "config.json").is_file():
            continue
        for use in uses_of(study, model):
            for key, targets in use.targets.items():
                _check_targets(folder, key, targets)


def _check_targets(folder: Path, key: str, targets: list[str]) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        modules = {name.rpartition(".")[0] for path in folder.glob("*.safetensors") for name in _tensors(path)}
    except (OSError, ValueError):
        return  # fetching says what is wrong with them
    known = sorted({name.rpartition(".")[2] for name in modules if name})
    tied = config.get("tie_word_embeddings", not set(HEADS).intersection(known))
    # Experts have other names in their files than in the model.
    renamed = any("expert" in name for name in config)
    for target in targets:
        if target.rpartition(".")[2] in HEADS:
            raise UserError(
                f"configuration: {key}: {target!r} is the model's head, whose weights training reads without an "
                f"adapter's, so it would not learn; leave {target} out"
            )
        if tied and target.rpartition(".")[2] in EMBEDDINGS:
            raise UserError(
                f"configuration: {key}: the model in {folder} ties its head to its embeddings, so an adapter on "
                f"{target} would change both once it is merged, and what is evaluated would not be what was trained; "
                f"leave {target} out"
            )
        is_there = any(name == target or name.endswith(f".{target}") for name in modules)
        if modules and not is_there and not renamed:
            raise UserError(f"configuration: {key}: {target!r} is not in {folder}; it has {', '.join(known)}")


def _tensors(path: Path) -> Iterator[str]:
    """The names in the header of a safetensors file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError(f"{path}: not a whole safetensors file")
        header: dict[str, Any] = json.loads(file.read(size))
    yield from (name for name in header if name != "__metadata__")
