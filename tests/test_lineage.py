"""Traces of planted results: two seeds of one arm, its baseline and its teacher on four items."""

import contextlib
import csv
import datetime
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import show
from conftest import REPOSITORY, run
from selfrefine.audit import recorded_results
from selfrefine.audit.integrity import SET_ASIDE, AuditedResults
from selfrefine.audit.table_checks import Tables, check_all
from selfrefine.audit.trace import trace
from selfrefine.errors import UserError
from selfrefine.schema.record import Record
from selfrefine.store.files import read_json, read_jsonl, write_json, write_jsonl
from selfrefine.store.hashing import digest, sha256_of
from selfrefine.store.locations import result_name
from selfrefine.store.provenance import state_of
from selfrefine.store.reuse import content_of_record


def at(stage: str, *names: str) -> str:
    """The folder of an artifact; its key is one of its names."""
    return "/".join(["results/store", stage, *names, digest([stage, *names], 12)])


ITEMS = ("a", "b", "c", "d")
SEEDS = ("0", "1")
RAW = f"{at('fetch', 'boxes-all')}/raw.jsonl"
TEST = f"{at('prepare', 'boxes-test')}/items.jsonl"
TRAIN = f"{at('prepare', 'boxes-train')}/items.jsonl"
TEACHER = f"{at('teach', 'oracle', 'boxes-test-cot')}/answers.jsonl"
TAUGHT = f"{at('teach', 'oracle', 'boxes-train-cot')}/answers.jsonl"
KEPT = f"{at('demonstrate', 'oracle', 'boxes')}/demonstrations.jsonl"
TASK = at("export_task", "boxes")
MODEL = at("fetch_model", "tiny")
WEIGHTS = f"{MODEL}/model.safetensors"
INSTRUCTED = {seed: at("instruct", "tiny", f"oracle-boxes-100-seed{seed}") for seed in SEEDS}
ADAPTER = f"{INSTRUCTED['0']}/adapter_model.safetensors"
LOGS = [f"{folder}/training.jsonl" for folder in INSTRUCTED.values()]
SAMPLES = {"base": f"{at('evaluate', 'tiny', 'base', 'boxes')}/samples.jsonl"}
SAMPLES |= {
    f"instruct/{seed}": f"{at('evaluate', 'tiny', f'oracle-boxes-100-seed{seed}', 'boxes')}/samples.jsonl"
    for seed in SEEDS
}
PATHS = f"{at('sample', 'tiny', 'oracle-boxes-100-seed0', 'boxes-100-seed0')}/paths.jsonl"
PAIRS = f"{at('pair', 'tiny', 'oracle-boxes-100-seed0', 'boxes-cot-100-seed0')}/pairs.jsonl"
REFINED = f"{at('refine', 'tiny', 'oracle-boxes-100-seed0', 'boxes-cot-round1')}/training.jsonl"
TABLES = f"{at('tables')}/record.json"
CLAIMS = f"{at('claims')}/claims.json"
INDEX = f"{at('listing', 'tables')}/tables.json"
TRAININGS = f"{at('listing', 'training')}/training.json"
SOURCES = f"{at('listing', 'sources')}/sources.csv"
SIDES = ("samples", "against_samples")
# The planted figures, each with whose it is, and the tables that it is drawn from.
FIGURES = {
    ("accuracy", ""): ("arms",),
    ("out-family", ""): ("arms",),
    ("in-family", ""): ("arms",),
    ("low-resource", "tiny"): ("arms",),
    ("lengths", ""): ("lengths",),
    ("solving", "tiny"): ("solving",),
    ("yields", "tiny"): ("paths", "pairs", "solving"),
    ("cost", ""): ("costs",),
    ("training", ""): (),
}


def table(name: str) -> str:
    """A table, in the store."""
    return f"{at('tables')}/{name}.csv"


def figure(name: str) -> str:
    """A figure, in the store."""
    return f"{at('plot', name)}/{name}.svg"


def record_of(name: str) -> str:
    """The record of a file."""
    return str(Path(name).with_name("record.json"))


def write(name: str, content) -> str:
    """Text, JSON Lines (a list) or CSV (a list of lists) in a file; its name."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content[0], dict):
        write_jsonl(path, content)
    else:
        with open(path, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(content)
    return name


def record(stage: str, inputs: list[str], outputs: list[str], **known) -> None:
    """The record of files as they are."""
    facts = {"settings": {}, "seed": None, "figures": {}, "version": "version 1"} | known
    made = Record(
        stage=stage,
        inputs={path: state_of(Path(path)) for path in inputs},
        outputs={path: state_of(Path(path)) for path in outputs},
        code="0" * 16,
        command="",
        content="",
        packages={},
        machine={},
        started=datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC),
        wall_seconds=1.5,
        peak_memory_mib=10,
        **facts,
    )
    write_record(record_of(outputs[0]), made.model_dump(mode="json"))


def write_record(name: str, values: dict) -> None:
    """Writes a record with the digest that its values have."""
    write_json(Path(name), values | {"content": content_of_record(Record.model_validate(values))})


def judged(key: str, right: str, tokens: int = 10) -> list[dict]:
    """Judged answers, those marked + correct; the first has so many tokens, each further one has 1 more."""
    rows = zip(ITEMS, right, strict=True)
    return [
        {key: item, "strict": float(mark == "+"), "legacy": 0.0, "tokens": tokens + place}
        for place, (item, mark) in enumerate(rows)
    ]


def seal(name: str, *inputs: str) -> None:
    """Makes a record say of its outputs, and of these inputs, what they are now."""
    content = read_json(Path(name))
    for kind, paths in (("outputs", content["outputs"]), ("inputs", inputs)):
        content[kind] |= {path: state_of(Path(path)).model_dump() for path in paths}
    write_record(name, content)


def edit(name: str, old: str, new: str) -> None:
    text = Path(name).read_text()
    assert text.count(old) == 1, (old, text)
    Path(name).write_text(text.replace(old, new))


def forge(name: str, old: str, new: str) -> None:
    """Edits a record, its digest included."""
    edit(name, old, new)
    write_record(name, read_json(Path(name)))


@pytest.fixture
def study(planted, tmp_path, monkeypatch) -> Path:
    """A copy of the folder that the planted study ran in, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(planted, tmp_path, symlinks=True, dirs_exist_ok=True))


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    with contextlib.chdir(folder):
        plant()
    return folder


def plant() -> None:
    """Plants the study in the working directory: sources, artifacts, tables and figures, with records and names."""
    source = {"source": {"source": "file:boxes.jsonl", "sha256": None}}
    write(RAW, Path(write("boxes.jsonl", "raw\n")).read_text())
    record("fetch", ["boxes.jsonl"], [RAW], settings={"suffix": ".jsonl", "sha256": None}, figures=source)
    write(TEST, [{"id": item} for item in ITEMS])
    record("prepare", [RAW], [TEST], figures={"items": 4})
    write(TRAIN, [{"id": "t"}])
    record("prepare", [RAW, TEST], [TRAIN], figures={"items": 1})
    write("oracle.jsonl", "recording\n")
    record("teach", [TEST, "oracle.jsonl"], [write(TEACHER, judged("item", "++++"))])
    record("teach", [TRAIN, "oracle.jsonl"], [write(TAUGHT, [{"item": "t"}])])
    write(KEPT, [{"id": "t"}])
    figures = {"demonstrations": {"answers": 1, "kept": 1, "dropped": {"wrong": 0}}}
    record("demonstrate", [TAUGHT], [KEPT], figures=figures)
    exported = [write(f"{TASK}/{name}", name) for name in ("answers.py", "boxes.yaml", "docs.jsonl")]
    record("export_task", [TEST], exported, settings={"name": "boxes"})

    source = {"source": {"source": "file:published", "sha256": None}}
    given = [write(f"published/{name}", name) for name in ("model.safetensors", "notes.txt")]
    record("fetch_model", given, [write(WEIGHTS, "weights")], settings={"sha256": None}, figures=source)
    checkpoints = {"base": [WEIGHTS]}
    for (seed, folder), log in zip(INSTRUCTED.items(), LOGS, strict=True):
        outputs = [write(log, [{"step": 1, "loss": 1.0}])]
        outputs.append(write(f"{folder}/adapter_model.safetensors", f"adapter {seed}"))
        facts = {"seed": int(seed), "figures": {"updates": 9, "tokens_seen": 50}, "model": record_of(WEIGHTS)}
        record("instruct", [WEIGHTS, TRAIN, KEPT], outputs, **facts)
        checkpoints[f"instruct/{seed}"] = [*outputs, WEIGHTS]
    for (name, samples), *known in zip(SAMPLES.items(), ("+---", "+++-", "+--+"), (10, 20, 24), strict=True):
        write(samples, judged("id", *known)[:: -1 if name == "base" else 1])
        record("evaluate", [*checkpoints[name], *exported], [samples])
    sampled = [
        {"item": item, "sample": sample, "style": "cot", "correct": mark == "+", "extracted": mark}
        for item, marks in (("t", "+-"), ("u", "+"))
        for sample, mark in enumerate(marks)
    ]
    write(PATHS, sampled)
    counts = {"paths": 3, "correct": 2, "cut": 1}
    record("sample", [*checkpoints["instruct/0"], TRAIN], [PATHS], seed=0, figures={"paths": {"cot": counts}})
    write(PAIRS, [{"id": "t"}])
    counts = {"items": 1, "pairs": 1, "dropped": {"same_text": 0}}
    record("pair", [PATHS], [PAIRS], figures={"pairs": counts})
    held_out = {"split": "validation", "chosen_token_logp": -0.5, "rejected_token_logp": -0.7}
    validations = [held_out | {"step": 1, "loss": 0.6, "accuracy": 0.75}]
    validations.append(held_out | {"step": 2, "loss": 0.5, "accuracy": 0.25})
    outputs = [write(REFINED, validations), write(str(Path(REFINED).with_name("adapter_model.safetensors")), "refined")]
    figures = {"updates": 2, "kept_update": 2, "pairs": {"train": 9, "validation": 4}}
    record("refine", [*checkpoints["instruct/0"], TRAIN, PAIRS], outputs, seed=0, figures=figures)
    plant_tables()


FACTS = ("student", "teacher", "family", "task", "refine_task", "recipe")
TRAINED = dict(zip(FACTS, ("tiny", "oracle", "out", "boxes", "", ""), strict=True))
OF_ARM = {
    "baseline": dict.fromkeys(FACTS, "") | {"student": "tiny"},
    "instruct": TRAINED,
    "teacher": dict.fromkeys(FACTS, "") | {"teacher": "oracle"},
}
BOTH = f"{SAMPLES['instruct/0']} {SAMPLES['instruct/1']}"
TITLES = {"boxes": "Boxes", "far": "Far"}


def plant_tables() -> None:
    cells = [{"arm": "baseline", "seed": "", "checkpoint": "tiny/base", "samples": SAMPLES["base"]}]
    for seed in SEEDS:
        name = f"instruct/{seed}"
        cells.append({"arm": "instruct", "seed": int(seed), "checkpoint": f"tiny/{name}", "samples": SAMPLES[name]})
    cells.append({"arm": "teacher", "seed": "", "checkpoint": "", "samples": TEACHER})
    cells = [
        cell | OF_ARM[cell["arm"]] | {"share": 100 if cell["arm"] == "instruct" else "", "evaluation": "boxes"}
        for cell in cells
    ]
    against = [SAMPLES["base"], SAMPLES["instruct/0"], SAMPLES["instruct/1"]]
    records = [record_of(path) for path in (*against, TEACHER, KEPT, PATHS, PAIRS, REFINED, *LOGS)]
    write_json(Path(INDEX), {"cells": cells, "records": records})
    record("listing", [], [INDEX])
    write_json(
        Path(TRAININGS), {"training": {f"tiny/instruct/{seed}": log for seed, log in zip(SEEDS, LOGS, strict=True)}}
    )
    record("listing", [], [TRAININGS])
    numbers = [[4, 1, 0.25], [4, 3, 0.75], [4, 2, 0.5], [4, 4, 1]]
    rows = [
        [cell["arm"], cell["share"], cell["seed"], "boxes", *row, cell["checkpoint"], cell["samples"]]
        for cell, row in zip(cells, numbers, strict=True)
    ]
    head = ["arm", "share", "seed", "evaluation", "n", "correct", "accuracy", "checkpoint", "samples"]
    of_arm = {arm: list(facts.values()) for arm, facts in OF_ARM.items()}
    sampled = [
        ["student", "teacher", "task", "after", "refine_task", "share"],
        ["tiny", "oracle", "boxes", "", "boxes", 100],
    ]
    tables = {
        "accuracy": [head, *rows],
        "arms": [
            [*FACTS, "arm", "share", "evaluation", "seeds", "n", "accuracy", "samples"],
            [*of_arm["baseline"], "baseline", "", "boxes", 1, 4, 0.25, SAMPLES["base"]],
            [*of_arm["instruct"], "instruct", 100, "boxes", 2, 4, 0.625, BOTH],
            [*of_arm["teacher"], "teacher", "", "boxes", 1, 4, 1, TEACHER],
        ],
        "comparisons": [
            ["arm", "share", "seed", "against", "evaluation", "n", "difference", "gained", "lost", "samples"],
            ["instruct", 100, 0, "baseline", "boxes", 4, 0.5, 2, 0, f"{against[1]} {against[0]}"],
            ["instruct", 100, 1, "baseline", "boxes", 4, 0.25, 1, 0, f"{against[2]} {against[0]}"],
        ],
        "lengths": [
            [*FACTS, "arm", "share", "evaluation", "seeds", "n", "tokens", "against", "longer", *SIDES],
            [*of_arm["baseline"], "baseline", "", "boxes", 1, 4, 11.5, "", "", SAMPLES["base"], ""],
            [*of_arm["instruct"], "instruct", 100, "boxes", 2, 4, 23.5, "baseline", 12, BOTH, SAMPLES["base"]],
            [*of_arm["teacher"], "teacher", "", "boxes", 1, 4, 11.5, "", "", TEACHER, ""],
        ],
        "demonstrations": [["demonstrations", "answers", "kept", "wrong"], [KEPT, 1, 1, 0]],
        "paths": [
            [*sampled[0], "sampled", "items", "items_solved", "style", "paths", "correct", "cut"],
            [*sampled[1], PATHS, 2, 2, "cot", 3, 2, 1],
        ],
        "solving": [
            [*sampled[0], "style", "measure", "k", "seeds", "items", "value", "sampled"],
            [*sampled[1], "cot", "pass", 1, 1, 2, 0.75, PATHS],
            [*sampled[1], "cot", "maj", 1, 1, 2, 0.75, PATHS],
        ],
        "pairs": [
            [*sampled[0], "recipe", "seed", "sampled", "dropped_same_text", "items", "pairs"],
            [*sampled[1], "cot", 0, PAIRS, 0, 1, 1],
        ],
        "refinements": [
            ["log", *sampled[0], "recipe", "seed", "updates", "held_out", "kept_update", "loss", "accuracy"]
            + ["chosen_token_logp", "rejected_token_logp", "highest_accuracy", "highest_update"]
            + ["highest_chosen_token_logp", "worse"],
            [REFINED, *sampled[1], "cot", 0, 2, 4, 2, 0.5, 0.25, -0.5, -0.7, 0.75, 1, -0.5, 0],
        ],
        "stages": [
            ["stage", "artifact", "wall_seconds", "tokens", "peak_memory_mib"],
            ["instruct", LOGS[0], 1.5, 50, 10],
        ],
        "costs": [
            ["student", "arm", "share", "stage", "checkpoints", "jobs", "wall_seconds", "least", "most", "tokens"]
            + ["tokens_trained", "peak_memory_mib"],
            ["tiny", "baseline", "", "evaluate", 1, 1, 1.5, 1.5, 1.5, 0, 0, 10],
            ["tiny", "instruct", 100, "demonstrate", 2, 1, 1.5, 1.5, 1.5, 0, 0, 10],
            ["tiny", "instruct", 100, "instruct", 2, 1, 1.5, 1.5, 1.5, 50, 50, 10],
            ["tiny", "instruct", 100, "evaluate", 2, 1, 1.5, 1.5, 1.5, 0, 0, 10],
        ],
    }
    made = {name: write(table(name), content) for name, content in tables.items()}
    inputs = [INDEX, *against, TEACHER, PATHS, *records]
    record("tables", inputs, list(made.values()), settings={"extractor": "strict"})
    for (kind, student), of in FIGURES.items():
        name = "-".join(part for part in (kind, student) if part)
        drawn = [write(str(Path(figure(name)).with_suffix(suffix)), suffix) for suffix in (".svg", ".png")]
        reads = [made[table] for table in of] or [TRAININGS, *LOGS]
        record("plot", reads, drawn, settings={"figure": kind, "student": student})
    plant_layouts(made)
    plant_claims(against)
    record("listing", [], [write(SOURCES, "role,name,source,licence,sha256\nstudent,tiny,file:published,,\n")])
    finals = [path for path in Path("results/store").rglob("record.json") if path.parts[2] in FINAL]
    shown = {(path.parts[2], Path(name)) for path in finals for name in read_json(path)["outputs"]}
    show.lay_out(Path("results/tiny"), {result_name(stage, path.name): path for stage, path in shown})


FINAL = ("tables", "claims", "plot", "layout", "listing")


def plant_layouts(made: dict[str, str]) -> None:
    """Laid-out tables: of arms, of costs and of the teacher's answers."""
    answers = {"train": TAUGHT, "test": TEACHER}
    rows = [
        {"teacher": "oracle", "task": "boxes", "split": split, "style": "cot", "answers": path}
        for split, path in answers.items()
    ]
    blank = {"student": "", "titles": TITLES, "rows": []}
    laid_out = {
        "transfer-tiny": (
            blank | {"layout": "transfer", "student": "tiny"},
            [["arm", "teacher", "instructed on", "Boxes", "Boxes low", "Boxes high", "Far"]]
            + [["baseline", "", "", 25.0, 5, 70, "–"], ["instruct", "oracle", "Boxes", 62.5, 20, 90, "–"]]
            + [["teacher", "oracle", "", 100.0, 50, 100, "–"]],
            [made["arms"]],
        ),
        "cost": (
            blank | {"layout": "cost", "titles": {}},
            [["student", "arm", "stage", "checkpoints"], ["tiny", "instruct", "instruct", 2]],
            [made["costs"]],
        ),
        "solving": (
            blank | {"layout": "solving"},
            [["student", "teacher", "instructed on", "sampled on", "style", "pass@1", "maj@1"]]
            + [["tiny", "oracle", "Boxes", "Boxes", "cot", 75.0, 75.0]],
            [made["solving"]],
        ),
        "teachers": (
            blank | {"layout": "teachers", "rows": rows, "extractor": "strict"},
            [["teacher", "benchmark", "train, with CoT", "test, with CoT"], ["oracle", "Boxes", 0, 100]],
            list(answers.values()),
        ),
    }
    for name, (settings, content, inputs) in laid_out.items():
        place = f"{at('layout', name)}/{name}"
        record("layout", inputs, [write(f"{place}.csv", content), write(f"{place}.md", "| |\n")], settings=settings)


def plant_claims(samples: list[str]) -> None:
    """One claim of two comparisons: of both seeds of the arm with its baseline, and with its teacher."""
    base, *own = samples
    known = {"part": "", "student": "tiny", "teacher": "oracle", "task": "boxes", "refine_task": "", "share": 100}
    known |= {"arm": "instruct", "evaluation": "boxes", "items": 4, "seeds": 2, "accuracy": 0.625, "samples": own}
    known |= dict.fromkeys(("low", "high", "p", "corrected_p"), 0.5) | {"verdict": "undecided"}
    seeds = [{"seed": 0, "gained": 2, "lost": 0, "p": 0.5}, {"seed": 1, "gained": 1, "lost": 0, "p": 1.0}]
    lost = [{"seed": 0, "gained": 0, "lost": 1, "p": 1.0}, {"seed": 1, "gained": 0, "lost": 2, "p": 0.5}]
    comparisons = [
        known
        | {"against": "baseline", "against_teacher": "", "against_accuracy": 0.25, "difference": 0.375}
        | {"against_samples": [base], "by_seed": seeds},
        known
        | {"against": "teacher", "against_teacher": "oracle", "against_accuracy": 1.0, "difference": -0.375}
        | {"against_samples": [TEACHER], "by_seed": lost},
    ]
    claim = {"claim": 1, "recipe": "", "parts": [{"title": "", "comparisons": comparisons}]}
    write_json(Path(CLAIMS), {"settings": {}, "claims": [claim]})
    outputs = [write(CLAIMS.replace(".json", ".md"), "# The paper's claims\n"), CLAIMS]
    record("claims", [INDEX, *samples, TEACHER], outputs, settings={"extractor": "strict"})


def reseal(name: str) -> None:
    """Makes every record that read or made a file say what it is now."""
    for path in Path("results").rglob("record.json"):
        content = read_json(path)
        for kind in ("inputs", "outputs"):
            if name in content[kind]:
                content[kind][name] = state_of(Path(name)).model_dump()
        write_record(str(path), content)


def faults(folder: str = "results") -> list[str]:
    """What is broken in the whole results."""
    results = AuditedResults(Path(folder))
    check_all(results)
    return list(results.faults)


def traced(path: str, folder: str = "results", **wanted: str) -> tuple[list[str], list[str]]:
    """A trace's lines, and the faults on its way."""
    results = AuditedResults(Path(folder))
    lines = trace(results, path, wanted)
    return lines, list(results.faults)


BARE = """
import runpy, sys
for name in ("torch", "numpy", "pandas", "scipy", "yaml", "matplotlib", "snakemake", "transformers", "datasets"):
    sys.modules[name] = None
sys.argv[:] = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rsplit("/", 1)[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PROGRAM = [sys.executable, "-c", BARE, REPOSITORY / "scripts/study.py"]


def test_whole_results_have_no_fault_and_every_file_is_hashed_once(study, monkeypatch):
    hashed = []
    monkeypatch.setattr(recorded_results, "state_of", lambda path: hashed.append(path) or state_of(path))
    results = AuditedResults(Path("results"))
    check_all(results)
    assert list(results.faults) == []
    records = len(list(study.rglob("record.json")))
    assert results.amount_checked().startswith(f"records: {records}, files: {len(hashed)}, ")
    assert len(hashed) == len(set(hashed))
    files = {path for path in study.rglob("*") if path.is_file() and not path.is_symlink()}
    # All but the records that no table reads.
    assert {path.name for path in files - {*hashed}} == {"record.json"}


def test_the_chain_behind_a_row(study):
    lines, broken = traced("results/tiny/tables/accuracy.csv", arm="instruct", seed="1")
    assert broken == []
    assert lines[0].endswith(f" {table('accuracy')}")
    short = {path: sha256_of(Path(path))[:12] for path in (TRAIN, SAMPLES["instruct/1"])}
    assert f"      prepare 2026-03-01  {short[TRAIN]} {TRAIN} (items 1)" in [line[2:] for line in lines]
    assert lines[1] == "  row  arm=instruct share=100 seed=1 evaluation=boxes n=4 correct=2 accuracy=0.5"
    assert lines[2] == f"    2 of 4 correct in {SAMPLES['instruct/1']}"
    assert lines[3] == f"    evaluate 2026-03-01  {short[SAMPLES['instruct/1']]} {SAMPLES['instruct/1']}"
    shape = [(len(line) - len(line.lstrip())) // 2 for line in lines]
    stages = [line.split()[0] + (" above" if line.endswith("(above)") else "") for line in lines]
    assert list(zip(shape, stages, strict=True)) == [
        (0, "tables"),
        (1, "row"),
        (2, "2"),
        (2, "evaluate"),
        (3, "instruct"),
        (4, "fetch_model"),
        (5, "file"),
        (4, "prepare"),
        (5, "fetch"),
        (6, "file"),
        (5, "prepare"),
        (6, "fetch above"),
        (4, "demonstrate"),
        (5, "teach"),
        (6, "prepare above"),
        (6, "file"),
        (3, "fetch_model above"),
        (3, "export_task"),
        (4, "prepare above"),
    ]
    assert lines[5].endswith("(from file:published, its sha256 not pinned)")
    assert lines[6].endswith("file  published/: 2 files (outside the results)")
    assert "(seed 1, updates 9)" in lines[4]


def test_the_chain_behind_an_artifact_names_each_once(study):
    lines, broken = traced(PAIRS)
    assert broken == []
    assert [line.split()[0] for line in lines[:3]] == ["pair", "sample", "instruct"]
    named = [re.search(r" (results/\S+)", line)[1] for line in lines if "(above)" not in line and " results/" in line]
    assert TRAIN in named and len(named) == len(set(named))
    assert "cot paths 3, cot correct 2" in lines[1]


def test_a_row_of_an_arm_counts_every_seed(study):
    lines, broken = traced("results/tiny/tables/arms.csv", arm="instruct")
    assert broken == []
    assert [line.strip() for line in lines if "correct in" in line] == [
        f"3 of 4 correct in {SAMPLES['instruct/0']}",
        f"2 of 4 correct in {SAMPLES['instruct/1']}",
    ]
    assert sum(line.lstrip().startswith("instruct 2026") for line in lines) == 2


def test_a_teachers_answers_are_counted_by_item(study):
    lines, broken = traced("results/tiny/tables/accuracy.csv", arm="teacher", evaluation="boxes")
    assert broken == []
    assert f"    4 of 4 correct in {TEACHER}" in lines


def test_a_bar_of_a_figure_leads_through_the_table_it_was_drawn_from(study):
    for suffix in ("svg", "png"):
        lines, broken = traced(f"results/tiny/figures/accuracy.{suffix}", arm="baseline", evaluation="boxes")
        assert broken == []
        assert [line.split()[0] for line in lines[:5]] == ["plot", "tables", "row", "1", "evaluate"]
    edit(table("arms"), "baseline,,boxes,1,4,0.25", "baseline,,boxes,1,4,0.50")
    lines, broken = traced("results/tiny/figures/accuracy.svg", arm="baseline")
    assert [fault.split(" expected")[0] for fault in broken] == [
        f"{table('arms')}:",
        f"{table('arms')}:2:",
    ]
    assert lines[1].endswith("BROKEN") and lines[2].endswith("BROKEN") and not lines[0].endswith("BROKEN")


def test_a_figure_drawn_from_another_table_is_a_broken_link(study):
    write(table("arms"), Path(table("arms")).read_text().replace(",instruct,", ",refine,"))
    seal(TABLES)
    _, (fault,) = traced("results/tiny/figures/accuracy.svg", arm="baseline")
    assert fault.startswith(f"{table('arms')}: expected ")
    assert f"{figure('accuracy')} was made from another one: {SET_ASIDE}" in fault


def test_figures_show_the_largest_share_but_for_the_one_over_shares(study):
    text = Path(table("arms")).read_text()
    row = next(line for line in text.splitlines(keepends=True) if "instruct,100" in line)
    write(table("arms"), text + row.replace("instruct,100", "instruct,50"))
    for name in ("accuracy", "out-family"):
        with pytest.raises(UserError, match=rf"{name}\.svg: no share=50; there is '', '100'$"):
            traced(f"results/tiny/figures/{name}.svg", share="50")
    assert "share=50" in traced("results/tiny/figures/low-resource-tiny.svg", share="50")[0][2]


BARS = {
    "out-family": ({"arm": "instruct"}, f"3 of 4 correct in {SAMPLES['instruct/0']}"),
    "low-resource-tiny": ({"arm": "baseline"}, f"1 of 4 correct in {SAMPLES['base']}"),
    "lengths": ({"arm": "instruct"}, f"21.5 tokens per answer in {SAMPLES['instruct/0']}"),
    "solving-tiny": ({"measure": "maj", "k": "1"}, f"75 % of 2 items solved in {PATHS}"),
    "cost": ({"arm": "instruct", "stage": "evaluate"}, "2 jobs"),
}


@pytest.mark.parametrize("name", BARS)
def test_a_bar_of_any_figure_leads_to_what_it_was_counted_from(study, name):
    wanted, said = BARS[name]
    lines, broken = traced(f"results/tiny/figures/{name}.svg", **wanted)
    assert broken == []
    assert [line.split()[0] for line in lines[:3]] == ["plot", "tables", "row"]
    assert all(f"{column}={value}" in lines[2] for column, value in wanted.items())
    assert sum(line.split()[0] == "row" for line in lines) == 1
    assert said in [line.strip() for line in lines]


def test_a_figure_of_several_tables_is_traced_through_those_that_have_what_is_wanted(study):
    lines, broken = traced("results/tiny/figures/yields-tiny.svg", recipe="cot")
    assert broken == []
    assert [line.split()[0] for line in lines[:3]] == ["plot", "tables", "row"]
    assert "dropped_same_text=0" in lines[2] and "pairs=1" in lines[3]
    lines, _ = traced("results/tiny/figures/yields-tiny.svg", style="cot")
    rows = [line for line in lines if line.split()[0] == "row"]
    assert ["measure=pass" in row for row in rows] == [False, True]
    assert any(line.endswith("(above)") and f" {table('solving')}" in line for line in lines)
    with pytest.raises(UserError, match="no column 'arm'; there are student, teacher"):
        traced("results/tiny/figures/yields-tiny.svg", arm="refine")


def test_a_figure_has_no_bars_of_teachers_of_another_family(study):
    with pytest.raises(UserError, match=r"in-family\.svg: has no rows"):
        traced("results/tiny/figures/in-family.svg", arm="instruct")


def test_the_row_behind_a_second_table_of_a_figure_is_checked_too(study):
    edit(table("solving"), "pass,1,1,2,0.75", "pass,1,1,2,0.85")
    _, broken = traced("results/tiny/figures/yields-tiny.svg", style="cot")
    assert [fault.split(" expected")[0] for fault in broken] == [
        f"{table('solving')}:",
        f"{table('solving')}:2:",
    ]


def test_a_laid_out_table_leads_through_the_rows_that_it_shows(study):
    for suffix in ("csv", "md"):
        lines, broken = traced(f"results/tiny/tables/paper/transfer-tiny.{suffix}", arm="instruct")
        assert broken == []
        assert [line.split()[0] for line in lines[:5]] == ["layout", "row", "tables", "row", "accuracy=0.625"]
        assert "Boxes=62.5" in lines[1] and lines[5].strip() == f"3 of 4 correct in {SAMPLES['instruct/0']}"
    lines, _ = traced("results/tiny/tables/paper/transfer-tiny.csv", arm="teacher", cell="Boxes")
    assert f"4 of 4 correct in {TEACHER}" in [line.strip() for line in lines]
    assert not any(
        "correct in" in line
        for line in traced("results/tiny/tables/paper/transfer-tiny.csv", arm="teacher", cell="Far")[0]
    )
    lines, _ = traced("results/tiny/tables/paper/solving.csv", student="tiny", cell="maj@1")
    rows = [line for line in lines if line.split()[0] == "row"]
    assert len(rows) == 2 and "measure=maj" in rows[1]
    lines, _ = traced("results/tiny/tables/paper/cost.csv", stage="instruct")
    assert sum(line.split()[0] == "instruct" for line in lines) == 2
    with pytest.raises(UserError, match="no column 'Near'; there are arm, teacher, instructed on, Boxes"):
        traced("results/tiny/tables/paper/transfer-tiny.csv", arm="teacher", cell="Near")


def test_a_laid_out_table_of_answers_leads_to_them(study):
    lines, broken = traced("results/tiny/tables/paper/teachers.csv", teacher="oracle", cell="test, with CoT")
    assert broken == []
    assert [line.split()[0] for line in lines[:4]] == ["layout", "row", "4", "teach"]
    assert lines[2].strip() == f"4 of 4 correct in {TEACHER}"
    edit(TEACHER, '"item": "b", "strict": 1.0', '"item": "b", "strict": 0.0')
    assert traced("results/tiny/tables/paper/teachers.csv", teacher="oracle")[1]


def test_a_comparison_of_a_claim_leads_to_both_arms(study):
    for suffix in ("md", "json"):
        lines, broken = traced(f"results/tiny/claims.{suffix}", claim="1", against="teacher")
        assert broken == []
        assert [line.split()[0] for line in lines[:2]] == ["claims", "row"]
        assert [line.strip() for line in lines if " correct in " in line] == [
            f"3 of 4 correct in {SAMPLES['instruct/0']}",
            f"2 of 4 correct in {SAMPLES['instruct/1']}",
            f"4 of 4 correct in {TEACHER}",
        ]
    with pytest.raises(UserError, match="no verdict=supported; there is 'undecided'"):
        traced("results/tiny/claims.md", verdict="supported")


CLAIMED = [
    ('"accuracy": 0.625', '"accuracy": 0.725', "accuracy 0.625", "0.725"),
    ('"difference": 0.375', '"difference": 0.5', "difference 0.375", "0.5"),
    ('"gained": 2', '"gained": 3', "gained 3", "4"),
]


@pytest.mark.parametrize("old, new, expected, found", CLAIMED)
def test_a_comparison_that_was_edited_with_its_hash_is_counted_again(study, old, new, expected, found):
    path = Path(CLAIMS)
    path.write_text(path.read_text().replace(old, new, 1))
    reseal(str(path))
    (fault,) = faults()
    assert fault.startswith(f"{path}:claim 1, comparison 1: expected {expected} (counted in results/")
    assert f", found {found}; the table was changed after it was made" in fault


def test_a_comparison_must_name_the_samples_of_its_arms(study):
    path = Path(CLAIMS)
    path.write_text(path.read_text().replace('"against": "baseline"', '"against": "teacher"'))
    reseal(str(path))
    (fault,) = faults()
    assert f"expected the samples of an arm teacher to compare with, found {SAMPLES['base']}" in fault


def test_claims_that_are_none_are_a_fault(study):
    write(CLAIMS, '{"claims": [{}]}')
    reseal(CLAIMS)
    (fault,) = faults()
    assert fault.startswith(f"{CLAIMS}: expected a table, found none (KeyError: 'claim')")


def test_curves_are_named_by_a_part_of_their_checkpoints_names(study):
    lines, broken = traced("results/tiny/figures/training.svg", checkpoint="instruct/1")
    assert broken == []
    assert [line.split()[0] for line in lines[:2]] == ["plot", "instruct"]
    assert LOGS[1] in lines[1]
    assert not any(LOGS[0] in line for line in lines)
    for wanted in ({"checkpoint": "refine"}, {"arm": "instruct"}, {"checkpoint": "instruct", "arm": "instruct"}):
        with pytest.raises(UserError, match="checkpoint= and a part of one of these: tiny/instruct/0, tiny/instruct/1"):
            traced("results/tiny/figures/training.svg", **wanted)
    Path(TRAININGS).unlink()
    assert LOGS[1] in traced("results/tiny/figures/training.svg", checkpoint="seed1")[0][1]


def test_a_row_of_the_sources_leads_to_what_was_fetched(study):
    lines, broken = traced("results/tiny/tables/sources.csv", role="student")
    assert broken == []
    assert lines[2].split()[0] == "fetch_model"
    edit(SOURCES, "published", "other")
    reseal(SOURCES)
    _, (fault,) = traced("results/tiny/tables/sources.csv", role="student")
    assert fault.startswith(f"{SOURCES}:2: expected a record below results/store/fetch_model/ of that source")


def tamper_size() -> None:
    path = Path(TRAIN)
    path.write_bytes(path.read_bytes()[:-3])


FAULTS = {
    "edited, of the same size": (
        lambda: edit(SAMPLES["instruct/0"], '"id": "b", "strict": 1.0', '"id": "b", "strict": 0.0'),
        f"{SAMPLES['instruct/0']}: expected ",
        f"it was changed after it was made: {SET_ASIDE}",
    ),
    "cut off": (tamper_size, f"{TRAIN}: expected 12 bytes, sha256 ", "found 9 bytes, sha256 "),
    "missing": (
        lambda: Path(TRAIN).unlink(),
        f"{TRAIN}: expected 12 bytes, sha256 ",
        f"it is missing; {SET_ASIDE}, and `snakemake {record_of(TRAIN)}` makes it again",
    ),
    "record not JSON": (
        lambda: Path(f"{TASK}/record.json").write_text('{"stage"'),
        f"{TASK}/record.json: expected a record of provenance, found none: ",
        SET_ASIDE,
    ),
    "record not of the schema": (
        lambda: edit(f"{TASK}/record.json", '"wall_seconds": 1.5', '"wall_seconds": -1'),
        f"{TASK}/record.json: expected a record of provenance, found none: wall_seconds: ",
        SET_ASIDE,
    ),
    "record that nothing reads": (
        lambda: Path(record_of(figure("training"))).write_text("{}"),
        f"{record_of(figure('training'))}: expected a record of provenance, found none: stage: ",
        SET_ASIDE,
    ),
    "record gone": (
        lambda: Path(f"{MODEL}/record.json").unlink(),
        f"{WEIGHTS}: expected a record of how it was made, found none",
        f"`snakemake {MODEL}/record.json` makes it again",
    ),
    "artifact gone": (
        lambda: shutil.rmtree(Path(TRAIN).parent),
        f"{TRAIN}: expected a record of how it was made, found none",
        f"`snakemake {record_of(TRAIN)}` makes it again",
    ),
    "input of a record edited": (
        lambda: edit(record_of(figure("accuracy")), sha256_of(Path(table("arms"))), "0" * 64),
        f"{record_of(figure('accuracy'))}: expected ",
        f"the record was changed after it was written: {SET_ASIDE}",
    ),
    "input of a record edited with its digest": (
        lambda: forge(record_of(figure("accuracy")), sha256_of(Path(table("arms"))), "0" * 64),
        f"{table('arms')}: expected ",
        f"sha256 000000000000 (read, says {record_of(figure('accuracy'))}), found ",
    ),
    "setting of a record that no job reads": (
        lambda: edit(f"{TASK}/record.json", '"name": "boxes"', '"name": "others"'),
        f"{TASK}/record.json: expected settings, command and inputs of the content that it was written with, ",
        f"the record was changed after it was written: {SET_ASIDE}",
    ),
    "hash in a record edited": (
        lambda: edit(record_of(SAMPLES["instruct/0"]), sha256_of(Path(SAMPLES["instruct/0"])), "0" * 64),
        f"{record_of(SAMPLES['instruct/0'])}: expected ",
        f"of {SAMPLES['instruct/0']}, as the file is and as 2 records read it, found ",
    ),
    "made anew, but not what was made from it": (
        lambda: (edit(f"{TASK}/docs.jsonl", "docs", "DOCS"), seal(f"{TASK}/record.json")),
        f"{TASK}/docs.jsonl: expected ",
        f"{SAMPLES['base']} was made from another one: {SET_ASIDE}, and `snakemake {record_of(SAMPLES['base'])}` makes",
    ),
    "index edited": (
        lambda: edit(TRAININGS, "tiny/instruct/1", "tiny/instruct/2"),
        f"{TRAININGS}: expected ",
        f"it was changed after it was made: {SET_ASIDE}",
    ),
    "index edited with its record": (
        lambda: (edit(TRAININGS, "tiny/instruct/1", "tiny/instruct/2"), seal(record_of(TRAININGS))),
        f"{TRAININGS}: expected ",
        f"{figure('training')} was made from another one: {SET_ASIDE}",
    ),
    "index missing": (lambda: Path(INDEX).unlink(), f"{INDEX}: expected ", f"it is missing; {SET_ASIDE}"),
    "index gone": (
        lambda: shutil.rmtree(Path(INDEX).parent),
        f"{INDEX}: expected a record of how it was made, found none",
        f"`snakemake {record_of(INDEX)}` makes it again",
    ),
    "adapter edited": (lambda: edit(ADAPTER, "0", "9"), f"{ADAPTER}: expected 9 bytes, sha256 ", "found 9 bytes"),
    "weights edited": (
        lambda: edit(WEIGHTS, "w", "W"),
        f"{WEIGHTS}: expected 7 bytes, sha256 ",
        f"it was changed after it was made: {SET_ASIDE}",
    ),
    "weights missing": (
        lambda: Path(WEIGHTS).unlink(),
        f"{WEIGHTS}: expected 7 bytes, ",
        f"it is missing; {SET_ASIDE}",
    ),
    "another model named": (
        lambda: edit(f"{INSTRUCTED['0']}/record.json", f'"model": "{MODEL}/', f'"model": "{TASK}/'),
        f"{INSTRUCTED['0']}/record.json: expected ",
        f"the record of a model whose weights it was trained from, found {TASK}/record.json, which it did not read; "
        f"delete {INSTRUCTED['0']}, and `snakemake {INSTRUCTED['0']}/record.json` makes it again",
    ),
    "source edited": (
        lambda: write("oracle.jsonl", "RECORDING\n"),
        "oracle.jsonl: expected 10 bytes, sha256 ",
        "snakemake makes an artifact of this one beside it",
    ),
    "kept code edited": (
        lambda: write(f"results/store/code/{'0' * 16}.json", '{"script": "a.py", "files": {"a.py": ""}}'),
        f"results/store/code/{'0' * 16}.json: expected code of fingerprint 0000000000000000, found ",
        "it was changed after it was kept: delete it",
    ),
}


@pytest.mark.parametrize("tamper, begins, says", FAULTS.values(), ids=FAULTS)
def test_every_kind_of_fault_is_found(study, tamper, begins, says):
    tamper()
    found = faults()
    assert found and len({fault.split(": expected")[0] for fault in found}) == 1
    if "record.json: expected" in begins:
        assert len(found) == 1
    assert all(fault.startswith(begins) for fault in found)
    assert any(says in fault for fault in found)


@pytest.mark.parametrize(
    "kind", ["edited, of the same size", "cut off", "missing", "record not JSON", "record gone", "adapter edited"]
)
def test_a_chain_finds_the_faults_behind_it_and_only_those(study, kind):
    tamper, begins, _ = FAULTS[kind]
    tamper()
    lines, broken = traced("results/tiny/tables/accuracy.csv", arm="instruct", seed="0")
    assert [fault.startswith(begins) for fault in broken] == [True]
    # Files of no valid record stand by themselves, wherever they were read.
    places = {"record not JSON": 3, "record gone": 2}
    assert sum(line.endswith("BROKEN") for line in lines) == places.get(kind, 1)
    if kind in ("edited, of the same size", "adapter edited"):
        lines, broken = traced("results/tiny/tables/accuracy.csv", arm="instruct", seed="1")
        assert broken == [] and not any("BROKEN" in line for line in lines)


CHANGED = [
    (ADAPTER, "adapter 0", "adapter 9", [SAMPLES["instruct/0"], PATHS, REFINED]),
    (WEIGHTS, "weights", "WEIGHTS", [*SAMPLES.values(), *LOGS, PATHS, REFINED]),
]


@pytest.mark.parametrize("name, old, new, readers", CHANGED)
def test_changed_weights_are_found_though_their_own_record_agrees_with_them(study, name, old, new, readers):
    edit(name, old, new)
    seal(record_of(name))
    seal(TABLES, *({record_of(name)} & read_json(Path(TABLES))["inputs"].keys()))
    found = faults()
    assert len(found) == len(readers)
    for fault, reader in zip(sorted(found), sorted(readers), strict=True):
        assert fault.startswith(f"{name}: expected {len(old)} bytes, sha256 ")
        assert f"(read, says {record_of(reader)})" in fault
        assert f"(made, says {record_of(name)})" in fault
        assert f"{reader} was made from another one: {SET_ASIDE}" in fault


def test_a_fetched_file_must_be_the_pinned_one(study):
    content = read_json(Path(record_of(RAW)))
    content["settings"]["sha256"] = "1" * 64
    write_record(record_of(RAW), content)
    (fault,) = faults()
    assert fault.startswith(f"{RAW}: expected sha256 111111111111, which the settings in {record_of(RAW)} pin, found ")
    assert fault.endswith(f"delete {Path(RAW).parent}, and `snakemake {record_of(RAW)}` makes it again")


def test_a_source_that_was_edited_is_no_fault_of_what_was_made_of_the_older_one(study):
    """Artifacts of an edited source lie beside those of the older one."""
    write("oracle.jsonl", "RECORDING\n")
    again = f"{at('teach', 'oracle', 'boxes-test-cot')[:-12]}{'1' * 12}/answers.jsonl"
    record("teach", [TEST, "oracle.jsonl"], [write(again, Path(TEACHER).read_text())])
    results = AuditedResults(Path("results"))
    check_all(results)
    assert (list(results.faults), results.changed_outside) == ([], {"oracle.jsonl"})
    for name, now in ((TEACHER, "outside the results, another one now"), (again, "outside the results")):
        lines, broken = traced(name)
        assert broken == []
        assert lines[-1].endswith(f" oracle.jsonl ({now})")
    said = run(*PROGRAM, "trace", "--all", cwd=study).stdout
    assert said.startswith(
        "1 files outside the results, changed since some artifacts were made from them: not checked\n"
    )


@pytest.mark.parametrize(
    "listed, version, said",
    [
        ({"version": 1, "fingerprints": {"0" * 16: "the first"}}, "version 1", ""),
        (
            {"version": 1, "fingerprints": {"1" * 16: "the first", "0" * 16: "a loop moved"}},
            "version 1",
            "a loop moved",
        ),
        ({"version": 1, "fingerprints": {"1" * 16: "the first"}}, "version 1", ""),
        ({"version": 2, "fingerprints": {"0" * 16: "ties count half"}}, "version 2", "ties count half"),
        ({"version": 2, "fingerprints": {"1" * 16: "other", "0" * 16: "a loop moved"}}, "version 1", ""),
        ({"version": 1, "fingerprints": {"1" * 16: "the first", "0" * 16: "a loop moved"}}, "0" * 16, ""),
    ],
)
def test_a_chain_says_why_code_counts_as_its_version(study, tmp_path, monkeypatch, listed, version, said):
    write_json(tmp_path / "scripts/versions.json", {"tables": listed})
    monkeypatch.setattr("selfrefine.audit.chain.SCRIPTS", tmp_path / "scripts")
    forge(TABLES, '"version": "version 1"', f'"version": "{version}"')
    lines, broken = traced("results/tiny/tables/accuracy.csv", arm="teacher")
    assert broken == []
    assert [line for line in lines if "code" in line] == ([f"  code {version} (because {said})"] if said else [])
    assert [line.split()[0] for line in lines[:3] if "code" not in line][:2] == ["tables", "row"]


ROWS = [
    ("accuracy", "instruct,100,0,boxes,4,3,0.75", "instruct,100,0,boxes,4,4,1", "accuracy 0.75, correct 3", "1, 4"),
    ("accuracy", "baseline,,,boxes,4,1,0.25", "baseline,,,boxes,4,,none", "accuracy 0.25, correct 1", "none, nothing"),
    ("arms", "boxes,2,4,0.625", "boxes,2,4,0.626", "accuracy 0.625", "0.626"),
    ("arms", "boxes,2,4,0.625", "boxes,5,4,0.625", "seeds 2", "5"),
    ("lengths", "4,23.5,baseline,12", "4,23,baseline,12", "tokens 23.5", "23"),
    ("lengths", "4,23.5,baseline,12", "4,23.5,baseline,-12", "longer 12", "-12"),
    ("comparisons", "4,0.25,1,0", "4,0.25,2,1", "gained 1, lost 0", "2, 1"),
    ("comparisons", "4,0.25,1,0", "4,0.5,1,0", "difference 0.25", "0.5"),
    ("demonstrations", ",1,1,0", ",2,2,0", "answers 1, kept 1", "2, 2"),
    ("paths", "cot,3,2,1", "cot,3,3,0", "correct 2, cut 1", "3, 0"),
    ("paths", "2,2,cot", "2,1,cot", "items_solved 2", "1"),
    ("pairs", ".jsonl,0,1,1", ".jsonl,1,1,2", "pairs 1, dropped_same_text 0", "2, 1"),
    ("solving", "pass,1,1,2,0.75", "pass,1,2,2,1", "seeds 1, value 0.75", "2, 1"),
    ("solving", "maj,1,1,2,0.75", "maj,1,1,3,0.5", "items 2, value 0.75", "3, 0.5"),
    (
        "costs",
        "instruct,100,instruct,2,1,1.5",
        "instruct,100,instruct,1,2,3",
        "checkpoints 2, jobs 1, wall_seconds 1.5",
        "1, 2, 3",
    ),
    (
        "costs",
        "1.5,1.5,1.5,50,50,10",
        "1.5,1,2,60,50,20",
        "least 1.5, most 1.5, tokens 50, peak_memory_mib 10",
        "1, 2, 60, 20",
    ),
    ("stages", "1.5,50", "0.5,5", "wall_seconds 1.5, tokens 50", "0.5, 5"),
    ("refinements", "2,4,2,0.5,0.25", "2,4,2,0.5,0.75", "accuracy 0.25", "0.75"),
    ("refinements", "0.75,1,-0.5", "0.75,2,-0.5", "highest_update 1", "2"),
]


@pytest.mark.parametrize("of, old, new, expected, found", ROWS)
def test_a_number_that_was_edited_with_its_tables_hash_is_counted_again(study, of, old, new, expected, found):
    name = table(of)
    edit(name, old, new)
    reseal(name)
    (fault,) = faults()
    assert fault.startswith(f"{name}:") and f"expected {expected} (counted in results/" in fault
    assert fault.endswith(
        f", found {found}; the table was changed after it was made: delete {at('tables')}, and `snakemake {TABLES}` "
        "makes it again"
    )
    assert traced(name)[1] == [fault]


BETTER = {"step": 3, "split": "validation", "loss": 0.7, "accuracy": 1.0, "chosen_token_logp": -0.5}
ANOTHER = {"item": "v", "sample": 0, "style": "cot", "correct": True, "extracted": "+"}


@pytest.mark.parametrize(
    "name, more, expected",
    [
        (KEPT, {"id": "u"}, "demonstrations.csv:2: expected kept 2 "),
        (PATHS, ANOTHER, "paths.csv:2: expected paths 4, correct 3, items 3, items_solved 3 "),
        (PAIRS, {"id": "u"}, "pairs.csv:2: expected pairs 2 "),
        (PATHS, ANOTHER, "solving.csv:2: expected items 3, value 0.833333 "),
        (REFINED, BETTER, "refinements.csv:2: expected highest_accuracy 1, highest_update 3 "),
    ],
)
def test_what_a_table_says_of_a_file_is_counted_in_the_file(study, name, more, expected):
    write(name, [*read_jsonl(Path(name)), more])
    seal(record_of(name))
    reseal(record_of(name))
    reseal(name)
    assert any(fault.startswith(f"{at('tables')}/{expected}") for fault in faults())


def test_a_row_of_a_table_that_was_made_from_other_answers_is_a_broken_link(study):
    edit(SAMPLES["base"], '"id": "d", "strict": 0.0, "legacy": 0.0', '"id": "d", "strict": 0.0, "legacy": 1.0')
    own = record_of(SAMPLES["base"])
    seal(own)
    _, broken = traced("results/tiny/tables/accuracy.csv", arm="baseline")
    assert sorted(fault.split(": expected")[0] for fault in broken) == [own, SAMPLES["base"]]
    assert all(f"{table('accuracy')} was made from another one" in fault for fault in broken)
    assert traced("results/tiny/tables/accuracy.csv", arm="teacher")[1] == []


def test_a_row_whose_answers_and_their_record_are_gone_is_not_counted(study):
    own = record_of(SAMPLES["base"])
    Path(SAMPLES["base"]).unlink()
    Path(own).unlink()
    lines, broken = traced("results/tiny/tables/accuracy.csv", arm="baseline")
    assert "    not counted again: what it was counted from is not what was made" in lines
    assert [fault.split(": expected a record")[0] for fault in broken] == [SAMPLES["base"]]


@pytest.mark.parametrize(
    "of, old, new, expected",
    [
        (
            "accuracy",
            f"4,1,0.25,tiny/base,{SAMPLES['base']}",
            f"4,3,0.75,tiny/base,{SAMPLES['instruct/0']}",
            "of its arm",
        ),
        ("accuracy", "tiny/instruct/0,", "tiny/instruct/7,", "of its arm (there are none)"),
        ("accuracy", f"tiny/base,{SAMPLES['base']}", "tiny/base,results/x.jsonl", "files that the table was made from"),
        ("accuracy", f"tiny/base,{SAMPLES['base']}", "tiny/base,", "files that the table was made from"),
        ("arms", f"2,4,0.625,{SAMPLES['instruct/0']} ", "1,4,0.5,", "of its arm"),
        ("lengths", f"23.5,baseline,12,{SAMPLES['instruct/0']} ", "25.5,baseline,14,", "of its arm"),
        ("lengths", "23.5,baseline", "23.5,teacher", "of an arm teacher to compare with"),
        ("comparisons", "0,baseline", "0,teacher", "of an arm teacher to compare with"),
    ],
)
def test_a_row_must_name_the_samples_of_its_arm(study, of, old, new, expected):
    name = table(of)
    edit(name, old, new)
    reseal(name)
    (wrong, *_) = [fault for fault in faults() if fault.startswith(f"{name}:")]
    assert expected in wrong


def test_a_row_that_was_taken_out_is_missed(study):
    content = Path(table("accuracy")).read_text().splitlines(keepends=True)
    write(table("accuracy"), "".join(content[:2] + content[3:]))
    seal(TABLES)
    (fault,) = faults()
    assert fault.startswith(f"{table('accuracy')}: expected a row of {SAMPLES['instruct/0']}, found none")


def test_answers_that_cannot_be_counted_are_a_fault(study):
    rows = [{"id": row["id"], "lenient": 1.0} for row in read_jsonl(Path(SAMPLES["base"]))]
    write(SAMPLES["base"], rows)
    own = record_of(SAMPLES["base"])
    reseal(SAMPLES["base"])
    reseal(own)
    assert all("what cannot be counted (KeyError: 'strict')" in fault for fault in faults()) and faults()


def test_other_items_in_one_seed_than_in_another_are_a_fault(study):
    own = record_of(SAMPLES["instruct/1"])
    edit(SAMPLES["instruct/1"], '"id": "d"', '"id": "e"')
    reseal(SAMPLES["instruct/1"])
    reseal(own)
    found = faults()
    assert [fault.split(": expected")[0] for fault in found] == [
        f"{CLAIMS}:claim 1, comparison 1",
        f"{CLAIMS}:claim 1, comparison 2",
        f"{table('arms')}:3",
        f"{table('comparisons')}:3",
        f"{table('lengths')}:3",
    ]
    assert all("the files are of different items" in fault for fault in found)


def test_results_are_checked_wherever_they_lie(study, monkeypatch):
    archive = study / "far" / "archived"
    shutil.copytree("results", archive, symlinks=True)
    shutil.rmtree("results")
    assert faults(str(archive)) == []
    for path in (PAIRS, str(archive / PAIRS.removeprefix("results/"))):
        lines, broken = traced(path, str(archive))
        assert broken == []
        assert sum(line.endswith("boxes.jsonl (outside the results, not here: not checked)") for line in lines) == 1
    for path in ("results/tiny/tables/arms.csv", archive / "tiny/tables/arms.csv"):
        assert traced(str(path), str(archive), arm="teacher")[0][0].endswith(f" {table('arms')}")
    monkeypatch.chdir(archive)
    assert traced(PAIRS.removeprefix("results/"), ".")[0] == lines
    (archive / "store" / "export_task" / "boxes" / Path(TASK).name / "docs.jsonl").unlink()
    (fault,) = faults(str(archive))
    assert fault.startswith(f"{TASK}/docs.jsonl: ")
    assert fault.endswith(
        f"{SET_ASIDE}, and `snakemake {TASK}/record.json` makes it again where the study ran; copy it from there"
    )


def test_names_whose_links_have_become_files_are_traced(study):
    """As in an archive unpacked."""
    for path in Path("results/tiny").rglob("*"):
        if path.is_symlink():
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
    for name in ("tables/arms.csv", "figures/accuracy.svg"):
        lines, broken = traced(f"results/tiny/{name}", arm="teacher")
        assert broken == []
        assert "4 of 4 correct in" in "\n".join(lines)
    write("results/tiny/tables/arms.csv", "edited\n")
    lines, (fault,) = traced("results/tiny/tables/arms.csv")
    assert fault.startswith("results/tiny/tables/arms.csv: expected a record of how it was made, found none")


def test_results_on_another_disk_are_traced_through_their_link(study):
    shutil.move("results", "another disk")
    Path("results").symlink_to("another disk")
    assert faults() == []
    lines, broken = traced("results/tiny/tables/arms.csv", arm="teacher")
    assert broken == []
    assert lines[0].endswith(f" {table('arms')}")
    edit(TRAIN, "t", "T")
    assert all(fault.startswith(f"{TRAIN}: ") for fault in faults())


def test_sources_beside_moved_results_are_checked(study):
    shutil.copytree("results", "far/archived", symlinks=True)
    results = AuditedResults(Path("far/archived"))
    check_all(results)
    assert results.outside == {"boxes.jsonl", "oracle.jsonl", "published/model.safetensors", "published/notes.txt"}
    write("far/published/notes.txt", "notes.txt")
    lines, _ = traced(WEIGHTS, "far/archived")
    assert [line.split(" ", 5)[-1] for line in lines[1:]] == [
        "published/model.safetensors (outside the results, not here: not checked)",
        "published/notes.txt (outside the results)",
    ]
    write("far/boxes.jsonl", "raw\n")
    write("far/oracle.jsonl", "other\n")
    found = faults("far/archived")
    assert len(found) == 2 and all(fault.startswith("oracle.jsonl: expected 10 bytes") for fault in found)


@pytest.mark.parametrize(
    "path, wanted, message",
    [
        (
            "results/tiny/tables/accuracy.csv",
            {"arn": "refine"},
            r"no column 'arn'; there are arm, share, seed, evaluation",
        ),
        (
            "results/tiny/tables/accuracy.csv",
            {"arm": "refine"},
            r"no arm=refine; there is 'baseline', 'instruct', 'teacher'$",
        ),
        (
            "results/tiny/tables/accuracy.csv",
            {"arm": "instruct", "seed": "2"},
            r"no seed=2 in the rows that match so far; there is '0', '1'$",
        ),
        (
            KEPT,
            {"arm": "x"},
            "neither a table nor a figure: name it without arm=…",
        ),
        (INDEX, {"arm": "x"}, "neither a table nor a figure"),
        ("results/nothing.jsonl", {}, "results/nothing.jsonl: no such artifact"),
        ("results/store/pair", {}, "results/store/pair: no such artifact"),
        ("results/tiny/summary.md", {}, "results/tiny/summary.md: no such artifact"),
        (
            "boxes.jsonl",
            {},
            "boxes.jsonl: not in .*results; name a file of the results, or their folder with --results",
        ),
    ],
)
def test_what_cannot_be_traced_is_said(study, path, wanted, message):
    with pytest.raises(UserError, match=message):
        traced(path, **wanted)


def test_a_folder_that_is_no_results_is_refused(study):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        AuditedResults(Path("nowhere"))
    Path("empty").mkdir()
    with pytest.raises(UserError, match="no record below it"):
        faults("empty")


def test_a_missing_artifact_is_traced_by_its_record(study):
    Path(TRAIN).unlink()
    lines, broken = traced(TRAIN)
    assert lines[0] == f"prepare 2026-03-01  missing {TRAIN} (items 1)  BROKEN"
    assert f"it is missing; {SET_ASIDE}" in broken[0]


def test_a_missing_artifact_with_a_record_that_is_none_is_a_fault(study):
    name = f"{TASK}/record.json"
    Path(f"{TASK}/docs.jsonl").unlink()
    Path(name).write_text("")
    _, (fault,) = traced(f"{TASK}/docs.jsonl")
    assert fault.startswith(f"{name}: expected a record of provenance, found none: ")


def test_a_missing_record_that_a_table_was_made_from_is_a_fault(study):
    own = record_of(KEPT)
    Path(own).unlink()
    assert sorted(fault.split(", found")[0] for fault in faults()) == [
        f"{KEPT}: expected a record of how it was made",
        f"{own}: expected a record of how it was made",
    ]


def test_an_artifact_without_a_record_is_a_fault(study):
    other = f"{Path(PAIRS).parent.parent}/{'9' * 12}/pairs.jsonl"
    write(other, "{}\n")
    lines, (fault,) = traced(other)
    assert lines[0].startswith("?  ") and lines[0].endswith("BROKEN")
    assert fault.startswith(f"{other}: expected a record of how it was made, found none")


def test_the_program_needs_nothing_but_pydantic_and_says_by_its_status_whether_all_holds(study):
    program = [*PROGRAM, "trace"]
    whole = run(*program, "--all", cwd=study)
    assert whole.stdout.startswith("records: ") and whole.stdout.endswith(": every link holds\n")
    assert whole.stdout.count("\n") == 1 and whole.stderr == ""
    row = run(*program, "results/tiny/tables/accuracy.csv", "arm=instruct", "seed=0", cwd=study)
    assert f"3 of 4 correct in {SAMPLES['instruct/0']}\n" in row.stdout
    Path(TRAIN).unlink()
    broken = run(*program, "results/tiny/tables/accuracy.csv", "arm=instruct", "seed=0", cwd=study, check=False)
    assert broken.returncode == 1
    assert broken.stdout.endswith(": 1 broken\n")
    assert broken.stderr.startswith(f"broken: {TRAIN}: expected ") and broken.stderr.count("\n") == 1
    accuracy = "results/tiny/tables/accuracy.csv"
    for arguments in ([accuracy, "arm"], [accuracy, "a=1", "a=2"], []):
        refused = run(*program, *arguments, cwd=study, check=False)
        assert refused.returncode == 1 and refused.stderr.startswith("error: ")
    shutil.move("results", "moved")
    moved = run(*program, "--results", "moved", "--all", cwd=study, check=False)
    assert moved.returncode == 1 and moved.stderr.startswith(f"broken: {TRAIN}: ")


def test_a_table_is_held_against_the_cells_that_it_was_made_from(tmp_path):
    """Of the teachers' answers, the verdicts under other choices have those under other prompts too."""
    asked = {"arm": "teacher", "evaluation": "boxes", "samples": "cot.jsonl"}
    cells = {"tables/claims.json": [asked], "tables/flips.csv": [asked, asked | {"samples": "plain.jsonl"}]}
    tables = Tables(AuditedResults(tmp_path))
    tables.recount = SimpleNamespace(cells=cells.__getitem__)
    for table, known in cells.items():
        of = tables._samples_by(table, ("arm", "evaluation"))
        assert of == {("teacher", "boxes"): [cell["samples"] for cell in known]}


# A study as `share` copies it.


@pytest.fixture
def shared(study) -> Path:
    """A shared copy of the planted study; what it was copied from is gone."""
    finals = [str(path) for path in sorted(Path("results/store").rglob("record.json")) if path.parts[2] in FINAL]
    write("results/tiny/.shown/0123.0", "".join(f"{path}\n" for path in finals))
    told = run(*PROGRAM, "share", "tiny", "shared", cwd=study).stdout
    assert told.startswith("shared: ") and told.endswith(" more by size and sha256 alone\n")
    for name in ("results", "published", "boxes.jsonl", "oracle.jsonl"):
        shutil.move(name, f"{name}.gone")
    return Path("shared")


def test_a_shared_study_is_traced_without_what_was_left_out(shared, study):
    there = {path.relative_to(shared).as_posix() for path in shared.rglob("*") if path.is_file()}
    for name in (WEIGHTS, ADAPTER, RAW, TRAIN, TEST, KEPT, PATHS, PAIRS):
        assert name.removeprefix("results/") not in there
        assert record_of(name).removeprefix("results/") in there
    assert not any(path.is_symlink() for path in shared.rglob("*"))
    assert {"tiny/claims.md", "tiny/tables/accuracy.csv", "tiny/figures/accuracy.svg"} <= there
    whole = run(*PROGRAM, "trace", "--all", "--results", "shared", cwd=study)
    assert " files were left out when the study was shared" in whole.stdout
    assert whole.stdout.endswith(": every link holds\n") and whole.stderr == ""
    row = run(
        *PROGRAM, "trace", "--results", "shared", "shared/tiny/tables/accuracy.csv", "arm=instruct", "seed=0", cwd=study
    )
    assert f"3 of 4 correct in {SAMPLES['instruct/0']}\n" in row.stdout
    lines = [line for line in row.stdout.splitlines() if TRAIN in line]
    assert "(left out, " in lines[0] and not any("missing" in line for line in lines)
    row = run(*PROGRAM, "trace", "--results", "shared", "shared/tiny/tables/pairs.csv", "seed=0", cwd=study)
    assert "not counted again: what it was counted from was left out" in row.stdout


@pytest.mark.parametrize("name", [SAMPLES["instruct/0"], table("accuracy"), table("stages"), LOGS[0]])
def test_what_was_changed_in_a_shared_study_is_found(shared, name):
    path = shared / name.removeprefix("results/")
    path.write_bytes(path.read_bytes().replace(b"1", b"3", 1))
    assert any(name in fault for fault in faults("shared"))


def test_a_file_that_was_lost_from_a_shared_study_is_a_fault(shared):
    (shared / SAMPLES["base"].removeprefix("results/")).unlink()
    assert any(fault.startswith(f"{SAMPLES['base']}: ") for fault in faults("shared"))


def test_only_a_whole_study_is_shared_and_only_to_a_new_folder(shared, study):
    shutil.move("results.gone", "results")
    again = run(*PROGRAM, "share", "tiny", "shared", cwd=study, check=False)
    assert "shared: is not empty" in again.stderr
    other = run(*PROGRAM, "share", "other", "new", cwd=study, check=False)
    assert "results/other: shows no finished study" in other.stderr
    edit(SAMPLES["base"], '"tokens": 10', '"tokens": 11')
    damaged = run(*PROGRAM, "share", "tiny", "new", cwd=study, check=False)
    assert damaged.stderr.startswith(f"error: {SAMPLES['base']}: is not what ")
    assert not Path("new").exists()
