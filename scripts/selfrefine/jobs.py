"""The jobs behind a checkpoint, from its teacher's answers to its evaluation, by their records."""

from collections.abc import Callable, Mapping
from typing import Any

from selfrefine.files import read_json
from selfrefine.provenance import record_of


class Records:
    """Records by path, and the jobs behind each; only those named are looked at, so base models and data cost nothing."""

    def __init__(self, names: list[str], read: Callable[[str], Mapping[str, Any]] = read_json):
        self._names = set(names)
        self._reader = read
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


def jobs_of(cells: list[dict], records: Records) -> dict[tuple[str, str, int | str, str], set[str]]:
    """The records behind each checkpoint of the study's cells, by (student, arm, share, checkpoint)."""
    jobs: dict[tuple[str, str, int | str, str], set[str]] = {}
    for cell in cells:
        if cell["arm"] != "teacher":
            of = (cell["student"], cell["arm"], cell["share"], cell["checkpoint"])
            jobs.setdefault(of, set()).update(records.behind(str(record_of(cell["samples"]))))
    return jobs


def tokens_of(record: Mapping[str, Any]) -> int:
    """The tokens that a job made or, in training, saw."""
    return record["figures"].get("tokens_made") or record["figures"].get("tokens_seen") or 0
