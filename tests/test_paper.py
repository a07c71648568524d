"""The paper's study in miniature: config/paper.yaml with random weights and few real items, from raw to verdicts."""

import contextlib
import csv
import json
import random
from pathlib import Path

import pytest
import yaml

from conftest import REPOSITORY, artifact, checked, make_workflow, run, run_forked
from selfrefine.data.items import read_items
from selfrefine.engines.item_requests import requests_for
from selfrefine.schema.generation import Generation
from selfrefine.schema.prompt import Prompt
from selfrefine.store.files import read_json, write_jsonl
from selfrefine.study.open_study import open_study

RECORDS = REPOSITORY / "tests/fixtures/paper"
ALL = ("csqa-hub", "obqa-hub", "piqa-hub", "siqa-hub", "gsm8k", "multiarith", "math-500", "mmlu")
SIZES = {"csqa-hub": (20, 10), "piqa-hub": (20, 10)}
SHORT = {"max_tokens": 12}


def miniature(model, folder) -> dict:
    """config/paper.yaml with less of everything: the same keys, the same arms.

    Evaluated on one benchmark, on which half of the students were trained: most of the time starts its jobs.
    """
    config = yaml.safe_load((REPOSITORY / "config/paper.yaml").read_text())
    config["study"] |= {
        "students": ["llama-2-7b"],
        "teachers": ["llama-2-70b", "gpt-3.5"],
        "tasks": list(SIZES),
        "evaluate": ["csqa-hub"],
        "shares": [50, 100],
        "seeds": [0, 1],
    }
    for entry in config["models"].values():
        entry["source"] = f"file:{model}"
    for name in config["study"]["teachers"]:
        engine = {"engine": "recorded", "recording": str(folder / f"{name}.jsonl"), "generation": SHORT}
        config["teachers"][name] = {"family": config["teachers"][name]["family"], **engine}
    config["students"]["llama-2-7b"] |= {"dtype": "float32", "batch_size": 64}
    config["benchmarks"] = {}
    for task in ALL:
        sizes = dict(zip(("train", "test"), SIZES.get(task, (None, None)), strict=True))
        names = yaml.safe_load((REPOSITORY / "config/benchmarks.yaml").read_text())["benchmarks"][task]["splits"]
        files = {entry["file"]: {"source": f"file:{records_of(task, split)}"} for split, entry in names.items()}
        config["benchmarks"][task] = {
            "files": files,
            "near_duplicate": 1.0,
            "splits": {split: {"size": sizes[split], "balance": False} for split in names},
        }
    config["sampling"] = {"cot": 3, "plain": 2, "generation": {**SHORT, "temperature": 1.0}}
    config["validation"] = 0.3
    adapter = {"r": 16, "alpha": 32, "dropout": 0.0}
    config["instruct"] |= {"epochs": 12, "learning_rate": 0.02, "batch_size": 8, "micro_batch_size": 8, "lora": adapter}
    config["refine"] |= {"learning_rate": 0.001, "epochs": 1, "batch_size": 4, "evaluate_every": 2, "warmup_steps": 1}
    config["refine"] |= {"lora": adapter}
    for phase in ("instruct", "refine"):
        config[phase] |= {"gradient_checkpointing": False, "max_length": 2048}
    config["evaluation"] |= SHORT
    # So small students often have no pairs, and every claim is to have its comparisons.
    config["statistics"] = {"count_unrefined": True}
    return config


def records_of(task: str, split: str):
    """The committed records of a benchmark's split."""
    path = RECORDS / f"{task}-{split}.jsonl"
    return path if path.exists() else REPOSITORY / f"tests/fixtures/hub/{task}.jsonl"


def record_teachers(folder) -> None:
    """What teachers that are correct three times in four would answer, from the prepared items."""
    study = open_study([folder / "config/mini.yaml"]).study
    for name in study.study.teachers:
        chance, rows = random.Random(name), {}
        splits = sorted((task, split) for task, entry in study.benchmarks.items() for split in entry.splits)
        for task, split in (one for one in splits if one[0] in ALL):
            items = read_items(artifact(folder, f"prepare/{task}-{split}") / "items.jsonl")
            prompt = Prompt(**study.prompts[study.benchmarks[task].kind].model_dump())
            for style in study.study.teacher_styles:
                for request in requests_for(items, prompt, style, 1, Generation(**SHORT), 0):
                    item = next(item for item in items.values() if request.id.startswith(item["id"]))
                    wrong = "B" if item["answer"] == "A" else "A" if item["choices"] else "1"
                    said = item["answer"] if chance.random() < 0.75 else wrong
                    text = {"text": f"The answer is {said}.", "finish_reason": "stop", "tokens": 6, "prompt_tokens": 40}
                    rows[request.key] = {"key": request.key, "id": request.id, **text}
        write_jsonl(folder / f"{name}.jsonl", [{"recording": {"teacher": name}}, *rows.values()])


@pytest.fixture(scope="module")
def paper(tmp_path_factory, tiny_model):
    """(folder, configuration) of the finished miniature."""
    folder = tmp_path_factory.mktemp("paper")
    config = miniature(tiny_model, folder)
    make_workflow(folder)
    (folder / "config/mini.yaml").write_text(yaml.dump(config, Dumper=yaml.SafeDumper, sort_keys=False))
    with contextlib.chdir(folder):
        artifacts = open_study([Path("config/mini.yaml")]).artifacts
        items = [artifacts.items(task, split).record for task in ALL for split in config["benchmarks"][task]["splits"]]
    # Students answer through the stand-in for vLLM, which compiles nothing: torch's slow compiler is left out.
    settings = {"PYTHONPATH": str(REPOSITORY / "tests/stand_in"), "TORCHDYNAMO_DISABLE": "1"}
    command = ("snakemake", "--configfile", "config/mini.yaml", "--cores", "2")
    checked(run_forked(*command, *items, cwd=folder, **settings))
    record_teachers(folder)
    checked(run_forked(*command, cwd=folder, **settings))
    return folder, config


def test_every_figure_and_table_of_the_paper_is_made(paper):
    folder, _ = paper
    figures = {path.stem for path in folder.glob("results/paper/figures/*.svg")}
    assert figures == {
        *("accuracy", "in-family", "out-family", "low-resource-llama-2-7b", "lengths", "solving-llama-2-7b"),
        *("yields-llama-2-7b", "cost", "training", "claims", "flips"),
    }
    layouts = {path.stem for path in folder.glob("results/paper/tables/paper/*.tex")}
    assert layouts == {
        *("transfer-llama-2-7b", "teachers", "prompts", "splits", "lengths", "solving", "yields", "cost")
    }
    for stem, endings in ((f"figures/{name}", ("svg", "pdf", "png")) for name in figures):
        assert all((folder / f"results/paper/{stem}.{ending}").stat().st_size > 1000 for ending in endings)


def test_every_claim_of_the_paper_gets_a_verdict(paper):
    folder, _ = paper
    claims = read_json(folder / "results/paper/claims.json")["claims"]
    assert [claim["claim"] for claim in claims] == [1, 2, 3, 4, 5, 6, 7]
    for claim in claims:
        assert claim["verdict"] in ("supported", "contradicted", "undecided"), claim["title"]
        assert claim["seeds"] == 2
        assert all(part["comparisons"] for part in claim["parts"])
    text = (folder / "results/paper/claims.md").read_text()
    assert "not tested" not in text.split("## How to read this")[0]


def test_every_arm_is_there_where_it_belongs(paper):
    folder, config = paper
    cells = read_json(artifact(folder, "listing/tables") / "tables.json")["cells"]
    found = {(cell["arm"], cell["share"]) for cell in cells}
    assert found == {
        *(("baseline", ""), ("teacher", ""), ("instruct", 50), ("instruct", 100), ("refine", 50), ("refine", 100)),
        *(("refine-only", 50), ("refine-only", 100), ("cross", 100)),
    }
    low = [cell for cell in cells if cell["share"] == 50]
    assert {cell["evaluation"] == (cell["refine_task"] or cell["task"]) for cell in low} == {True}


def test_every_number_leads_back_to_its_samples(paper):
    folder, _ = paper
    assert "every link holds" in run("python", "scripts/study.py", "trace", "--all", cwd=folder).stdout


def test_a_student_that_solves_nothing_is_left_as_it_was_and_named(paper):
    folder, _ = paper
    records = [json.loads(path.read_text()) for path in folder.glob("results/store/refine/**/record.json")]
    idle = [record for record in records if record["figures"]["updates"] == 0]
    assert idle and f"In {len(idle)} of " in (folder / "results/paper/details.md").read_text()
    assert f"{len(idle)} of " in (folder / "results/paper/summary.md").read_text()


def test_what_was_left_as_it_was_is_marked_and_counts_only_because_a_key_says_so(paper):
    folder, _ = paper
    with open(folder / "results/paper/tables/accuracy.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    unrefined = {row["samples"]: row["arm"] for row in rows if row["unrefined"] == "1"}
    assert unrefined and {*unrefined.values()} <= {"refine", "refine-only", "cross"}
    claims = read_json(folder / "results/paper/claims.json")["claims"]
    compared = [one for claim in claims for part in claim["parts"] for one in part["comparisons"]]
    named = {name for one in compared for name in (*one["samples"], *one["against_samples"])}
    assert named & unrefined.keys()
    for one in compared:
        marked = {*one["samples"], *one["against_samples"]} & unrefined.keys()
        assert bool(one["unrefined"]) == bool(marked) and one["left_out"] == []
    assert " †) " in (folder / "results/paper/claims.md").read_text()
    assert "†" in (folder / "results/paper/tables/paper/transfer-llama-2-7b.md").read_text()
