"""Looks at a study that were taken and not declared, as where seeds are added after a look."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from selfrefine.store.register import WITNESS, Entry


class Evaluated(NamedTuple):
    """One evaluation that the claims rest on."""

    seed: int | str  # "" for a checkpoint without training seeds
    benchmark: str
    figures: dict[str, Any]  # of its record


def undeclared_looks(policy: dict[str, Any], entries: Sequence[Entry], evaluated: Sequence[Evaluated]) -> list[int]:
    """The numbers of seeds, ascending, at which a study's claims could be seen before it was given more seeds.

    That was so at the seeds of a registered policy if on some benchmark all their evaluations had begun before a policy
    with more seeds was registered, and seeds were evaluated after it. It was declared if that policy named the same
    looks as the present one, or if claims are judged at any number of seeds. One seed is no look (looks.py).
    """
    declared, now = policy["statistics"].get("looks"), set(policy["design"]["seeds"])
    if declared == "any":
        return []
    lines = {entry.digest: number for number, entry in enumerate(entries)}
    # An evaluation that names no line is older than the register.
    begun = [(one.seed, one.benchmark, lines.get(one.figures.get(WITNESS, ""), -1)) for one in evaluated]
    found = set()
    for number, entry in enumerate(entries):
        seeds = set(entry.policy["design"]["seeds"])
        if not 1 < len(seeds) < len(now) or not seeds < now:
            continue
        if declared is not None and entry.policy["statistics"].get("looks") == declared:
            continue
        more = (
            later
            for later, other in enumerate(entries[number + 1 :], number + 1)
            if seeds < set(other.policy["design"]["seeds"])
        )
        extended = next(more, None)
        if extended is None:
            continue
        for benchmark in {one[1] for one in begun}:
            mine = {seed: line for seed, here, line in begun if here == benchmark and seed in seeds}
            # Where another study, or fewer seeds, came in between, no further seed was evaluated after it.
            added = any(line >= extended for seed, here, line in begun if here == benchmark and seed in now - seeds)
            if added and mine.keys() == seeds and max(mine.values()) < extended:
                found.add(len(seeds))
    return sorted(found)
