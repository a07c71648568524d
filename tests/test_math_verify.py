"""The extractor math-verify: what it reads, where it judges, and what is said where its package is missing."""

import csv
import importlib.util
import json
import time

import pytest
import yaml

from conftest import artifact, make_study, run, snakemake
from selfrefine.analysis import accuracy_tables, yield_tables
from selfrefine.answers import extraction
from selfrefine.answers.extraction import read_by_math_verify, verify
from selfrefine.data.mapping import to_item
from selfrefine.engines.interface import Completion
from selfrefine.engines.item_requests import requests_for
from selfrefine.errors import UserError
from selfrefine.judging.lm_eval_task import export_task
from selfrefine.judging.sampled_paths import judge, refuse_missing
from selfrefine.schema.benchmark import Mapping
from selfrefine.schema.generation import Generation
from selfrefine.schema.prompt import TaskPrompt
from selfrefine.schema.rows import extracted_of, judged_correct
from selfrefine.schema.stages import ExportTaskSettings
from selfrefine.store.files import read_json, read_jsonl, write_jsonl
from selfrefine.study.design import Study
from selfrefine.study.idle_settings import idle_settings
from selfrefine.study.stage_settings import settings
from test_sampled_evaluation import answers, cell
from test_study import SMALL, changed

UNION = r"(-\infty, 2) \cup (3, \infty)"


@pytest.mark.parametrize(
    ("gold", "text", "expected"),
    [
        # Numbers.
        ("12", "The answer is 12.", True),
        ("12", "#### 12", True),
        ("12", r"$\boxed{12}$ apples", True),
        ("12", "12,5", False),
        ("12", "It is 12 or 13", False),
        ("1200", "It costs $1,200.", True),
        ("-7", r"\boxed{-7}", True),
        ("-7", "The answer is 7", False),
        ("1/3", r"The answer is \boxed{\frac{1}{3}}.", True),
        ("1/3", r"So it is $\dfrac13$", True),
        ("1/3", "The answer is 2/6", True),
        ("1/3", "The answer is 3", False),
        # Radicals.
        (r"\frac{\sqrt{3}}{2}", r"\boxed{\sqrt{3}/2}", True),
        (r"\frac{\sqrt{3}}{2}", r"\boxed{\frac{3}{2\sqrt{3}}}", True),
        (r"2\sqrt{2}", r"The answer is $\sqrt{8}$.", True),
        (r"2\sqrt{2}", r"$\sqrt{2}$", False),
        # Intervals and sets.
        (r"\left[0, 1\right)", r"\boxed{[0,1)}", True),
        (r"\left[0, 1\right)", r"\boxed{(0,1]}", False),
        (UNION, r"\boxed{(-\infty,2)\cup(3,\infty)}", True),
        (UNION, r"\boxed{(2,3)}", False),
        (r"\{1, 2, 3\}", r"\boxed{\{3,1,2\}}", True),
        (r"\{1, 2, 3\}", r"\boxed{\{1,2\}}", False),
        ("1, -2", r"\boxed{-2, 1}", True),
        # Polynomials and equations.
        (r"x^2 + 2x + 1", r"\boxed{1+2x+x^2}", True),
        (r"x^2 + 2x + 1", r"The answer is $(x+1)^2$.", True),
        (r"x^2 + 2x + 1", r"\boxed{x^2+2x-1}", False),
        (r"y = 2x + 3", r"\boxed{y=3+2x}", True),
        (r"y = 2x + 3", r"\boxed{y=2x-3}", False),
        # Units and words.
        (r"6 \text{ cm}", r"\boxed{6\text{ cm}}", True),
        (r"6 \text{ cm}", "The answer is 6 cm", True),
        (r"6 \text{ cm}", r"\boxed{7 \text{ cm}}", False),
        (r"\text{even}", r"\boxed{\text{even}}", True),
        (r"\text{even}", r"\boxed{\text{odd}}", False),
        # Golds with their own marks.
        (r"$x+1$", r"\boxed{1+x}", True),
        (r"\(x+1\)", r"\boxed{1+x}", True),
        (r"\boxed{x+1}", r"\boxed{1+x}", True),
        (r"\boxed{x+1}", r"\boxed{1-x}", False),
        # Several answers: the last phrase counts, several boxes are a set.
        ("5", r"\boxed{5}. That is 3 more than 2.", True),
        ("5", r"\boxed{5}. The final answer is 4.", False),
        ("5", r"First \boxed{4}. No: \boxed{5}", False),
        (r"\{4, 5\}", r"\boxed{4} and \boxed{5}", True),
        # Thoughts.
        ("12", r"<think>\boxed{12}</think> The answer is 13.", False),
        ("12", r"<think>\boxed{13}</think> The answer is 12.", True),
        # A long answer.
        ("12", "So we go on. " * 3000 + "The answer is 12", True),
        ("2", r"\boxed{" + "9" * 20000 + "}", False),
        ("12", r"\boxed{\frac{1}{0}}", False),
        ("?!", r"\boxed{1}", False),
        ("", r"\boxed{1}", False),
    ],
)
def test_verdicts(gold, text, expected):
    assert verify(text, gold) is expected
    assert read_by_math_verify(text) is not None


NONSENSE = ["", "  ", "no idea", "The answer is even.", r"\boxed{12", r"}{$$\((", r"\boxed{}", r"<think>\boxed{12}"]


@pytest.mark.parametrize("text", NONSENSE)
def test_nothing_is_read_from_nonsense(text):
    assert read_by_math_verify(text) is None
    assert verify(text, "12") is False


@pytest.mark.parametrize(
    "text",
    [r"\boxed{9^{9^{9^{9}}}}", r"\boxed{999999999!}", r"\boxed{" + "(" * 3000 + "x" + ")" * 3000 + "}"],
    ids=["power", "factorial", "parentheses"],
)
def test_what_takes_too_long_is_incorrect(text, monkeypatch):
    monkeypatch.setattr(extraction, "SECONDS", 1)
    began = time.monotonic()
    assert verify(text, "12") is False
    assert 0.9 < time.monotonic() - began < 8
    # The alarm is off again.
    time.sleep(1.1)
    assert verify("The answer is 12.", "12") is True


def item(answer: str, kind: str = "text", **more) -> dict:
    return {"id": "q", "kind": kind, "question": "?", "choices": [], "answer": answer, **more}


def test_a_path_has_its_verdict_only_where_it_is_the_extractor():
    row = judge(item("x+1"), r"The answer is $1+x$.", "math-verify")
    assert (row["extracted"], row["correct"], row["math-verify"], row["strict"]) == ("x + 1", True, True, False)
    assert "math-verify" not in judge(item("x+1"), r"The answer is $1+x$.", "strict")


def test_it_judges_no_options_whose_stages_stay_as_they_are():
    config = changed(SMALL, "extractor", "math-verify")
    plain, study = Study.read(SMALL), Study.read(config)
    asked = {
        "teach": {"teacher": "owl", "split": "train", "style": "cot"},
        "sample": {"start": "ant/base", "share": "100", "seed": "0"},
        "export_task": {},
    }
    for stage, names in asked.items():
        assert settings(study, stage, task="add", **names)["extractor"] == "math-verify"
        assert settings(study, stage, task="pick", **names) == settings(plain, stage, task="pick", **names)
    assert list(idle_settings(study)) == list(idle_settings(plain))
    config["study"] |= {"tasks": ["pick"], "evaluate": ["pick"]}
    (said,) = set(idle_settings(Study.read(config))) - set(idle_settings(plain))
    assert said == "extractor: math-verify changes nothing: all benchmarks have options, which strict judges"


def test_where_it_gave_no_verdict_stricts_stands():
    own = {"strict": 0.0, "math-verify": 1.0, "extracted": None, "math-verify_extracted": "x + 1"}
    of_options = {"strict": 1.0, "legacy": 0.0, "extracted": "B"}
    assert judged_correct(own, "math-verify") and not judged_correct(own, "strict")
    assert (extracted_of(own, "math-verify"), extracted_of(own, "strict")) == ("x + 1", None)
    assert judged_correct(of_options, "math-verify") and extracted_of(of_options, "math-verify") == "B"
    assert not judged_correct(of_options, "legacy")
    with pytest.raises(KeyError):
        judged_correct({"strict": 1.0}, "legacy")


def test_tables_count_its_verdicts_and_votes(tmp_path):
    rows = [row | {"math-verify": 1.0, "math-verify_extracted": "2"} for row in answers("+-", "..")]
    write_jsonl(tmp_path / "samples.jsonl", rows)
    read = accuracy_tables.read_answers([cell(tmp_path / "samples.jsonl")], "math-verify")
    (row,) = accuracy_tables.accuracy_table(read, 0.95).to_dict("records")
    assert (row["accuracy"], row["committed"]) == (1.0, 1.0)
    table = yield_tables.pass_table([cell(tmp_path / "samples.jsonl")], "math-verify", 0.95)
    assert {(one["measure"], one["k"], one["value"]) for one in table.to_dict("records")} == {
        (measure, k, 1.0) for measure in ("pass", "maj") for k in (1, 2)
    }


def exported(folder, **given):
    """An exported task of two items, and its copy of answers.py as lm-eval loads it."""
    prompt = TaskPrompt(instruction="Compute.")
    wanted = ExportTaskSettings(task="sums", prompt=prompt, **{"extractor": "math-verify"} | given)
    items = {name: item(answer) | {"id": name} for name, answer in (("a", "x+1"), ("b", r"\sqrt{8}"))}
    export_task(items, wanted, folder)
    specification = importlib.util.spec_from_file_location("answers_of_task", folder / "answers.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_an_exported_task_judges_by_it_only_where_it_is_the_extractor(tmp_path):
    module = exported(tmp_path / "own")
    first, _ = documents = read_jsonl(tmp_path / "own/docs.jsonl")
    assert module.documents()["test"].to_list() == documents
    scores = module.process_results(first, ["The answer is $1+x$."])
    assert (scores["math-verify"], scores["strict"], scores["committed"]) == (1.0, 0.0, 1.0)
    several = module.process_results(first, [["The answer is $1+x$.", "The answer is $x$.", "?", r"\boxed{x+1}"]])
    assert several["math-verify"] == 0.5
    assert "  metric: math-verify" in (tmp_path / "own/sums.yaml").read_text().replace("- ", "  ")
    usual = exported(tmp_path / "usual", extractor=None)
    (first, _) = read_jsonl(tmp_path / "usual/docs.jsonl")
    assert "extractor" not in first and "math-verify" not in usual.process_results(first, ["The answer is $1+x$."])
    assert "math-verify" not in (tmp_path / "usual/sums.yaml").read_text()


class Saying:
    """An engine that gives every request of a list the same answer."""

    identity = {"engine": "said"}

    def __init__(self, *texts: str):
        self.texts = texts

    def batches(self, requests):
        return [requests]

    def generate(self, batch):
        return [Completion(self.texts[n % len(self.texts)], "stop", 5, 9) for n, _ in enumerate(batch)]

    def rendered(self, request):
        return None


@pytest.mark.parametrize("samples", [1, 2])
def test_lm_eval_reports_it_and_rows_have_it(tmp_path, samples):
    from selfrefine.judging.lm_eval_model import EngineModel, run_lm_eval

    exported(tmp_path / "task", samples=samples, temperature=0.0 if samples == 1 else 1.0)
    said = ("The answer is $1+x$.", r"\boxed{3}") if samples == 1 else (r"\boxed{1+x}", "?", r"\boxed{2\sqrt{2}}", "8")
    model = EngineModel(Saying(*said), tmp_path / "samples.jsonl", None)
    report, rows = run_lm_eval(model, "sums", tmp_path / "task")
    assert report["results"]["sums"]["math-verify,none" if samples == 1 else "math-verify,all"] == 0.5
    found = [(row["math-verify"], row["math-verify_extracted"]) for row in rows]
    assert found == (
        [(1, "x + 1"), (0, "3")] if samples == 1 else [(1, "x + 1"), (0, None), (1, "2*sqrt(2)"), (0, "8")]
    )


@pytest.fixture
def without(monkeypatch):
    """No package of that name."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *of: None if name == "math_verify" else find(name, *of)
    )


def test_a_missing_package_is_refused_in_one_sentence_before_anything_is_generated(without, tmp_path):
    says = r"extractor: math-verify is not installed for \S+; `pip install math-verify==0.9.0`$"
    config = changed(SMALL, "extractor", "math-verify")
    with pytest.raises(UserError, match="^configuration: " + says):
        Study.read(config)
    Study.read(SMALL)
    with pytest.raises(UserError, match="^" + says):
        refuse_missing("math-verify")
    refuse_missing("strict")
    with pytest.raises(ImportError, match="^" + says):
        exported(tmp_path / "own").documents()
    exported(tmp_path / "usual", extractor=None).documents()


def write_expression_study(folder, model):
    """The tiny study with a benchmark whose golds are expressions, answered in another order, in place of `boxes`."""
    path, config = make_study(folder, model)
    rows = [json.loads(line) for line in (folder / "boxes.jsonl").read_text().splitlines()]
    rows = [{"q": row["question"], "a": ("x + 1", "y + 2")[row["label"]]} for row in rows]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"question": "q", "answer": "a", "answer_is": "text"}
    config["benchmarks"]["sums"] = {
        "title": "Sums",
        "kind": "text",
        "files": {"all": {"source": "file:sums.jsonl", "licence": "none"}},
        "fields": fields,
        "near_duplicate": 1.0,
        "splits": {"train": {"file": "all", "size": 30}, "test": {"file": "all", "size": 20}},
    }
    config["prompts"]["text"] = {"instruction": "Compute."}
    config["study"] |= {"tasks": ["sums"], "evaluate": ["sums", "far"]}
    config["extractor"] = "math-verify"
    config["evaluation"]["max_tokens"] = config["sampling"]["generation"]["max_tokens"] = 20
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    mapping = Mapping.model_validate({"kind": "text", "fields": fields})
    items = {one["id"]: one for one in (to_item(row, "raw", mapping) for row in rows)}
    generation = Generation(**config["teachers"]["oracle"]["generation"])
    recorded = read_jsonl(folder / "oracle.jsonl")
    for request in requests_for(items, TaskPrompt(instruction="Compute."), "cot", 1, generation, 0):
        said = "+".join(reversed(items[request.id.split("-")[0]]["answer"].split(" + ")))
        answer = {"text": f"The answer is ${said}$", "finish_reason": "stop", "tokens": 6, "prompt_tokens": 40}
        recorded.append({"key": request.key, "id": request.id, **answer})
    write_jsonl(folder / "oracle.jsonl", recorded)


@pytest.mark.model
def test_a_study_is_judged_by_it_from_teacher_to_page(tiny_model, tmp_path):
    write_expression_study(tmp_path, tiny_model)
    snakemake(tmp_path)
    taught = artifact(tmp_path, "teach/oracle/sums-train-cot")
    assert read_json(taught / "record.json")["figures"]["paths"]["cot"]["correct"] == 30
    assert not any(row["strict"] for row in read_jsonl(taught / "answers.jsonl"))
    assert read_json(taught / "record.json")["packages"]["math-verify"] == "0.9.0"
    rows = read_jsonl(artifact(tmp_path, "evaluate/tiny/oracle-sums-100-seed0/sums") / "samples.jsonl")
    assert sum(row["math-verify"] for row in rows) > 0 and not any(row["strict"] for row in rows)
    far = artifact(tmp_path, "evaluate/tiny/oracle-sums-100-seed0/far") / "samples.jsonl"
    assert all("math-verify" not in row for row in read_jsonl(far))
    with open(tmp_path / "results/tiny/tables/arms.csv") as file:
        table = {(row["arm"], row["evaluation"]): float(row["accuracy"]) for row in csv.DictReader(file)}
    assert table["instruct", "sums"] == pytest.approx(sum(row["math-verify"] for row in rows) / len(rows))
    assert table["instruct", "far"] == pytest.approx(sum(row["strict"] for row in read_jsonl(far)) / 10)
    run("python", "scripts/study.py", "trace", "results/tiny/tables/arms.csv", cwd=tmp_path)
