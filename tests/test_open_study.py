"""A study of everything that is open at once: base model, worked examples, lm-eval's tasks, several answers, odd names."""

import csv
import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from browser import browser, needs_chromium, opened
from conftest import INSTRUCTION, artifact, make_study, nothing_to_do, run, snakemake, target
from selfrefine.data.items import read_items
from selfrefine.data.mapping import to_item
from selfrefine.data.prompts import messages
from selfrefine.data.shots import items_to_show
from selfrefine.engines.item_requests import requests_for
from selfrefine.errors import UserError
from selfrefine.models.checkpoints import load_tokenizer
from selfrefine.schema.generation import Generation
from selfrefine.schema.prompt import Shots, TaskPrompt
from selfrefine.store.files import read_json, read_jsonl, write_jsonl
from selfrefine.study.design import Study
from test_stock_tasks import write_tasks

STUDENT, SHOWN, OTHER = "NA", "nan", "null"
CHOOSE, GENERATE = "lm_eval:tiny_choose", "lm_eval:tiny_generate"
STOP = ["\nQuestion:"]
PROMPT = {"instruction": INSTRUCTION}


def without_template(model: Path, folder: Path) -> Path:
    """The tiny model as a base model comes: without a chat template."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("chat_template*", "record.json", "hashes*"))
    configuration = folder / "tokenizer_config.json"
    kept = {name: value for name, value in read_json(configuration).items() if name != "chat_template"}
    configuration.write_text(json.dumps(kept))
    with pytest.raises(UserError, match="has no chat template; set `students.NAME.chat_template`"):
        load_tokenizer(folder)
    return folder


def configure(folder: Path, model: Path) -> None:
    """Writes the study's file."""
    path, config = make_study(folder, model)
    without_template(model, folder / "base model")
    write_tasks(folder)
    student = config["students"]["tiny"] | {"family": "oracle", "chat_template": "plain"}
    config["students"] = {STUDENT: student}
    config["models"]["tiny"]["source"] = "file:base model"
    boxes, far = config["benchmarks"]["boxes"], config["benchmarks"]["far"]
    for benchmark in (boxes, far):
        benchmark["splits"]["train"]["size"], benchmark["splits"]["test"]["size"] = 20, 10
    config["benchmarks"] = {
        SHOWN: boxes | {"title": "nan", "shots": 2, "stop": STOP},
        OTHER: far | {"title": "算术 $5"},
    }
    config["study"] |= {
        "students": [STUDENT],
        "tasks": [SHOWN, OTHER],
        "evaluate": [SHOWN, OTHER, CHOOSE, GENERATE],
        "arms": ["baseline", "instruct", "refine", "cross", "refine-only"],
        "recipes": ["cot", "demonstrated"],
    }
    config["recipes"] = {
        "demonstrated": {
            "chosen": {"source": "teacher"},
            "rejected": {"source": "student", "style": "cot"},
            "arms": ["refine"],
            "refine": {"learning_rate": 0.0005},
        }
    }
    config["lm_eval"] = {"include": "own", "tasks": {"tiny_choose": {"title": "Tiny choice", "metric": "acc_norm"}}}
    config["evaluation"] |= {"samples": 4, "temperature": 0.7}
    path.write_text(yaml.safe_dump(config, sort_keys=False))


def teach(folder: Path) -> None:
    """Writes what the teacher answers, once the splits are there: its prompts show items of the training split too."""
    config = yaml.safe_load((folder / "config/tiny.yaml").read_text())
    catalogue = yaml.safe_load((folder / "config/recipes.yaml").read_text())["recipes"]
    study = Study.read(config | {"recipes": catalogue | config["recipes"]})
    generation, rows = Generation(max_tokens=16), []
    for task in (SHOWN, OTHER):
        items = [to_item(row, "boxes", study.benchmarks[task]) for row in read_jsonl(folder / "boxes.jsonl")]
        prompt = prompt_of(task)
        shots = items_to_show(prompt, artifact(folder, f"prepare/{task}-train") / "items.jsonl")
        by_id = {item["id"]: item for item in items}
        for request in requests_for(by_id, prompt, "cot", 1, generation, 0, shots=shots):
            item = by_id[request.id.split("-")[0]]
            label = {"A": "B", "B": "A"}[item["answer"]] if int(item["id"], 16) % 5 == 0 else item["answer"]
            said = {"text": f"The answer is {label}.", "finish_reason": "stop", "tokens": 6, "prompt_tokens": 40}
            rows.append({"key": request.key, "id": request.id, **said})
    write_jsonl(folder / "oracle.jsonl", [{"recording": {"teacher": "oracle"}}, *rows])


def prompt_of(task: str) -> TaskPrompt:
    return TaskPrompt(**PROMPT, shots=Shots(number=2) if task == SHOWN else None)


@pytest.fixture(scope="module")
def study(tiny_model, tmp_path_factory) -> Path:
    """The finished study's folder."""
    folder = tmp_path_factory.mktemp("open")
    configure(folder, tiny_model)
    snakemake(folder, *(target(folder, f"prepare/{task}-train") for task in (SHOWN, OTHER)))
    teach(folder)
    snakemake(folder)
    return folder


def rows_of(study: Path, name: str) -> list[dict[str, str]]:
    with open(study / "results/tiny/tables" / name, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def documents(study: Path, task: str) -> list[dict]:
    return read_jsonl(artifact(study, f"export_task/{task}") / "docs.jsonl")


def items_in(study: Path, split: str) -> dict:
    return read_items(artifact(study, f"prepare/{split}") / "items.jsonl")


def test_prompts_show_training_items_and_never_the_one_that_is_asked(study):
    training, tested = items_in(study, f"{SHOWN}-train"), items_in(study, f"{SHOWN}-test")
    known = {item["question"] for item in training.values()}
    for row in documents(study, SHOWN):
        *shown, asked = re.findall(r"^Question: (.*)$", row["prompt"], re.MULTILINE)
        assert asked == row["question"] == tested[row["id"]]["question"]
        assert len({*shown}) == 2 and {*shown} <= known and asked not in shown
    assert all(row["prompt"].count("Question: ") == 1 for row in documents(study, OTHER))
    # Of training items, two are examples themselves: a third one stands in for each.
    shots = items_to_show(prompt_of(SHOWN), artifact(study, f"prepare/{SHOWN}-train") / "items.jsonl")
    for item in training.values():
        (chat,) = messages(item, prompt_of(SHOWN), "cot", shots=shots)
        *shown, asked = re.findall(r"^Question: (.*)$", chat["content"], re.MULTILINE)
        assert len({*shown}) == 2 and asked == item["question"] and asked not in shown
    for stage in (f"teach/oracle/{SHOWN}-train-cot", f"sample/{STUDENT}/oracle-nan-100-seed0/nan-100-seed0"):
        settings = read_json(artifact(study, stage) / "record.json")["settings"]
        assert settings["prompt"]["shots"]["number"] == 2 and settings["stop"] == STOP


def test_the_base_model_is_asked_as_the_plain_template_says(study):
    tokenizer = load_tokenizer(study / "base model", "plain")
    for task in (SHOWN, OTHER):
        prompts = {row["id"]: row["prompt"] for row in documents(study, task)}
        for row in read_jsonl(artifact(study, f"evaluate/{STUDENT}/base/{task}") / "samples.jsonl"):
            ids = tokenizer.encode(tokenizer.bos_token + prompts[row["item"]] + "\n", add_special_tokens=False)
            assert row["prompt_tokens"] == len(ids)
            assert STOP[0] not in row["text"]
    learned = read_json(artifact(study, f"instruct/{STUDENT}/oracle-nan-100-seed0") / "record.json")["settings"]
    assert learned["chat_template"] == "plain"


def test_tasks_of_lm_eval_stand_in_tables_figures_and_claims(study):
    arms = {(row["arm"], row["evaluation"]) for row in rows_of(study, "arms.csv")}
    trained = ("baseline", "instruct", "refine", "cross", "refine-only")
    assert {(arm, task) for arm in trained for task in (SHOWN, OTHER, CHOOSE, GENERATE)} <= arms
    for task, metric in ((CHOOSE, "acc_norm,none"), (GENERATE, "exact_match,first-word")):
        place = artifact(study, f"evaluate/{STUDENT}/base/lm_eval-{task.removeprefix('lm_eval:')}")
        report = read_json(place / "report.json")["results"][task.removeprefix("lm_eval:")]
        (row,) = (row for row in rows_of(study, "arms.csv") if (row["arm"], row["evaluation"]) == ("baseline", task))
        assert float(row["accuracy"]) == pytest.approx(report[metric], abs=1e-5)
    assert {CHOOSE, GENERATE} <= {row["evaluation"] for row in rows_of(study, "comparisons.csv")}
    claims = read_json(study / "results/tiny/claims.json")["claims"]
    compared = [one for claim in claims for part in claim["parts"] for one in part["comparisons"]]
    assert {SHOWN, OTHER, CHOOSE, GENERATE} <= {one["evaluation"] for one in compared}
    drawing = (study / "results/tiny/figures/accuracy.svg").read_text("utf-8")
    assert all(f">{title}<" in drawing for title in ("nan", "算术 $5", "Tiny choice", "tiny_generate"))


def test_names_that_look_like_nothing_stay_names(study):
    folder = study / "results/tiny"
    for name in ("arms", "accuracy", "comparisons", "pass_at_k"):
        rows = [row for row in rows_of(study, f"{name}.csv") if row.get("arm") != "teacher"]
        assert {row["student"] for row in rows} == {STUDENT}
        assert {SHOWN, OTHER} <= {row["evaluation"] for row in rows}
    for name in ("solving", "pass-at-k", "yields"):
        drawing = (folder / f"figures/{name}-{STUDENT}.svg").read_text("utf-8")
        assert re.search(r">nan\b", drawing) and ">算术 $5" in drawing, name
    table = (folder / f"tables/paper/transfer-{STUDENT}.md").read_text("utf-8")
    assert f"Accuracy (%) of {STUDENT} " in table and " nan |" in table and "算术 $5 |" in table
    assert "NA, instructed by oracle on nan" in (folder / "summary.md").read_text("utf-8")


def test_several_answers_give_curves_that_are_counted_by_hand(study):
    rows = {
        (row["measure"], int(row["k"])): float(row["value"])
        for row in rows_of(study, "pass_at_k.csv")
        if (row["arm"], row["task"], row["evaluation"]) == ("instruct", SHOWN, SHOWN)
    }
    assert sorted(rows) == [(measure, k) for measure in ("maj", "pass") for k in (1, 2, 4)]
    samples = read_jsonl(artifact(study, f"evaluate/{STUDENT}/oracle-nan-100-seed0/{SHOWN}") / "samples.jsonl")
    correct: dict[str, list[bool]] = {}
    for row in samples:
        correct.setdefault(row["item"], []).append(bool(row["strict"]))
    assert {len(of_item) for of_item in correct.values()} == {4}
    for k in (1, 2, 4):
        drawn = [any(of_item[place] for place in chosen) for of_item in correct.values() for chosen in subsets(4, k)]
        assert rows["pass", k] == pytest.approx(sum(drawn) / len(drawn), abs=1e-5)
    assert rows["maj", 1] == rows["pass", 1] and 0 < rows["pass", 1] < rows["pass", 4] <= 1
    # Tasks of lm-eval are answered once, and make no curve.
    assert {row["evaluation"] for row in rows_of(study, "pass_at_k.csv")} == {SHOWN, OTHER}


def test_each_difference_says_by_which_test_its_p_is(study):
    rows = rows_of(study, "comparisons.csv")
    assert {(row["evaluation"], row["test"]) for row in rows} == {
        *((SHOWN, "score"), (OTHER, "score")),
        *((CHOOSE, "mcnemar"), (GENERATE, "mcnemar")),
    }
    of_seeds = [
        (one["evaluation"], of_seed["test"])
        for claim in read_json(study / "results/tiny/claims.json")["claims"]
        for part in claim["parts"]
        for one in part["comparisons"]
        for of_seed in one["by_seed"]
    ]
    assert {*of_seeds} == {(row["evaluation"], row["test"]) for row in rows}
    details = (study / "results/tiny/details.md").read_text("utf-8")
    assert "| paired score" in details and "| McNemar's exact" in details and "McNemar p" not in details


def subsets(n: int, k: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(n), k))


def test_a_recipe_of_one_arm_has_its_own_learning_rate_and_stands_nowhere_else(study):
    found = {(row["arm"], row["recipe"]) for row in rows_of(study, "arms.csv") if row["recipe"]}
    assert found == {("refine", "cot"), ("refine", "demonstrated"), ("cross", "cot"), ("refine-only", "cot")}
    rates = {
        name: read_json(artifact(study, f"refine/{STUDENT}/oracle-nan-100-seed0/nan-{name}-round1") / "record.json")
        for name in ("cot", "demonstrated")
    }
    assert {name: one["settings"]["training"]["learning_rate"] for name, one in rates.items()} == {
        "cot": 0.001,
        "demonstrated": 0.0005,
    }


def test_it_is_done_is_whole_and_every_number_is_traced(study):
    assert nothing_to_do(snakemake(study, "-n"))
    assert "every artifact is what its record says" in run("python", "scripts/study.py", "verify", cwd=study).stdout
    assert "every link holds" in run("python", "scripts/study.py", "trace", "--all", cwd=study).stdout
    wanted = ("arm=refine", f"task={SHOWN}", "recipe=cot", f"evaluation={CHOOSE}")
    traced = run("python", "scripts/study.py", "trace", "results/tiny/tables/arms.csv", *wanted, cwd=study).stdout
    assert re.search(r"\d of 6 correct in results/store/evaluate/NA/\S*/lm_eval-tiny_choose/", traced)
    assert "fetch_task" in traced and "file:base model" in traced and "every link holds" in traced


@needs_chromium
def test_the_page_shows_whole_prompts_and_the_answers_to_tasks_of_lm_eval(study):
    page_file = study / "results/tiny/index.html"
    asked = documents(study, SHOWN)[0]
    own = items_in(study, f"{SHOWN}-train")
    shots = items_to_show(prompt_of(SHOWN), artifact(study, f"prepare/{SHOWN}-train") / "items.jsonl")
    with browser() as running:
        with opened(running, page_file, f"#item={asked['id']}&benchmark={SHOWN}&view=evaluated") as page:
            assert shown_prompts(page)[0] == asked["prompt"]
            # Said once, where the machine has no font for the title.
            lacking = {
                read_json(path)["figures"].get("characters_without_font", "")
                for path in study.glob("results/store/plot/*/*/record.json")
            }
            assert page.locator("#figures .note", has_text="No font of the machine").count() == bool(lacking - {""})
            heads = page.locator(".card header").all_inner_texts()
            assert heads[0].startswith("Baseline, answer 1 of 4") and heads[3].startswith("Baseline, answer 4 of 4")
        # An item that is an example itself is not shown as one.
        shown = shots[0]["id"]
        with opened(running, page_file, f"#item={shown}&benchmark={SHOWN}&view=sampled") as page:
            expected = {
                messages(own[shown], prompt_of(SHOWN), style, shots=shots)[0]["content"] for style in ("cot", "plain")
            }
            assert {*shown_prompts(page)} == expected
        place = artifact(study, f"evaluate/{STUDENT}/base/lm_eval-tiny_generate")
        (document, *_), (row, *_) = (read_jsonl(place / name) for name in ("docs.jsonl", "samples.jsonl"))
        with opened(running, page_file, f"#item={row['id']}&benchmark={GENERATE}&view=evaluated") as page:
            assert shown_prompts(page) == [document["prompt"]]
            assert page.locator(".card .said").first.text_content() == row["text"]
            assert "Correct answer: red" in page.inner_text(".detail")
        place = artifact(study, f"evaluate/{STUDENT}/base/lm_eval-tiny_choose")
        for row, document in zip(*(read_jsonl(place / name) for name in ("samples.jsonl", "docs.jsonl")), strict=True):
            with opened(running, page_file, f"#item={row['id']}&benchmark={CHOOSE}&view=evaluated") as page:
                scores = json.loads(row["text"])
                options = [" " + choice for choice in document["choices"]]
                longest = {
                    place: score / len(of) for place, (score, of) in enumerate(zip(scores, options, strict=True))
                }
                best = max(longest, key=longest.__getitem__)
                said = page.locator(".card .said").first.inner_text()
                assert said.startswith(f"{'AB'[best]}) {document['choices'][best]}\n"), said
                assert (
                    page.locator(".card")
                    .first.locator("footer")
                    .inner_text()
                    .startswith("✓ correct" if row["strict"] else "✗ incorrect")
                )
                assert (best == int(row["target"])) == bool(row["strict"])
                assert page.locator(".options .target").inner_text().startswith("AB"[int(row["target"])] + ") ")


def shown_prompts(page) -> list[str]:
    """The prompts below the responses, each opened."""
    for one in page.locator(".prompt summary").all():
        one.click()
    return page.locator(".prompt pre").all_inner_texts()
