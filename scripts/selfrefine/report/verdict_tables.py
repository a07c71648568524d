"""The verdicts on the claims, and the comparisons behind them, as tables and in Markdown."""

import collections
from collections.abc import Mapping, Sequence

from selfrefine.analysis.advice import claim_advice
from selfrefine.analysis.verdicts import VERDICTS
from selfrefine.report.formats import NONE, PAGES, Rows, Table
from selfrefine.report.labels import UNREFINED, named, ways_told, whose_claims
from selfrefine.report.model_names import Models
from selfrefine.schema.claim_results import (
    AssessedClaim,
    ClaimComparison,
    ClaimPart,
    Estimate,
    LogOdds,
    MatchedLength,
    Overall,
)


def points(value: float, sign: str = "") -> str:
    """A share of 1 in accuracy points; never -0.0."""
    return f"{round(100 * value, 1) + 0.0:{sign}.1f}"


def claim_label(claim: AssessedClaim, margin: float) -> str:
    """A claim's number and title, the preference recipe it was tested with, and the margin that it allows for."""
    notes = [claim["recipe"], "" if claim["says"] == "above" else f"margin {margin:g} points"]
    shown = ", ".join(note for note in notes if note)
    return named(claim["claim"], claim["title"]) + (f" ({shown})" if shown else "")


def verdicts_table(assessed: Sequence[AssessedClaim], margin: float) -> Table:
    """One row per claim, and one per part of those that have parts."""
    rows: Rows = []
    for claim in assessed:
        parts = claim["parts"]
        lines = [(claim_label(claim, margin), claim["verdict"], claim["needed"], parts)]
        if len(parts) > 1:
            lines += [(f"– {part['title']}", part["verdict"], part["needed"], [part]) for part in parts]
        for name, verdict, advice, members in lines:
            comparisons = [row for part in members for row in part["comparisons"]]
            counts = collections.Counter(row["verdict"] for row in comparisons)
            lacking = "; ".join(dict.fromkeys(f"needs {part['missing']}" for part in members if part["missing"]))
            holds = claim["holds_for"] if comparisons else NONE
            needed = "; ".join(text for text in (claim_advice(comparisons, advice), lacking) if text) or NONE
            rows.append([name, verdict, *(str(counts[v]) for v in VERDICTS[:3]), holds, needed])
    header = ["claim", "verdict", "supported", "contradicted", "undecided", "holds for", "would decide"]
    caption = "Supported, contradicted and undecided count the comparisons of the claim, or of its part."
    return Table("claims", caption, header, rows, list("llrrrll"))


def comparisons_table(claim: AssessedClaim, part: ClaimPart, titles: Mapping[str, str]) -> Table:
    """One row per comparison of a part of a claim."""
    rows: Rows = []
    own = len({tuple(row.get("compared", ())) for row in part["comparisons"]}) > 1
    for row in part["comparisons"]:
        teacher = f"{row['teacher']} against {row['against_teacher']}"
        trained, refined = (titles.get(row[fact], row[fact]) for fact in ("task", "refine_task"))
        rows.append(
            ([" against ".join(row["compared"])] if own else [])
            + [row["student"], teacher if row["against_teacher"] not in ("", row["teacher"]) else row["teacher"]]
            + [trained if refined in ("", trained) else f"{trained} → {refined}"]
            + [
                titles.get(row["evaluation"], row["evaluation"]),
                ", ".join(filter(None, (f"{row['share']} %", ways_told(row)))),
            ]
            + [f"{row['items']:,}", seeds_told(row)]
            + [f"{points(row['accuracy'])} against {points(row['against_accuracy'])}"]
            + [f"{points(row['difference'], '+')} {ends(row)}", ends(row["estimates"][0]), odds(row["log_odds"])]
            + [f"{row['p']:.2g}", f"{row['corrected_p']:.2g}", verdict(row)]
            + [
                "none" if row["detectable"] is None else points(row["detectable"]),
                claim_advice([row], row.get("needed", {})) or NONE,
            ]
        )
    header = ["student", "teacher", "trained on", "benchmark", "share", "items", "seeds", "accuracy", "difference"]
    header += ["for these checkpoints", "log odds", "p", "corrected p", "verdict", "detectable", "would decide"]
    sides = {tuple(row.get("compared", (row["arm"], row["against"]))) for row in part["comparisons"]}
    header = ["compared", *header] if own else header
    caption = "; ".join(f"{arm} against {against}" for arm, against in sorted(sides))
    if any(row.get("left_out") or row.get("unrefined") for row in part["comparisons"]):
        caption += f". {UNREFINED}: too few pairs to be refined, in so many seeds"
    return Table(f"claim-{claim['claim']}", caption, header, rows, list("l" * own + "lllllrrlrrrrrlrl"))


def matched_table(claim: AssessedClaim, titles: Mapping[str, str]) -> Table | None:
    """One row per comparison of a claim: the difference at matched length of answers."""
    rows: Rows = []
    for row in (row for part in claim["parts"] for row in part["comparisons"]):
        found = row.get("matched_length")
        facts = [" against ".join(row.get("compared", (row["arm"], row["against"]))), row["student"]]
        facts += [titles.get(row["evaluation"], row["evaluation"]), f"{row['share']} %" if row["share"] else ""]
        facts += [f"{points(row['difference'], '+')} {ends(row)}"]
        if found is None:
            rows.append([*facts, NONE, NONE, NONE, NONE, NONE, "not tested"])
            continue
        matched = f"{found['items']:,} ({100 * found['pairs'] / found['of_pairs']:.0f} % of pairs)"
        rows.append(
            [*facts, f"{points(found['difference'], '+')} {ends(found)}", matched]
            + [f"{found['tokens']:.0f} against {found['against_tokens']:.0f}"]
            + [f"{found['p']:.2g}", f"{found['corrected_p']:.2g}", found["verdict"]]
        )
    header = ["compared", "student", "benchmark", "share", "difference", "at matched length", "items", "tokens"]
    header += ["p", "corrected p", "verdict"]
    caption = "Tokens: the mean of the matched answers. Not tested: too few items have answers of close length."
    return Table(f"claim-{claim['claim']}-length", caption, header, rows, list("llllrrrrrrl")) if rows else None


def ends(of: ClaimComparison | Estimate | Overall | MatchedLength) -> str:
    """An interval in points."""
    return f"[{points(of['low'], '+')}, {points(of['high'], '+')}]"


def odds(of: LogOdds | None) -> str:
    """Log odds with their interval, which may have no end."""
    if of is None:
        return NONE
    low = "−∞" if of["low"] is None else f"{of['low']:+.2f}"
    high = "∞" if of["high"] is None else f"{of['high']:+.2f}"
    return f"{of['value']:+.2f} [{low}, {high}]"


def verdict(row: ClaimComparison) -> str:
    """A comparison's verdict, and what is odd about its arms."""
    odd = ["identical"] if row["identical"] else []
    odd += ["outlying run"] if row["outlying"] else []
    return f"{row['verdict']} ({', '.join(odd)})" if odd else row["verdict"]


def overall_line(part: ClaimPart) -> str:
    """The mean over a part's benchmarks, as a sentence."""
    of = part["overall"]
    if of is None or of["benchmarks"] < 2:
        return ""
    between = points(of["between"] or 0.0)
    return (
        f"Over {of['benchmarks']} benchmarks, the mean difference is {points(of['difference'], '+')} points, with the "
        f"{100 * of['level']:.3g} % interval {ends(of)}; the standard deviation of true differences between benchmarks "
        f"is estimated at {between} points."
    )


def with_titles(assessed: Sequence[AssessedClaim], models: Models) -> list[AssessedClaim]:
    """The claims, their comparisons with the titles of students and teachers."""

    def titled(part: ClaimPart) -> ClaimPart:
        return {**part, "comparisons": [models.titled(row) for row in part["comparisons"]]}

    return [{**claim, "parts": [titled(part) for part in claim["parts"]]} for claim in assessed]


def seeds_told(row: ClaimComparison) -> str:
    """How many seeds a comparison is over, and of how many a side was not refined, counted or left out."""
    out, unrefined = len(row.get("left_out", ())), len(row.get("unrefined", ()))
    note = f" ({out} left out {UNREFINED})" if out else f" ({unrefined} {UNREFINED})" if unrefined else ""
    return f"{row['seeds']}{note}"


def claims_page(
    assessed: Sequence[AssessedClaim], level: float, margin: float, titles: Mapping[str, str], registration: str = ""
) -> str:
    """Markdown: the verdicts first, then how they come about, then every comparison."""
    return PAGES.get_template("templates/claims.md.j2").render(
        heading=whose_claims(claim["claim"] for claim in assessed),
        claims=assessed,
        registration=registration,
        alpha=f"{round(1 - level, 10):g}",
        percent=f"{100 * level:g}",
        margin=f"{margin:g}",
        verdicts=verdicts_table(assessed, margin),
        label=lambda claim: claim_label(claim, margin),
        overall=overall_line,
        margin_percent=f"{200 * level - 100:g}",
        matched=lambda claim: matched_table(claim, titles) if "beyond_length" in claim else None,
        comparisons=lambda claim, part: comparisons_table(claim, part, titles),
    )
