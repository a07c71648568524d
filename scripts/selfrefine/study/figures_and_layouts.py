"""Which figures and laid-out tables a study's design gives content to, and what each reads."""

from collections.abc import Collection, Sequence

from selfrefine.schema.results import CheckpointFacts

# By kind, the tables that a figure is drawn from. Kinds with one figure per student are followed by the student's name.
FIGURES = {
    "accuracy": ("arms",),
    "in-family": ("arms",),
    "out-family": ("arms",),
    "low-resource": ("arms",),
    "selection": ("arms",),
    "lengths": ("lengths",),
    "solving": ("solving",),
    "pass-at-k": ("pass_at_k",),
    "yields": ("paths", "pairs", "solving"),
    "cost": ("costs",),
    "training": (),
    "claims": (),
    "flips": (),
}
LAYOUTS = {
    "transfer": ("arms",),
    "teachers": (),
    "prompts": (),
    "splits": (),
    "lengths": ("lengths",),
    "solving": ("solving",),
    "pass-at-k": ("pass_at_k",),
    "yields": ("pairs",),
    "cost": ("costs",),
    "chains": ("arms",),
}
OF_A_STUDENT = ("low-resource-", "selection-", "solving-", "pass-at-k-", "yields-", "transfer-")


def kind_of(name: str) -> tuple[str, str]:
    """(kind, student) of a figure or layout by its name; the student is "" where there is one for all."""
    for prefix in OF_A_STUDENT:
        if name.startswith(prefix):
            return prefix[:-1], name.removeprefix(prefix)
    return name, ""


def name_of(kind: str, student: str) -> str:
    """What a figure or layout is called."""
    return f"{kind}-{student}" if student else kind


def figures(
    checkpoints: Sequence[CheckpointFacts], evaluate: Sequence[str], samples: int = 1, online: Collection[str] = ()
) -> list[str]:
    """The figures of a study, from its checkpoints, the benchmarks that it evaluates on, and how often.

    `online`: the recipes and schedules that need no sampled paths.
    """
    shown = [row for row in checkpoints if is_in_domain(row, evaluate)]
    families = {row["family"] for row in shown}
    curves = [row for row in shown if row["task"] or row["refine_task"]]
    names = ["accuracy"]
    names += [f"{family}-family" for family in ("in", "out") if family in families]
    # Where the items of a share are chosen, the curves are those of the ways of choosing.
    if any(row.get("select") for row in curves):
        names += [f"selection-{student}" for student in students_of(curves)]
    elif len({row["share"] for row in curves}) > 1:
        names += [f"low-resource-{student}" for student in students_of(curves)]
    names += ["lengths"] if families - {""} else []
    names += [f"pass-at-k-{student}" for student in students_of(checkpoints) if samples > 1]
    refined = [row for row in checkpoints if row["refine_task"] and row["recipe"] not in online]
    names += [f"{kind}-{student}" for kind in ("solving", "yields") for student in students_of(refined)]
    return names + (["cost", "training", "claims", "flips"] if any(row["share"] for row in checkpoints) else [])


def layouts(
    checkpoints: Sequence[CheckpointFacts], samples: int = 1, online: Collection[str] = (), chains: bool = False
) -> list[str]:
    """The laid-out tables of a study, from its checkpoints, and how often an item is answered; `online` as above.

    `chains`: whether teachers differ in how they are asked.
    """
    names = [f"transfer-{student}" for student in students_of(checkpoints)]
    names += ["teachers", "prompts", "splits", "lengths"]
    paired = (row["refine_task"] and row["recipe"] not in online for row in checkpoints)
    names += ["solving", "yields"] if any(paired) else []
    names += [f"pass-at-k-{student}" for student in students_of(checkpoints) if samples > 1]
    names += ["chains"] if chains and any(row["teacher"] for row in checkpoints) else []
    return [*names, "cost"]


def is_in_domain(row: CheckpointFacts, evaluate: Sequence[str]) -> bool:
    """Whether a checkpoint was trained on one benchmark alone, and is evaluated on it."""
    tasks = {row["task"], row["refine_task"]} - {""}
    return len(tasks) == 1 and tasks <= set(evaluate)


def students_of(checkpoints: Sequence[CheckpointFacts]) -> list[str]:
    """The students of some checkpoints, each once."""
    return list(dict.fromkeys(row["student"] for row in checkpoints))
