"""The rerun matrix: for each change, the jobs that must run, written by hand, against those that Snakemake plans.

`pytest tests/test_reruns.py -s -k precision` prints precision and recall over the whole matrix.
"""

import concurrent.futures
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from conftest import REPOSITORY, environment, make_study, run
from forks import SNAKEMAKE, Forks

TASKS = ("boxes", "far")
STUDENTS = ("tiny", "twin")


@pytest.fixture(scope="session")
def study(tmp_path_factory, tiny_model) -> Path:
    """A finished study of two students on one training task, its code copied so that it can be edited."""
    folder = tmp_path_factory.mktemp("matrix") / "study"
    folder.mkdir()
    path, config = make_study(folder, tiny_model)
    shutil.copytree(tiny_model, folder / "model")
    config["models"]["tiny"]["source"] = "file:model"
    config["study"]["students"] = list(STUDENTS)
    config["students"]["twin"] = dict(config["students"]["tiny"])
    path.write_text(yaml.dump(config, Dumper=yaml.SafeDumper, sort_keys=False))
    for name in ("rules", "scripts", "report", "envs", "profiles"):
        (folder / name).unlink()
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", *(f"config/{name}.yaml" for name in ("benchmarks", "recipes", "assumptions"))):
        (folder / name).unlink()
        shutil.copyfile(REPOSITORY / name, folder / name)
    run("snakemake", "--cores", "2", "--configfile", "config/tiny.yaml", cwd=folder)
    return folder


# What follows from what, in the study above: from the artifact that changes to the last table.

# Figures and laid-out tables that name benchmarks, and those that do not.
DRAWN = {"plot accuracy", "plot matrix", "plot out-family", "plot lengths"}
DRAWN |= {f"plot {figure}-{student}" for figure in ("solving", "yields") for student in STUDENTS}
LAID_OUT = {"layout lengths", "layout solving", "layout yields"} | {
    f"layout transfer-{student}" for student in STUDENTS
}
FROM_TABLES = {"tables", "plot cost", "layout cost", "summarise"} | DRAWN | LAID_OUT
# The claims are tested on the judged answers themselves, not on tables.
REPORT = {"claims"} | FROM_TABLES


def report(*more: str, without: tuple[str, ...] = ()) -> set[str]:
    """What follows from the tables in a study with more figures, or without those whose names end so."""
    return {job for job in REPORT if not job.endswith(without)} | set(more)


def evaluations(students=STUDENTS, arms=("baseline", "instruct", "refine"), tasks=TASKS) -> set[str]:
    return {f"evaluate {student} {arm} {task}" for student in students for arm in arms for task in tasks} | REPORT


def of_each(stage: str, students) -> set[str]:
    return {f"{stage} {student}" for student in students}


def from_refine(students=STUDENTS) -> set[str]:
    return of_each("refine", students) | {"plot training"} | evaluations(students, ("refine",))


def from_pair(students=STUDENTS) -> set[str]:
    return of_each("pair", students) | {"read"} | from_refine(students)


def from_sample(students=STUDENTS) -> set[str]:
    return of_each("sample", students) | from_pair(students)


def from_instruct(students=STUDENTS) -> set[str]:
    return of_each("instruct", students) | evaluations(students, ("instruct",)) | from_sample(students)


def from_base(students=STUDENTS) -> set[str]:
    return of_each("base", students) | evaluations(students) | from_instruct(students)


FROM_MODEL = {"fetch_model tiny"} | from_base()
FROM_DEMONSTRATE = {"demonstrate boxes"} | from_instruct()
FROM_TEACH_TRAIN = {"teach boxes train", "layout teachers"} | FROM_DEMONSTRATE
TEACH_TESTS = {"teach boxes test", "teach far test", "layout teachers"} | REPORT
# The training items are read by the teacher, by both trainings, by sampling and on the page.
FROM_PREPARE_TRAIN = {"prepare boxes train", "layout splits"} | FROM_TEACH_TRAIN
FROM_PREPARE_FAR = {
    "prepare far test",
    "export_task far",
    "teach far test",
    "layout teachers",
    "layout splits",
} | evaluations(tasks=["far"])
# Training items are kept apart from the test items.
FROM_PREPARE_BOXES = (
    {"prepare boxes test", "export_task boxes", "teach boxes test", "layout prompts"}
    | evaluations(tasks=["boxes"])
    | FROM_PREPARE_TRAIN
)
FROM_EXPORT = {"export_task boxes", "export_task far"} | evaluations()
FROM_FETCH = {"fetch boxes", "fetch far"} | FROM_PREPARE_BOXES | FROM_PREPARE_FAR
EVERYTHING = FROM_FETCH | FROM_MODEL
LISTINGS = {"index tables", "index training", "index reading"}
NEW_ROWS = LISTINGS | REPORT | {"plot training", "read"}


def settings(edit):
    """A change of the configuration."""

    def change(folder: Path) -> None:
        path = folder / "config/tiny.yaml"
        config = yaml.safe_load(path.read_text())
        edit(config)
        path.write_text(yaml.safe_dump(config, sort_keys=False))

    return change


def put(keys: str, value):
    """Sets one key of the configuration."""

    def edit(config: dict) -> None:
        *path, last = keys.split("/")
        for key in path:
            config = config.setdefault(key, {})
        config[last] = value

    return settings(edit)


def replace(name: str, old: str, new: str):
    """A change of a text file."""

    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert text.count(old) >= 1, f"{name} holds no {old!r}"
        (folder / name).write_text(text.replace(old, new, 1))

    return change


INSTRUCTED = "results/checkpoints/tiny/instruct/oracle/boxes/100/0"
REFINED = f"{INSTRUCTED}/refine/boxes/cot/100/0"
PAIRS = "results/pairs/tiny/instruct/oracle/boxes/100/0/boxes/cot/100/0"
PATHS = "results/paths/tiny/instruct/oracle/boxes/100/0/boxes/100/0"


def remove(*names: str):
    return lambda folder: [(folder / name).unlink() for name in names]


def truncate(name: str):
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def corrupt(name: str):
    """Changes one byte in the middle; the size stays."""

    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return change


def several(*changes):
    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


CONFIGURATION = {
    # The study's design: entries added and taken away.
    "study.students: one less": (
        put("study/students", ["tiny"]),
        (NEW_ROWS - REPORT) | report("layout prompts", without=("-twin",)) | {"sources_table"},
    ),
    "study.students: one more": (
        several(
            put("students/third", {"model": "tiny", "family": "tiny", "dtype": "float32", "batch_size": 16}),
            put("study/students", ["tiny", "twin", "third"]),
        ),
        NEW_ROWS
        | {"sources_table", "layout prompts", "layout transfer-third", "plot solving-third", "plot yields-third"}
        | from_base(["third"]),
    ),
    "study.teachers: one more": (
        several(
            put("teachers/second", {"family": "x", "engine": "recorded", "recording": "oracle.jsonl"}),
            put("study/teachers", ["oracle", "second"]),
        ),
        NEW_ROWS
        | {f"teach boxes {split} second" for split in ("train", "test")}
        | {"teach far test second", "demonstrate boxes second", "layout teachers", "layout prompts"}
        | {f"{stage} {student} second" for stage in ("instruct", "sample", "pair", "refine") for student in STUDENTS}
        | {f"evaluate {s} {arm} {task} second" for s in STUDENTS for arm in ("instruct", "refine") for task in TASKS},
    ),
    "study.tasks: one more": (
        put("study/tasks", ["boxes", "far"]),
        NEW_ROWS
        | {"prepare far train", "teach far train", "demonstrate far", "layout teachers", "layout splits"}
        | {f"{stage} {student} on far" for stage in ("instruct", "sample", "pair", "refine") for student in STUDENTS}
        | {f"evaluate {s} {arm} {task} on far" for s in STUDENTS for arm in ("instruct", "refine") for task in TASKS},
    ),
    "study.evaluate: one less": (
        put("study/evaluate", ["boxes"]),
        {"index tables", "sources_table", "layout teachers", "layout splits"} | REPORT,
    ),
    "study.arms: refine-only": (
        put("study/arms", ["baseline", "instruct", "refine", "refine-only"]),
        NEW_ROWS
        | {f"{stage} {student} alone" for stage in ("sample", "pair", "refine") for student in STUDENTS}
        | {f"evaluate {student} refine alone {task}" for student in STUDENTS for task in TASKS},
    ),
    "study.arms: no refine": (
        put("study/arms", ["baseline", "instruct"]),
        (NEW_ROWS - REPORT)
        | {job for job in REPORT if "solving" not in job and "yields" not in job}
        | {"layout prompts"},
    ),
    "study.arms: another order": (put("study/arms", ["refine", "instruct", "baseline"]), set()),
    "study.recipes: one more": (
        put("study/recipes", ["cot", "correctness"]),
        NEW_ROWS
        | {f"{stage} {student} correctness" for stage in ("pair", "refine") for student in STUDENTS}
        | {f"evaluate {student} refine {task} correctness" for student in STUDENTS for task in TASKS},
    ),
    "study.shares: one more": (
        put("study/shares", [100, 50]),
        NEW_ROWS
        | {f"plot low-resource-{student}" for student in STUDENTS}
        | {f"{stage} {student} 50%" for stage in ("instruct", "sample", "pair", "refine") for student in STUDENTS}
        | {f"evaluate {s} {arm} {task} 50%" for s in STUDENTS for arm in ("instruct", "refine") for task in TASKS},
    ),
    "study.seeds: one more": (
        put("study/seeds", [0, 1]),
        NEW_ROWS
        | {f"{stage} {student} seed 1" for stage in ("instruct", "sample", "pair", "refine") for student in STUDENTS}
        | {f"evaluate {s} {arm} {task} seed 1" for s in STUDENTS for arm in ("instruct", "refine") for task in TASKS},
    ),
    "study.transfer_shares: none": (put("study/transfer_shares", []), {"index tables"} | REPORT),
    "study.transfer_shares: all, by name": (put("study/transfer_shares", [100]), set()),
    "study.shares: one more, kept to its own benchmark": (
        several(put("study/shares", [100, 50]), put("study/transfer_shares", [100])),
        NEW_ROWS
        | {f"plot low-resource-{student}" for student in STUDENTS}
        | {f"{stage} {student} 50%" for stage in ("instruct", "sample", "pair", "refine") for student in STUDENTS}
        | {f"evaluate {student} {arm} boxes 50%" for student in STUDENTS for arm in ("instruct", "refine")},
    ),
    "study.teacher_styles": (
        put("study/teacher_styles", ["cot", "plain"]),
        {f"teach {split} plain" for split in ("boxes train", "boxes test", "far test")}
        | {"layout teachers", "layout prompts"},
    ),
    # Models, students, teachers.
    "models.licence": (put("models/tiny/licence", "MIT"), {"sources_table", "summarise"}),
    "models: an entry that nothing uses": (put("models/unused", {"source": "file:nowhere.gguf"}), set()),
    "models.source: another name of the same files": (
        several(
            lambda folder: shutil.copytree(folder / "model", folder / "copy"), put("models/tiny/source", "file:copy")
        ),
        {"sources_table"} | FROM_MODEL,
    ),
    "students: an entry that nothing uses": (put("students/idle", {"model": "tiny", "family": "x"}), set()),
    "students.family": (put("students/twin/family", "oracle"), {"index tables", "plot in-family"} | REPORT),
    "students.system": (
        put("students/twin/system", "Be brief."),
        {"layout prompts"} | from_base(["twin"]) - {"base twin"},
    ),
    "students.dtype": (put("students/twin/dtype", "bfloat16"), from_base(["twin"]) - {"base twin"}),
    "students.quantisation": (put("students/twin/quantisation", "nf4"), from_base(["twin"]) - {"base twin"}),
    "students.batch_size": (
        put("students/twin/batch_size", 8),
        evaluations(["twin"]) | from_sample(["twin"]),
    ),
    "students.instruct.learning_rate": (
        put("students/twin/instruct", {"learning_rate": 0.01}),
        from_instruct(["twin"]),
    ),
    "students.instruct.method": (put("students/twin/instruct", {"method": "full"}), from_instruct(["twin"])),
    "students.refine.beta": (put("students/twin/refine", {"beta": 0.2}), from_refine(["twin"])),
    "students.refine.lora.r": (put("students/tiny/refine", {"lora": {"r": 8}}), from_refine(["tiny"])),
    "teachers.family": (
        put("teachers/oracle/family", "tiny"),
        {"index tables", "plot in-family"} | REPORT - {"plot out-family"},
    ),
    "teachers.system": (
        put("teachers/oracle/system", "Be right."),
        {"layout prompts"} | FROM_TEACH_TRAIN | TEACH_TESTS,
    ),
    "teachers.request": (
        put("teachers/oracle/request", {"choice": "Be brief."}),
        {"layout prompts"} | FROM_TEACH_TRAIN | TEACH_TESTS,
    ),
    "teachers.request of another kind": (put("teachers/oracle/request", {"math": "Be brief."}), set()),
    "teachers.generation": (put("teachers/oracle/generation/max_tokens", 20), FROM_TEACH_TRAIN | TEACH_TESTS),
    "teachers.engine": (
        several(put("teachers/oracle/engine", "transformers"), put("teachers/oracle/model", "tiny")),
        {"sources_table"} | FROM_TEACH_TRAIN | TEACH_TESTS,
    ),
    "teachers.engine: vllm": (
        several(put("teachers/oracle/engine", "vllm"), put("teachers/oracle/model", "tiny")),
        {"sources_table"} | FROM_TEACH_TRAIN | TEACH_TESTS,
    ),
    # One engine generates for all students; what it takes of the machine shapes nothing.
    "engine": (put("engine", "vllm"), from_sample() | evaluations()),
    "vllm.memory": (put("vllm/memory", 0.5), set()),
    "vllm.batch_invariant": (put("vllm/batch_invariant", True), set()),
    # Benchmarks and prompts.
    "benchmarks.title": (
        put("benchmarks/far/title", "Farther"),
        {"layout teachers", "layout splits", "summarise", "claims"} | DRAWN | LAID_OUT,
    ),
    "benchmarks.files.licence": (put("benchmarks/far/files/all/licence", "CC0"), {"sources_table", "summarise"}),
    "benchmarks.files.sha256": (
        put("benchmarks/far/files/all/sha256", "0" * 64),
        {"fetch far", "sources_table"} | FROM_PREPARE_FAR,
    ),
    "benchmarks.splits.test.size": (put("benchmarks/far/splits/test/size", 8), FROM_PREPARE_FAR),
    "benchmarks.splits.train.size": (put("benchmarks/boxes/splits/train/size", 28), FROM_PREPARE_TRAIN),
    "benchmarks.splits.train of a task that is not trained on": (put("benchmarks/far/splits/train/size", 28), set()),
    "benchmarks.near_duplicate": (put("benchmarks/boxes/near_duplicate", 0.9), FROM_PREPARE_BOXES),
    "benchmarks.fields": (put("benchmarks/far/fields/choices", ["two", "one"]), FROM_PREPARE_FAR),
    "benchmarks: an entry that the study does not use": (
        put("benchmarks/asdiv/title", "Another name"),
        set(),
    ),
    "prompts.instruction": (
        put("prompts/choice/instruction", "Pick from {labels}."),
        {"layout prompts"} | FROM_TEACH_TRAIN | TEACH_TESTS | FROM_EXPORT,
    ),
    "prompts of a kind that the study does not use": (put("prompts/math/instruction", "Reckon."), set()),
    # The stages' settings.
    "recipes.chosen": (put("recipes/cot/chosen/verdict", "any"), from_pair()),
    "recipes.cited": (put("recipes/cot/cited", "a paper"), set()),
    "recipes: one that is not used": (put("recipes/correctness/per_item", 2), set()),
    "demonstrations.keep_wrong": (put("demonstrations/keep_wrong", True), FROM_DEMONSTRATE),
    "sampling.cot": (put("sampling/cot", 2), from_sample()),
    "sampling.generation.temperature": (put("sampling/generation/temperature", 0.5), from_sample()),
    "validation": (put("validation", 0.25), from_pair()),
    "instruct.epochs": (put("instruct/epochs", 2), from_instruct()),
    "instruct.lora.alpha": (put("instruct/lora/alpha", 8), from_instruct()),
    "instruct.save_every": (put("instruct/save_every", 7), from_instruct()),
    "refine.learning_rate": (put("refine/learning_rate", 0.002), from_refine()),
    "recipes.objective": (put("recipes/cot/objective", {"loss": "ipo"}), from_refine()),
    "evaluation.max_tokens": (put("evaluation/max_tokens", 10), FROM_EXPORT),
    "evaluation.style": (put("evaluation/style", "plain"), FROM_EXPORT),
    "extractor": (put("extractor", "legacy"), FROM_TEACH_TRAIN | TEACH_TESTS | from_sample()),
    "statistics.level": (put("statistics/level", 0.9), {"layout teachers"} | REPORT),
    "statistics.margin": (put("statistics/margin", 3), {"claims"}),
    "threads": (put("threads", {"train": 2, "generate": 2, "evaluate": 2}), set()),
    "two keys at once": (
        several(put("refine/beta", 0.3), put("benchmarks/far/splits/test/size", 9)),
        from_refine() | FROM_PREPARE_FAR,
    ),
}
# Every change of the configuration is written into results/configuration.yaml, defaults included.
CONFIGURATION = {name: (change, jobs | {"configuration"}) for name, (change, jobs) in CONFIGURATION.items()}
# But for what only says what jobs ask a cluster for.
CARDS = {"gpu_memory": 24, "gpu_tflops": 125, "gpus_per_node": 8, "longest_hours": 2, "time_factor": 5}
CONFIGURATION |= {
    "cluster": (several(put("models/tiny/parameters", 0.0001), put("cluster", CARDS)), set()),
    "cluster.longest_hours, without cards": (put("cluster/longest_hours", 2), set()),
    "models.parameters": (put("models/tiny/parameters", 7), set()),
    "models.active": (put("models/tiny/active", 7), set()),
    "models.vocabulary": (put("models/tiny/vocabulary", 420), set()),
    "models.kv_share": (put("models/tiny/kv_share", 0.5), set()),
}


def rewrite(**options):
    """Writes the same configuration differently."""

    def change(folder: Path) -> None:
        path = folder / "config/tiny.yaml"
        path.write_text(yaml.dump(yaml.safe_load(path.read_text()), Dumper=yaml.SafeDumper, **options))

    return change


def copy_in_odd_order(folder: Path) -> None:
    """Leaves outputs older than their inputs, as a copy may."""
    for age, path in enumerate(sorted(folder.rglob("*"), reverse=True)):
        if path.is_file():
            os.utime(path, (1_500_000_000 + age, 1_500_000_000 + age))


def clone(folder: Path) -> None:
    """The repository anew, the results copied beside it, without Snakemake's folder."""
    shutil.rmtree(folder / ".snakemake")
    for path in [*folder.rglob("*.py"), *folder.rglob("*.smk"), *folder.rglob("*.yaml"), folder / "Snakefile"]:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)


def write_numbers_otherwise(folder: Path) -> None:
    path = folder / "config/tiny.yaml"
    text = path.read_text().replace("0.001", "1.0e-03").replace("margin: 5", "margin: 0x5")
    assert text != path.read_text()
    path.write_text(text)


def another_profile(folder: Path) -> None:
    (folder / "profiles/default/config.yaml").write_text("cores: 1\nshow-failed-logs: false\nkeep-going: true\n")


INNOCENT = {
    "nothing": lambda folder: None,
    "touch every file": lambda folder: [path.touch() for path in folder.rglob("*") if path.is_file()],
    "touch one input": lambda folder: (folder / "boxes.jsonl").touch(),
    "modification times in the wrong order": copy_in_odd_order,
    "a fresh clone": clone,
    "no .snakemake": lambda folder: shutil.rmtree(folder / ".snakemake"),
    "keys in another order": rewrite(sort_keys=True),
    "flow style": rewrite(default_flow_style=True),
    "other indents": rewrite(width=20, indent=6),
    "numbers written otherwise": write_numbers_otherwise,
    "a comment in the configuration": replace("config/tiny.yaml", "study:", "# what is compared\nstudy:"),
    "a default written out": put("refine/beta", 0.1),
    "another profile": another_profile,
    "logs gone": lambda folder: shutil.rmtree(folder / "logs"),
    "a file beside the results": lambda folder: (folder / "results/notes.txt").write_text("mine"),
    "a source that has vanished": remove("boxes.jsonl"),
}


def change_function(name: str):
    """Adds a statement to a function of the library, `module.function`."""
    module, _, function = name.rpartition(".")

    def change(folder: Path) -> None:
        base = folder / "scripts/selfrefine" / module
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        text = path.read_text()
        found = re.search(rf"^( *)def {function}\(.*?\)( -> .*?)?:\n(?= )", text, re.DOTALL | re.MULTILINE)
        assert found, name
        path.write_text(f"{text[: found.end()]}{found[1]}    changed = True\n{text[found.end() :]}")

    return change


LAYOUTS = {f"layout {name}" for name in ("teachers", "prompts", "splits", "cost")} | LAID_OUT


# One change of behaviour in each script: its stage, and what follows.
SCRIPTS = {
    "fetch": ("fetch(args.recipe, args.output)", FROM_FETCH),
    "fetch_model": ('prefix=".fetch-"', FROM_MODEL),
    "prepare": ("**counts)", FROM_PREPARE_BOXES | FROM_PREPARE_FAR),
    "base": ('"base"', from_base()),
    "teach": ("{recipe.style}", FROM_TEACH_TRAIN | TEACH_TESTS),
    "demonstrate": ("is kept", FROM_DEMONSTRATE),
    "instruct": ("completion_only_loss=True", from_instruct()),
    "sample": ('"sample paths"', from_sample()),
    "pair": ("or loosen the recipe", from_pair()),
    "refine": ('"greater_is_better": False', from_refine()),
    "export_task": ("folder = args.yaml.parent", FROM_EXPORT),
    "evaluate": ("run again", evaluations()),
    "tables": ('"%.6g"', FROM_TABLES),
    "claims": ("# The paper's claims", {"claims"}),
    "plot": ("RESOLUTION = 200", {"plot cost", "plot training"} | DRAWN),
    "layout": ('"md": table', LAYOUTS),
    "summarise": ("# Summary of the study", {"summarise"}),
    "read": ("#ccc", {"read"}),
    "record": ("KEPT = (", set()),
    "progress": ('default=Path("logs")', set()),
}
NEW_TEXT = {
    "fetch(args.recipe, args.output)": "fetch(args.recipe, Path(args.output))",
    'prefix=".fetch-"': 'prefix=".get-"',
    "**counts)": "**counts, more=1)",
    '"base"': '"start"',
    "{recipe.style}": "{recipe.style}ly",
    "is kept": "stays",
    "completion_only_loss=True": "completion_only_loss=False",
    '"sample paths"': '"sample"',
    "or loosen the recipe": "or another recipe",
    '"greater_is_better": False': '"greater_is_better": True',
    "folder = args.yaml.parent": "folder = Path(args.yaml).parent",
    "run again": "again",
    '"%.6g"': '"%.7g"',
    "# The paper's claims": "# What the paper claims",
    "RESOLUTION = 200": "RESOLUTION = 300",
    '"md": table': '"md": "" + table',
    "# Summary of the study": "# The study",
    "#ccc": "#ddd",
    "KEPT = (": 'KEPT = ("more", ',
    'default=Path("logs")': 'default=Path("log")',
}
# One change in each module of the library: the stages that call the function, and what follows.
LIBRARY = {
    "answers.extract": FROM_TEACH_TRAIN | TEACH_TESTS | from_sample() | FROM_EXPORT,
    "arms.read_table": {"plot cost", "plot training", "summarise"} | DRAWN | LAYOUTS,
    "arms.in_domain": {"plot cost", "plot training", "summarise"} | DRAWN | LAYOUTS,
    "claims.comparisons_of": {"claims"},
    "claims.judge": {"claims"},
    "costs.costs_table": FROM_TABLES,
    "curves.draw_cost": {"plot cost", "plot training"} | DRAWN,
    "figures.grid": {"plot cost", "plot training"} | DRAWN,
    "formats.escape": {"summarise", "claims"} | LAYOUTS,
    # A method of a class that others reach: a class counts as a whole.
    "formats.csv": {"summarise", "claims"} | LAYOUTS,
    "layout.cost": {"summarise"} | LAYOUTS,
    "layout.prompts": LAYOUTS,
    "lengths.lengths_table": FROM_TABLES,
    "outputs.layout_recipe": set(),
    "links.check_outputs": set(),
    "lineage.trace": set(),
    "overview.draw_matrix": {"plot cost", "plot training"} | DRAWN,
    "attempts.pass_at_k": FROM_TABLES,
    "solving.summarised": FROM_TABLES,
    "jobs.jobs_of": FROM_TABLES,
    "benchmarks.prepare": FROM_PREPARE_BOXES | FROM_PREPARE_FAR,
    "benchmarks.near_duplicates": FROM_PREPARE_BOXES | FROM_PREPARE_FAR,
    "benchmarks.subset": from_instruct(),
    "benchmarks.read_items": FROM_PREPARE_BOXES | FROM_PREPARE_FAR,
    "checkpoints.write_manifest": from_base(),
    # What reads the command line and keeps the records does not shape what a job makes.
    "cli.run": set(),
    "provenance.record": set(),
    "provenance.made": set(),
    "engines.complete": FROM_TEACH_TRAIN | TEACH_TESTS | from_sample() | evaluations(),
    "engines.seed_for": FROM_TEACH_TRAIN | TEACH_TESTS | from_sample(),
    "engines/local.generate": FROM_TEACH_TRAIN | TEACH_TESTS | from_sample() | evaluations(),
    "engines/recorded.generate": FROM_TEACH_TRAIN | TEACH_TESTS,
    "engines/tokens.finish": FROM_TEACH_TRAIN | TEACH_TESTS | from_sample() | evaluations(),
    "engines/vllm.generate": FROM_TEACH_TRAIN | TEACH_TESTS | from_sample() | evaluations(),
    "engines/weights.open_checkpoint_engine": from_sample() | evaluations(),
    "engines/weights.open_model_engine": FROM_TEACH_TRAIN | TEACH_TESTS,
    "evaluation.evaluate": evaluations(),
    "files.write_jsonl": EVERYTHING,
    "fingerprint.fingerprint": set(),
    "models.convert_gguf": FROM_MODEL,
    "models.load_checkpoint": from_sample() | evaluations(),
    "models.load_model": FROM_TEACH_TRAIN | TEACH_TESTS | evaluations(),
    "paths.to_rows": FROM_TEACH_TRAIN | TEACH_TESTS | from_sample(),
    "preferences.make_pairs": from_pair(),
    "processes.state": FROM_TEACH_TRAIN | TEACH_TESTS | evaluations(),
    "progress.watch": set(),
    "prompts.messages": LAYOUTS | FROM_TEACH_TRAIN | TEACH_TESTS | FROM_EXPORT,
    "provenance.environment_differences": FROM_TABLES,
    "provenance.describe_files": FROM_MODEL,
    "sources.extract_member": EVERYTHING,
    "statistics.wilson": LAYOUTS | FROM_TABLES,
    "statistics.accuracy": FROM_TABLES,
    "statistics.difference": FROM_TABLES,
    "statistics.components": REPORT,
    "statistics.mcnemar": REPORT,
    "statistics.holm": {"claims"},
    "statistics.power": {"claims"},
    "study.index": set(),
    "tasks.export_task": FROM_EXPORT,
    "teaching.demonstrations": FROM_DEMONSTRATE,
    "training.encode_completion": from_instruct(),
    "training.open_scratch": from_instruct(),
    "training.shared_dataset": from_instruct(),
}


def innocent_edits(edit):
    """The same edit in every script, library module and rule file."""

    def change(folder: Path) -> None:
        for path in [*(folder / "scripts").rglob("*.py"), *(folder / "rules").glob("*"), folder / "Snakefile"]:
            if path.is_file() and path.suffix in (".py", ".smk", ""):
                path.write_text(edit(path.read_text()))

    return change


def reformat(folder: Path) -> None:
    for folder_name in ("scripts", "rules"):
        run(
            "ruff",
            "format",
            "--line-length",
            "60",
            "--config",
            "format.skip-magic-trailing-comma=true",
            folder / folder_name,
        )


def rewrite_docstrings(folder: Path) -> None:
    for path in (folder / "scripts").rglob("*.py"):
        path.write_text(re.sub(r'^"""', '"""In other words: ', path.read_text(), count=1))


CODE = {
    "a comment in every file": (innocent_edits(lambda text: f"# A comment.\n{text}\n# Another.\n"), set()),
    "blank lines in every file": (innocent_edits(lambda text: text.replace("\n\n\n", "\n\n\n\n\n")), set()),
    "every script and module formatted otherwise": (reformat, set()),
    "the docstring of every script and module": (rewrite_docstrings, set()),
    "a new script and a new module": (
        lambda folder: [(folder / f"scripts/{name}.py").write_text("X = 1\n") for name in ("new", "selfrefine/new")],
        set(),
    ),
    "the caption of a figure": (lambda folder: (folder / "report/figures.rst").write_text("Otherwise."), set()),
    "pins of the environment": (lambda folder: (folder / "envs/requirements.txt").write_text("torch==1.0\n"), set()),
    **{
        f"scripts/{name}.py": (replace(f"scripts/{name}.py", text, NEW_TEXT[text]), jobs)
        for name, (text, jobs) in SCRIPTS.items()
    },
    **{f"selfrefine/{name}": (change_function(name), jobs) for name, jobs in LIBRARY.items()},
}
DATA = {
    "a benchmark's file": (
        replace("boxes.jsonl", "today", "tonight"),
        FROM_FETCH,
    ),
    "a benchmark's file, older than what was made of it": (
        several(replace("boxes.jsonl", "today", "tonight"), lambda folder: os.utime(folder / "boxes.jsonl", (1, 1))),
        FROM_FETCH,
    ),
    "a teacher's recording": (replace("oracle.jsonl", "The answer is A.", "It is A."), FROM_TEACH_TRAIN | TEACH_TESTS),
    "a model's file": (replace("model/config.json", "{", "{ "), FROM_MODEL),
    "a new file in a model's folder": (
        lambda folder: (folder / "model/notes.json").write_text("{}"),
        FROM_MODEL,
    ),
}
# Outputs changed by hand are made again, the same bytes, so nothing follows; what is gone is made again once it is needed.
OUTPUTS = {
    "a truncated raw file": (truncate("results/benchmarks/boxes/raw/all.jsonl"), {"fetch boxes"}),
    "a corrupted item file": (corrupt("results/benchmarks/boxes/test.jsonl"), {"prepare boxes test"}),
    "corrupted weights": (corrupt("results/models/tiny/model.safetensors"), {"fetch_model tiny"}),
    "a truncated teacher's answer file": (
        truncate("results/completions/oracle/boxes/train-cot.jsonl"),
        {"teach boxes train"},
    ),
    "a corrupted demonstration file": (corrupt("results/demonstrations/oracle/boxes.jsonl"), {"demonstrate boxes"}),
    "a truncated adapter": (truncate(f"{INSTRUCTED}/adapter_model.safetensors"), {"instruct tiny"}),
    "a corrupted adapter": (corrupt(f"{REFINED}/adapter_model.safetensors"), {"refine tiny"}),
    "a corrupted manifest": (corrupt(f"{INSTRUCTED}/manifest.json"), {"instruct tiny"}),
    "truncated paths": (truncate(f"{PATHS}.jsonl"), {"sample tiny"}),
    "corrupted pairs": (corrupt(f"{PAIRS}.jsonl"), {"pair tiny"}),
    "corrupted samples of an evaluation": (
        corrupt("results/reports/twin/base/far.samples.jsonl"),
        {"evaluate twin baseline far"},
    ),
    "an exported task edited": (corrupt("results/lm_eval/far/far.yaml"), {"export_task far"}),
    "a table edited": (corrupt("results/tables/arms.csv"), {"tables"}),
    "a figure truncated": (truncate("results/figures/matrix.svg"), {"plot matrix"}),
    "a laid-out table edited": (corrupt("results/tables/paper/cost.tex"), {"layout cost"}),
    "the claims edited": (corrupt("results/claims.json"), {"claims"}),
    "the summary emptied": (lambda folder: (folder / "results/summary.md").write_text(""), {"summarise"}),
    "the index edited": (truncate("results/index/training.json"), {"index training"}),
    "two outputs of one chain corrupted": (
        several(corrupt(f"{PAIRS}.jsonl"), corrupt(f"{REFINED}/adapter_model.safetensors")),
        {"pair tiny", "refine tiny"},
    ),
    "corrupted pairs, and a change before them": (
        several(corrupt(f"{PAIRS}.jsonl"), put("sampling/cot", 2)),
        from_sample() | {"configuration"},
    ),
    "corrupted pairs, and a change after them": (
        several(corrupt(f"{PAIRS}.jsonl"), put("statistics/level", 0.9)),
        {"pair tiny", "configuration", "layout teachers"} | REPORT,
    ),
    "the summary gone": (remove("results/summary.md"), {"summarise"}),
    "a table gone": (remove("results/tables/pairs.csv"), {"tables"}),
    "a bitmap gone": (remove("results/figures/matrix.png"), {"plot matrix"}),
    "the reading page gone": (remove("results/reading.html"), {"read"}),
    "pairs gone": (remove(f"{PAIRS}.jsonl"), set()),
    "an adapter gone": (remove(f"{INSTRUCTED}/adapter_model.safetensors"), set()),
    "pairs gone that a change needs": (
        several(remove(f"{PAIRS}.jsonl"), put("students/tiny/refine", {"beta": 0.3})),
        {"pair tiny", "configuration"} | from_refine(["tiny"]),
    ),
    "an adapter gone that a change needs": (
        several(remove(f"{INSTRUCTED}/adapter_model.safetensors"), put("students/tiny/refine", {"beta": 0.3})),
        {"instruct tiny", "configuration"} | from_refine(["tiny"]),
    ),
    "a record gone": (remove(f"{PAIRS}.provenance.json"), from_pair(["tiny"])),
    "pairs and their record gone": (remove(f"{PAIRS}.jsonl", f"{PAIRS}.provenance.json"), from_pair(["tiny"])),
    "a record truncated": (truncate(f"{REFINED}/provenance.json"), from_refine(["tiny"])),
    "a record edited": (replace(f"{REFINED}/provenance.json", '"beta": 0.1', '"beta": 0.7'), from_refine(["tiny"])),
    "all results gone": (
        lambda folder: shutil.rmtree(folder / "results"),
        EVERYTHING | NEW_ROWS | LAYOUTS | {"configuration", "sources_table"},
    ),
    "one seed's folder gone": (
        lambda folder: shutil.rmtree(folder / REFINED),
        from_refine(["tiny"]),
    ),
}
MATRIX = {
    **{f"configuration: {name}": case for name, case in CONFIGURATION.items()},
    **{f"innocent: {name}": (change, set()) for name, change in INNOCENT.items()},
    **{f"code: {name}": case for name, case in CODE.items()},
    **{f"data: {name}": case for name, case in DATA.items()},
    **{f"outputs: {name}": case for name, case in OUTPUTS.items()},
}


def label(rule: str, wildcards: dict[str, str]) -> str:
    """A job's name in this file: its stage, student or task, and what differs from the study's only cell."""
    where = wildcards.get("checkpoint") or wildcards.get("start") or ""
    parts = where.split("/")
    # A recorded teacher has a rule of its own, for the same stage.
    rule = "teach" if rule == "ask" else rule
    words = [rule]
    for key in ("model", "student", "figure", "layout", "part"):
        words += [wildcards[key]] if key in wildcards else []
    if where:
        words.append(parts[0])
    if rule == "evaluate":
        words.append("refine" if "refine" in parts else "instruct" if "instruct" in parts else "baseline")
    alone = where and "instruct" not in parts and (rule != "evaluate" or "refine" in parts)
    words += ["alone"] if alone else []
    trained = (
        parts[parts.index("instruct") + 2]
        if "instruct" in parts
        else "boxes"
        if rule == "evaluate"
        else wildcards["task"]
    )
    if rule in ("fetch", "prepare", "teach", "demonstrate", "export_task", "evaluate"):
        words.append(wildcards["task"])
    words += [wildcards["split"]] if "split" in wildcards else []
    words += ["plain"] if wildcards.get("style") == "plain" else []
    recipes = {wildcards.get("recipe"), *(parts[i + 2] for i, part in enumerate(parts) if part == "refine")}
    words += sorted(recipes - {None, "cot"})
    if rule not in ("fetch", "prepare", "teach", "demonstrate", "export_task") and trained != "boxes":
        words.append(f"on {trained}")
    share = wildcards.get("share") or (parts[-2] if "instruct" in parts else "100")
    seed = wildcards.get("seed") or (parts[-1] if "instruct" in parts else "0")
    words += [f"{share}%"] if share != "100" else []
    words += [f"seed {seed}"] if seed != "0" else []
    teacher = wildcards.get("teacher") or (parts[2] if "instruct" in parts else "oracle")
    words += [teacher] if teacher != "oracle" else []
    return " ".join(words)


def planned(forks: Forks, folder: Path) -> set[str]:
    """The jobs that `snakemake -n` plans."""
    command = ("snakemake", "-n", "--cores", "2", "--configfile", "config/tiny.yaml")
    outcome = forks.run(*command, cwd=folder, environment=environment())
    text = outcome.stdout + outcome.stderr
    assert outcome.returncode == 0, text[-4000:]
    jobs = []
    for block in re.split(r"^(?:local)?(?:rule|checkpoint) ", text, flags=re.MULTILINE)[1:]:
        rule = block.split(":", 1)[0]
        found = re.search(r"^    wildcards: (.*)$", block, re.MULTILINE)
        pairs = dict(pair.split("=", 1) for pair in found[1].split(", ")) if found else {}
        jobs.append(label(rule, {"task": "boxes"} | pairs))
    assert jobs or "Nothing to be done" in text, text[-2000:]
    assert len(set(jobs)) == len(jobs), sorted(jobs)
    return set(jobs) - {"all"}


def copy(source: str, target: str) -> None:
    """Copies a file as of now; code with its time, by which Python knows it as compiled."""
    (shutil.copy2 if source.endswith((".py", ".pyc")) else shutil.copy)(source, target)


def contents(folder: Path) -> dict[str, tuple | None]:
    """By path below a folder, what a change of a file changes; None for a folder."""
    found: dict[str, tuple | None] = {}
    for place, folders, files in os.walk(folder):
        below = os.path.relpath(place, folder)
        found |= {os.path.join(below, name): None for name in folders}
        for name in files:
            state = os.lstat(os.path.join(place, name))
            found[os.path.join(below, name)] = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return found


class Copy:
    """A copy of the finished study, to spoil again and again: making it anew takes as long as a plan."""

    def __init__(self, study: Path, folder: Path):
        self.study = study
        self.folder = folder
        shutil.copytree(study, folder, copy_function=copy)
        self._whole = contents(folder)

    def restore(self) -> None:
        """Makes of what was changed a copy again."""
        found = contents(self.folder)
        for path in sorted(found.keys() - self._whole.keys(), reverse=True):
            (self.folder / path).unlink() if found[path] else (self.folder / path).rmdir()
        for path, state in self._whole.items():
            if state is None:
                (self.folder / path).mkdir(exist_ok=True)
            elif found.get(path) != state:
                (self.folder / path).unlink(missing_ok=True)
                copy(str(self.study / path), str(self.folder / path))
        self._whole = contents(self.folder)


@pytest.fixture(scope="session")
def plans(study, tmp_path_factory) -> dict[str, set[str]]:
    """What Snakemake plans after each change, each made to a copy of the finished study."""
    place = tmp_path_factory.mktemp("plans")
    workers = os.cpu_count()

    def plan(worker: int) -> dict[str, set[str]]:
        made, spoilt = {}, Copy(study, place / str(worker))
        with Forks(SNAKEMAKE) as forks:
            for name in list(MATRIX)[worker::workers]:
                MATRIX[name][0](spoilt.folder)
                made[name] = planned(forks, spoilt.folder)
                spoilt.restore()
        return made

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return {name: jobs for made in pool.map(plan, range(workers)) for name, jobs in made.items()}


@pytest.mark.parametrize("name", MATRIX)
def test_a_change_reruns_what_it_touches(plans, name):
    assert plans[name] == MATRIX[name][1]


def test_precision_and_recall_over_the_matrix_are_one(plans):
    right = sum(len(plans[name] & jobs) for name, (_, jobs) in MATRIX.items())
    planned_jobs = sum(map(len, plans.values()))
    needed = sum(len(jobs) for _, jobs in MATRIX.values())
    print(
        f"\n{len(MATRIX)} changes, {needed} jobs must run, {planned_jobs} are planned: "
        f"precision {right / planned_jobs:.4f}, recall {right / needed:.4f}"
    )
    assert len(MATRIX) >= 60
    assert (right / planned_jobs, right / needed) == (1, 1)


def test_why_names_the_setting_the_function_and_the_input(study, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    for change in (
        put("students/tiny/refine", {"beta": 0.2}),
        replace("scripts/pair.py", "or loosen the recipe", "or another recipe"),
        replace("boxes.jsonl", "today", "tonight"),
        corrupt(f"{REFINED}/adapter_model.safetensors"),
    ):
        change(folder)
    command = ("python", "scripts/why.py", "results/summary.md", "--configfile", "config/tiny.yaml")
    told = run(*command, cwd=folder).stdout
    assert re.search(
        r"fetch, for results/benchmarks/.* and 1 more\n  input boxes.jsonl: [0-9a-f]{12} → [0-9a-f]{12}\n", told
    )
    assert "  recipe: training.beta: 0.1 → 0.2\n" in told
    assert re.search(
        r"pair, for .* and 1 more\n  code: pair in scripts/pair.py\n    -.*loosen.*\n    \+.*another", told
    )
    assert "instruct" not in [line.split(",")[0] for line in told.splitlines() if ", for " in line]
    assert len(told.splitlines()) < 40
    assert "is up to date" in run(*command[:2], "results/models/tiny/manifest.json", *command[3:], cwd=folder).stdout
    assert "No rule to produce" in run(*command[:2], "results/x", *command[3:], cwd=folder, check=False).stderr
