"""What a study takes, against sums done by hand."""

import pytest
import yaml
from snakemake.utils import update_config

from conftest import REPOSITORY, run
from selfrefine.errors import UserError
from selfrefine.report.spending import plain
from selfrefine.schema.assumptions import Assumptions, Costs
from selfrefine.study.artifact import Artifact
from selfrefine.study.costs import costs_of
from selfrefine.study.design import Study
from selfrefine.study.final_artifacts import FinalArtifacts
from selfrefine.study.job_table import tables_of
from selfrefine.study.open_study import open_study
from selfrefine.study.planning import Planner
from selfrefine.study.resolve import training_of
from selfrefine.study.warm_up import long_warm_ups

SHIPPED = yaml.safe_load((REPOSITORY / "config/assumptions.yaml").read_text())


def planner(study: dict | None = None, **assumed) -> Planner:
    """The paper's study, with round figures."""
    config: dict = {}
    for name in ("benchmarks", "recipes", "paper"):
        update_config(config, yaml.safe_load((REPOSITORY / f"config/{name}.yaml").read_text()))
    update_config(config, {"engine": "transformers", "models": {"llama-2-7b": {"parameters": 10}}})
    update_config(config, study or {})
    values: dict = {}
    update_config(values, SHIPPED)
    round_figures = {
        "gpu": {"peak_tflops": 100, "memory_gb": 80, "usable": 1, "generate": 0.1, "train": 0.5},
        "start_seconds": 0,
        "load_gb_per_second": 1e9,
        "tokens": {part: {"math": n, "choice": n} for part, n in (("prompt", 100), ("cot", 200), ("plain", 50))},
        "yields": {"demonstrations": 0.5, "pairs": 0.5},
        "items": {"gsm8k": {"train": 8000, "test": 1000}},
        "bytes_per_token": 5,
    }
    update_config(values, round_figures)
    update_config(values, assumed)
    return Planner(Study.read(config), Assumptions.read(values))


START = "llama-2-7b/instruct/gpt-3.5/gsm8k/100/0"


def test_evaluation_reads_prompts_and_generates_chains_of_thought():
    cost = planner().cost("evaluate", checkpoint=START, task="gsm8k")
    # 1,000 x 100 tokens at 100e12 x 0.5 / 20e9 a second, and 1,000 x 200 at 100e12 x 0.1 / 20e9.
    assert cost.gpu_hours == pytest.approx((100_000 / 2500 + 200_000 / 500) / 3600)
    assert (cost.prompt_tokens, cost.written_tokens, cost.bytes) == (100_000, 200_000, 1_000_000)


def test_sampling_counts_both_styles_and_the_share():
    cost = planner().cost("sample", start=START, task="gsm8k", share="25", seed="0")
    assert cost.prompt_tokens == 2000 * 8 * 100
    assert cost.written_tokens == 2000 * (4 * 200 + 4 * 50)


def test_instruct_counts_epochs_kept_demonstrations_and_recomputed_activations():
    cost = planner().cost("instruct", student="llama-2-7b", teacher="gpt-3.5", task="gsm8k", share="50", seed="0")
    assert cost.trained_tokens == 4000 * 0.5 * 4 * 300
    assert cost.gpu_hours == pytest.approx(cost.trained_tokens * 3 * 20e9 / 50e12 / 3600)
    # 10e9 = 12 x layers x (128 x layers)^2 gives 37.05 layers, 4743 wide; LoRA has 19 parameters
    # per layer, width and rank.
    assert cost.bytes == pytest.approx(19 * 37.05 * 4743 * 8 * 4, rel=1e-3)


def test_refine_counts_both_sides_the_reference_and_the_limit_of_updates():
    at = {"start": START, "task": "gsm8k", "share": "100", "seed": "0"}
    cost = planner().cost("refine", recipe="cot", **at)
    assert cost.trained_tokens == 8000 * 0.5 * 3 * (300 + 150)
    assert cost.gpu_hours == pytest.approx(cost.trained_tokens * (3 + 1 / 3) * 20e9 / 50e12 / 3600)
    assert planner().cost("refine", recipe="rft", **at).trained_tokens == 8000 * 0.5 * 3 * 4 * 300
    few = planner({"refine": {"max_steps": 10}}).cost("refine", recipe="cot", **at)
    assert few.trained_tokens == 10 * 128 * 450


def test_a_served_teacher_takes_tokens_and_no_gpu():
    at = {"task": "gsm8k", "split": "train", "style": "cot"}
    served, own = (planner().cost("teach", teacher=name, **at) for name in ("gpt-3.5", "llama-2-70b"))
    assert served.gpu_hours == 0 < own.gpu_hours
    assert served.written_tokens == own.written_tokens == 8000 * 200


def test_what_was_measured_takes_the_place_of_what_is_estimated():
    measured = {"generate_tokens_per_second": {"llama-2-7b": 1000}, "train_tokens_per_second": {"llama-2-7b": 100}}
    mine = planner(**measured)
    cost = mine.cost("evaluate", checkpoint=START, task="gsm8k")
    assert cost.gpu_hours == pytest.approx((100_000 / 2500 + 200_000 / 1000) / 3600)
    cost = mine.cost("instruct", student="llama-2-7b", teacher="gpt-3.5", task="gsm8k", share="100", seed="0")
    assert cost.gpu_hours == pytest.approx(cost.trained_tokens / 100 / 3600)


def test_a_model_takes_as_many_gpus_as_hold_it_and_waits_for_its_weights():
    large = {"models": {"llama-2-7b": {"parameters": 80}}, "engine": "transformers"}
    mine = planner(large, start_seconds=36, load_gb_per_second=1)
    assert mine.gpus("evaluate", checkpoint=START, task="gsm8k") == 3  # 160 GB of weights, 68 of KV cache
    waited = [p.cost("evaluate", checkpoint=START, task="gsm8k").gpu_hours for p in (mine, planner(large))]
    assert waited[0] - waited[1] == pytest.approx(3 * (36 + 160) / 3600, rel=1e-3)


NAMED = {"on-demand": None, "reserved": None, "cluster": 0.5}
PRICES = {"currency": "EUR", "gpu_hour": NAMED, "gpu_watts": 400, "host_watts": 100}
PRICES |= {"pue": 1.5, "grid": 0.2}


def test_the_plan_tells_money_energy_and_emissions_of_gpu_hours():
    mine = planner(costs=PRICES)
    jobs = [Artifact("evaluate", (), {"checkpoint": START, "task": "gsm8k"}, {}, {}, "", "")] * 2
    hours = 2 * mine.cost("evaluate", checkpoint=START, task="gsm8k").gpu_hours
    told = tables_of(jobs, mine)
    (header, _, evaluate, total) = told.partition("## Cost and energy\n\n")[2].splitlines()[:4]
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        "stage",
        "GPU hours",
        "EUR, cluster",
        "kWh",
        "kg CO2e",
    ]
    energy = hours * 0.5 * 1.5
    expected = [plain(each) for each in (hours, hours * 0.5, energy, energy * 0.2)]
    for line, name in ((evaluate, "evaluate"), (total, "total")):
        assert [cell.strip() for cell in line.split("|")[1:-1]] == [name, *expected]
    assert "assumed, with 400 W a GPU and 100 W for the rest of the machine a GPU, times 1.5" in told
    assert "Cost and energy" not in tables_of([Artifact("pair", (), {}, {}, {}, "", "")], mine)


def test_a_studys_own_prices_take_the_place_of_what_is_assumed():
    own = planner({"costs": PRICES | {"currency": "CHF"}}, costs=PRICES)
    jobs = [Artifact("evaluate", (), {"checkpoint": START, "task": "gsm8k"}, {}, {}, "", "")]
    assert "CHF, cluster" in tables_of(jobs, own) and "EUR" not in tables_of(jobs, own)
    assert "costs:" in own.study.yaml() and "costs:" not in planner().study.yaml()
    assert costs_of(own.study).currency == "CHF" and costs_of(planner().study) == Costs(**SHIPPED["costs"])


def test_the_papers_sources_are_pinned_as_far_as_commits_are_public():
    study = planner().study
    used = {**{task: study.benchmarks[task].files for task in study.study.evaluate}}
    loose = {task for task, files in used.items() if not all(file.pinned for file in files.values())}
    assert loose == {"multiarith"}, "of which no public source names a commit"
    assert all(study.models[name].pinned for name in ("llama-2-7b", "llama-2-13b", "llama-2-70b"))
    assert all(study.models[name].pinned for name in ("mistral-7b", "mixtral-8x7b"))
    assert {name for name, model in study.models.items() if model.gated} >= {"llama-2-7b", "llama-2-13b", "llama-2-70b"}


@pytest.fixture
def pilot(tmp_path, monkeypatch) -> FinalArtifacts:
    """The pilot of the paper's study, before its first run."""
    monkeypatch.chdir(tmp_path)
    return open_study([REPOSITORY / "config/studies/paper-pilot.yaml"])


def test_the_pilot_takes_an_hour_of_one_h100(pilot):
    mine = Planner(pilot.study, Assumptions.read(SHIPPED))
    costs = [mine.cost(job.stage, **job.of) for job in pilot.behind_all()]
    hours = sum(cost.gpu_hours for cost in costs)
    assert 0.5 < hours < 1.1
    gpus = {mine.gpus(job.stage, **job.of) for job in pilot.behind_all()}
    assert gpus == {0, 1} and mine.assumed.gpu.peak_tflops == 989
    assert list(long_warm_ups(pilot.study, lambda *of: pilot.artifacts.items(*of).file)) == []


def test_the_pilot_differs_from_the_papers_study_where_it_says(pilot):
    paper = planner().study
    for phase, changed in (
        ("instruct", {"batch_size"}),
        ("refine", {"batch_size", "warmup_steps", "evaluate_every", "save_every"}),
    ):
        mine, its = (training_of(study, "mistral-7b", phase).model_dump() for study in (pilot.study, paper))
        assert {key for key in mine if mine[key] != its[key]} <= changed
    for section in ("models", "teachers"):
        for name, entry in getattr(pilot.study, section).items():
            assert entry == getattr(paper, section)[name]
    assert pilot.study.sampling == paper.sampling and pilot.study.evaluation == paper.evaluation
    for task in pilot.study.study.tasks:
        assert pilot.study.benchmarks[task].files == paper.benchmarks[task].files


def test_items_that_are_made_are_counted_whatever_the_configuration_says(tmp_path):
    made = tmp_path / "gsm8k-test.jsonl"
    made.write_text("{}\n" * 3)
    assumed = planner()
    mine = Planner(assumed.study, assumed.assumed, lambda task, split: tmp_path / f"{task}-{split}.jsonl")
    assert (mine.work.items("gsm8k", "test"), mine.work.items("gsm8k", "train")) == (3, 8000)


def test_what_is_not_known_is_named():
    with pytest.raises(UserError, match="configuration: models.llama-2-7b.parameters: is missing"):
        planner({"models": {"llama-2-7b": {"parameters": None}}}).work.size("llama-2-7b")
    with pytest.raises(UserError, match=r"assumptions: gpu.peak_tflops: Input should be greater than 0"):
        Assumptions.read(SHIPPED | {"gpu": SHIPPED["gpu"] | {"peak_tflops": 0}})
    with pytest.raises(UserError, match="assumptions: gpus: unknown key"):
        Assumptions.read(SHIPPED | {"gpus": 1})
    lacking = planner()
    object.__setattr__(lacking.assumed, "items", {})
    with pytest.raises(UserError, match="assumptions: items.gsm8k.test is missing"):
        lacking.work.items("gsm8k", "test")


def test_the_command_counts_what_snakemake_would_run(finished, fresh):
    folder, path, config = fresh
    command = ("python", "scripts/study.py", "plan", "--configfile", "config/tiny.yaml")
    del config["models"]["tiny"]["parameters"]
    path.write_text(yaml.safe_dump(config))
    assert "configuration: models.tiny.parameters: is missing" in run(*command, cwd=folder, check=False).stderr
    config["models"]["tiny"]["parameters"] = 0.0001
    path.write_text(yaml.safe_dump(config))
    told = run(*command, cwd=folder).stdout
    for rule, jobs in (("instruct", 1), ("sample", 1), ("refine", 1), ("evaluate", 6), ("teach", 3)):
        assert f"| {rule} " in told
        line = next(line for line in told.splitlines() if line.startswith(f"| {rule} "))
        assert line.split("|")[2].strip() == str(jobs)
    assert "Nothing would run" in run(*command, cwd=finished[0]).stdout
