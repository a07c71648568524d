"""Whether a study's policy was registered before its first evaluation, or has changed since."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict

from selfrefine.schema.record import Record
from selfrefine.store.register import WITNESS, Entry, hash_of

Status = Literal["pre-registered", "changed", "not pre-registered", "edited"]


class Registration(TypedDict):
    """What is known of the policy that claims were judged by."""

    status: Status
    hash: str
    told: str
    """In words."""
    changes: list[str]
    policy: dict[str, Any]


def registration_of(policy: dict[str, Any], entries: Sequence[Entry], evaluations: Sequence[Record]) -> Registration:
    """What became of a policy, by the register and the records of the evaluations that the claims rest on."""
    mine, changes = hash_of(policy), []
    status: Status = "not pre-registered"
    if not evaluations:
        told = f"Policy {mine}: there are no evaluations that it could have been registered before."
        return {"status": status, "hash": mine, "told": told, "changes": [], "policy": policy}
    first = min(evaluations, key=lambda record: (record.started, str(record.figures.get(WITNESS, ""))))
    began = f"{first.started:%Y-%m-%d}"
    known = {entry.digest: entry for entry in entries}
    if fault := _edited(entries, evaluations, known):
        status, told = "edited", f"Policy {mine} is not known to be pre-registered: the register of policies {fault}."
    elif WITNESS not in first.figures:
        told = f"Policy {mine} is not pre-registered: evaluations began on {began}, before any policy was registered."
    else:
        before = known[first.figures[WITNESS]]
        registered = f"{before.registered:%Y-%m-%d} as {before.hash}"
        changes = list(differences(before.policy, policy))
        if before.registered > first.started:
            told = (
                f"Policy {mine} is not known to be pre-registered: the one that the first evaluation names is dated "
                f"{before.registered:%Y-%m-%d %H:%M:%S}, after that evaluation began ({first.started:%Y-%m-%d %H:%M:%S})."
            )
        elif changes:
            status = "changed"
            told = f"The policy has changed since it was pre-registered on {registered}: {'; '.join(changes)}."
        else:
            status = "pre-registered"
            told = f"Pre-registered on {registered}, before the first evaluation."
    return {"status": status, "hash": mine, "told": told, "changes": changes, "policy": policy}


def _edited(entries: Sequence[Entry], evaluations: Sequence[Record], known: Mapping[str, Entry]) -> str:
    """What shows that the register was edited; "" if nothing does."""
    before = ""
    for number, entry in enumerate(entries, 1):
        if entry.before != before:
            return f"was edited: line {number} does not follow the line before it"
        before = entry.digest
    lacking = sum(record.figures.get(WITNESS, before) not in {*known, before} for record in evaluations)
    if lacking:
        return f"was edited or replaced: it lacks a line that {lacking} of {len(evaluations)} evaluations name"
    return ""


def differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """What differs between two policies, key by key, as `key: before → now`."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys((*before, *now)):
            yield from differences(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
    elif before != now:
        yield f"{key}: {_shown(before)} → {_shown(now)}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
