"""The summary of a study on one screen: verdicts, the most telling numbers, cost, where to look on."""

import textwrap
from collections.abc import Mapping, Sequence

from selfrefine.report.details import barren, differing, worse
from selfrefine.report.formats import PAGES, Rows, Table, in_markdown
from selfrefine.report.labels import UNBROKEN, UNREFINED, named, unrefined_mark, whose_claims
from selfrefine.report.paper_tables import grouped
from selfrefine.report.selection import in_domain, in_order, whole
from selfrefine.report.study_tables import StudyTables
from selfrefine.report.verdict_tables import points
from selfrefine.schema.claim_results import AssessedClaim
from selfrefine.schema.results import ArmRow, StageRow

Titles = Mapping[str, str]
# Of a screen; two lines are left to who prints it.
LINES, COLUMNS = 38, 100
# Lines of all but accuracies and warnings, and of what stands around the warnings.
OTHERS, WARNED = 29, 3
# Stages whose time is told one by one.
STAGES_TOLD = 3


def summary(
    tables: StudyTables,
    claims: Sequence[AssessedClaim],
    titles: Titles,
    counts_unrefined: bool,
    registration: str = "",
    flips: str = "",
) -> str:
    """The text, in Markdown; `counts_unrefined`: whether claims count refinements that had too few pairs.

    `flips` says in words how many verdicts flip under other choices.
    """
    warnings = warnings_of(tables, titles, counts_unrefined)
    registered = wrapped(in_markdown(registration)) if registration else []
    arms = tables.arms()
    groups = accuracies(arms, titles)
    others = OTHERS + (len(registered) + 1 if registered else 0) + (len(warnings) + WARNED if warnings else 0)
    shown, left = fitting(groups, LINES - others)
    return PAGES.get_template("templates/summary.md.j2").render(
        heading=whose_claims(claim["claim"] for claim in claims),
        verdicts=verdicts(claims),
        scope=scope(claims),
        registered=registered,
        level=f"{100 * arms[0]['level']:g}",
        groups=shown,
        left=left,
        cost=cost_lines(tables.stages()),
        warnings=warnings,
        flips=flips,
    )


def verdicts(claims: Sequence[AssessedClaim]) -> Table:
    """One row per claim; where the verdicts on the preference recipes differ, it says so."""
    rows: Rows = []
    for number, group in grouped(claims, lambda claim: claim["claim"]).items():
        found = {claim["verdict"] for claim in group}
        verdict = found.pop() if len(found) == 1 else "by recipe"
        rows.append([verdict, named(number, group[0]["title"])])
    return Table("claims", "", ["verdict", "claim"], rows, ["l", "l"])


def scope(claims: Sequence[AssessedClaim]) -> str:
    """What the verdicts are about."""
    tested = [claim["seeds"] for claim in claims if claim["seeds"]]
    return "for these checkpoints: one seed" if min(tested, default=1) == 1 else "for new seeds too"


def accuracies(rows: Sequence[ArmRow], titles: Titles) -> list[list[str]]:
    """By student, teacher and benchmark the accuracies of the baseline and the arms trained on it, as lines."""
    rows = in_order([row for row in in_domain(whole(rows)) if row["arm"] != "teacher"])
    bases = {(row["student"], row["evaluation"]): row for row in rows if row["arm"] == "baseline"}
    trained = sorted((row for row in rows if row["arm"] != "baseline"), key=lambda row: not row["teacher"])
    found = grouped(trained, lambda row: (row["student"], row["teacher"], row["evaluation"]))
    if not found:
        found = grouped(rows, lambda row: (row["student"], row["teacher"], row["evaluation"]))
        bases = {}
    lines = []
    for (student, teacher, task), group in found.items():
        chain = ([bases[student, task]] if (student, task) in bases else []) + group
        recipes = {row["recipe"] for row in group} - {""}
        numbers = [
            f"{row['arm']} ({row['recipe']}){unrefined_mark(row)} {interval(row)}"
            if row["recipe"] and len(recipes) > 1
            else f"{row['arm']}{unrefined_mark(row)} {interval(row)}"
            for row in chain
        ]
        by = f", instructed by {in_markdown(teacher)}" if teacher else ""
        seeds = max(row["seeds"] for row in group)
        head = f"- {in_markdown(student)}{by} on {in_markdown(titles[task])} ({group[0]['n']} items, {seeds} seed{'s' if seeds > 1 else ''}):"
        lines.append(
            [*wrapped(head, most=3), *wrapped(" → ".join(number.replace(" ", UNBROKEN) for number in numbers), "  ")]
        )
    return lines


def interval(row: ArmRow) -> str:
    """An accuracy in percent with its interval."""
    return f"{points(row['accuracy'])} [{points(row['low'])}, {points(row['high'])}]"


def wrapped(text: str, first: str = "", most: int = 2) -> list[str]:
    """A text in lines that fit the screen."""
    lines = textwrap.wrap(
        text, COLUMNS, initial_indent=first, subsequent_indent="  ", break_on_hyphens=False, max_lines=most
    )
    # An interval stays in the line of its number.
    return [line.replace(UNBROKEN, " ") for line in lines]


def fitting(groups: Sequence[list[str]], room: int) -> tuple[list[str], int]:
    """The lines of the first groups that fit the room, one at least, and how many groups are left out."""
    shown: list[str] = []
    for number, group in enumerate(groups):
        if shown and len(shown) + len(group) > room:
            return shown, len(groups) - number
        shown += group
    return shown, 0


def cost_lines(rows: Sequence[StageRow]) -> list[str]:
    """The time of all jobs one after the other, by stage, and their tokens and memory."""
    seconds = {
        stage: sum(row["wall_seconds"] for row in group)
        for stage, group in grouped(rows, lambda row: row["stage"]).items()
    }
    told = sorted(seconds, key=lambda stage: -seconds[stage])[:STAGES_TOLD]
    parts = ", ".join(f"{stage} {duration(seconds[stage])}" for stage in told)
    tokens, memory = sum(row["tokens"] for row in rows), max(row["peak_memory_mib"] for row in rows)
    return [
        f"{duration(sum(seconds.values()))} of jobs one after the other; most of it: {parts}.",
        f"{tokens:,} tokens generated or, in training, seen; at most {memory / 1024:.1f} GiB of memory in a job.",
    ]


def duration(seconds: float) -> str:
    """A time in the unit that tells it best."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def warnings_of(tables: StudyTables, titles: Titles, counts_unrefined: bool) -> list[str]:
    """What a reader must know before using the numbers."""
    pairs, differences = tables.pairs(), differing(tables.comparisons(), titles)
    told = "count them" if counts_unrefined else "leave them out"
    lines = []
    if empty := barren(pairs):
        line = f"{UNREFINED} {len(empty)} of {len(pairs)} refinements had too few pairs and left the student as it was"
        lines.append(f"{line}; claims {told}.")
    online = [row for row in tables.stages() if row["stage"] == "refine_online"]
    if idle := sum(row["unrefined"] for row in online):
        line = (
            f"{UNREFINED} {idle} of {len(online)} online refinements met no rewards that differed and learned nothing"
        )
        lines.append(f"{line}; claims {told}.")
    refinements = tables.refinements()
    if declined := worse(refinements):
        line = f"{len(declined)} of {len(refinements)} refinements kept weights worse at held-out pairs than others they had"
        lines.append(f"{line}: details.md.")
    if differences:
        lines.append("Versions or hardware differ between the two sides of some comparisons.")
    return lines
