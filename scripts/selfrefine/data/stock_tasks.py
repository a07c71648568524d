"""lm-eval's own tasks, found by name in its package or in a folder of tasks, without loading lm-eval."""

import functools
import importlib.util
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from selfrefine.errors import UserError
from selfrefine.schema.base import did_you_mean
from selfrefine.schema.config import STOCK

# Loaders of the package datasets that read files of this machine.
LOCAL = ("arrow", "csv", "json", "parquet", "text")
NAMED = re.compile(r"^(task|group):\s*['\"]?([\w.\-]+)['\"]?\s*(?:#.*)?$", re.MULTILINE)


class StockTask(NamedTuple):
    """A task's file, and what is known of it before it is loaded."""

    path: Path
    output_type: str
    """`generate_until`, `multiple_choice`, `loglikelihood`; "" where lm-eval's default or code decides."""
    data: str
    """The data set on the Hugging Face hub, or "" where the data are files of this machine."""

    @property
    def scores(self) -> bool:
        """Whether it compares likelihoods, so that nothing is generated."""
        return self.output_type in ("multiple_choice", "loglikelihood", "loglikelihood_rolling")


def find_task(name: str, include: Path | None = None) -> StockTask:
    """The task of a name: of a folder of tasks if it has one, else lm-eval's own."""
    folders = [*([include] if include else []), _package()]
    if include and not include.is_dir():
        raise UserError(f"configuration: lm_eval.include: there is no folder {include}")
    for folder in folders:
        tasks, groups = _names(folder)
        if name in tasks:
            return _read(tasks[name])
        if name in groups:
            raise UserError(
                f"configuration: study.evaluate: {STOCK}{name} is a group of tasks ({groups[name]}); name the tasks "
                "that you want one by one"
            )
    known = [task for folder in folders for task in _names(folder)[0]]
    raise UserError(f"configuration: study.evaluate: lm-eval has no task {name!r}{_nearest(name, known)}")


def _nearest(name: str, known: list[str]) -> str:
    """The closest name; not all ten thousand where none is close."""
    near = did_you_mean(name, known)
    return near if near.startswith("; did you mean") else "; `lm_eval ls tasks` lists them"


def _package() -> Path:
    found = importlib.util.find_spec("lm_eval")
    if found is None or not found.submodule_search_locations:
        raise UserError(
            "study.evaluate: lm-eval is not installed, whose tasks are asked for; install envs/requirements.txt"
        )
    return Path(next(iter(found.submodule_search_locations))) / "tasks"


@functools.cache
def _names(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """The files of the tasks and of the groups in a folder, by name."""
    found: dict[str, dict[str, Path]] = {"task": {}, "group": {}}
    for path in sorted(folder.rglob("*.yaml")):
        for kind, name in NAMED.findall(path.read_text(encoding="utf-8", errors="replace")):
            found[kind].setdefault(name, path)
    return found["task"], found["group"]


class _Loader(yaml.SafeLoader):
    """Reads a task's file without running the functions that it names."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix}")


def _read(path: Path) -> StockTask:
    keys = _keys(path)
    data, files = str(keys.get("dataset_path") or ""), keys.get("dataset_kwargs") or {}
    is_local = data in LOCAL or Path(data).exists() or "custom_dataset" in keys
    if "data_files" in files and data in LOCAL:
        is_local = not re.match(r"\w+://", str(files["data_files"]))
    return StockTask(path, str(keys.get("output_type") or ""), "" if is_local else data)


def _keys(path: Path) -> dict[str, Any]:
    """A task's keys, with those of the files that it includes below."""
    try:
        # `_Loader` is a safe one: functions stay text.
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    included = found.pop("include", None) or []
    keys: dict[str, Any] = {}
    for name in [included] if isinstance(included, str) else included:
        keys |= _keys(path.parent / name)
    return keys | found
