"""What a finished study tells for the next one: differences, discordance, how much seeds vary."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from selfrefine.analysis.claim_power import Assumed
from selfrefine.analysis.paper_claims import Arm, Claim
from selfrefine.analysis.power import seed_spreads
from selfrefine.analysis.statistics import Components
from selfrefine.errors import UserError
from selfrefine.schema.claim_results import AssessedClaim, ClaimComparison
from selfrefine.store.files import read_json

# What a comparison has in common with that of a pilot; the first is looked for first.
ALIKE = ("recipe", "student", "evaluation")


class PilotComparison(ClaimComparison):
    """A comparison, and the preference recipe that its claim is judged for."""

    recipe: str


class Pilot:
    """The estimates of a finished study, from its claims.json; they take the place of assumptions, claim by claim."""

    def __init__(self, path: Path):
        self._path = path
        try:
            assessed: list[AssessedClaim] = read_json(path)["claims"]
            self._rows = {number: rows for number, rows in _by_claim(assessed).items() if rows}
            self._of = {
                number: [Components(**row["components"]) for row in rows] for number, rows in self._rows.items()
            }
        except (KeyError, TypeError):
            raise UserError(f"{path}: not the claims.json of a study of this version; make its claims again") from None

    def replace(self, claim: Claim, assumed: Assumed, treated: Arm) -> Assumed:
        """An assumption with what the pilot estimates in its place; as it is where the pilot does not test the claim.

        The difference is that of the same recipe, student and benchmark, as far as the pilot has them; how much seeds
        vary is estimated over all comparisons of the claim.
        """
        found = self._of.get(claim.number)
        if not found:
            return assumed
        same = self._rows[claim.number]
        for fact in ALIKE:
            same = [row for row in same if row.get(fact) == getattr(treated, fact)] or same
        alike = [Components(**row["components"]) for row in same]
        stable = assumed.stable
        spreads, weights = assumed.spreads, assumed.weights
        several = [of for of in found if of.seeds > 1]
        if several:
            within = sum(of.between_items + of.residual for of in several)
            stable = sum(of.between_items for of in several) / within if within else stable
            spreads, weights = self._spreads(several, len({row["evaluation"] for row in self._rows[claim.number]}))
        return Assumed(
            float(np.mean([of.mean for of in alike])),
            # Half an item more, as power.py has it.
            float(np.mean([(of.items * of.square + 0.5) / (of.items + 1) for of in alike])),
            stable,
            spreads,
            weights,
        )

    @staticmethod
    def _spreads(several: Sequence[Components], benchmarks: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Likely standard deviations between seeds, from all comparisons of a claim.

        Comparisons on one benchmark share arms, so together they count for no more than one.
        """
        values, logs = seed_spreads(several)
        weights = np.exp(logs * benchmarks / len(several) - (logs * benchmarks / len(several)).max())
        kept = weights > 1e-3
        weights = weights[kept] / weights[kept].sum()
        return tuple(map(float, values[kept])), tuple(map(float, weights))

    def told(self) -> str:
        """What the pilot replaced, in words."""
        lines = []
        for number, found in self._of.items():
            seeds = min(of.seeds for of in found)
            spread = (
                "seeds as assumed" if seeds == 1 else f"the variance between its {seeds} seeds, with its uncertainty"
            )
            points = sorted(100 * of.mean for of in found)
            shown = f"{points[0]:+.1f}" + (f" to {points[-1]:+.1f}" if len(points) > 1 else "")
            lines.append(f"claim {number}: {shown} points, {spread}")
        return (
            f"From {self._path}, in the place of assumptions: {'; '.join(lines)}. Of each comparison, the difference is "
            f"that of the same recipe, student and benchmark, as far as the pilot has them. It is taken for true."
        )


def _by_claim(assessed: Sequence[AssessedClaim]) -> dict[int | str, list[PilotComparison]]:
    found: dict[int | str, dict[tuple[str, ...], PilotComparison]] = {}
    for claim in assessed:
        mine = found.setdefault(claim["claim"], {})
        for part in claim["parts"]:
            for row in part["comparisons"]:
                mine[tuple(row["samples"] + row["against_samples"])] = {**row, "recipe": claim["recipe"]}
    return {number: list(rows.values()) for number, rows in found.items()}
