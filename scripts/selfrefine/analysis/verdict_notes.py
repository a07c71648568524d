"""What a reader of a claim's verdict must know, in sentences."""

from collections.abc import Mapping, Sequence

from selfrefine.analysis.comparing import Policy
from selfrefine.schema.claim_results import ClaimComparison, OutlyingRun


def notes(
    rows: Sequence[ClaimComparison], policy: Policy, titles: Mapping[str, str], students: Mapping[str, str]
) -> list[str]:
    """On few seeds, looks, identical arms and outlying runs."""
    found = []
    if any(row["seeds"] == 2 for row in rows):
        least = min(row["estimates"][-1]["seed_df"] for row in rows if row["seeds"] == 2)
        found.append(
            "Two seeds say little of how much training runs vary: the variance between them rests on "
            f"{least:.1f} degrees of freedom. Three seeds or more are advised."
        )
    found += [look(seeds, policy) for seeds in sorted({row["seeds"] for row in rows}) if policy.looks or policy.taken]
    for row in rows:
        benchmark = titles.get(row["evaluation"], row["evaluation"])
        student = students.get(row["student"], row["student"])
        on = f"{' and '.join(row.get('compared', (row['arm'], row['against'])))} of {student} on {benchmark}"
        if row["identical"]:
            found.append(
                f"Identical: {on} have the same items correct under every seed. Check that both were evaluated."
            )
        if row["outlying"]:
            runs = "; ".join(outlier(run) for run in row["outlying"])
            rests = row.get("rests_on_outlying")
            asks = " The comparison is supported with it and not without, so it counts as undecided." if rests else ""
            found.append(f"Outlying training run, {on}: {runs}.{asks}")
    return list(dict.fromkeys(found))


def outlier(run: OutlyingRun) -> str:
    """A training run that may have collapsed."""
    accuracy, median = (f"{100 * value:.1f} %" for value in (run["accuracy"], run["median"]))
    return f"{run['arm']}, seed {run['seed']}: {accuracy}, median of the others {median}"


def look(seeds: int, policy: Policy) -> str:
    """Which level judges a study that is judged more than once."""
    alpha = policy.alpha(seeds)
    if policy.taken:
        before = " and ".join(map(str, policy.taken))
        return (
            f"Seeds were added after a look at {before} seeds that was not declared. So the study is judged as at any "
            f"number of seeds: p at {seeds} is held against {alpha:.4g}."
        )
    if policy.looks == "any":
        held = f"p at {seeds} is held against {alpha:.4g}"
        return f"Judged at any number of seeds: {held}, and intervals hold at every look."
    declared = ", ".join(map(str, policy.looks or ()))
    if not alpha:
        undeclared = f"{seeds} seeds are no declared look ({declared}), so nothing is decided"
        return f"{undeclared}; intervals hold at any number of seeds."
    return f"Declared looks at {declared} seeds ({policy.spending}): p at {seeds} is held against {alpha:.4g}."
