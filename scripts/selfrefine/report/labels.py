"""What figures and tables call a checkpoint: who was instructed by whom on what, and refined."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypedDict

# What a difference from 0 is tested by.
TESTS = {"mcnemar": "McNemar's exact", "score": "paired score"}

# A space at which no line ends.
UNBROKEN = "\N{NO-BREAK SPACE}"
# Marks what had too few pairs to be refined; what a figure's legend and a table's caption say of it.
UNREFINED = "†"
SHORT_NOTE = f"{UNREFINED} too few pairs: not refined"
SOME_NOTE = f"{UNREFINED} too few pairs in some runs"
NOTE = (
    f"{UNREFINED}: too few pairs to learn from, or online no rewards that differed, so that the refinement left the "
    "student as it was."
)


class Trained(TypedDict, total=False):
    """What a checkpoint's training was; "" or absent where a fact does not apply."""

    student: str
    teacher: str
    task: str
    after: str
    """The preference recipes that it was refined with before."""
    refine_task: str
    recipe: str
    share: str
    select: str
    """How the items of the share were chosen."""
    seed: str


def named(claim: int | str, title: str) -> str:
    """A claim's title after its number, if it is the paper's, or its name."""
    return f"{claim}: {title}" if isinstance(claim, str) else f"{claim}. {title}"


def whose_claims(claims: Iterable[int | str]) -> str:
    """What a heading calls claims: the paper's, the study's own, or both."""
    kinds = {isinstance(claim, str) for claim in claims}
    if kinds == {True}:
        return "The study's claims"
    return "The paper's claims" + (" and the study's own" if True in kinds else "")


def several(rows: Iterable[Mapping[str, object]], *facts: str) -> set[str]:
    """The facts that have more than one value in the rows."""
    found: dict[str, set[str]] = {fact: set() for fact in facts}
    for row in rows:
        for fact in facts:
            found[fact].add(str(row.get(fact, "")))
    return {fact for fact, texts in found.items() if len(texts - {""}) > 1}


def unrefined_mark(row: Mapping[str, object], of: str = "seeds") -> str:
    """What follows the name of a row that had too few pairs to be refined, in some or all of its seeds."""
    number, whole = _unrefined(row, of)
    if not number:
        return ""
    # The mark stays in the line of the name.
    return f"{UNBROKEN}{UNREFINED}" + ("" if number >= whole else f" ({number} of {whole} {of})")


def unrefined_cell(row: Mapping[str, object], of: str = "seeds") -> str:
    """The same as a cell of its own: "1 of 3 seeds"; empty where all were refined."""
    number, whole = _unrefined(row, of)
    return f"{number} of {whole} {of if whole > 1 else of.removesuffix('s')}" if number else ""


def _unrefined(row: Mapping[str, object], of: str) -> tuple[int, int]:
    """How many of a row's checkpoints had too few pairs, and how many there are."""
    # A row of one seed is of one checkpoint, however many seeds its arm has.
    return int(str(row.get("unrefined") or 0)), 1 if "seed" in row else int(str(row.get(of) or 1))


def with_note(text: str, rows: Iterable[Mapping[str, object]], note: str = NOTE) -> str:
    """A caption, and what the mark means where a row has it."""
    return f"{text} {note}".lstrip() if any(unrefined_mark(row) for row in rows) else text


def ways_told(row: Mapping[str, Any]) -> str:
    """How the items of both sides of a comparison were chosen, such as "dpp − random"; "" where they were not."""
    ways = [str(row.get(fact, "")) for fact in ("select", "against_select")]
    if not any(ways):
        return ""
    return f"items by {ways[0]}" if ways[0] == ways[1] else f"items by {ways[0] or 'none'} − {ways[1] or 'none'}"


def checkpoint_label(facts: Mapping[str, object], titles: Mapping[str, str], shown: Collection[str]) -> str:
    """A checkpoint in words, such as "instructed by T on ASDiv, then refined".

    `shown`: which of teacher, recipe, share and seed are told. The student is not: a figure often has it elsewhere.
    """
    fact = {name: str(value) for name, value in facts.items()}
    teacher = f" by {fact['teacher']}" if fact.get("teacher") and "teacher" in shown else ""
    recipes = ", then ".join(name for name in (*fact.get("after", "").split(), fact.get("recipe", "")) if name)
    recipe = f" ({recipes})" if recipes and "recipe" in shown else ""
    task, refined = fact.get("task", ""), fact.get("refine_task", "")
    parts = []
    if task:
        parts.append(f"instructed{teacher} on {titles[task]}")
    if refined and task:
        parts.append(f"then refined{'' if refined == task else f' on {titles[refined]}'}{recipe}")
    elif refined:
        parts.append(f"refined on {titles[refined]} without instruction{recipe}")
    if not parts:
        return "baseline"
    chosen = f" by {fact['select']}" if fact.get("select") else ""
    parts += [f"{fact['share']} %{chosen}"] if fact.get("share") and ("share" in shown or chosen) else []
    parts += [f"seed {fact['seed']}"] if fact.get("seed") and "seed" in shown else []
    return ", ".join(parts)
