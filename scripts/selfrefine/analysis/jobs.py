"""The jobs behind a checkpoint, from its teacher's answers to its evaluation, by their records."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfrefine.schema.results import EvaluatedCell
from selfrefine.store.files import read_json
from selfrefine.store.locations import place_of
from selfrefine.store.provenance import record_of

# A checkpoint: its student, arm, share, how the items of that were chosen, and its name.
Trained = tuple[str, str, int | str, str, str]


class Records:
    """Records by path, and the jobs behind each; only those named are read, so base models and data cost nothing."""

    def __init__(self, names: Sequence[str], read: Callable[[str], Mapping[str, Any]] | None = None):
        self._names = set(names)
        self._reader = read or read_json_at
        self._read: dict[str, Mapping[str, Any]] = {}
        self._behind: dict[str, frozenset[str]] = {}

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        if name not in self._read:
            self._read[name] = self._reader(name)
        return self._read[name]

    def behind(self, name: str) -> frozenset[str]:
        """The named records that lead to one, itself among them."""
        if name not in self._behind:
            found = {name}
            for path in self[name]["inputs"]:
                before = str(record_of(path))
                if before in self._names and before != name:
                    found |= self.behind(before)
            self._behind[name] = frozenset(found)
        return self._behind[name]


def jobs_of(cells: Sequence[EvaluatedCell], records: Records) -> dict[Trained, set[str]]:
    """The records behind each checkpoint of the study's cells, by `Trained`."""
    jobs: dict[Trained, set[str]] = {}
    for cell in cells:
        if cell["arm"] != "teacher":
            of = (cell["student"], cell["arm"], cell["share"], cell.get("select", ""), cell["checkpoint"])
            jobs.setdefault(of, set()).update(records.behind(str(record_of(cell["samples"]))))
    return jobs


def parts_taken(behind: Iterable[str], records: Records) -> dict[str, float]:
    """Of the answers that mixtures among some jobs draw from, the shares that they take; of others nothing is said.

    A checkpoint is counted a teacher's answers that it learns from, not those to items drawn for another teacher.
    """
    names = {*behind}
    taken: dict[str, float] = {}
    for name in names:
        for teacher, file in files_of_mixture(records[name]).items():
            part, made = records[name]["figures"]["mixture"][teacher], str(record_of(file))
            if made in names:
                taken[made] = min(1.0, taken.get(made, 0.0) + (part["taken"] / part["of"] if part["of"] else 0.0))
    return taken


def files_of_mixture(record: Mapping[str, Any]) -> dict[str, str]:
    """By teacher of a mixture, the file that its answers were taken from; nothing for a record of anything else."""
    parts = record["figures"].get("mixture", {})
    places = ((place_of(path), path) for path in record["inputs"])
    return {
        place.names[0]: path for place, path in places if place and place.stage == "teach" and place.names[0] in parts
    }


def read_json_at(name: str) -> Mapping[str, Any]:
    """The record in a file."""
    record: Mapping[str, Any] = read_json(Path(name))
    return record


def tokens_of(record: Mapping[str, Any]) -> int:
    """The tokens that a job made, and those that it saw in training."""
    return sampled_of(record) + trained_of(record)


def sampled_of(record: Mapping[str, Any]) -> int:
    """The tokens that a job generated."""
    return record["figures"].get("tokens_made") or 0


def trained_of(record: Mapping[str, Any]) -> int:
    """The tokens that a job's updates passed."""
    return record["figures"].get("tokens_seen") or 0


class GpuUse(NamedTuple):
    """The GPU seconds of a job, those of them that a meter counted, and the watt-hours that it counted."""

    gpu_seconds: float
    metered_gpu_seconds: float
    gpu_wh: float


def gpu_use(record: Mapping[str, Any]) -> GpuUse:
    """What a job took of GPUs; a record from before there was a meter has no watt-hours."""
    seconds = record["wall_seconds"] * len(record["machine"].get("gpus", ()))
    counted = record["figures"].get("gpu_wh")
    return GpuUse(seconds, 0.0, 0.0) if counted is None else GpuUse(seconds, seconds, counted)
