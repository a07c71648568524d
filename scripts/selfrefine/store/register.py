"""The register of policies: what each run counts as evidence, noted before its first job.

One line each time that a run's study or policy differs from the line before, so the last line is that of the run at hand.
A line holds the digest of the line before it, and each evaluation's record the digest of the line that was last when it
began. A line that is edited, moved or put in later breaks one or the other.
"""

import datetime
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from selfrefine.store.files import naming_write_errors
from selfrefine.store.hashing import canonical_json, digest
from selfrefine.store.locations import POLICIES, STORE

# What the record of an evaluation calls, among its figures, the line that was last when it began.
WITNESS = "registered"


class Entry(NamedTuple):
    """One line of the register."""

    study: str
    policy: dict[str, Any]
    registered: datetime.datetime
    before: str
    digest: str
    """Of this line; what the next line and evaluations name."""

    @property
    def hash(self) -> str:
        """Stands for the policy."""
        return hash_of(self.policy)


def hash_of(policy: dict[str, Any]) -> str:
    """Stands for a policy."""
    return digest(policy, 12)


def entries(store: Path = STORE) -> list[Entry]:
    """The lines of the register; a torn last line is none."""
    found: list[Entry] = []
    path = Path(store) / POLICIES
    if not path.exists():
        return found
    with open(path, "rb") as file:
        for line in file:
            try:
                row = json.loads(line)
                registered = datetime.datetime.fromisoformat(row["registered"])
                found.append(Entry(row["study"], row["policy"], registered, row["before"], digest(row)))
            except (ValueError, KeyError, TypeError):
                # A kill tears the last line. One that was torn on purpose is missed by what names it.
                continue
    return found


def register(study: str, policy: dict[str, Any], store: Path = STORE) -> None:
    """Notes the policy of a run that is about to begin."""
    known = entries(store)
    if known and (known[-1].study, known[-1].policy) == (study, policy):
        return
    row = {
        "study": study,
        "registered": datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat(),
        "before": known[-1].digest if known else "",
        "policy": policy,
    }
    path = Path(store) / POLICIES
    with naming_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
        with open(path, "ab") as file:
            file.write(b"\n" * torn + canonical_json(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def witness(store: Path = STORE) -> dict[str, str]:
    """What an evaluation notes among its figures: the last line of the register, if there is one."""
    known = entries(store)
    return {WITNESS: known[-1].digest} if known else {}
