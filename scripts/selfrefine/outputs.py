"""Which figures and laid-out tables a study has: those that its design gives content to, and what each is made of."""

# By kind, the tables that a figure is drawn from. A student's name follows the kinds of which each student has one.
FIGURES = {
    "accuracy": ("arms",),
    "matrix": ("arms",),
    "in-family": ("arms",),
    "out-family": ("arms",),
    "low-resource": ("arms",),
    "lengths": ("lengths",),
    "solving": ("solving",),
    "yields": ("paths", "pairs", "solving"),
    "cost": ("costs",),
    "training": (),
}
LAYOUTS = {
    "transfer": ("arms",),
    "teachers": (),
    "prompts": (),
    "splits": (),
    "lengths": ("lengths",),
    "solving": ("solving",),
    "yields": ("pairs",),
    "cost": ("costs",),
}
OF_A_STUDENT = ("low-resource-", "solving-", "yields-", "transfer-")


def kind_of(name: str) -> tuple[str, str]:
    """(kind, student) of a figure or layout by its name; the student is "" where there is one for all."""
    for prefix in OF_A_STUDENT:
        if name.startswith(prefix):
            return prefix[:-1], name.removeprefix(prefix)
    return name, ""


def figures(checkpoints: list[dict], evaluate: list[str]) -> list[str]:
    """The figures of a study, from its checkpoints and the benchmarks that it evaluates on."""
    shown = [row for row in checkpoints if is_in_domain(row, evaluate)]
    families = {row["family"] for row in shown}
    curves = [row for row in shown if row["task"] or row["refine_task"]]
    names = ["accuracy", "matrix"]
    names += [f"{family}-family" for family in ("in", "out") if family in families]
    if len({row["share"] for row in curves}) > 1:
        names += [f"low-resource-{student}" for student in students_of(curves)]
    names += ["lengths"] if families - {""} else []
    refined = [row for row in checkpoints if row["refine_task"]]
    names += [f"{kind}-{student}" for kind in ("solving", "yields") for student in students_of(refined)]
    return names + (["cost", "training"] if any(row["share"] for row in checkpoints) else [])


def layouts(checkpoints: list[dict]) -> list[str]:
    """The laid-out tables of a study, from its checkpoints."""
    names = [f"transfer-{student}" for student in students_of(checkpoints)]
    names += ["teachers", "prompts", "splits", "lengths"]
    names += ["solving", "yields"] if any(row["refine_task"] for row in checkpoints) else []
    return [*names, "cost"]


def is_in_domain(row: dict, evaluate: list[str]) -> bool:
    """Whether a checkpoint was trained on one benchmark alone, and is evaluated on it."""
    tasks = {row["task"], row["refine_task"]} - {""}
    return len(tasks) == 1 and tasks <= set(evaluate)


def students_of(checkpoints: list[dict]) -> list[str]:
    """The students of some checkpoints, each once."""
    return list(dict.fromkeys(row["student"] for row in checkpoints))


def layout_recipe(study, name: str) -> dict:
    """What the layout stage reads of a study to lay out one table; `study` is a `selfrefine.study.Study`."""
    kind, student = kind_of(name)
    recipe = {"layout": kind, "student": student, "titles": {}, "rows": [], "level": None, "extractor": ""}
    if kind == "prompts":
        return recipe | {"rows": prompts_of(study)}
    if kind == "teachers":
        recipe |= {"rows": answers_of(study), "level": study.statistics.level, "extractor": study.extractor}
    if kind == "splits":
        recipe |= {"rows": splits_of(study)}
    return recipe if kind == "cost" else recipe | {"titles": study.titles()}


def figure_files(name: str) -> list[str]:
    """The tables that a figure is drawn from, or the list of the logs that it is drawn from."""
    kind, _ = kind_of(name)
    return [f"results/tables/{table}.csv" for table in FIGURES[kind]] or ["results/index/training.json"]


def layout_files(study, name: str) -> list[str]:
    """The files that a laid-out table is made of."""
    recipe = layout_recipe(study, name)
    named = {row[key] for row in recipe["rows"] for key in ("answers", "items", "record") if key in row}
    return [*(f"results/tables/{name}.csv" for name in LAYOUTS[recipe["layout"]]), *sorted(named)]


def answers_of(study) -> list[dict]:
    """The teachers' answers that a study has, {teacher, task, split, style, answers}."""
    own = [cell["samples"] for cell in study.cells() if cell["arm"] == "teacher"]
    rows = []
    for path in sorted([*study.index()["answers"], *own]):
        teacher, task, name = path.split("/")[-3:]
        split, _ = name.removesuffix(".jsonl").split("-")
        for style in study.study.teacher_styles:
            answers = f"results/completions/{teacher}/{task}/{split}-{style}.jsonl"
            rows.append({"teacher": teacher, "task": task, "split": split, "style": style, "answers": answers})
    return rows


def prompts_of(study) -> list[dict]:
    """What is asked of each teacher and student, {name, kind, style, prompt, request, system, items}, by kind of benchmark."""
    checkpoints = study.checkpoints()
    styles = {study.evaluation.style}
    styles |= {"cot"} if any(row["task"] for row in checkpoints) else set()
    styles |= {"cot", "plain"} if any(row["refine_task"] for row in checkpoints) else set()
    asked = [
        (name, study.teachers[name], style) for style in study.study.teacher_styles for name in study.study.teachers
    ]
    asked += [(name, study.students[name], style) for style in sorted(styles) for name in study.study.students]
    examples: dict[str, str] = {}
    for task in study.study.evaluate:
        examples.setdefault(study.benchmarks[task].kind, task)
    return [
        {
            "name": name,
            "kind": kind,
            "style": style,
            "prompt": study.prompts[kind].model_dump(),
            "request": getattr(model, "request", {}).get(kind, "") if style == "cot" else "",
            "system": model.system,
            "items": f"results/benchmarks/{task}/test.jsonl",
        }
        for kind, task in examples.items()
        for name, model, style in asked
    ]


def splits_of(study) -> list[dict]:
    """The splits that a study uses, {task, split, items, record}."""
    trained = {task for row in study.checkpoints() for task in (row["task"], row["refine_task"]) if task}
    used = [(task, "train") for task in study.study.tasks if task in trained]
    used += [(task, "test") for task in study.study.evaluate]
    return [
        {
            "task": task,
            "split": split,
            "items": f"results/benchmarks/{task}/{split}.jsonl",
            "record": f"results/benchmarks/{task}/{split}.provenance.json",
        }
        for task, split in sorted(used, key=lambda pair: (pair[0], pair[1] == "test"))
    ]
