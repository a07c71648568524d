"""Choosing the items that a teacher is asked: greedy DPPs, a student's embeddings, and what follows from a choice."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import (
    REPOSITORY,
    artifact,
    make_study,
    nothing_to_do,
    planned_rules,
    run,
    snakemake,
    tiny_config,
)
from selfrefine.data.choosing import chosen
from selfrefine.data.items import subset
from selfrefine.data.spread import spread
from selfrefine.errors import UserError
from selfrefine.schema.config import Configuration
from selfrefine.schema.stages import ChooseSettings
from selfrefine.schema.ways import WAYS, choice_of, named_share, percent_of, way_of
from selfrefine.store.files import read_jsonl
from selfrefine.study.artifacts import Artifacts
from selfrefine.study.design import Study
from selfrefine.study.final_artifacts import FinalArtifacts
from selfrefine.study.idle_settings import idle_settings
from selfrefine.study.job_table import read_assumptions
from selfrefine.study.lookup import artifact_at
from selfrefine.study.open_study import read_configuration
from selfrefine.study.planning import Planner

ALL = ["random", "uncertainty", "diversity", "dpp"]
IDS = [f"{number:04x}" for number in range(60)]


def vectors(items: int, width: int, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(items, width))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def by_determinants(kernel: np.ndarray, number: int) -> list[int]:
    """The greedy order by its definition: the determinant of each candidate set, computed anew."""
    taken: list[int] = []
    for _ in range(number):
        rest = [place for place in range(len(kernel)) if place not in taken]
        taken.append(max(rest, key=lambda place: np.linalg.det(kernel[np.ix_([*taken, place], [*taken, place])])))
    return taken


def by_cholesky(kernel: np.ndarray, number: int) -> list[int]:
    """Algorithm 1 of Chen, Zhang and Zhou (arXiv 1709.05135), on a whole kernel."""
    left, rows = np.diag(kernel).copy(), np.zeros((number, len(kernel)))
    taken = [int(np.argmax(left))]
    for step in range(1, number):
        last = taken[-1]
        row = (kernel[last] - rows[: step - 1, last] @ rows[: step - 1]) / np.sqrt(left[last])
        rows[step - 1] = row
        left = left - row**2
        left[last] = -np.inf
        taken.append(int(np.argmax(left)))
    return taken


@pytest.mark.parametrize("seed", range(6))
def test_the_greedy_order_is_that_of_the_determinants(seed):
    embeddings = vectors(14, 9, seed)
    quality = np.random.default_rng(seed + 100).normal(size=14)
    plain, weighted = embeddings @ embeddings.T, None
    weighted = np.exp(quality)[:, None] * plain * np.exp(quality)
    # Without qualities all first items are equal, and the first row is taken.
    first = spread(embeddings, 7).taken
    assert first[0] == 0
    assert first == [0, *by_determinants_after(plain, [0], 6)]
    assert spread(embeddings, 7, quality).taken == by_determinants(weighted, 7) == by_cholesky(weighted, 7)


def by_determinants_after(kernel: np.ndarray, taken: list[int], number: int) -> list[int]:
    taken = [*taken]
    for _ in range(number):
        rest = [place for place in range(len(kernel)) if place not in taken]
        taken.append(max(rest, key=lambda place: np.linalg.det(kernel[np.ix_([*taken, place], [*taken, place])])))
    return taken[1:]


@pytest.mark.parametrize("seed", range(4))
def test_no_subset_has_a_much_larger_determinant(seed):
    embeddings = vectors(10, 6, seed)
    quality = np.random.default_rng(seed).uniform(-0.5, 0.5, 10)
    kernel = np.exp(quality)[:, None] * (embeddings @ embeddings.T) * np.exp(quality)
    best = max(np.linalg.det(kernel[np.ix_(of, of)]) for of in itertools.combinations(range(10), 4))
    taken = spread(embeddings, 4, quality).taken
    # The bound of Civril and Magdon-Ismail (2009); greedy volumes are usually much larger.
    assert best / 24**2 <= np.linalg.det(kernel[np.ix_(taken, taken)]) <= best * (1 + 1e-9)


def test_one_of_each_cluster_comes_first():
    centres = np.eye(5)
    noise = np.random.default_rng(0).normal(size=(40, 5)) * 0.01
    embeddings = centres[np.arange(40) % 5] + noise
    assert {place % 5 for place in spread(embeddings, 5).taken} == set(range(5))


def test_a_rank_below_the_number_leads_to_further_rounds():
    found = spread(vectors(30, 3), 20)
    assert len(set(found.taken)) == 20
    assert found.rounds >= 6
    whole = spread(vectors(30, 3), 30)
    assert sorted(whole.taken) == list(range(30))
    assert whole.taken[:20] == found.taken
    # A kernel of rank 2 in more dimensions: what rounding leaves of spanned items counts for nothing.
    flat = vectors(12, 2, 1) @ vectors(2, 50, 2)
    places = spread(flat, 4)
    assert places.rounds == 2
    assert np.linalg.matrix_rank(flat[places.taken[:2]]) == 2
    assert np.linalg.matrix_rank(flat[places.taken[2:]]) == 2


def test_equal_and_empty_embeddings_come_in_their_order():
    assert spread(np.ones((6, 4)), 4).taken == [0, 1, 2, 3]
    assert spread(np.zeros((5, 4)), 3).taken == [0, 1, 2]
    mixed = np.zeros((4, 3))
    mixed[2] = [0, 1, 0]
    assert spread(mixed, 4).taken == [2, 0, 1, 3]
    twice = np.concatenate([vectors(5, 8), vectors(5, 8)]).astype(np.float32)
    assert {place % 5 for place in spread(twice, 5).taken} == set(range(5))


def test_quality_decides_among_equally_novel_items_and_its_scale_does_not():
    quality = np.array([0.0, 3.0, 1.0, 2.0])
    assert spread(np.eye(4), 4, quality).taken == [1, 3, 2, 0]
    embeddings = vectors(40, 16)
    some = np.random.default_rng(1).normal(size=40)
    assert spread(embeddings, 16, some).taken == spread(embeddings, 16, some + 50).taken
    # Further items do not change what came before.
    assert spread(embeddings, 30, some).taken[:11] == spread(embeddings, 11, some).taken


def test_each_way_nests_and_repeats():
    nll, embeddings = np.random.default_rng(0).normal(3, 1, len(IDS)), vectors(len(IDS), 8)
    for way in ALL:
        orders = {
            share: chosen(IDS, ChooseSettings(way=way, share=share, seed=3), nll, embeddings)[0]
            for share in (10, 25, 50)
        }
        assert [len(order) for order in orders.values()] == [6, 15, 30]
        assert orders[50][:15] == orders[25]
        assert orders[25][:6] == orders[10]
        assert orders[50] == chosen(IDS, ChooseSettings(way=way, share=50, seed=3), nll, embeddings)[0]


def test_random_is_todays_seeded_share_and_ties_follow_the_seed():
    for seed in (0, 1):
        order, _ = chosen(IDS, ChooseSettings(way="random", share=25, seed=seed))
        assert set(order) == subset(IDS, 25, seed)
    equal, same = np.zeros(len(IDS)), np.ones((len(IDS), 4))
    for way in ALL:
        first, second = (chosen(IDS, ChooseSettings(way=way, share=25, seed=seed), equal, same)[0] for seed in (0, 1))
        assert first != second
        assert set(first) == subset(IDS, 25, 0)


def test_the_direction_is_the_preferred_perplexity():
    nll = np.arange(len(IDS), dtype=float)[::-1]
    low, _ = chosen(IDS, ChooseSettings(way="uncertainty", share=10), nll)
    high, _ = chosen(IDS, ChooseSettings(way="uncertainty", share=10, prefer="high"), nll)
    assert low == IDS[::-1][:6]
    assert high == IDS[:6]
    embeddings = vectors(len(IDS), 30)
    means = {
        (prefer, weight): np.mean(
            [
                nll[IDS.index(one)]
                for one in chosen(
                    IDS, ChooseSettings(way="dpp", share=10, prefer=prefer, weight=weight), nll, embeddings
                )[0]
            ]
        )
        for prefer, weight in (("low", 1.0), ("high", 1.0), ("low", 1e-9))
    }
    assert means["low", 1.0] < means["low", 1e-9] < means["high", 1.0]
    diverse, _ = chosen(IDS, ChooseSettings(way="diversity", share=10), embeddings=embeddings)
    assert chosen(IDS, ChooseSettings(way="dpp", share=10, weight=1e-12), nll, embeddings)[0] == diverse


def test_shares_carry_their_way_in_names():
    assert [named_share(25, "dpp"), named_share(100, "dpp"), named_share(25)] == ["dpp25", "100", "25"]
    assert [(way_of(one), percent_of(one)) for one in ("dpp25", "25", "100")] == [("dpp", 25), ("", 25), ("", 100)]
    assert choice_of("s", "25", 0) is None
    assert choice_of("s", "random25", 1).name == "random25-seed1"
    assert choice_of("s", "dpp25", 1).name == choice_of("s", "dpp25", 0).name == "s-dpp25"


# The student's perplexities and embeddings.


@pytest.fixture
def model(tiny_model):
    from transformers import AutoModelForCausalLM

    from selfrefine.models.checkpoints import load_tokenizer

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval(), load_tokenizer(tiny_model, "plain")


TEXTS = ["Box 1 is red.", "Box 22 is green today.\nChoices:\nA) red\nB) green", "Box", "Box 3 is white today."] * 2


def test_perplexities_and_embeddings_are_those_of_each_text_alone(model, tmp_path):
    import torch

    from selfrefine.engines.embeddings import embed

    weights, tokenizer = model
    made = embed(weights, tokenizer, TEXTS, 3, {}, tmp_path / "rows.jsonl", tmp_path / "vectors.npy")
    for text, nll, tokens, vector in zip(TEXTS, made.nll, made.tokens, made.vectors, strict=True):
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[tokenizer.bos_token_id, *own]])
        with torch.no_grad():
            out = weights(ids, labels=ids, output_hidden_states=True)
        assert tokens == len(own)
        assert nll == pytest.approx(float(out.loss), abs=1e-4)
        mean = out.hidden_states[-1][0, 1:].mean(0)
        assert np.allclose(vector, (mean / mean.norm()).numpy(), atol=1e-4)
    assert np.allclose(np.linalg.norm(made.vectors, axis=1), 1, atol=1e-5)
    assert made.cut == 0


def test_an_interrupted_reading_goes_on_and_ends_alike(model, tmp_path, monkeypatch):
    from selfrefine.engines import embeddings

    whole = embeddings.embed(*model, TEXTS, 2, {"a": 1}, tmp_path / "one.jsonl", tmp_path / "one.npy")
    real, seen = embeddings.of_batch, []

    def killed(weights, rows, pad):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(rows)
        return real(weights, rows, pad)

    monkeypatch.setattr(embeddings, "of_batch", killed)
    place = tmp_path / "two.jsonl", tmp_path / "two.npy"
    with pytest.raises(KeyboardInterrupt):
        embeddings.embed(*model, TEXTS, 2, {"a": 1}, *place)
    done = [*seen]
    seen.clear()
    monkeypatch.setattr(embeddings, "of_batch", lambda *of: (seen.append(of[1]), real(*of))[1])
    again = embeddings.embed(*model, TEXTS, 2, {"a": 1}, *place)
    assert len(done) == len(seen) == 2
    assert np.array_equal(again.nll, whole.nll)
    assert np.array_equal(again.vectors, whole.vectors)
    # Other weights begin anew.
    seen.clear()
    embeddings.embed(*model, TEXTS, 2, {"a": 2}, *place)
    assert len(seen) == 4


# What a study asks for.


def study_of(folder: Path, changes: dict, **more) -> FinalArtifacts:
    config = {**tiny_config(folder / "model", folder / "raw.jsonl", folder / "recording.jsonl"), **more}
    config["recipes"] = yaml.safe_load((REPOSITORY / "config/recipes.yaml").read_text())["recipes"]
    config["study"] = {**config["study"], "shares": [25, 50, 100], "seeds": [0, 1], **changes.pop("study", {})}
    config |= changes
    study = Study.read(config)
    return FinalArtifacts(Artifacts(study, lambda stage: "v1", lambda rule: rule, lambda path: "0" * 64))


def keys(finals: FinalArtifacts) -> dict[str, str]:
    return {"/".join((one.stage, *one.names)): one.key for one in finals.behind_all()}


def test_a_study_chooses_once_for_a_student_and_once_a_seed_at_random(tmp_path):
    found = keys(study_of(tmp_path, {"demonstrations": {"select": ALL}}))
    choices = {name for name in found if name.startswith("choose/")}
    assert choices == {
        *(f"choose/boxes-tiny-{way}{share}" for way in ALL[1:] for share in (25, 50)),
        *(f"choose/boxes-random{share}-seed{seed}" for share in (25, 50) for seed in (0, 1)),
    }
    assert {name for name in found if name.startswith("embed/")} == {"embed/tiny/boxes"}
    # All share the checkpoint of all items, which is that of a study that chooses nothing.
    plain = keys(study_of(tmp_path, {}))
    whole = {name: key for name, key in plain.items() if "-100-" in name and name.split("/")[0] != "listing"}
    assert whole
    assert all(found[name] == key for name, key in whole.items())


def test_without_the_key_nothing_moves(tmp_path):
    plain, set_apart = study_of(tmp_path, {}), study_of(tmp_path, {"demonstrations": {"select": None}})
    assert keys(plain) == keys(set_apart)
    assert "select" not in plain.study.yaml()
    assert all("select" not in cell for cell in json.loads(plain.listings.text("tables"))["cells"])
    stages = {one.stage for one in plain.behind_all()}
    assert not {"embed", "choose"} & stages


def test_a_way_of_choosing_moves_exactly_what_depends_on_it(tmp_path):
    before = keys(study_of(tmp_path, {"demonstrations": {"select": ALL}}))
    heavier = keys(study_of(tmp_path, {"demonstrations": {"select": ALL, "weight": 2.0}}))
    high = keys(study_of(tmp_path, {"demonstrations": {"select": ALL, "prefer": "high"}}))
    fewer = keys(study_of(tmp_path, {"demonstrations": {"select": ALL[:2]}}))
    final = {"tables", "claims", "flips", "plot", "layout", "listing", "summarise", "page"}

    def moved(after):
        return {name for name in before if name.split("/")[0] not in final and before[name] != after.get(name)}

    assert moved(heavier) == {name for name in before if "dpp" in name}
    assert moved(high) == {name for name in before if "dpp" in name or "uncertainty" in name}
    assert {name for name in fewer if name.split("/")[0] not in final} <= before.keys()
    assert all(before[name] == key for name, key in fewer.items() if name.split("/")[0] not in final)


def test_a_path_of_a_choice_leads_back_to_its_artifact(tmp_path):
    changes = {"demonstrations": {"select": ALL}, "study": {"arms": ["instruct", "refine", "refine-only"]}}
    finals = study_of(tmp_path, dict(changes))
    stages = set()
    for one in finals.behind_all():
        if one.stage in ("embed", "choose", "teach", "demonstrate", "instruct", "sample", "pair", "refine"):
            fresh = study_of(tmp_path, dict(changes)).artifacts
            assert artifact_at(fresh, one.stage, one.names, one.key).record == one.record
            stages.add(one.stage)
    assert len(stages) == 8


def test_a_choice_reaches_both_phases_and_what_they_draw_on(tmp_path):
    finals = study_of(
        tmp_path, {"demonstrations": {"select": ["dpp"]}, "study": {"recipes": ["answer"], "tasks": ["boxes", "far"]}}
    )
    of_dpp = [one for one in finals.behind_all() if one.stage == "pair" and "dpp25" in one.names[-1]]
    assert of_dpp
    for pairs in of_dpp:
        (paths,), (demonstrations,) = pairs.inputs["paths"], pairs.inputs["demonstrations"]
        (answers,) = demonstrations.inputs["answers"]
        assert paths.inputs["items"] == answers.inputs["items"]
        assert paths.inputs["items"][0].stage == "choose"
        assert paths.settings["share"] == 100
    instructed = [one for one in finals.behind_all() if one.stage == "instruct"]
    assert {one.settings["share"] for one in instructed} == {100}


def test_a_served_teacher_is_asked_the_chosen_items_alone(tmp_path):
    served = {"oracle": {"family": "oracle", "engine": "openai", "served": "gpt", "generation": {"max_tokens": 16}}}
    finals = study_of(
        tmp_path,
        {"demonstrations": {"select": ["dpp", "random"]}, "study": {"shares": [25], "seeds": [0]}, "teachers": served},
    )
    rows = json.loads(finals.listings.text("asked"))
    asked = {row["items"].split("/")[2] for row in rows if "-train" in row["items"] or "choose" in row["items"]}
    assert asked == {"choose"}
    assert {one.stage for one in finals.listings.asked_items()} == {"choose", "prepare"}
    chosen_items = {one.names[0] for one in finals.listings.asked_items() if one.stage == "choose"}
    assert chosen_items == {"boxes-random25-seed0", "boxes-tiny-dpp25"}
    planner = Planner(finals.study, read_assumptions([]))
    costs = {one.names[-1]: planner.cost(one.stage, **one.of) for one in finals.behind_all() if one.stage == "teach"}
    whole = planner.cost("teach", teacher="oracle", task="boxes", split="train", style="cot")
    assert costs["boxes-train-cot-tiny-dpp25"].prompt_tokens == pytest.approx(whole.prompt_tokens / 4)
    assert not any(name == "boxes-train-cot" for name in costs)


def test_reading_and_choosing_are_planned(tmp_path):
    cluster = {"gpu_memory": 400, "gpus_per_node": 1}
    changes = {"demonstrations": {"select": ALL}, "cluster": cluster}
    finals = study_of(tmp_path, changes)
    planner = Planner(finals.study, read_assumptions([]))
    needs = planner.needs("embed", 1, student="tiny", task="boxes")
    assert (needs.gpu, needs.runtime is not None) == (1, True)
    assert planner.cost("embed", student="tiny", task="boxes").prompt_tokens > 0
    assert planner.needs("choose", 1, task="boxes", choice="tiny/dpp25/").gpu == 0
    # 100,000 embeddings of a model of 7B take gigabytes of the host.
    changes = {"demonstrations": {"select": ALL}, "cluster": cluster}
    large_model = {"tiny": {"source": f"file:{tmp_path}", "licence": "none", "parameters": 6.7}}
    large_study = study_of(tmp_path, changes, models=large_model).study
    boxes = large_study.benchmarks["boxes"]
    split = boxes.splits["train"].model_copy(update={"size": 100_000})
    larger = boxes.model_copy(update={"splits": {**boxes.splits, "train": split}})
    large_study = large_study.model_copy(update={"benchmarks": {**large_study.benchmarks, "boxes": larger}})
    large = Planner(large_study, read_assumptions([])).needs("choose", 1, task="boxes", choice="tiny/dpp25/")
    assert 8_000 < large.mem_mb < 12_000


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"select": ["dpp", "dpp"]}, "demonstrations.select: a way of choosing stands there twice"),
        ({"select": "ddp"}, "demonstrations.select"),
        ({"select": []}, "demonstrations.select"),
        ({"select": "dpp", "weight": 0}, "demonstrations.weight"),
        ({"select": "dpp", "prefer": "middle"}, "demonstrations.prefer"),
    ],
)
def test_what_cannot_be_chosen_by_is_refused(tmp_path, section, said):
    with pytest.raises(UserError, match=said):
        study_of(tmp_path, {"demonstrations": section})


@pytest.mark.parametrize(
    ("section", "shares", "said"),
    [
        ({"select": "dpp"}, [100], "demonstrations.select: changes nothing"),
        ({"select": "diversity", "prefer": "high"}, [25], "demonstrations.prefer: changes nothing"),
        ({"select": "uncertainty", "weight": 2}, [25], "demonstrations.weight: changes nothing"),
    ],
)
def test_settings_that_choose_nothing_are_named(tmp_path, section, shares, said):
    study = study_of(tmp_path, {"demonstrations": section, "study": {"shares": shares}}).study
    assert any(each.startswith(said) for each in idle_settings(study))


def test_one_way_needs_no_list(tmp_path):
    assert study_of(tmp_path, {"demonstrations": {"select": "dpp"}}).study.demonstrations.select == ["dpp"]
    assert set(ALL) == WAYS.keys()
    assert Configuration.model_fields["demonstrations"].annotation.model_fields.keys() >= {"select", "prefer", "weight"}


def test_the_shipped_study_compares_a_chosen_quarter_with_a_random_one(tmp_path):
    config = read_configuration([REPOSITORY / "config/studies/selection.yaml"])
    (claim,) = [one for name, one in config.pop("claims").items() if name != "paper"]
    study = Study.read(config)
    cells = [cell for cell in study.cells() if claim["where"].items() - {("domain", "in")} <= cell.items()]
    for side in ("treated", "control"):
        seeds = {
            cell["seed"] for cell in cells if claim[side].items() <= cell.items() and cell["evaluation"] == "asdiv"
        }
        assert seeds == {0, 1, 2}
    assert {cell["select"] for cell in cells} == {*ALL}
    assert study.figures()[2] == "selection-smollm2-135m"


# A whole study.


@pytest.fixture(scope="module")
def chosen_study(tmp_path_factory, tiny_model):
    """A finished study that chooses in every way, at one share below 100 %."""
    folder = tmp_path_factory.mktemp("selection")
    path, config = make_study(folder, tiny_model)
    config["demonstrations"] = {"select": ALL}
    config["study"] |= {"shares": [40, 100], "evaluate": ["boxes"]}
    config["instruct"]["epochs"] = 4
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    snakemake(folder)
    return folder, config


def test_the_teacher_is_asked_exactly_the_chosen_items(chosen_study):
    folder, _ = chosen_study
    train = {row["id"] for row in read_jsonl(artifact(folder, "prepare/boxes-train") / "items.jsonl")}
    seen = set()
    for way in ALL:
        name = f"boxes-{way}40-seed0" if way == "random" else f"boxes-tiny-{way}40"
        items = [row["id"] for row in read_jsonl(artifact(folder, f"choose/{name}") / "items.jsonl")]
        order = json.loads((artifact(folder, f"choose/{name}") / "order.json").read_text())
        assert sorted(items) == sorted(order) == items
        assert len(items) == 12
        assert set(items) < train
        asked = f"teach/oracle/boxes-train-cot-{name.removeprefix('boxes-')}"
        assert [row["item"] for row in read_jsonl(artifact(folder, asked) / "answers.jsonl")] == items
        share = f"{way}40"
        paths = artifact(folder, f"sample/tiny/oracle-boxes-{share}-seed0/boxes-{share}-seed0") / "paths.jsonl"
        assert {row["item"] for row in read_jsonl(paths)} == set(items)
        record = json.loads((artifact(folder, f"choose/{name}") / "record.json").read_text())
        assert record["figures"]["chosen"] == 12
        seen.add(tuple(items))
    assert len(seen) == 4


def test_what_was_read_is_recorded(chosen_study):
    folder, _ = chosen_study
    place = artifact(folder, "embed/tiny/boxes")
    record = json.loads((place / "record.json").read_text())
    rows = read_jsonl(place / "perplexities.jsonl")
    assert record["figures"]["tokens_seen"] == sum(row["tokens"] for row in rows)
    assert np.load(place / "embeddings.npy").shape == (30, 64)
    assert not list(place.glob("*.partial"))
    low = {row["item"] for row in sorted(rows, key=lambda row: row["nll"])[:12]}
    assert {row["id"] for row in read_jsonl(artifact(folder, "choose/boxes-tiny-uncertainty40") / "items.jsonl")} == low


def test_tables_tell_the_ways_apart_and_every_number_can_be_traced(chosen_study):
    folder, _ = chosen_study
    arms = pd.read_csv(folder / "results/tiny/tables/arms.csv", keep_default_na=False)
    shown = set(zip(arms.arm, arms.share, arms["select"], strict=True))
    for arm in ("instruct", "refine"):
        assert {(arm, "40", way) for way in ALL} | {(arm, "100", "")} <= shown
    costs = pd.read_csv(folder / "results/tiny/tables/costs.csv", keep_default_na=False)
    assert {"embed", "choose"} <= set(costs.stage[costs["select"] == "dpp"])
    assert "embed" not in set(costs.stage[costs["select"] == "random"])
    assert (folder / "results/tiny/figures/selection-tiny.svg").exists()
    assert "every link holds" in run("python", "scripts/study.py", "trace", "--all", cwd=folder).stdout
    assert "40 % by dpp" in (folder / "results/tiny/details.md").read_text()
    chain = run(
        *("python", "scripts/study.py", "trace", "results/tiny/figures/selection-tiny.svg", "select=dpp"), cwd=folder
    ).stdout
    assert " choose " in chain
    assert " embed " in chain


def test_changing_the_way_runs_exactly_what_depends_on_it(chosen_study, tmp_path):
    folder, config = chosen_study
    assert nothing_to_do(snakemake(folder, "-n"))
    path = folder / "config/tiny.yaml"
    before = path.read_text()
    try:
        path.write_text(yaml.safe_dump({**config, "demonstrations": {"select": ALL, "weight": 3.0}}, sort_keys=False))
        planned = planned_rules(snakemake(folder, "-n"))
        assert "embed" not in planned
        assert {
            rule: planned.get(rule) for rule in ("choose", "ask", "demonstrate", "instruct", "sample", "refine")
        } == (dict.fromkeys(("choose", "ask", "demonstrate", "instruct", "sample", "refine"), 1))
        path.write_text(yaml.safe_dump({**config, "demonstrations": {"select": ["dpp"]}}, sort_keys=False))
        fewer = planned_rules(snakemake(folder, "-n"))
        assert not {"embed", "choose", "ask", "demonstrate", "instruct", "sample", "pair", "refine", "evaluate"} & {
            *fewer
        }
    finally:
        path.write_text(before)


def test_the_estimate_and_the_batch_are_of_the_chosen_items(chosen_study, tmp_path):
    folder, config = chosen_study
    served = {"oracle": {"family": "oracle", "engine": "openai", "served": "gpt", "generation": {"max_tokens": 16}}}
    counts = {}
    for name, ways in (("chosen", ["dpp"]), ("all", None)):
        path, output = folder / f"config/{name}.yaml", tmp_path / f"{name}.jsonl"
        study = {**config["study"], "shares": [40]}
        path.write_text(
            yaml.safe_dump({**config, "teachers": served, "demonstrations": {"select": ways}, "study": study})
        )
        given = "--configfile", path
        said = run("python", "scripts/study.py", "estimate", *given, cwd=folder).stdout
        export = "scripts/study.py", "batch", "export", "--teacher", "oracle", *given, "--output", output
        run("python", *export, cwd=folder)
        counts[name] = len(output.read_text().splitlines())
        assert f"{counts[name]} of {counts[name]} requests" in said
    # The test split has 20 items, the training split 30, and 12 of these are chosen.
    assert counts == {"chosen": 12 + 20, "all": 30 + 20}


KILLED = """
import os, runpy, signal, sys
from selfrefine.engines import embeddings

real, seen = embeddings.of_batch, []

def killed(*of):
    if len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    seen.append(of)
    return real(*of)

embeddings.of_batch = killed
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_killed_reading_goes_on_where_it_was(chosen_study, tmp_path):
    folder, _ = chosen_study
    (items,) = folder.glob("results/store/prepare/boxes-train/*/record.json")
    (weights,) = folder.glob("results/store/fetch_model/tiny/*/record.json")
    flags = ["--settings", json.dumps({"dtype": "float32", "batch_size": 4}), "--checkpoint", weights, "--items", items]
    killing = f"import sys; sys.argv = sys.argv[1:]; sys.path.insert(0, 'scripts'){KILLED}"
    command = ["scripts/embed.py", *(path if isinstance(path, str) else path.relative_to(folder) for path in flags)]
    one, other = tmp_path / "one", tmp_path / "other"
    run("python", *command, "--record", one / "record.json", cwd=folder)
    outcome = run("python", "-c", killing, *command, "--record", other / "record.json", cwd=folder, check=False)
    assert outcome.returncode == -9
    assert not (other / "record.json").exists()
    kept = (other / "perplexities.jsonl.partial").read_text().splitlines()
    assert len(kept) == 1 + 3
    again = run("python", *command, "--record", other / "record.json", cwd=folder)
    assert "30/30" in again.stderr
    for name in ("embeddings.npy", "perplexities.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert not list(other.glob("*.partial"))
