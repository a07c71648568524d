"""What becomes of a claim's verdict under another choice, in the words of flips.csv."""

from collections.abc import Sequence

from selfrefine.schema.claim_results import FlipRow

CONFIGURED = "as configured"
AXES = (
    CONFIGURED,
    "extractor",
    "prompt style",
    "engine",
    "benchmark",
    "seeds",
    "level",
    "margin",
    "population",
    "correction",
    "refinements",
)
# The verdict turns round; is no longer decided; is decided only here.
REVERSAL, LOSS, GAIN = "reversal", "loss", "gain"
FLIPS = (REVERSAL, LOSS, GAIN)
# The verdict stays; so does every number behind it; the choice takes away what the claim is tested on.
STAYS, SAME, UNTESTED = "none", "same numbers", "untested"
# The study's data allow for no other choice.
ONLY = "no choice"
KINDS = (CONFIGURED, *FLIPS, STAYS, SAME, UNTESTED, ONLY)
DECIDED = ("supported", "contradicted")


def kind_of_flip(configured: str, verdict: str, untested_parts: int) -> str:
    """What became of the verdict as configured, where some number behind it is another one."""
    if verdict in DECIDED and verdict != configured:
        return REVERSAL if configured in DECIDED else GAIN
    if verdict == configured and verdict in DECIDED:
        return STAYS
    if untested_parts or (verdict == "not tested" and configured != verdict):
        return UNTESTED
    return LOSS if configured in DECIDED else STAYS


def judged_choices(rows: Sequence[FlipRow]) -> list[FlipRow]:
    """The rows whose choice changes a number of the claim and leaves it tested: those that can be counted."""
    return [row for row in rows if row["flip"] in (*FLIPS, STAYS)]
