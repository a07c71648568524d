"""Tasks of lm-eval beside a study's own benchmarks: likelihoods, verdicts, data, and a study with them."""

import copy
import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from conftest import artifact, make_study, run, snakemake
from selfrefine.data.stock_tasks import find_task
from selfrefine.engines import likelihoods as scoring
from selfrefine.engines.checkpoint_engines import open_checkpoint_engine
from selfrefine.engines.likelihoods import Pair, likelihoods
from selfrefine.engines.transformers import TransformersEngine
from selfrefine.errors import UserError
from selfrefine.judging.stock_documents import chosen, document_of, label_of
from selfrefine.judging.stock_evaluation import StockModel, evaluate_stock, fetched_task, load_task
from selfrefine.models.checkpoints import load_model, load_tokenizer
from selfrefine.schema.generation import Answering
from selfrefine.schema.stages import EvaluateSettings, StockAsked
from selfrefine.store.files import read_json, read_jsonl
from selfrefine.study import stage_settings
from selfrefine.study.design import Study
from test_study import SMALL
from test_vllm_engine import adapted  # noqa: F401

COMMON = {"dataset_path": "json", "test_split": "test", "doc_to_text": "{{question}}", "metadata": {"version": 1}}
CHOOSE = {
    "task": "tiny_choose",
    "output_type": "multiple_choice",
    "doc_to_choice": "{{options}}",
    "doc_to_target": "label",
    "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
}
GENERATE = {
    "task": "tiny_generate",
    "output_type": "generate_until",
    "doc_to_target": "{{options[label]}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "filter_list": [
        {
            "name": "first-word",
            "filter": [{"function": "regex", "regex_pattern": "(\\w+)"}, {"function": "take_first"}],
        },
        {"name": "as-is", "filter": [{"function": "take_first"}]},
    ],
}


def write_tasks(folder: Path) -> Path:
    """A folder of two tasks with data of this machine; one includes what they have in common."""
    tasks = folder / "own"
    tasks.mkdir()
    rows = [
        {"question": f"Box {i} is {colour} today. It is", "options": [f" {colour}", " black and white"], "label": i % 2}
        for i, colour in enumerate(("red", "green", "blue", "white", "red", "black"))
    ]
    (tasks / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = COMMON | {"dataset_kwargs": {"data_files": {"test": str(tasks / "docs.jsonl")}}}
    (tasks / "common").write_text(yaml.safe_dump(common))
    for task in (CHOOSE, GENERATE):
        (tasks / f"{task['task']}.yaml").write_text(yaml.safe_dump({"include": "common", **task}))
    return tasks


# What lm-eval has.


def test_tasks_are_found_without_loading_lm_eval(tmp_path):
    own = write_tasks(tmp_path)
    assert find_task("tiny_choose", own).scores and find_task("tiny_choose", own).data == ""
    hellaswag = find_task("hellaswag")
    assert hellaswag.scores and hellaswag.data == "Rowan/hellaswag"
    assert not find_task("gsm8k_cot").scores and find_task("gsm8k_cot").data


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hellaswagg", "lm-eval has no task 'hellaswagg'; did you mean 'hellaswag'"),
        ("zzzzzzzzzzzz", "lm-eval has no task 'zzzzzzzzzzzz'; `lm_eval ls tasks` lists them"),
        ("mmlu", "lm_eval:mmlu is a group of tasks"),
    ],
)
def test_what_is_no_task_is_refused_in_the_dry_run(name, message):
    config = copy.deepcopy(SMALL)
    config["study"]["evaluate"] = ["add", f"lm_eval:{name}"]
    with pytest.raises(UserError, match=message):
        stage_settings.settings(Study.read(config), "evaluate", checkpoint="ant/base", task=f"lm_eval:{name}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluate": ["lm_eval:hellaswag", "lm_eval:hellaswag"]}, "a task of lm-eval stands there twice"),
        ({"evaluate": ["lm_eval:a/b"]}, "lm_eval:a/b is no name of a task"),
        ({"tasks": {"hellaswag": {}}}, "lm_eval.tasks.hellaswag: is not evaluated"),
        ({"tasks": {"hellaswag": {"shot": 1}}}, "lm_eval.tasks.hellaswag.shot: unknown key; did you mean 'shots'"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, message):
    config = copy.deepcopy(SMALL)
    config["study"]["evaluate"] = change.get("evaluate", ["add"])
    config["lm_eval"] = {"tasks": change.get("tasks", {})}
    with pytest.raises(UserError, match=message):
        Study.read(config)


def test_likelihoods_are_taken_with_transformers_whatever_the_studys_engine():
    config = copy.deepcopy(SMALL) | {"engine": "vllm"}
    config["study"]["evaluate"] = ["add", "lm_eval:hellaswag", "lm_eval:gsm8k_cot"]
    config["lm_eval"] = {"tasks": {"hellaswag": {"metric": "acc_norm", "title": "HellaSwag", "shots": 3}}}
    study = Study.read(config)
    engines = {
        task: stage_settings.settings(study, "evaluate", checkpoint="ant/base", task=task)["engine"]
        for task in study.study.evaluate
    }
    assert engines == {"add": "vllm", "lm_eval:hellaswag": "transformers", "lm_eval:gsm8k_cot": "vllm"}
    settings = stage_settings.settings(study, "evaluate", checkpoint="ant/base", task="lm_eval:hellaswag")
    assert settings["stock"] == {"metric": "acc_norm", "filter": None, "shots": 3, "limit": None, "chat": False}
    assert study.titles()["lm_eval:hellaswag"] == "HellaSwag" and study.titles()["lm_eval:gsm8k_cot"] == "gsm8k_cot"
    assert {row["source"] for row in study.sources() if row["name"] == "lm_eval:hellaswag"} == {"hf:Rowan/hellaswag"}
    assert [cell["evaluation"] for cell in study.cells() if cell["arm"] == "teacher"] == ["add"]


# Likelihoods.


def lm_evals_own(model: Path, **options):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=2, **options)


def requests_of(task):
    task.build_all_requests(limit=None, rank=0, world_size=1)
    return task.instances


@pytest.mark.model
@pytest.mark.parametrize("batch_size", [1, 4])
def test_likelihoods_are_those_of_lm_evals_own_model_with_the_same_adapter(
    adapted,  # noqa: F811
    tiny_model,
    tmp_path,
    batch_size,
):
    engine = open_checkpoint_engine(adapted, Answering(dtype="float32", batch_size=batch_size), 0.5)
    instances = requests_of(load_task("tiny_choose", write_tasks(tmp_path)))
    expected = lm_evals_own(tiny_model, peft=str(adapted.parent)).loglikelihood(instances)
    plain = lm_evals_own(tiny_model).loglikelihood(instances)
    for after_generation in (False, True):
        if after_generation:  # which may have put the weights into another order
            engine.generate(next(iter(engine.batches(raw_requests()))))
        found = StockModel(engine, tmp_path / f"{after_generation}.jsonl").loglikelihood(instances)
        assert [one[1] for one in found] == [one[1] for one in expected]
        assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], abs=1e-4)
        assert max(abs(one[0] - other[0]) for one, other in zip(found, plain, strict=True)) > 0.1


def raw_requests():
    from selfrefine.engines.interface import Request
    from selfrefine.schema.generation import Generation

    chat = [{"role": "user", "content": "Box 3 is red today."}]
    return [Request("q", chat, Generation(max_tokens=4), raw=True)]


@pytest.mark.model
def test_a_context_that_is_empty_or_too_long_is_scored_as_by_lm_evals_own_model(tiny_model, tmp_path):
    from lm_eval.api.instance import Instance

    engine = TransformersEngine(load_model(tiny_model, "float32"), load_tokenizer(tiny_model), {"weights": "tiny"}, 4)
    pairs = [("", " red"), ("Box " * 600, " red"), ("It is ", "blue"), ("<|im_start|>user", " red")]
    instances = [Instance("loglikelihood", {}, pair, i, metadata=("t", i, 1)) for i, pair in enumerate(pairs)]
    found = StockModel(engine, tmp_path / "scores.jsonl").loglikelihood(instances)
    expected = lm_evals_own(tiny_model).loglikelihood(instances)
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], abs=1e-4)


@pytest.mark.model
def test_scoring_goes_on_from_its_journal_and_not_from_that_of_other_weights(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "GROUP", 2)
    parts = load_model(tiny_model, "float32"), load_tokenizer(tiny_model)
    engine = TransformersEngine(*parts, {"weights": "tiny"}, 2)
    pairs = [Pair((5, 6, 7), (8, number)) for number in range(9, 14)]
    whole = likelihoods(engine, pairs, tmp_path / "whole.jsonl")
    asked = []

    class Interrupted(Exception):
        pass

    def of_batch(batch):
        if len(asked) == 2:
            raise Interrupted
        asked.append(batch)
        return TransformersEngine.likelihoods_of_batch(engine, batch)

    monkeypatch.setattr(engine, "likelihoods_of_batch", of_batch)
    with pytest.raises(Interrupted):
        likelihoods(engine, pairs, tmp_path / "cut.jsonl")
    asked[:] = asked[:1]
    assert likelihoods(engine, [*pairs, pairs[0]], tmp_path / "cut.jsonl") == [*whole, whole[0]]
    other = TransformersEngine(*parts, {"weights": "another"}, 2)
    counted = []
    monkeypatch.setattr(
        other,
        "likelihoods_of_batch",
        lambda batch: counted.append(batch) or TransformersEngine.likelihoods_of_batch(other, batch),
    )
    likelihoods(other, pairs, tmp_path / "cut.jsonl")
    assert len(counted) == 3


# Verdicts.


@pytest.fixture(scope="module")
def fetched(tmp_path_factory) -> dict[str, Path]:
    """The folders of the tiny tasks' fetched data, by task."""
    folder = tmp_path_factory.mktemp("stock")
    own = write_tasks(folder)
    for task in ("tiny_choose", "tiny_generate"):
        run(
            *("python", "scripts/fetch_task.py", "--settings", json.dumps({"task": task}), "--include", own),
            *("--record", folder / task / "record.json"),
        )
    (own / "docs.jsonl").unlink()
    return {task: folder / task for task in ("tiny_choose", "tiny_generate")}


def own_engine(tiny_model):
    return TransformersEngine(load_model(tiny_model, "float32"), load_tokenizer(tiny_model), {"weights": "tiny"}, 4)


@pytest.mark.model
@pytest.mark.parametrize("task", ["tiny_choose", "tiny_generate"])
@pytest.mark.parametrize("chat", [False, True])
def test_verdicts_are_those_of_lm_evals_own_model(fetched, tiny_model, tmp_path, task, chat):
    import lm_eval

    asked, settings = StockAsked(chat=chat, limit=5), EvaluateSettings(task=task)
    report, documents, rows = evaluate_stock(
        fetched[task], settings, asked, own_engine(tiny_model), tmp_path / "out.jsonl"
    )
    loaded = fetched_task(fetched[task], task, tmp_path / "own")
    tasks = {"tasks": {task: loaded}, "groups": {}, "group_map": {}}
    theirs = lm_eval.evaluate(
        lm_evals_own(tiny_model), tasks, limit=5, log_samples=True, bootstrap_iters=1, apply_chat_template=chat
    )
    for name, value in theirs["results"][task].items():
        if isinstance(value, float):
            assert report["results"][task][name] == pytest.approx(value, abs=1e-6), name
    metric = "acc" if task == "tiny_choose" else "exact_match"
    samples = {
        sample["doc_id"]: sample for sample in theirs["samples"][task] if sample["filter"] in ("none", "first-word")
    }
    assert len(rows) == len(samples) == 5
    assert [one["id"] for one in documents] == [row["id"] for row in rows]
    for row, document in zip(rows, documents, strict=True):
        assert row["strict"] == row["legacy"] == samples[row["doc_id"]][metric]
        assert document["prompt"] == samples[row["doc_id"]]["arguments"][0][0]
        assert document["prompt"].removeprefix("<|im_start|>user\n").startswith(document["question"])
        if task == "tiny_generate":
            assert row["text"] == samples[row["doc_id"]]["resps"][0][0]
            assert row["tokens"] > 0


def test_the_option_that_a_metric_takes_for_the_models_is_the_one_that_is_shown():
    scores, options = [-4.0, -5.0, -9.0, -6.0], ["no", "black and white"]
    assert [chosen(metric, scores[:2], options) for metric in ("acc", "acc_norm", "exact_match")] == [0, 1, 0]
    assert chosen("acc_bytes", [-4.0, -5.0], ["ää", "abc"]) == 0
    assert chosen("acc_norm", [-4.0, -5.0], ["ää", "abc"]) == 1
    assert chosen("acc_mutual_info", scores, options) == 0 and chosen("acc_mutual_info", scores[:2] + [-4, -9], options)
    assert [label_of(place) for place in (0, 25, 26)] == ["A", "Z", "27"]


def test_a_document_is_told_whether_options_go_on_with_a_context_or_are_one():
    def document(task_text, gold, arguments):
        task = SimpleNamespace(
            OUTPUT_TYPE="multiple_choice", doc_to_choice=lambda doc: [" x", " y"], doc_to_text=lambda doc: task_text
        )
        sample = {"doc": {}, "doc_id": 3, "doc_hash": "f" * 64, "target": gold, "arguments": arguments}
        return document_of(task, sample)

    usual = document("Which?", [0, 1], [("Shot.\n\nWhich?", " x"), ("Shot.\n\nWhich?", " y")])
    assert usual == {
        "id": "000003-ffffffffffff",
        "question": "Which?",
        "choices": ["x", "y"],
        "answer": "A, B",
        "prompt": "Shot.\n\nWhich?",
    }
    contexts = document(1, " goes on", [("It x", " goes on"), ("It y", " goes on")])
    assert (contexts["question"], contexts["answer"]) == ("goes on", "B")
    assert contexts["prompt"] == "It x goes on\nIt y goes on"


@pytest.mark.model
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"metric": "f1"}, "lm_eval.tasks.tiny_choose.metric: there is no 'f1'; the task has acc, acc_norm"),
        ({"filter": "strict-match"}, "lm_eval.tasks.tiny_choose.filter: there is no 'strict-match'; the task has none"),
    ],
)
def test_a_metric_that_a_task_lacks_is_named(fetched, tiny_model, tmp_path, asked, message):
    with pytest.raises(UserError, match=message):
        evaluate_stock(
            *(fetched["tiny_choose"], EvaluateSettings(task="tiny_choose"), StockAsked(**asked)),
            *(own_engine(tiny_model), tmp_path / "out.jsonl"),
        )


def test_data_that_cannot_be_fetched_are_named(tmp_path):
    task = CHOOSE | {"task": "gone", "dataset_path": "nobody/nothing", "test_split": "test", "doc_to_text": "q"}
    (tmp_path / "own").mkdir()
    (tmp_path / "own/gone.yaml").write_text(yaml.safe_dump(task))
    outcome = run(
        *("python", "scripts/fetch_task.py", "--settings", json.dumps({"task": "gone"})),
        *("--include", tmp_path / "own", "--record", tmp_path / "out/record.json"),
        check=False,
    )
    assert outcome.returncode == 1
    assert (
        "error: lm_eval:gone: the data set nobody/nothing of the Hugging Face hub could not be loaded" in outcome.stderr
    )
    assert not (tmp_path / "out/record.json").exists()


# The whole way.


@pytest.mark.model
def test_a_study_evaluates_on_tasks_of_lm_eval_as_on_its_own(tiny_model, tmp_path):
    path, config = make_study(tmp_path, tiny_model)
    own = write_tasks(tmp_path)
    config["study"]["evaluate"] = ["boxes", "lm_eval:tiny_choose", "lm_eval:tiny_generate"]
    config["lm_eval"] = {"include": "own", "tasks": {"tiny_choose": {"title": "Tiny choice", "metric": "acc_norm"}}}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    snakemake(tmp_path)
    rows = read_jsonl(artifact(tmp_path, "evaluate/tiny/base/lm_eval-tiny_choose") / "samples.jsonl")
    assert len(rows) == 6 and {row["tokens"] for row in rows} == {0}
    folder = tmp_path / "results/tiny"
    with open(folder / "tables/arms.csv") as file:
        arms = {(row["arm"], row["evaluation"]): float(row["accuracy"]) for row in csv.DictReader(file)}
    stock = ("lm_eval:tiny_choose", "lm_eval:tiny_generate")
    assert {(arm, task) for arm in ("baseline", "instruct", "refine") for task in stock} < arms.keys()
    report = read_json(artifact(tmp_path, "evaluate/tiny/base/lm_eval-tiny_choose") / "report.json")
    assert arms["baseline", stock[0]] == pytest.approx(report["results"]["tiny_choose"]["acc_norm,none"])
    assert "Tiny choice" in (folder / "tables/paper/transfer-tiny.md").read_text()
    assert "Tiny choice" in (folder / "figures/accuracy.svg").read_text() or (folder / "figures/accuracy.svg").exists()
    with open(folder / "tables/comparisons.csv") as file:
        assert {row["evaluation"] for row in csv.DictReader(file)} >= set(stock)
    claims = json.loads((folder / "claims.json").read_text())
    evaluated = {
        comparison["evaluation"]
        for claim in claims["claims"]
        for part in claim["parts"]
        for comparison in part["comparisons"]
    }
    assert "boxes" in evaluated
    outcome = run("python", "scripts/study.py", "trace", "--all", cwd=tmp_path, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    # A changed file of the folder is another task; the data of the other one stay.
    (own / "tiny_choose.yaml").write_text(yaml.safe_dump({"include": "common", **CHOOSE, "target_delimiter": ""}))
    planned = snakemake(tmp_path, "-n").stdout
    assert "fetch_task" in planned
    shutil.rmtree(own / "__pycache__", ignore_errors=True)


@pytest.mark.model
def test_a_dry_run_says_what_the_hub_is_needed_for(tiny_model, tmp_path):
    path, config = make_study(tmp_path, tiny_model)
    config["study"]["evaluate"] = ["boxes", "lm_eval:hellaswag"]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    outcome = snakemake(tmp_path, "-n")
    assert "lm_eval:hellaswag needs the data set Rowan/hellaswag of the Hugging Face hub" in outcome.stderr
    outcome = snakemake(tmp_path, "-n", "--quiet", "all", "--until", "export_task")
    assert outcome.returncode == 0
