"""Checkpoints: their names, the facts that a name gives, and their names in paths."""

from typing import NamedTuple

from selfrefine.schema.ways import percent_of, way_of

# How many parts the names of a base and of an instructed checkpoint have, and how many each refinement adds.
BASE, INSTRUCTED, REFINED = 2, 6, 5


def base(student: str) -> str:
    """The name of a student's base checkpoint."""
    return f"{student}/base"


def instructed(student: str, teacher: str, task: str, share: int | str, seed: int | str) -> str:
    """The name of an instructed checkpoint."""
    return f"{student}/instruct/{teacher}/{task}/{share}/{seed}"


def refined(start: str, task: str, recipe: str, share: int | str, seed: int | str) -> str:
    """The name of a refined checkpoint: its start's name, and the task and recipe of the refinement."""
    return f"{start}/refine/{task}/{recipe}/{share}/{seed}"


class Refinement(NamedTuple):
    """One refinement, by what its checkpoint's name says."""

    start: str
    task: str
    recipe: str
    share: str
    seed: str


def refinements_of(checkpoint: str) -> list[Refinement]:
    """The refinements that a checkpoint went through, the first one first."""
    start = origin_of(checkpoint)
    parts = checkpoint.split("/")[len(start.split("/")) :]
    found = []
    # By their places, not by the word: a name may be "refine", too.
    for place in range(0, len(parts), REFINED):
        found.append(Refinement(start, *parts[place + 1 : place + REFINED]))
        start = refined(*found[-1])
    return found


def facts_of(step: Refinement) -> dict[str, str]:
    """The facts of a refinement; `after` are the preference recipes of the steps before it."""
    teacher, task = (origin_of(step.start).split("/")[2:4] + ["", ""])[:2]
    return {
        "student": student_of(step.start),
        "teacher": teacher,
        "task": task,
        "after": " ".join(before.recipe for before in refinements_of(step.start)),
        "refine_task": step.task,
        "recipe": step.recipe,
        **_of_share(step.share),
        "seed": step.seed,
    }


def trained_facts(checkpoint: str) -> dict[str, str]:
    """What the training was that made a checkpoint, as `facts_of` says it; "" stands where a fact does not apply."""
    if steps := refinements_of(checkpoint):
        return facts_of(steps[-1])
    student, _, teacher, task, share, seed = checkpoint.split("/")
    facts = {"student": student, "teacher": teacher, "task": task, **_of_share(share), "seed": seed}
    return {**facts, "after": "", "refine_task": "", "recipe": ""}


def _of_share(share: str) -> dict[str, str]:
    """The facts of a named share; without `select` where nothing is chosen."""
    way = way_of(share)
    return {"share": str(percent_of(share)), **({"select": way} if way else {})}


def origin_of(checkpoint: str) -> str:
    """The name of the checkpoint that the first refinement of a checkpoint started from."""
    parts = checkpoint.split("/")
    return "/".join(parts[: BASE if parts[1] == "base" else INSTRUCTED])


def student_of(checkpoint: str) -> str:
    """The student that a checkpoint's name begins with."""
    return checkpoint.split("/", 1)[0]


def teacher_of(checkpoint: str) -> str | None:
    """The teacher that a checkpoint was instructed by, None for one that was not."""
    parts = checkpoint.split("/")
    return parts[2] if len(parts) > 2 and parts[1] == "instruct" else None


def names_of(checkpoint: str) -> tuple[str, ...]:
    """A checkpoint's names in paths, as few for its twentieth refinement as for its first."""
    student, teacher = student_of(checkpoint), teacher_of(checkpoint)
    steps = refinements_of(checkpoint)
    if not steps and teacher is None:
        return student, "base"
    if not steps:
        task, share, seed = checkpoint.split("/")[3:6]
        return student, f"{teacher}-{task}-{share}-seed{seed}"
    step, origin = steps[-1], origin_of(checkpoint)
    before = f"{teacher}-{origin.split('/')[3]}" if teacher else "base"
    return student, f"{before}-{step.share}-seed{step.seed}", f"{step.task}-{step.recipe}-round{len(steps)}"
