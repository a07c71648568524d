"""A study with recipes that sample online: what it plans, makes, counts and shows, and what a change makes again."""

import json

import pandas as pd
import pytest
import yaml

from conftest import artifact, planned_rules, run, snakemake, target
from selfrefine.analysis.jobs import tokens_of
from selfrefine.analysis.unrefined import made_no_update
from selfrefine.schema.assumptions import Assumptions
from selfrefine.store.files import read_json, read_jsonl
from selfrefine.study.job_table import read_assumptions
from selfrefine.study.open_study import open_study
from selfrefine.study.planning import Planner

INSTRUCTED = "tiny/oracle-boxes-100-seed0"
ONLINE = {
    "online": {"group": 4, "generation": {"max_tokens": 12, "temperature": 1.0}},
    "refine": {"batch_size": 16, "learning_rate": 0.003, "max_steps": 3, "schedule": "constant"},
}


def change(path, config, **study):
    config["study"] |= study
    config["recipes"] = {"grpo": ONLINE, "format-tuning": {"refine": {"max_steps": 2}}}
    path.write_text(yaml.safe_dump(config, sort_keys=False))


def test_a_study_mixes_recipes_that_sample_online_with_others(fresh):
    folder, path, config = fresh
    change(path, config, recipes=["cot", "grpo", "satori"], arms=["baseline", "instruct", "refine", "refine-only"])
    planned = planned_rules(snakemake(folder, "-n"))
    # Of the instructed student grpo and, after format tuning, satori; of the base model grpo, since satori has a teacher.
    assert planned["refine_online"] == 3
    # Of both students cot; of the instructed one format tuning, from the same sampled paths.
    assert (planned["sample"], planned["pair"], planned["refine"]) == (2, 3, 3)
    snakemake(folder)

    def made(name: str):
        return artifact(folder, f"refine_online/{name}")

    grpo, satori = made(f"{INSTRUCTED}/boxes-grpo-round1"), made(f"{INSTRUCTED}/boxes-grpo-round2")
    tuned = artifact(folder, f"refine/{INSTRUCTED}/boxes-format-tuning-round1")
    named = {name.split("/results/")[-1] for name in read_json(satori / "record.json")["inputs"]}
    assert any(str(tuned.relative_to(folder)) in name for name in named)
    assert not any("paths.jsonl" in name or "pairs.jsonl" in name for name in named)
    rows = read_jsonl(grpo / "training.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-7)

    figures = read_json(grpo / "record.json")["figures"]
    costs = pd.read_csv(folder / "results/tiny/tables/costs.csv", keep_default_na=False)
    online = costs[(costs.stage == "refine_online") & (costs.arm == "refine")]
    records = [read_json(one / "record.json") for one in (grpo, satori)]
    assert online.tokens.tolist() == [pytest.approx(sum(map(tokens_of, records)) / 2)]
    assert online.tokens_trained.tolist() == [pytest.approx(sum(r["figures"]["tokens_seen"] for r in records) / 2)]
    assert figures["tokens_made"] == sum(row["sampled_tokens"] for row in rows) > 0
    stages = pd.read_csv(folder / "results/tiny/tables/stages.csv")
    assert (stages.stage == "refine_online").sum() == 3
    # A base model of random weights answers nothing correctly.
    base = made("tiny/base-100-seed0/boxes-grpo-round1")
    assert made_no_update(read_json(base / "record.json"))
    accuracy = pd.read_csv(folder / "results/tiny/tables/accuracy.csv", keep_default_na=False)
    unrefined = accuracy[accuracy.unrefined == 1]
    assert set(zip(unrefined.arm, unrefined.recipe, strict=True)) >= {("refine-only", "grpo")}
    assert "online refinements met no rewards that differed" in (folder / "results/tiny/summary.md").read_text()

    drawn = (folder / "results/tiny/figures/training.svg").read_text()
    assert "online: reward" in drawn and "refine: loss" in drawn
    assert "The student is refined on what it samples" in (folder / "results/tiny/index.html").read_text()
    assert "every link holds" in run("python", "scripts/study.py", "trace", "--all", cwd=folder).stdout

    # A changed weight of the divergence makes again what was sampled online, and its evaluations.
    config["recipes"]["grpo"] = json.loads(json.dumps(ONLINE))
    config["recipes"]["grpo"]["online"]["kl"] = 0.5
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    again = planned_rules(snakemake(folder, "-n"))
    assert again["refine_online"] == 3 and again["evaluate"] >= 3
    assert not {"teach", "instruct", "sample", "pair", "refine"} & again.keys()

    # Without any other recipe, there are no sampled paths to show.
    change(path, config, recipes=["grpo"], arms=["baseline", "instruct", "refine"])
    assert not {"sample", "pair", "refine", "refine_online"} & planned_rules(snakemake(folder, "-n")).keys()
    snakemake(folder)
    shown = {one.name for one in (folder / "results/tiny/figures").iterdir()}
    assert "training.svg" in shown and not any(name.startswith(("yields", "solving")) for name in shown)


def test_a_budget_makes_the_sampled_paths_an_input_and_leaves_other_keys_alone(fresh, monkeypatch):
    folder, path, config = fresh
    monkeypatch.chdir(folder)

    def keys() -> dict[tuple, str]:
        return {(one.stage, *one.names): one.key for one in open_study([path]).behind_all()}

    before = keys()
    config["refine"]["tokens"] = 5000
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    after = keys()
    changed = {stage for (stage, *_), key in after.items() if before[stage, *_] != key}
    assert changed & {"sample", "pair", "instruct", "refine"} == {"refine"}
    snakemake(folder, target(folder, f"refine/{INSTRUCTED}/boxes-cot-round1"))
    refined = artifact(folder, f"refine/{INSTRUCTED}/boxes-cot-round1")
    record = read_json(refined / "record.json")
    paths = read_jsonl(artifact(folder, f"sample/{INSTRUCTED}/boxes-100-seed0") / "paths.jsonl")
    assert any("paths.jsonl" in name for name in record["inputs"])
    spent = record["figures"]["tokens_seen"] + sum(row["tokens"] for row in paths)
    of_update = record["figures"]["tokens_seen"] / record["figures"]["updates"]
    assert abs(spent - 5000) < 1.5 * of_update


def test_online_sampling_is_estimated(fresh, monkeypatch):
    folder, path, config = fresh
    monkeypatch.chdir(folder)
    change(path, config, recipes=["grpo"])
    finals = open_study([path])
    planner = Planner(finals.study, read_assumptions([]))
    of = {"start": "tiny/base", "task": "boxes", "recipe": "grpo", "share": "100", "seed": "0"}
    cost = planner.work.cost("refine_online", **of)
    # Three updates of 16 completions: a prompt of 110 tokens as assumed for options, answers cut at 12.
    assert cost.written_tokens == 48 * 12
    assert cost.trained_tokens == 48 * (110 + 12)
    assert cost.gpu_hours > planner.work._hours("tiny", 0, 0, cost.trained_tokens, 2)
    more = json.loads(json.dumps(ONLINE))
    more["refine"] |= {"tokens": 10 * (12 + 122) * 16, "max_steps": 1000}
    config["recipes"]["grpo"] = more
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    budget = Planner(open_study([path]).study, read_assumptions([])).work.cost("refine_online", **of)
    assert budget.written_tokens + budget.trained_tokens == pytest.approx(more["refine"]["tokens"])
    memory = planner.memory("refine_online", **of)
    assert isinstance(planner.assumed, Assumptions) and memory is not None and memory.total > 0
