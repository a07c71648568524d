"""The verdicts under other choices on the page: a row for each claim that the study tests."""

from typing import NamedTuple

from selfrefine.report.flip_tables import by_claim, claim_name, counts_of, flips_at, has_recipes, of_seeds
from selfrefine.report.page.page_inputs import PageInputs


class FlipsOfClaim(NamedTuple):
    """A claim, its verdict as configured, and how many others there are."""

    claim: str
    verdict: str
    numbers: tuple[int, int, int, int]
    """Choices, reversals, losses, gains."""
    seeds: str
    at: str


def flip_rows(inputs: PageInputs) -> list[FlipsOfClaim]:
    """The claims that the study tests."""
    recipes, found = has_recipes(inputs.flips), []
    for group in by_claim(inputs.flips):
        counts = counts_of(group)
        numbers = counts.choices, counts.reversals, counts.losses, counts.gains
        named = claim_name(group[0], recipes), group[0]["verdict"]
        found.append(FlipsOfClaim(*named, numbers, of_seeds(group), flips_at(group, inputs.titles)))
    return found
