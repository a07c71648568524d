"""Whether verdicts under other choices agree with the claims, and kinds of flip with verdicts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from selfrefine.analysis.flip_kinds import CONFIGURED, FLIPS, ONLY, SAME, STAYS, UNTESTED, kind_of_flip
from selfrefine.audit.table_rows import Row

Named = tuple[str, str]


class Fault(NamedTuple):
    """A row that does not agree with the others or with the claims."""

    row: Row
    expected: str
    found: str


def flip_faults(rows: Sequence[Row], claims: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    """Verdicts as configured are the claims'; kinds of flip follow from the verdicts."""
    said: dict[Named, str] = {(str(claim["claim"]), claim["recipe"]): claim["verdict"] for claim in claims}
    for row in rows:
        cells = row.cells
        configured, verdict, flip = said[cells["claim"], cells["recipe"]], cells["verdict"], cells["flip"]
        if flip in (CONFIGURED, ONLY, SAME):
            if verdict != configured:
                yield Fault(row, f"verdict {configured}, as in the claims", verdict)
        elif flip in (*FLIPS, STAYS, UNTESTED):
            expected = kind_of_flip(configured, verdict, int(cells["untested_parts"]))
            if flip != expected:
                yield Fault(row, f"flip {expected}, from {configured} to {verdict}", flip)
        else:
            yield Fault(row, "a kind of flip", flip)
