"""The whole workflow on the tiny study: it ends, again and the same; what is wrong is said in one line."""

import csv
import json
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import yaml

from conftest import artifact, assert_same_results, nothing_to_do, planned_rules, run, snakemake, target, tiny_records
from selfrefine.audit.integrity import AuditedResults
from selfrefine.audit.trace import trace
from selfrefine.store.files import read_jsonl
from selfrefine.store.hashing import sha256_of

INSTRUCTED = "tiny/oracle-boxes-100-seed0"
REFINED = f"{INSTRUCTED}/boxes-cot-round1"
PATHS = f"sample/{INSTRUCTED}/boxes-100-seed0"


def test_the_study_ends_with_its_tables_figures_and_summary(finished):
    folder, outcome = finished
    accuracy = pd.read_csv(folder / "results/tiny/tables/accuracy.csv", keep_default_na=False)
    assert sorted(set(accuracy.arm)) == ["baseline", "instruct", "refine", "teacher"]
    assert len(accuracy) == 4 * 2
    for row in accuracy.itertuples():
        samples = read_jsonl(folder / row.samples)
        right = sum(bool(s["strict"]) for s in samples)
        assert (row.n, row.correct) == (len(samples), right)
        assert row.low <= row.accuracy <= row.high
    for name in ("accuracy", "training"):
        assert (folder / f"results/tiny/figures/{name}.svg").read_text().startswith("<?xml")
        assert (folder / f"results/tiny/figures/{name}.png").stat().st_size > 10_000
    assert "# Summary of the study" in outcome.stdout + outcome.stderr
    assert "| refine − instruct" in (folder / "results/tiny/details.md").read_text()


def test_every_result_has_a_name_without_a_key(finished):
    folder, _ = finished
    names = {path.relative_to(folder / "results/tiny") for path in folder.glob("results/tiny/**/*.*")}
    tables = ("accuracy", "arms", "comparisons", "lengths", "demonstrations", "paths", "solving", "pass_at_k", "pairs")
    figures = (
        "accuracy",
        "out-family",
        "lengths",
        "solving-tiny",
        "yields-tiny",
        "cost",
        "training",
        "claims",
        "flips",
    )
    layouts = ("transfer-tiny", "teachers", "prompts", "splits", "lengths", "solving", "yields", "cost")
    assert {name for name in names if ".shown" not in name.parts} == {
        *map(Path, ("summary.md", "details.md", "claims.md", "claims.json", "index.html", "configuration.yaml")),
        *(Path(f"tables/{name}.csv") for name in (*tables, "refinements", "stages", "costs", "sources", "flips")),
        Path("tables/flips.md"),
        *(Path(f"tables/paper/{name}.{end}") for name in layouts for end in ("csv", "md", "tex")),
        *(Path(f"figures/{name}.{end}") for name in figures for end in ("svg", "pdf", "png")),
    }
    for name in names:
        path = folder / "results/tiny" / name
        assert ".shown" in name.parts or path.is_symlink()
        assert path.resolve().is_relative_to((folder / "results").resolve())


def test_lm_eval_reports_what_the_samples_say(finished):
    folder, _ = finished
    evaluation = artifact(folder, f"evaluate/{INSTRUCTED}/boxes")
    report = json.loads((evaluation / "report.json").read_text())
    samples = read_jsonl(evaluation / "samples.jsonl")
    assert report["n-samples"]["boxes"]["effective"] == len(samples) == 20
    assert report["results"]["boxes"]["strict,none"] == pytest.approx(sum(s["strict"] for s in samples) / 20)
    assert report["results"]["boxes"]["strict,none"] > 0.2


def test_the_chain_of_artifacts_agrees(finished):
    folder, _ = finished
    train = {row["id"] for row in read_jsonl(artifact(folder, "prepare/boxes-train") / "items.jsonl")}
    test = {row["id"] for row in read_jsonl(artifact(folder, "prepare/boxes-test") / "items.jsonl")}
    assert not train & test
    demonstrations = read_jsonl(artifact(folder, "demonstrate/oracle/boxes") / "demonstrations.jsonl")
    assert {row["item"] for row in demonstrations} < train
    paths = read_jsonl(artifact(folder, PATHS) / "paths.jsonl")
    assert len(paths) == 30 * (3 + 2)
    by_id = {row["id"]: row for row in paths}
    pairs = read_jsonl(artifact(folder, f"pair/{INSTRUCTED}/boxes-cot-100-seed0") / "pairs.jsonl")
    for pair in pairs:
        chosen, rejected = by_id[pair["chosen"]["id"]], by_id[pair["rejected"]["id"]]
        assert chosen["correct"] and chosen["style"] == "cot" and rejected["style"] == "plain"
        assert chosen["item"] == rejected["item"] == pair["item"]
    for path in folder.glob("results/store/**/record.json"):
        record = json.loads(path.read_text())
        for name, entry in (record["inputs"] | record["outputs"]).items():
            assert sha256_of(folder / name) == entry["sha256"], name
        lying = {one.relative_to(folder).as_posix() for one in path.parent.rglob("*") if one.is_file()}
        assert lying == {*record["outputs"], path.relative_to(folder).as_posix()}


def test_a_finished_study_has_nothing_to_do(finished):
    folder, _ = finished
    assert nothing_to_do(snakemake(folder, "-n"))


def test_a_second_run_gives_the_same_bytes(finished, fresh):
    snakemake(fresh[0])
    assert_same_results(finished[0], fresh[0])


def test_every_number_can_be_traced_and_an_edited_file_is_found(finished, tmp_path):
    folder, _ = finished
    assert "every link holds" in run("python", "scripts/study.py", "trace", "--all", cwd=folder).stdout
    cell = ("results/tiny/figures/accuracy.svg", "arm=refine", "evaluation=boxes")
    chain = run("python", "scripts/study.py", "trace", *cell, cwd=folder).stdout
    stages = ("evaluate", "refine", "pair", "sample", "instruct", "demonstrate", "teach", "prepare", "fetch")
    assert [stage for stage in stages if f" {stage} " not in chain] == []
    shutil.copytree(folder / "results", tmp_path / "copy", symlinks=True)
    made = artifact(folder, f"pair/{INSTRUCTED}/boxes-cot-100-seed0").relative_to(folder / "results")
    pairs = tmp_path / "copy" / made / "pairs.jsonl"
    pairs.write_text(pairs.read_text().replace("answer", "Answer", 1))
    outcome = run("python", "scripts/study.py", "trace", *cell, "--results", tmp_path / "copy", cwd=folder, check=False)
    assert outcome.returncode == 1
    assert f"results/{made}/pairs.jsonl" in outcome.stderr


def test_every_figure_and_laid_out_table_can_be_traced(finished):
    folder, _ = finished
    results = AuditedResults(folder / "results")
    for path in sorted(folder.glob("results/tiny/figures/*.svg")):
        wanted = {"checkpoint": "refine"} if path.stem == "training" else {"student": "tiny"}
        chain = "\n".join(trace(results, str(path), wanted))
        assert [stage for stage in ("fetch", "fetch_model") if f" {stage} " not in chain] == [], path
    for path in sorted(folder.glob("results/tiny/tables/paper/*.csv")):
        for row in csv.DictReader(path.read_text().splitlines()):
            column = next(iter(row))
            assert " fetch " in "\n".join(trace(results, str(path), {column: row[column]})), path
    for claim in ("1", "2", "3", "5"):
        assert " fetch_model " in "\n".join(trace(results, str(folder / "results/tiny/claims.md"), {"claim": claim}))
    assert results.faults == {}


def test_an_archive_passes_the_public_validator_and_is_checked_elsewhere(finished, tmp_path, profile_issues):
    folder, _ = finished
    archive = tmp_path / "study.zip"
    run("python", "scripts/study.py", "crate", "--license", "CC-BY-4.0", "--archive", archive, cwd=folder)
    assert {message for severity, message in profile_issues(archive) if severity == "REQUIRED"} == set()
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "elsewhere")
    results = tmp_path / "elsewhere/results"
    assert "every link holds" in run("python", "scripts/study.py", "trace", "--all", "--results", results).stdout


def test_arms_made_with_other_versions_are_told_apart(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder, symlinks=True)
    record = artifact(folder, f"evaluate/{REFINED}/boxes") / "record.json"
    text = record.read_text()
    version = json.loads(text)["packages"]["transformers"]
    record.write_text(text.replace(f'"transformers": "{version}"', '"transformers": "4.0.0"'))
    for stage in ("tables", "summarise"):
        shutil.rmtree(folder / "results/store" / stage)
    snakemake(folder)
    comparisons = pd.read_csv(folder / "results/tiny/tables/comparisons.csv", keep_default_na=False)
    told = comparisons.set_index(["arm", "evaluation"]).differs.to_dict()
    assert told[("refine", "boxes")] == f"transformers: 4.0.0 against {version}"
    assert told[("refine", "far")] == told[("instruct", "boxes")] == ""
    line = (
        f"transformers: 4.0.0 against {version}: refine − instruct of tiny, instructed by oracle on Boxes, then refined"
    )
    assert f"- {line}, seed 0, on Boxes\n" in (folder / "results/tiny/details.md").read_text()


def test_every_shipped_recipe_and_schedule_runs(fresh):
    folder, path, config = fresh
    catalogue = yaml.safe_load((folder / "config/recipes.yaml").read_text())
    names = [*(name for name in catalogue["recipes"] if not name.endswith("-round")), *catalogue["schedules"]]
    rounds = {name: {"rounds": 2 if name == "rest-em" else 1} for name in catalogue["schedules"]}
    design = {"arms": ["instruct", "refine"], "recipes": names, "evaluate": ["boxes"]}
    path.write_text(
        yaml.safe_dump(
            config
            | {
                "study": config["study"] | design,
                "schedules": rounds,
                "recipes": {"grpo": {"online": {"group": 4, "generation": {"max_tokens": 12, "temperature": 1}}}},
                "sampling": config["sampling"] | {"rationales": 2},
            }
        )
    )
    snakemake(folder)
    accuracy = pd.read_csv(folder / "results/tiny/tables/accuracy.csv", keep_default_na=False)
    assert sorted(accuracy.recipe[accuracy.arm == "refine"]) == sorted(names)
    comparisons = pd.read_csv(folder / "results/tiny/tables/comparisons.csv", keep_default_na=False)
    assert set(comparisons.against) == {"instruct"} and len(comparisons) == len(names)
    # The second round of ReST-EM starts from where the first did, with paths that the first round's checkpoint sampled.
    second = artifact(folder, f"refine/{INSTRUCTED}/boxes-rest-em-round-round2")
    inputs = {Path(name).parent for name in json.loads((second / "record.json").read_text())["inputs"]}
    pairs = artifact(folder, f"pair/{INSTRUCTED}/boxes-rest-em-round-round1/boxes-rest-em-round-100-seed0")
    assert {artifact(folder, f"instruct/{INSTRUCTED}").relative_to(folder), pairs.relative_to(folder)} <= inputs
    assert not any("refine" in folder.parts for folder in inputs)
    sampled = read_jsonl(artifact(folder, PATHS) / "paths.jsonl")
    solved = {row["item"] for row in sampled if row["style"] == "cot" and row["correct"]}
    given = [row for row in sampled if row["style"] == "rationale"]
    assert {row["item"] for row in given} == {row["item"] for row in sampled} - solved and len(given) >= 2
    losses = {
        name: json.loads(record.read_text())["settings"]["objective"]["loss"]
        for name in names
        for record in folder.glob(f"results/store/refine/{INSTRUCTED}/boxes-{name}-round1/*/record.json")
    }
    assert losses["rft"] == "sft" and losses["simpo"] == "sigmoid_norm" and losses["cot"] == "sigmoid"
    assert "every link holds" in run("python", "scripts/study.py", "trace", "--all", cwd=folder).stdout


def test_the_report_is_one_file(finished):
    folder, _ = finished
    snakemake(folder, "--report", "report.html")
    text = (folder / "report.html").read_text()
    assert all(name in text for name in ("Figures", "Tables", "Summary", "Page", "configuration.yaml"))
    assert yaml.safe_load((folder / "results/tiny/configuration.yaml").read_text())["refine"]["beta"] == 0.1


def test_anyone_can_run_the_exported_task(finished, tiny_model):
    folder, _ = finished
    run(
        *(
            "env",
            "PYTHONDONTWRITEBYTECODE=1",  # which would lie among the results
            "lm_eval",
            "--model",
            "hf",
            "--model_args",
            f"pretrained={tiny_model},dtype=float32,peft={artifact(folder, f'instruct/{INSTRUCTED}')}",
        ),
        *(
            "--tasks",
            "boxes",
            "--include_path",
            artifact(folder, "export_task/boxes"),
            "--apply_chat_template",
            "--device",
            "cpu",
        ),
        *("--output_path", "elsewhere", "--log_samples", "--batch_size", "8"),
        cwd=folder,
    )
    (theirs,) = folder.glob("elsewhere/**/samples_boxes*.jsonl")
    texts = {row["doc"]["id"]: row["filtered_resps"][0].strip() for row in read_jsonl(theirs)}
    samples = artifact(folder, f"evaluate/{INSTRUCTED}/boxes") / "samples.jsonl"
    ours = {row["id"]: row["text"] for row in read_jsonl(samples)}
    assert texts == ours


def change(path: Path, edit) -> None:
    config = yaml.safe_load(path.read_text())
    edit(config)
    path.write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda c: c["study"].update(students=["tinny"]),
            "study.students: 'tinny' is not defined; did you mean 'tiny'?",
        ),
        (
            lambda c: c["study"].update(teachers=["oracel"]),
            "study.teachers: 'oracel' is not defined; did you mean 'oracle'?",
        ),
        (lambda c: c["study"].update(tasks=["boxs"]), "study.tasks: 'boxs' is not defined; did you mean 'boxes'?"),
        (lambda c: c["study"].update(recipes=["cott"]), "study.recipes: 'cott' is not defined; did you mean 'cot'?"),
        (
            lambda c: c["refine"].update(learnin_rate=1),
            "refine.learnin_rate: unknown key; did you mean 'learning_rate'?",
        ),
    ],
)
def test_a_fault_in_the_configuration_is_one_line(fresh, edit, message):
    folder, path, _ = fresh
    change(path, edit)
    outcome = snakemake(folder, "-n", check=False)
    assert outcome.returncode
    assert f"configuration: {message}" in outcome.stdout + outcome.stderr
    assert "Traceback" not in outcome.stdout + outcome.stderr


def spoil(folder: Path, line: bytes) -> None:
    raw = folder / "boxes.jsonl"
    raw.write_bytes(raw.read_bytes() + line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"question": "Q?", "one": "a", "label": 0}\n', "raw.jsonl:81: field 'two' is missing"),
        (
            b'{"question": "Q?", "one": "a", "two": "b", "label": 7}\n',
            "raw.jsonl:81: answer key '7' names none of the 2 options",
        ),
        (b'{"question": " ", "one": "a", "two": "b", "label": 0}\n', "raw.jsonl:81: the question is empty"),
        (b'{"question": "\xff", "one": "a", "two": "b", "label": 0}\n', "raw.jsonl:81: not valid UTF-8"),
        (b'{"question": "Q?", "one": "a", "tw', "raw.jsonl:81: not valid JSON"),
    ],
)
def test_a_fault_in_a_benchmark_is_one_line_before_any_training(fresh, line, message):
    folder, _, _ = fresh
    spoil(folder, line)
    outcome = snakemake(folder, target(folder, "prepare/boxes-test"), check=False)
    assert outcome.returncode
    assert message in outcome.stdout + outcome.stderr
    assert "Traceback" not in outcome.stdout + outcome.stderr


def test_a_wrong_sha256_keeps_nothing(fresh):
    folder, path, _ = fresh
    change(path, lambda c: c["benchmarks"]["boxes"]["files"]["all"].update(sha256="0" * 64))
    outcome = snakemake(folder, target(folder, "prepare/boxes-test"), check=False)
    assert outcome.returncode
    assert "expected 0000" in outcome.stdout + outcome.stderr
    assert not list(folder.glob("results/store/fetch/boxes-all/*/raw*"))


def test_no_demonstration_left_is_said_with_the_reasons(fresh):
    folder, _, _ = fresh
    recording = folder / "oracle.jsonl"
    recording.write_text(recording.read_text().replace("The answer is", "Perhaps"))
    outcome = snakemake(folder, target(folder, "demonstrate/oracle/boxes"), check=False)
    assert "none of 30 answers is kept ({'uncommitted': 30})" in outcome.stdout + outcome.stderr


def test_no_pair_left_is_said_with_the_reasons(finished, tmp_path):
    folder, _ = finished
    paths = tmp_path / "paths.jsonl"
    sampled = (artifact(folder, PATHS) / "paths.jsonl").read_text()
    paths.write_text(sampled.replace('"correct": true', '"correct": false'))
    preference = yaml.safe_load((folder / "config/recipes.yaml").read_text())["recipes"]["cot"]
    del preference["cited"]
    outcome = run(
        *("python", "scripts/pair.py", "--settings", json.dumps({"preference": preference}), "--paths", paths),
        *("--record", tmp_path / "pairs/record.json"),
    )
    assert "the student will be left as it is" in outcome.stdout and "'no_chosen': 30" in outcome.stdout
    assert read_jsonl(tmp_path / "pairs/pairs.jsonl") == []


@pytest.mark.parametrize(
    "program", sorted(path.name for path in (Path(__file__).parent.parent / "scripts").glob("*.py"))
)
def test_every_program_explains_itself(program):
    text = run("python", f"scripts/{program}", "--help").stdout
    assert text.startswith("usage:") and len(text.split("\n\n")[1]) > 40


def test_a_live_teacher_is_recorded_and_replayed(finished, tiny_model, tmp_path):
    folder, _ = finished
    recipe = {"prompt": {"instruction": "Choose."}, "generation": {"max_tokens": 6}}

    items = artifact(folder, "prepare/far-test") / "record.json"

    def teach(name, engine, *source):
        own = {"dtype": "float32"} if engine == "transformers" else {}
        run(
            *("python", "scripts/teach.py", "--settings", json.dumps(recipe | own | {"engine": engine}), *source),
            *("--items", items.relative_to(folder), "--record", tmp_path / name / "record.json"),
            cwd=folder,
        )
        return (tmp_path / name / "answers.jsonl").read_bytes()

    model = artifact(folder, "fetch_model/tiny") / "record.json"
    live = teach("live", "transformers", "--model", model.relative_to(folder))
    recording = tmp_path / "recording.jsonl"
    arguments = ["--teacher", "tiny", "--model", model, "--output", recording]
    run("python", "scripts/study.py", "record", "--answers", tmp_path / "live/record.json", *arguments)
    assert teach("replayed", "recorded", "--recording", recording) == live
    assert not any(item["question"] in recording.read_text() for item in tiny_records())
    replayed = tmp_path / "replayed/record.json"
    again = run("python", "scripts/study.py", "record", "--answers", replayed, *arguments, check=False)
    assert "was itself replayed" in again.stderr


def test_switching_a_teacher_to_its_weights_plans_to_ask_them(finished):
    folder, _ = finished
    change = 'teachers={"oracle": {"engine": "transformers", "model": "tiny"}}'
    planned = planned_rules(snakemake(folder, "-n", "--config", change))
    assert planned["teach"] == 3
    assert "demonstrate" in planned and "prepare" not in planned and "ask" not in planned
