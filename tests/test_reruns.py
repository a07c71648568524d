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

from conftest import REPOSITORY, environment, make_study, run, snakemake
from forks import SNAKEMAKE, Forks
from selfrefine.store import versions as versions_module
from selfrefine.store.hashing import sha256_of

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
    # As in what is committed, each stage's code is its version.
    for script in (folder / "scripts").glob("*.py"):
        if script.stem != "study":
            versions_module.adopt(script.stem, "as it stands", folder / "scripts")
    snakemake(folder)
    return folder


# What follows from what, in the study above: from the artifact that changes to the last table.

# Figures and laid-out tables that name benchmarks, and those that do not.
DRAWN = {"plot accuracy", "plot out-family", "plot lengths"}
DRAWN |= {f"plot {figure}-{student}" for figure in ("solving", "yields") for student in STUDENTS}
LAID_OUT = {"layout lengths", "layout solving", "layout yields"} | {
    f"layout transfer-{student}" for student in STUDENTS
}
# The page shows them all.
DRAWN |= {"page"}
LAID_OUT |= {"page"}
FROM_TABLES = {"tables", "plot cost", "layout cost", "summarise"} | DRAWN | LAID_OUT
# The claims are tested on the judged answers themselves, not on tables; the summary has their verdicts.
# The verdicts under other choices are held against those of the claims.
FROM_FLIPS = {"flips", "plot flips", "summarise", "page"}
FROM_CLAIMS = {"claims", "plot claims"} | FROM_FLIPS
# Figures that name no benchmark beside a claim or a stage.
PLOTS = {"plot cost", "plot training", "plot claims", "plot flips"}
REPORT = FROM_CLAIMS | FROM_TABLES
# Where an artifact that the tables are made of has another key, so have the listings that name it.
ANEW = {"listing tables", "listing flips", "listing page"} | REPORT


def report(*more: str, without: tuple[str, ...] = ()) -> set[str]:
    """What follows from the tables in a study with more figures, or without those whose names end so."""
    return {job for job in REPORT if not job.endswith(without)} | set(more)


def evaluations(students=STUDENTS, arms=("baseline", "instruct", "refine"), tasks=TASKS) -> set[str]:
    return {f"evaluate {student} {arm} {task}" for student in students for arm in arms for task in tasks} | ANEW


def of_each(stage: str, students) -> set[str]:
    return {f"{stage} {student}" for student in students}


def from_refine(students=STUDENTS) -> set[str]:
    return of_each("refine", students) | {"listing training", "plot training"} | evaluations(students, ("refine",))


def from_pair(students=STUDENTS) -> set[str]:
    return of_each("pair", students) | from_refine(students)


def from_sample(students=STUDENTS) -> set[str]:
    return of_each("sample", students) | from_pair(students)


def from_instruct(students=STUDENTS) -> set[str]:
    return of_each("instruct", students) | evaluations(students, ("instruct",)) | from_sample(students)


def from_base(students=STUDENTS) -> set[str]:
    return evaluations(students) | from_instruct(students)


FROM_MODEL = {"fetch_model tiny"} | from_base()
FROM_DEMONSTRATE = {"demonstrate boxes"} | from_instruct()
FROM_TEACH_TRAIN = {"teach boxes train", "layout teachers"} | FROM_DEMONSTRATE
TEACH_TESTS = {"teach boxes test", "teach far test", "layout teachers"} | ANEW
# The training items are read by the teacher, by both trainings, by sampling and on the page.
FROM_PREPARE_TRAIN = {"prepare boxes train", "layout splits"} | FROM_TEACH_TRAIN
# A training split repeats no test item of any benchmark that is evaluated.
FROM_PREPARE_FAR = (
    {
        "prepare far test",
        "export_task far",
        "teach far test",
        "layout teachers",
        "layout splits",
    }
    | evaluations(tasks=["far"])
    | FROM_PREPARE_TRAIN
)
# Training items are kept apart from the test items.
FROM_PREPARE_BOXES = (
    {"prepare boxes test", "export_task boxes", "teach boxes test", "layout prompts"}
    | evaluations(tasks=["boxes"])
    | FROM_PREPARE_TRAIN
)
FROM_EXPORT = {"export_task boxes", "export_task far"} | evaluations()
FROM_FETCH = {"fetch boxes", "fetch far"} | FROM_PREPARE_BOXES | FROM_PREPARE_FAR
EVERYTHING = FROM_FETCH | FROM_MODEL
LISTINGS = {"listing tables", "listing training", "listing flips", "listing page"}
NEW_ROWS = LISTINGS | REPORT | {"plot training"}


def settings(edit):
    """A change of the configuration."""

    def change(folder: Path) -> None:
        path = folder / "config/tiny.yaml"
        before = path.read_text()
        config = yaml.safe_load(before)
        edit(config)
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        assert path.read_text() != before, "this change changes nothing"

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


# Artifacts, by stage and names; a study that has not changed has one of each.
INSTRUCTED = "instruct/tiny/oracle-boxes-100-seed0"
REFINED = "refine/tiny/oracle-boxes-100-seed0/boxes-cot-round1"
PAIRS = "pair/tiny/oracle-boxes-100-seed0/boxes-cot-100-seed0"
PATHS = "sample/tiny/oracle-boxes-100-seed0/boxes-100-seed0"


def place(folder: Path, name: str) -> Path:
    """A file of the study, as named from its folder, or within the store, without its artifact's key."""
    if (folder / name).exists() or (folder / name).is_symlink():
        return folder / name
    artifact, _, file = name.rpartition("/")
    (found,) = (folder / "results/store" / artifact).glob(f"*/{file}")
    return found


def remove(*names: str):
    return lambda folder: [place(folder, name).unlink() for name in names]


def remove_artifact(*names: str):
    return lambda folder: [shutil.rmtree(folder / "results/store" / name) for name in names]


def truncate(name: str):
    def change(folder: Path) -> None:
        path = place(folder, name)
        content = path.read_bytes()
        path.unlink()  # it may be linked to another artifact's
        path.write_bytes(content[: len(content) // 2])

    return change


def corrupt(name: str):
    """Changes one byte in the middle; the size stays."""

    def change(folder: Path) -> None:
        path = place(folder, name)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.unlink()
        path.write_bytes(content)

    return change


def date(name: str, year: int):
    """Gives a file a time of modification."""
    return lambda folder: os.utime(place(folder, name), (time := (year - 1970) * 31_557_600, time))


def several(*changes):
    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


CONFIGURATION = {
    # The study's design: entries added and taken away.
    "study.students: one less": (
        put("study/students", ["tiny"]),
        (NEW_ROWS - REPORT) | report("layout prompts", without=("-twin",)) | {"listing sources"},
    ),
    "study.students: one more": (
        several(
            put("students/third", {"model": "tiny", "family": "tiny", "dtype": "float32", "batch_size": 16}),
            put("study/students", ["tiny", "twin", "third"]),
        ),
        NEW_ROWS
        | {"listing sources", "layout prompts", "layout transfer-third", "plot solving-third", "plot yields-third"}
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
        {"listing sources", "layout teachers", "layout splits", "plot training"}
        | ANEW
        | {job for job in FROM_PREPARE_TRAIN if not re.match(r"evaluate .* far", job)},
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
    "study.transfer_shares: none": (put("study/transfer_shares", []), ANEW),
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
        | {"layout teachers", "layout prompts", "listing flips"}
        | FROM_FLIPS,
    ),
    # Models, students, teachers.
    "models.licence": (put("models/tiny/licence", "MIT"), {"listing sources", "summarise"}),
    "models: an entry that nothing uses": (put("models/unused", {"source": "file:nowhere.gguf"}), set()),
    "models.source: another name of the same files": (
        several(
            lambda folder: shutil.copytree(folder / "model", folder / "copy"), put("models/tiny/source", "file:copy")
        ),
        # Its bytes are the same.
        {"listing sources", "summarise"},
    ),
    "students: an entry that nothing uses": (put("students/idle", {"model": "tiny", "family": "x"}), set()),
    "students.family": (put("students/twin/family", "oracle"), {"plot in-family"} | ANEW),
    "students.system": (
        put("students/twin/system", "Be brief."),
        {"layout prompts"} | from_base(["twin"]),
    ),
    "students.dtype": (put("students/twin/dtype", "bfloat16"), from_base(["twin"])),
    "students.quantisation": (put("students/twin/quantisation", "nf4"), from_base(["twin"])),
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
        {"plot in-family"} | ANEW - {"plot out-family"},
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
        {"listing sources"} | FROM_TEACH_TRAIN | TEACH_TESTS,
    ),
    "teachers.engine: vllm": (
        several(put("teachers/oracle/engine", "vllm"), put("teachers/oracle/model", "tiny")),
        {"listing sources"} | FROM_TEACH_TRAIN | TEACH_TESTS,
    ),
    # One engine generates for all students; what it takes of the machine shapes nothing.
    "engine": (put("engine", "vllm"), from_sample() | evaluations()),
    "vllm.memory": (put("vllm/memory", 0.5), set()),
    "vllm.batch_invariant": (put("vllm/batch_invariant", True), set()),
    # Benchmarks and prompts.
    "benchmarks.title": (
        put("benchmarks/far/title", "Farther"),
        {"layout teachers", "layout splits", "plot training"} | FROM_CLAIMS | DRAWN | LAID_OUT,
    ),
    "benchmarks.files.licence": (put("benchmarks/far/files/all/licence", "CC0"), {"listing sources", "summarise"}),
    "benchmarks.files.sha256": (
        lambda folder: put("benchmarks/far/files/all/sha256", sha256_of(folder / "boxes.jsonl"))(folder),
        {"fetch far", "listing sources"} | FROM_PREPARE_FAR,
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
    "prompts.cot": (
        put("prompts/choice/cot", "Think."),
        {"layout prompts"} | FROM_TEACH_TRAIN | TEACH_TESTS | FROM_EXPORT,
    ),
    # Only sampling asks plainly.
    "prompts.plain": (put("prompts/choice/plain", "Go:"), {"layout prompts"} | from_sample()),
    "prompts of a kind that the study does not use": (put("prompts/math/instruction", "Work it out."), set()),
    # The stages' settings.
    "recipes.chosen": (put("recipes/cot/chosen/verdict", "any"), from_pair()),
    "recipes.cited": (put("recipes/cot/cited", "a paper"), set()),
    "recipes: one that is not used": (put("recipes/correctness/per_item", 2), set()),
    "demonstrations.keep_wrong": (put("demonstrations/keep_wrong", True), FROM_DEMONSTRATE),
    "sampling.cot": (put("sampling/cot", 2), from_sample()),
    "sampling.generation.temperature": (put("sampling/generation/temperature", 0.5), from_sample()),
    "sampling.hint without rationales": (put("sampling/hint", "It is {answer}."), set()),
    "teachers.batch_size of a recorded teacher": (put("teachers/oracle/batch_size", 2), set()),
    "teachers.dtype of a recorded teacher": (put("teachers/oracle/dtype", "float32"), set()),
    "teachers.recording renamed": (
        several(
            lambda folder: (folder / "oracle.jsonl").rename(folder / "kept.jsonl"),
            put("teachers/oracle/recording", "kept.jsonl"),
        ),
        set(),
    ),
    "benchmarks.files.source: another name of the same bytes": (
        several(
            lambda folder: (folder / "boxes.jsonl").rename(folder / "crates.jsonl"),
            put("benchmarks/far/files/all/source", "file:crates.jsonl"),
            put("benchmarks/boxes/files/all/source", "file:crates.jsonl"),
        ),
        {"listing sources", "summarise"},
    ),
    "students.instruct: what holds anyway": (put("students/twin/instruct", {"epochs": 12}), set()),
    "students.refine.lora: what holds anyway": (put("students/twin/refine", {"lora": {"r": 16}}), set()),
    "refine.warmup_steps": (put("refine/warmup_steps", 0), from_refine()),
    "refine.evaluate_every": (put("refine/evaluate_every", 1), from_refine()),
    "compute": (put("compute", "float32"), set()),
    "recipes.objective.beta": (put("recipes/cot/objective", {"beta": 0.3}), from_refine()),
    "schedules: one that is not used": (put("schedules/twice", {"steps": ["cot"], "rounds": 2}), set()),
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
    "statistics.margin": (put("statistics/margin", 3), FROM_CLAIMS),
    "statistics.count_unrefined": (put("statistics/count_unrefined", True), FROM_CLAIMS),
    "students.title": (
        put("students/tiny/title", "The Tiny"),
        {f"layout {name}" for name in ("teachers", "prompts", "splits", "cost")}
        | {"plot cost", "plot training"}
        | (FROM_CLAIMS | DRAWN | LAID_OUT),
    ),
    "threads": (put("threads", {"train": 2, "generate": 2, "evaluate": 2}), set()),
    "two keys at once": (
        several(put("refine/beta", 0.3), put("benchmarks/far/splits/test/size", 9)),
        from_refine() | FROM_PREPARE_FAR,
    ),
}
# Every change of the configuration is written into configuration.yaml, defaults included; the page shows it.
# What decides the claims is registered.
POLICY = ("study.", "statistics.", "extractor", "benchmarks.splits.test.size", "two keys at once")
SAME_POLICY = ("study.arms: another order", "study.transfer_shares: all, by name", "study.teacher_styles")
CONFIGURATION = {
    name: (change, jobs | {"listing policy"}) if name.startswith(POLICY) and name not in SAME_POLICY else (change, jobs)
    for name, (change, jobs) in CONFIGURATION.items()
}
CONFIGURATION = {
    name: (change, jobs | {"listing configuration", "page"}) for name, (change, jobs) in CONFIGURATION.items()
}
# But for what only says what jobs ask a cluster for.
GPUS = {"gpu_memory": 24, "gpu_tflops": 125, "gpus_per_node": 8, "longest_hours": 2, "time_factor": 5}
CONFIGURATION |= {
    "cluster": (put("cluster", GPUS), set()),
    "cluster.longest_hours, without GPUs": (put("cluster/longest_hours", 2), set()),
    "models.parameters": (put("models/tiny/parameters", 7), set()),
    "models.active": (put("models/tiny/active", 7), set()),
    "models.vocabulary": (put("models/tiny/vocabulary", 420), set()),
    "models.kv_share": (put("models/tiny/kv_share", 0.5), set()),
    "cluster.evaluate_together": (put("cluster", {"evaluate_together": False}), set()),
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
        path = folder / f"scripts/selfrefine/{module}.py"
        text = path.read_text()
        found = re.search(rf"^( *)def {function}\(.*?\)( -> .*?)?:\n(?= )", text, re.DOTALL | re.MULTILINE)
        assert found, name
        path.write_text(f"{text[: found.end()]}{found[1]}    changed = True\n{text[found.end() :]}")

    return change


LAYOUTS = {f"layout {name}" for name in ("teachers", "prompts", "splits", "cost")} | LAID_OUT


# One change of behaviour in each script: its stage, and what follows.
SCRIPTS = {
    "fetch": ("fetch(args.source, path)", FROM_FETCH),
    "fetch_model": ('prefix=".fetch-"', FROM_MODEL),
    "prepare": ("**counts)", FROM_PREPARE_BOXES | FROM_PREPARE_FAR),
    "teach": ("{settings.style}", FROM_TEACH_TRAIN | TEACH_TESTS),
    "mix": ("which is drawn for", set()),
    "demonstrate": ("is kept", FROM_DEMONSTRATE),
    "instruct": ("raise `max_length` or `share`", from_instruct()),
    "sample": ('"sample paths"', from_sample()),
    "pair": ("or loosen the recipe", from_pair()),
    "refine": ("the student is left as it was", from_refine()),
    "export_task": ("refuse_shown(items, shots, ", FROM_EXPORT),
    "evaluate": ("(args.task.parent, ", evaluations()),
    "tables": ('"%.6g"', FROM_TABLES),
    "claims": ("verdicts=dict(counts)", FROM_CLAIMS),
    "flips": ("counts[kind] for", FROM_FLIPS),
    "plot": ("RESOLUTION = 200", PLOTS | DRAWN),
    "layout": ('"md": table', LAYOUTS),
    "summarise": ("[run.file, long_form]", {"summarise"}),
    "page": ('by_name(args.layouts, "csv")', {"page"}),
    "study": ('RESULTS = "', set()),
}
NEW_TEXT = {
    "fetch(args.source, path)": "fetch(args.source, target=path)",
    'prefix=".fetch-"': 'prefix=".get-"',
    "**counts)": "**counts, more=1)",
    "{settings.style}": "{settings.style}ly",
    "which is drawn for": "drawn for",
    "is kept": "stays",
    "raise `max_length` or `share`": "raise `share`",
    '"sample paths"': '"sample"',
    "or loosen the recipe": "or another recipe",
    "the student is left as it was": "the student stays as it was",
    "refuse_shown(items, shots, ": "refuse_shown(items, [*shots], ",
    "(args.task.parent, ": "(args.task.absolute().parent, ",
    '"%.6g"': '"%.7g"',
    "verdicts=dict(counts)": "verdicts={**counts}",
    "counts[kind] for": "int(counts[kind]) for",
    "RESOLUTION = 200": "RESOLUTION = 300",
    '"md": table': '"md": "" + table',
    "[run.file, long_form]": "[long_form, run.file]",
    'by_name(args.layouts, "csv")': 'by_name(args.layouts, "tex")',
    'RESULTS = "': 'RESULTS = "Said: ',
}
# One change in each module of the library: the stages that call the function, and what follows.
LIBRARY = {
    "answers/extraction.extract": FROM_TEACH_TRAIN | TEACH_TESTS | from_sample() | FROM_EXPORT,
    "analysis/costs.costs_table": FROM_TABLES,
    "analysis/choices.subsets_of": FROM_FLIPS,
    "analysis/flips.interchanged": FROM_FLIPS,
    "analysis/jobs.jobs_of": FROM_TABLES,
    "analysis/lengths.lengths_table": FROM_TABLES,
    "analysis/pass_at_k.pass_at_k": FROM_TABLES,
    "analysis/refinements.refinements_table": FROM_TABLES,
    "analysis/solving.summarised": FROM_TABLES,
    "analysis/statistics.accuracy": FROM_TABLES,
    "analysis/statistics.components": REPORT | LAYOUTS,
    "analysis/statistics.difference": FROM_TABLES,
    "analysis/statistics.holm": FROM_CLAIMS,
    "analysis/statistics.mcnemar": REPORT,
    "analysis/power.needed": FROM_CLAIMS,
    "analysis/statistics.wilson": LAYOUTS | FROM_TABLES,
    "analysis/unrefined.kept": FROM_CLAIMS,
    "analysis/unrefined.mark": FROM_TABLES,
    "analysis/verdicts.comparisons_of": FROM_CLAIMS,
    "analysis/verdicts.judge": FROM_CLAIMS,
    "data/demonstrations.demonstrations": FROM_DEMONSTRATE,
    "data/duplicates.near_duplicates": FROM_PREPARE_BOXES | FROM_PREPARE_FAR,
    "data/fetching.extract_member": EVERYTHING,
    "data/items.read_items": FROM_PREPARE_BOXES | FROM_PREPARE_FAR,
    "data/items.subset": from_instruct(),
    "data/prompts.messages": LAYOUTS | FROM_TEACH_TRAIN | TEACH_TESTS | FROM_EXPORT,
    "data/splits.prepare": FROM_PREPARE_BOXES | FROM_PREPARE_FAR,
    "engines/checkpoint_engines.open_checkpoint_engine": from_sample() | evaluations(),
    "engines/checkpoint_engines.open_model_engine": FROM_TEACH_TRAIN | TEACH_TESTS,
    "engines/completions.complete": FROM_TEACH_TRAIN | TEACH_TESTS | from_sample() | evaluations(),
    "engines/interface.seed_for": FROM_TEACH_TRAIN | TEACH_TESTS | from_sample() | evaluations(),
    "engines/recorded.generate": FROM_TEACH_TRAIN | TEACH_TESTS,
    "engines/token_engine.finish": FROM_TEACH_TRAIN | TEACH_TESTS | from_sample() | evaluations(),
    "engines/transformers.generate": FROM_TEACH_TRAIN | TEACH_TESTS | from_sample() | evaluations(),
    "engines/vllm.generate": FROM_TEACH_TRAIN | TEACH_TESTS | from_sample() | evaluations(),
    "judging/evaluation.evaluate_task": evaluations(),
    "judging/lm_eval_task.export_task": FROM_EXPORT,
    "judging/rejudging.rejudge": FROM_FLIPS,
    "judging/sampled_paths.to_rows": FROM_TEACH_TRAIN | TEACH_TESTS | from_sample(),
    "models/checkpoints.convert_gguf": FROM_MODEL,
    "models/checkpoints.load_checkpoint": from_sample() | evaluations(),
    "models/checkpoints.load_model": FROM_TEACH_TRAIN | TEACH_TESTS | evaluations(),
    "models/processes.state": FROM_TEACH_TRAIN | TEACH_TESTS | evaluations(),
    "report/figures/cost_bars.draw_cost": PLOTS | DRAWN,
    "report/figures/flip_map.draw_flips": PLOTS | DRAWN,
    "report/figures/style.grid": PLOTS | DRAWN,
    "report/formats.escape": FROM_CLAIMS | LAYOUTS,
    # A method of a class that others reach: a class counts as a whole.
    "report/formats.csv": FROM_CLAIMS | LAYOUTS,
    "report/page/funnels.percent": {"page"},
    "report/paper_tables.cost": {"summarise"} | LAYOUTS,
    "report/paper_tables.prompts": LAYOUTS,
    "report/selection.in_domain": PLOTS | {"summarise"} | DRAWN | LAYOUTS,
    "report/study_tables.typed": PLOTS | {"summarise"} | DRAWN | LAYOUTS,
    "store/environment.environment_differences": FROM_TABLES,
    "store/files.write_jsonl": EVERYTHING,
    "study/figures_and_layouts.name_of": PLOTS | DRAWN | LAYOUTS,
    "training/encoding.encode_completion": from_instruct(),
    "training/pairs.make_pairs": from_pair(),
    "training/resumption.open_scratch": from_instruct(),
    "training/trainers.shared_dataset": from_instruct(),
    "programs/loaded_checkpoint.engine": from_sample() | evaluations(),
    # What reads the command line and keeps the records does not shape what a job makes; nor does what plans and checks.
    "audit/integrity.check_outputs": set(),
    "audit/trace.trace": set(),
    "audit/upkeep.damaged": set(),
    "models/rate.measure": set(),
    "programs/cli.run": set(),
    "programs/further_evaluations.evaluate_further": set(),
    "store/fingerprint.fingerprint": set(),
    "store/locks.occupy": set(),
    "store/reuse.link": set(),
    "store/run.made": set(),
    "store/run.record": set(),
    "study/artifacts.artifact": set(),
    "study/design.checkpoints": set(),
    "study/final_artifacts.missing": set(),
    "workflow/session.begin": set(),
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


# Outputs changed by hand are made again, the same bytes, so nothing follows; what is gone is made once it is needed.
def copy_artifact(folder: Path) -> None:
    """Writes an artifact anew from a copy, as a restored backup does."""
    path = folder / "results/store" / PATHS
    shutil.copytree(path, folder / "backup")
    shutil.rmtree(path)
    shutil.copytree(folder / "backup", path)


def date_all(folder: Path) -> None:
    for path in (folder / "results").rglob("*"):
        if path.is_file():
            os.utime(path, (2_000_000_000, 2_000_000_000))


# What is there counts as made: damage is an error where it is read, and `study.py verify` finds it. What is gone is made
# again once it is needed.
OUTPUTS = {
    "a truncated raw file": (truncate("fetch/boxes-all/raw.jsonl"), set()),
    "a corrupted item file": (corrupt("prepare/boxes-test/items.jsonl"), set()),
    "corrupted weights": (corrupt("fetch_model/tiny/model.safetensors"), set()),
    "a truncated teacher's answer file": (truncate("teach/oracle/boxes-train-cot/answers.jsonl"), set()),
    "a truncated adapter": (truncate(f"{INSTRUCTED}/adapter_model.safetensors"), set()),
    "truncated paths": (truncate(f"{PATHS}/paths.jsonl"), set()),
    "corrupted pairs": (corrupt(f"{PAIRS}/pairs.jsonl"), set()),
    "corrupted samples of an evaluation": (corrupt("evaluate/twin/base/far/samples.jsonl"), set()),
    "an exported task edited": (corrupt("export_task/far/far.yaml"), set()),
    "a table edited": (corrupt("tables/arms.csv"), set()),
    "a figure truncated": (truncate("plot/accuracy/accuracy.svg"), set()),
    "a listing edited": (truncate("listing/training/training.json"), set()),
    "a record truncated": (truncate(f"{REFINED}/record.json"), set()),
    "a record edited": (corrupt(f"{REFINED}/record.json"), set()),
    "pairs gone": (remove(f"{PAIRS}/pairs.jsonl"), set()),
    "an adapter gone": (remove(f"{INSTRUCTED}/adapter_model.safetensors"), set()),
    "corrupted pairs, and a change before them": (
        several(corrupt(f"{PAIRS}/pairs.jsonl"), put("sampling/cot", 2)),
        from_sample() | {"listing configuration"},
    ),
    "corrupted pairs, and a change after them": (
        several(corrupt(f"{PAIRS}/pairs.jsonl"), put("statistics/level", 0.9)),
        {"listing configuration", "listing policy", "layout teachers"} | REPORT,
    ),
    # An artifact without its record is none.
    "a summary's record gone": (remove("summarise/record.json"), {"summarise"}),
    "the tables' record gone": (remove("tables/record.json"), {"tables"}),
    "a figure's record gone": (remove("plot/accuracy/record.json"), {"plot accuracy"}),
    "the page's record gone": (remove("page/record.json"), {"page"}),
    "a figure gone": (remove_artifact("plot/accuracy"), {"plot accuracy", "show"}),
    "pairs' record gone, which nothing needs": (remove(f"{PAIRS}/record.json"), set()),
    "pairs gone, which nothing needs": (remove_artifact(PAIRS), set()),
    "all intermediate artifacts gone": (
        lambda folder: [
            shutil.rmtree(path)
            for path in (folder / "results/store").iterdir()
            if path.is_dir() and path.name not in FINAL_STAGES
        ],
        set(),
    ),
    "pairs gone that a change needs": (
        several(remove_artifact(PAIRS), put("students/tiny/refine", {"beta": 0.3})),
        {"pair tiny", "listing configuration"} | from_refine(["tiny"]),
    ),
    "pairs' record gone that a change needs": (
        several(remove(f"{PAIRS}/record.json"), put("students/tiny/refine", {"beta": 0.3})),
        {"pair tiny", "listing configuration"} | from_refine(["tiny"]),
    ),
    "a checkpoint gone that a change needs": (
        several(remove_artifact(INSTRUCTED), put("students/tiny/refine", {"beta": 0.3})),
        {"instruct tiny", "listing configuration"} | from_refine(["tiny"]),
    ),
    "a chain of artifacts gone that a change needs": (
        several(remove_artifact(INSTRUCTED, PATHS, PAIRS), put("students/tiny/refine", {"beta": 0.3})),
        {"instruct tiny", "sample tiny", "pair tiny", "listing configuration"} | from_refine(["tiny"]),
    ),
    "an evaluation gone that new tables need": (
        several(remove_artifact("evaluate/tiny/base/far"), put("statistics/level", 0.9)),
        {"evaluate tiny baseline far", "listing configuration", "listing policy", "layout teachers"} | REPORT,
    ),
    "items gone that an added seed needs": (
        several(remove_artifact("prepare/boxes-train"), put("study/seeds", [0, 1])),
        {"prepare boxes train", "listing configuration", "listing policy"}
        | NEW_ROWS
        | {f"{stage} {student} seed 1" for stage in ("instruct", "sample", "pair", "refine") for student in STUDENTS}
        | {f"evaluate {s} {arm} {task} seed 1" for s in STUDENTS for arm in ("instruct", "refine") for task in TASKS},
    ),
    "all results gone": (
        lambda folder: shutil.rmtree(folder / "results"),
        EVERYTHING | NEW_ROWS | LAYOUTS | {"listing configuration", "listing sources", "listing policy"},
    ),
    # The names of the results.
    "the summary's name gone": (remove("results/tiny/summary.md"), {"show"}),
    "a bitmap's name gone": (remove("results/tiny/figures/accuracy.png"), {"show"}),
    "all names gone": (lambda folder: shutil.rmtree(folder / "results/tiny"), {"show"}),
    "study.name": (put("study/name", "other"), {"listing configuration", "page"}),
    # Times and places.
    "an artifact dated 2031": (date(f"{PATHS}/paths.jsonl", 2031), set()),
    "a record dated 2031": (date(f"{PATHS}/record.json", 2031), set()),
    "all results dated 2033": (date_all, set()),
    "a record dated 1971": (date(f"{REFINED}/record.json", 1971), set()),
    "an artifact restored from a copy": (copy_artifact, set()),
    "a record dated 2031, and a change after it": (
        several(date(f"{PAIRS}/record.json", 2031), put("students/tiny/refine", {"beta": 0.3})),
        {"listing configuration"} | from_refine(["tiny"]),
    ),
}
FINAL_STAGES = ("tables", "claims", "flips", "summarise", "page", "plot", "layout", "listing")


def move_helper(folder: Path) -> None:
    """Moves a function of one module to another; nothing that is made changes."""
    old, new = (folder / f"scripts/selfrefine/report/{name}.py" for name in ("verdict_tables", "formats"))
    text = old.read_text()
    found = re.search(r"^def points\(.*?(?=^def )", text, re.DOTALL | re.MULTILINE)
    old.write_text(
        text.replace(found[0], "").replace("import NONE, PAGES, Rows, Table", "import NONE, PAGES, Rows, Table, points")
    )
    new.write_text(f"{new.read_text()}\n\n{found[0]}")


def adopt(stage: str):
    def change(folder: Path) -> None:
        run("python", "scripts/study.py", "adopt", stage, "--because", "nothing that is made changes", cwd=folder)

    return change


# The rules: what their commands hand on counts, what they ask of the machine does not.
RULES = {
    "a flag deleted": (
        replace("rules/refine.smk", '        " {params.demonstrations}"\n', ""),
        from_pair(),
    ),
    "an input deleted from a command": (
        replace("rules/instruct.smk", '        " --demonstrations {input.demonstrations}"\n', ""),
        from_instruct(),
    ),
    "a flag added": (
        replace("rules/results.smk", '" --index {input.index}"', '" --index {input.index} --x"'),
        FROM_TABLES,
    ),
    "the flag of held-out items deleted": (
        replace("rules/sources.smk", '        " {params.held_out}"\n', ""),
        FROM_PREPARE_BOXES | FROM_PREPARE_FAR,
    ),
    "threads deleted": (replace("rules/refine.smk", '        " --threads {threads}"\n', ""), set()),
    "a log elsewhere": (replace("rules/refine.smk", '"logs/pair/', '"logs/pairs/'), set()),
    "an environment variable": (replace("rules/evaluate.smk", "HF_HUB_OFFLINE=1 ", ""), set()),
    "the allocator": (replace("scripts/selfrefine/workflow/rule_flags.py", "{4 << 30}", "{3 << 30}"), set()),
    "a docstring": (replace("rules/refine.smk", "Preference pairs of", "Pairs of"), set()),
    "memory": (replace("rules/refine.smk", 'mem_mb=needs("mem_mb", "refine")', "mem_mb=9999"), set()),
    "an environment file": (replace("envs/pipeline.yaml", "name: selfrefine", "name: other"), set()),
}
# Where the code's fingerprint must be cautious, the answer is `adopt`.
ADOPTED = {
    "a helper moved to another module": (move_helper, FROM_CLAIMS),
    "a helper moved, and adopted": (several(move_helper, adopt("claims"), adopt("summarise")), set()),
    "a refactoring adopted in two stages": (
        several(
            change_function("analysis/statistics.mcnemar"),
            adopt("tables"),
            adopt("claims"),
        ),
        set(),
    ),
    "a refactoring adopted in one of two stages": (
        several(change_function("analysis/statistics.mcnemar"), adopt("tables")),
        FROM_CLAIMS,
    ),
    "a default of a schema that other stages only mention": (
        replace("scripts/selfrefine/schema/sampling.py", "Explain how it is reached.", "Explain it."),
        from_sample() | {"listing configuration"},
    ),
    "a default of phase 2's schema, which the loop of both phases mentions": (
        replace(
            "scripts/selfrefine/schema/optimisation.py", "max_steps: int = Field(1000", "max_steps: int = Field(999"
        ),
        from_refine() | {"listing configuration"},
    ),
}
MATRIX = {
    **{f"configuration: {name}": case for name, case in CONFIGURATION.items()},
    **{f"innocent: {name}": (change, set()) for name, change in INNOCENT.items()},
    **{f"code: {name}": case for name, case in CODE.items()},
    **{f"data: {name}": case for name, case in DATA.items()},
    **{f"rules: {name}": case for name, case in RULES.items()},
    **{f"adopted: {name}": case for name, case in ADOPTED.items()},
    **{f"outputs: {name}": case for name, case in OUTPUTS.items()},
}


def is_shown(job: str) -> bool:
    """Whether the results have a name for what a job makes."""
    stage, *names = job.split()
    return stage in FINAL_STAGES and (stage != "listing" or names[0] in ("configuration", "sources"))


def again(jobs: set[str], change: str) -> set[str]:
    """Jobs, and that which gives the results their names, where these are others than before."""
    # Made again with the bytes that it had, a result keeps its name.
    same = change.endswith(
        ("summary's record gone", "tables' record gone", "figure's record gone", "page's record gone")
    )
    return jobs | ({"show"} if any(map(is_shown, jobs)) and not same else set())


MATRIX = {name: (change, again(jobs, name)) for name, (change, jobs) in MATRIX.items()}


CELL = re.compile(r"(?P<task>.+)-(?P<share>[0-9]+)-seed(?P<seed>[0-9]+)")


def label(rule: str, wildcards: dict[str, str]) -> str:
    """A job's name in this file: its stage, student or task, and what differs from the study's only cell."""
    # Of some stages, the report, or the machine, asks for rules of their own.
    rule = {"ask": "teach", "configuration": "listing", "sources": "listing"}.get(rule, rule)
    if rule == "show":
        return rule
    names = [part for key, value in wildcards.items() if key != "key" for part in value.split("/")]
    if rule in ("fetch", "prepare", "export_task"):
        return " ".join([rule, *names[0].removesuffix("-all").split("-")])
    if rule in ("teach", "demonstrate"):
        teacher, what = names
        return " ".join([rule, *what.removesuffix("-cot").split("-"), *([teacher] if teacher != "oracle" else [])])
    if rule not in ("instruct", "sample", "pair", "refine", "evaluate"):
        return " ".join([rule, *names])
    student, origin, *rest = names
    task = rest.pop() if rule == "evaluate" else ""
    # What the student was instructed on, and by whom; a base model by none.
    found = CELL.fullmatch(origin)
    who = found["task"] if found else origin
    teacher, _, trained = who.partition("-")
    share, seed = (found["share"], found["seed"]) if found else ("100", "0")
    recipes = [part.removesuffix("-round1").rpartition("-")[2] for part in rest if part.endswith("-round1")]
    if rule in ("sample", "pair"):
        cell = CELL.fullmatch(rest[-1])
        share, seed = cell["share"], cell["seed"]
        if rule == "pair":
            on, _, recipe = cell["task"].partition("-")
            recipes.append(recipe)
            trained = trained or on
    words = [rule, student]
    if rule == "evaluate":
        words.append("refine" if rest else "instruct" if trained else "baseline")
    if teacher == "base" and (rule != "evaluate" or rest):
        words.append("alone")
    words += [task] if task else []
    words += sorted(set(recipes) - {"cot"})
    words += [f"on {trained}"] if trained not in ("", "boxes") else []
    words += [f"{share}%"] if share != "100" else []
    words += [f"seed {seed}"] if seed != "0" else []
    words += [teacher] if teacher not in ("oracle", "base") else []
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
        jobs.append(label(rule, pairs))
    assert jobs or "Nothing to be done" in text, text[-2000:]
    assert len(set(jobs)) == len(jobs), sorted(jobs)
    return set(jobs) - {"all"}


def copy(source: str, target: str) -> None:
    """Copies a file as of now; code with its time, by which Python knows it as compiled."""
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
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
        shutil.copytree(study, folder, symlinks=True, copy_function=copy)
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
