"""The study of pairs and losses: its recipes learn from the same paths at equal compute, and its claims compare them."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from conftest import REPOSITORY, run, snakemake
from selfrefine.analysis.own_claims import claims_of
from selfrefine.analysis.verdicts import pairs_of
from selfrefine.store.files import read_jsonl
from selfrefine.study.artifacts import Artifacts
from selfrefine.study.design import Study
from selfrefine.study.open_study import read_configuration
from selfrefine.study.resolve import steps_of, training_of
from selfrefine.study.table_inputs import TableInputs
from selfrefine.training.batches import count_updates

RECIPES = ("cot", "correctness", "rft", "ipo", "simpo", "kto", "irpo")
STUDENT = "qwen2.5-coder-0.5b"


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.read(read_configuration([REPOSITORY / "config/studies/pairs.yaml"]))


def test_it_compares_the_recipes_that_the_field_asks_about(study):
    assert tuple(study.study.recipes) == RECIPES
    assert len(study.study.seeds) >= 3


def test_all_recipes_learn_from_the_same_sampled_paths(study):
    artifacts = Artifacts(study, lambda stage: "version 1", lambda rule: rule, lambda path: f"what {path} holds")
    inputs = TableInputs(artifacts)
    assert len(inputs.behind["pairs"]) == len(RECIPES) * len(study.study.seeds)
    assert len(inputs.behind["paths"]) == len(study.study.seeds)


def responses(study: Study, recipe: str) -> int:
    """How many responses pass through the model in an update."""
    training, objective = training_of(study, STUDENT, "refine", recipe), study.recipes[recipe].objective
    return training.batch_size * (1 if objective.loss in ("sft", "kto") else 2)


@pytest.mark.parametrize("examples", [10, 100, 2000])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_makes_as_many_updates_of_as_many_responses(study, recipe, examples):
    """However many examples a recipe found: the loss alone differs, and which responses are learned from."""
    (step,) = steps_of(study, recipe)
    training, control = (training_of(study, STUDENT, "refine", name) for name in (step, "rft"))
    assert responses(study, step) == responses(study, "rft") == 16
    updates = min(training.max_steps, count_updates(examples, training.batch_size, training.epochs))
    assert updates == training.max_steps == control.max_steps
    for key in ("learning_rate", "schedule", "warmup_steps", "weight_decay", "max_length", "lora"):
        assert getattr(training, key) == getattr(control, key), key


def test_its_claims_have_a_verdict_for_each_recipe(study):
    arms = study.arms()
    found = {}
    for claim in claims_of(study.claims):
        found[claim.number] = [(treated.recipe, control.recipe) for _, _, treated, control in pairs_of(claim, arms)]
    assert found == {
        "beats-control": [(recipe, "rft") for recipe in RECIPES if recipe != "rft"],
        "pairs-matter": [("correctness", "cot")],
        "other-losses": [("ipo", "cot"), ("simpo", "cot")],
        "likelihood-helps": [("irpo", "correctness")],
    }


def test_it_runs_small_with_its_claims_lengths_and_likelihoods(fresh):
    """The study on the tiny model: one seed, two updates, and pairs of close length for one recipe more."""
    folder, path, config = fresh
    whole = yaml.safe_load((REPOSITORY / "config/studies/pairs.yaml").read_text())
    sizes = {"batch_size": 8, "micro_batch_size": 8}
    own = {
        "study": config["study"]
        | {"arms": ["baseline", "instruct", "refine"], "recipes": [*RECIPES, "close"], "evaluate": ["boxes"]},
        "claims": whole["claims"],
        "schedules": whole["schedules"],
        "statistics": config["statistics"] | whole["statistics"],
        "recipes": {
            name: recipe | ({"refine": sizes} if "refine" in recipe else {})
            for name, recipe in whole["recipes"].items()
        },
        "refine": config["refine"] | {"max_steps": 2, "epochs": 1000},
        "sampling": config["sampling"] | {"cot": 6, "plain": 3},
    }
    own["recipes"]["close"] = {
        "chosen": {"style": "cot", "verdict": "correct"},
        "rejected": {"style": "cot", "verdict": "wrong"},
        "per_item": 4,
        "length_ratio": 1.05,
    }
    path.write_text(yaml.safe_dump(config | own))
    snakemake(folder)
    results = folder / "results/tiny"

    records = {
        Path(one).parts[-3].split("-")[1]: json.loads(Path(one).read_text())
        for one in folder.glob("results/store/refine/**/record.json")
    }
    assert len(records) == len(RECIPES) + 1
    assert {record["figures"]["updates"] for record in records.values()} == {2}

    claims = json.loads((results / "claims.json").read_text())["claims"]
    assert {(one["claim"], one["recipe"]) for one in claims} >= {
        ("beats-control", "simpo"),
        ("likelihood-helps", "irpo"),
    }
    text = (results / "claims.md").read_text()
    assert text.startswith("# The study's claims") and "### Not length alone" in text
    assert "beats-control: Preference optimisation beats" in (results / "summary.md").read_text()
    assert "beats-control: Preference" in (results / "figures/claims.svg").read_text()
    assert "The study’s claims" in (results / "index.html").read_text()

    for log in folder.glob("results/store/refine/**/training.jsonl"):
        for row in read_jsonl(log):
            assert row["chosen_token_logp"] < 0
            pairs = row["margin"] is not None
            assert (row["rejected_token_logp"] is not None) == pairs
            assert not pairs or row["margin"] == pytest.approx(row["chosen_reward"] - row["rejected_reward"], abs=1e-5)

    yields = pd.read_csv(results / "tables/pairs.csv", keep_default_na=False).set_index("recipe")
    assert yields.lost_to_length["correctness"] == 0
    close, wide = yields.loc["close"], yields.loc["correctness"]
    assert close.pairs + close.lost_to_length == wide.pairs
    assert close.items_with_pairs + close.dropped_length_ratio == wide.items_with_pairs

    study = ("python", "scripts/study.py", "trace")
    assert (
        " fetch_model "
        in run(*study, "results/tiny/claims.md", "claim=beats-control", "recipe=simpo", cwd=folder).stdout
    )
    assert "every link holds" in run(*study, "--all", cwd=folder).stdout
