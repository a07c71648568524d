"""The tables: what is counted, against values worked out by hand, and how it is laid out and escaped."""

import collections
import csv
import io
import itertools
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import summarise
from conftest import REPOSITORY, tiny_config
from selfrefine import attempts, formats, layout, outputs, solving
from selfrefine.arms import read_table
from selfrefine.costs import costs_table
from selfrefine.files import write_json, write_jsonl
from selfrefine.finals import Finals
from selfrefine.formats import Number, Table
from selfrefine.keys import Artifacts
from selfrefine.lengths import lengths_table, mean_and_interval
from selfrefine.statistics import wilson
from selfrefine.study import Study

TITLES = {"sums": "Sums & more", "words": "Words_2"}


@pytest.mark.parametrize(
    ("samples", "right", "k", "expected"),
    [
        (4, 1, 1, 1 / 4),
        (4, 1, 2, 1 / 2),
        (4, 1, 4, 1),
        (5, 2, 3, 9 / 10),
        (5, 0, 5, 0),
        (3, 3, 1, 1),
        (10, 2, 2, 17 / 45),
    ],
)
def test_pass_at_k_is_one_minus_the_chance_of_drawing_wrong_ones_only(samples, right, k, expected):
    assert attempts.pass_at_k(samples, right, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("answers", "k", "expected"),
    [
        ("AAB", 3, 1),
        ("AAB", 1, 2 / 3),
        ("AAB", 2, 2 / 3),  # of the three pairs one is AA, two are ties
        ("ABB", 3, 0),
        ("ABC", 3, 1 / 3),
        ("AABB", 4, 1 / 2),
        ("A-", 1, 1 / 2),
        ("A-", 2, 1),
        ("A---", 4, 1),
        ("--", 2, 0),
        ("AABBB", 3, 3 / 10),  # A wins with both A's and a B: three of ten draws
    ],
)
def test_maj_at_k_splits_ties_and_does_not_count_silence(answers, k, expected):
    given = [None if answer == "-" else answer for answer in answers]
    assert attempts.majority_at_k(given, [a == "A" for a in given], k) == pytest.approx(expected, abs=1e-12)


def test_maj_at_k_agrees_with_every_draw_and_maj_at_1_with_pass_at_1():
    generator = random.Random(1)
    for _ in range(100):
        answers = [generator.choice(["A", "B", "C", None]) for _ in range(generator.randint(1, 7))]
        right = [answer == "A" for answer in answers]
        k = generator.randint(1, len(answers))
        shares = []
        for draw in itertools.combinations(answers, k):
            votes = collections.Counter(answer for answer in draw if answer)
            leading = [answer for answer, count in votes.items() if count == max(votes.values())]
            shares.append(leading.count("A") / len(leading) if leading else 0)
        assert attempts.majority_at_k(answers, right, k) == pytest.approx(np.mean(shares))
        assert attempts.majority_at_k(answers, right, 1) == pytest.approx(
            attempts.pass_at_k(len(answers), sum(right), 1)
        )


def sampled(item: str, verdicts: str, style: str = "cot") -> list[dict]:
    """Paths of one item: R right, W wrong, - without an answer."""
    answers = {"R": "A", "W": "B", "-": None}
    return [
        {"item": item, "style": style, "sample": n, "extracted": answers[v], "correct": v == "R"}
        for n, v in enumerate(verdicts)
    ]


def test_solving_is_averaged_over_seeds_that_may_have_other_items():
    files = [sampled("a", "RW") + sampled("b", "WW"), sampled("a", "RR") + sampled("c", "R-")]
    table = solving.summarised(files, 0.95).set_index(["style", "measure", "k"])
    assert table.loc[("cot", "pass", 1)].value == pytest.approx((1 / 2 + 0 + 1 + 1 / 2) / 4)
    assert table.loc[("cot", "pass", 2)].value == pytest.approx((1 + 0 + 1 + 1) / 4)
    assert table.loc[("cot", "maj", 2)].value == pytest.approx((1 / 2 + 0 + 1 + 1) / 4)
    assert set(table.seeds) == {2} and set(table["items"]) == {3}
    assert (table.low <= table.value).all() and (table.value <= table.high).all()
    assert table.loc[("cot", "pass", 1)].low < table.loc[("cot", "pass", 1)].high


def test_solving_goes_no_deeper_than_the_fewest_samples():
    assert attempts.depths(6) == [1, 2, 4, 6]
    assert {k for _, _, k in attempts.solved(sampled("a", "RRRR") + sampled("b", "WWW"))} == {1, 2, 3}


FACTS = ["arm", "student", "teacher", "family", "task", "refine_task", "recipe", "share"]


def test_lengths_are_compared_with_the_arm_before_item_by_item():
    def answers(arm: str, checkpoint: str, seed, tokens: list[int]) -> pd.DataFrame:
        facts = dict.fromkeys(FACTS, "") | {"arm": arm, "student": "s", "seed": seed, "evaluation": "sums"}
        return pd.DataFrame({"item": ["a", "b"], "tokens": tokens}).assign(
            **facts, checkpoint=checkpoint, samples=f"{checkpoint}.jsonl"
        )

    frames = [answers("baseline", "s/base", "", [10, 30])]
    frames += [answers("instruct", f"s/instruct/{seed}", seed, [20, 40 + 2 * seed]) for seed in (0, 1)]
    frames += [answers("refine", f"s/instruct/{seed}/refine/x", seed, [19, 39]) for seed in (0, 1)]

    def start_of(checkpoint: str, student: str) -> str | None:
        return (
            checkpoint.split("/refine")[0] if "refine" in checkpoint else "s/base" if "instruct" in checkpoint else None
        )

    table = lengths_table(pd.concat(frames), FACTS, start_of, 0.95).set_index("arm")
    assert list(table.tokens) == pytest.approx([20, 30.5, 29])
    assert list(table.against) == ["", "baseline", "instruct"]
    assert table.samples["refine"] == "s/instruct/0/refine/x.jsonl s/instruct/1/refine/x.jsonl"
    assert list(table.against_samples) == ["", "s/base.jsonl", "s/instruct/0.jsonl s/instruct/1.jsonl"]
    assert list(table.longer)[1:] == pytest.approx([10.5, -1.5]) and np.isnan(table.longer.iloc[0])
    assert table.longer_low["refine"] < -3 and table.longer_high["refine"] > -1
    turned = lengths_table(pd.concat([frames[0].iloc[::-1], *frames[1:]]), FACTS, start_of, 0.95).set_index("arm")
    pd.testing.assert_frame_equal(turned, table)


def test_the_interval_of_one_seed_is_that_of_the_mean_over_items():
    mean, low, high = mean_and_interval(np.array([[10.0, 20, 30, 40]]), 0.95)
    reach = 1.959964 * np.sqrt(125 / 4)
    assert (mean, low, high) == pytest.approx((25, 25 - reach, 25 + reach), rel=1e-5)


def test_the_interval_of_pass_at_1_with_one_sample_is_wilsons():
    files = [[path for n in range(20) for path in sampled(str(n), "R" if n < 12 else "W")]]
    row = solving.summarised(files, 0.95).iloc[0]
    assert (row.low, row.high) == pytest.approx(wilson(12, 20, 0.95), rel=1e-6)


def test_the_cost_of_an_arm_is_that_of_all_jobs_behind_its_checkpoints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def record(name: str, stage: str, inputs: list[str], seconds: float, tokens: int = 0) -> str:
        facts = {"stage": stage, "inputs": dict.fromkeys(inputs), "wall_seconds": seconds, "peak_memory_mib": 7}
        write_json(tmp_path / name, facts | {"figures": {"tokens_made": tokens}})
        return name

    names = [record("teach/record.json", "teach", [], 5, 50)]
    answers, weights = "teach/answers.jsonl", "base/model.safetensors"
    cells = []
    for seed, seconds in ((0, 10), (1, 30)):
        place = f"s/instruct/{seed}"
        names.append(record(f"{place}/record.json", "instruct", [answers, weights], seconds, 100))
        for task in TITLES:
            trained = [f"{place}/adapter_model.safetensors", f"{place}/training.jsonl", weights]
            names.append(record(f"r/{seed}/{task}/record.json", "evaluate", trained, 2, 4))
            cells.append(
                {
                    "student": "s",
                    "arm": "instruct",
                    "share": 100,
                    "checkpoint": place,
                    "samples": f"r/{seed}/{task}/samples.jsonl",
                }
            )
    names.append(record("r/base/record.json", "evaluate", [weights], 1, 4))
    cells.append(
        {"student": "s", "arm": "baseline", "share": "", "checkpoint": "s/base", "samples": "r/base/samples.jsonl"}
    )
    names.append(record("s/part/record.json", "instruct", [answers], 4, 20))
    names.append(record("r/part/record.json", "evaluate", ["s/part/adapter_model.safetensors"], 1, 4))
    part = {"share": 25, "checkpoint": "s/part", "samples": "r/part/samples.jsonl"}
    cells.append({"student": "s", "arm": "instruct", **part})
    cells.append({"student": "", "arm": "teacher", "checkpoint": "", "samples": answers})
    costs_table(cells, names).to_csv("costs.csv", index=False)
    table = read_table(tmp_path, "costs")
    laid_out = [row[:5] for row in layout.cost(table).rows if row is not None]
    assert laid_out[0] == ["s", "instruct", "teach", "2", "1"] and len(laid_out) == 4
    of_part = table[table.share == 25].set_index("stage")
    assert of_part.wall_seconds.to_dict() == {"teach": 5, "instruct": 4, "evaluate": 1}
    table = table[table.share != 25].set_index(["arm", "stage"])
    assert list(table.index) == [
        ("instruct", "teach"),
        ("instruct", "instruct"),
        ("instruct", "evaluate"),
        ("baseline", "evaluate"),
    ]
    assert table.loc[("instruct", "teach"), ["checkpoints", "jobs", "wall_seconds", "tokens"]].tolist() == [2, 1, 5, 50]
    assert table.loc[("instruct", "instruct"), ["wall_seconds", "least", "most"]].tolist() == [20, 10, 30]
    assert table.loc[("instruct", "evaluate"), ["jobs", "wall_seconds", "tokens"]].tolist() == [2, 4, 8]


def a_table() -> Table:
    rows = [["50 %_a & #1", Number(12.34, 5, 20.06)], None, ["x|y\nz <b> ~^\\{$}", Number(3, decimals=0)]]
    return Table("name", "A caption: 100 %.", ["who_is", "right (%)"], rows, ["l", "r"])


def test_latex_escapes_what_means_something_to_it():
    text = a_table().latex()
    assert r"50 \%\_a \& \#1 & $12.3_{5.0}^{20.1}$ \\" in text
    assert (
        r"x\textbar{}y\newline z \textless{}b\textgreater{} \textasciitilde{}\textasciicircum{}\textbackslash{}\{\$\} & $3$ \\"
        in text
    )
    assert r"who\_is & right (\%) \\" in text and r"\caption{A caption: 100 \%.}" in text
    assert text.count(r"\midrule") == 2 and r"\begin{tabular}{@{}lr@{}}" in text
    assert text.count("{") == text.count("}")
    # A bracket at the start of a line would be taken for an argument of the line before.
    assert formats.escape("[user] Why", formats.LATEX) == "{[}user] Why"


def test_markdown_keeps_cells_apart_and_shows_intervals():
    header, rule, first, second, blank, caption = a_table().markdown().splitlines()
    assert first.endswith("| 12.3 [5.0, 20.1] |")
    assert r"x\|y<br>z &lt;b&gt; ~^\{$}" in second
    assert (blank, caption) == ("", "A caption: 100 %.")
    assert len({len(line) for line in (header, rule, first, second)}) == 1


def test_csv_keeps_numbers_apart_from_their_intervals():
    rows = list(csv.reader(io.StringIO(a_table().csv())))
    assert rows[0] == ["who_is", "right (%)", "right (%) low", "right (%) high"]
    assert rows[1] == ["50 %_a & #1", "12.3", "5.0", "20.1"]
    assert rows[2][1:] == ["3", "", ""]


def test_no_number_is_minus_nothing():
    assert Number(-0.04, -1, 0.04).texts() == ["0.0", "-1.0", "0.0"]


def test_a_marked_number_is_set_off():
    assert formats._in_latex(Number(50, 40, 60, marked=True)) == r"$\underline{50.0}_{40.0}^{60.0}$"
    assert formats._in_markdown(Number(50, 40, 60, marked=True)) == "*50.0 [40.0, 60.0]*"


def planted_arms(arms=("baseline", "instruct", "refine", "cross"), shares=(50, 100)) -> pd.DataFrame:
    """Arms whose accuracy tells what they are."""
    rows = []

    def add(arm: str, accuracy: float, **facts) -> None:
        blank = dict.fromkeys(["student", "teacher", "family", "task", "refine_task", "recipe"], "") | {"share": np.nan}
        for place, name in enumerate(TITLES):
            value = accuracy + place / 100
            numbers = {"seeds": 2, "n": 40, "accuracy": value, "low": value - 0.1, "high": value + 0.1, "level": 0.95}
            rows.append({"arm": arm, **blank, **facts, "evaluation": name, **numbers})

    if "baseline" in arms:
        add("baseline", 0.2, student="s")
    for share, task in itertools.product(shares, TITLES):
        at = {"student": "s", "teacher": "t", "family": "out", "task": task, "share": share}
        if "instruct" in arms:
            add("instruct", 0.3 + share / 1000, **at)
        for refine_task in TITLES:
            arm = "refine" if task == refine_task else "cross"
            if arm in arms:
                add(arm, 0.5 + share / 1000, refine_task=refine_task, recipe="cot", **at)
        if "refine-only" in arms:
            add("refine-only", 0.25, student="s", refine_task=task, recipe="cot", share=share)
    add("teacher", 0.8, teacher="t")
    return pd.DataFrame(rows)


def test_the_transfer_table_has_the_papers_rows_and_columns():
    table = layout.transfer(planted_arms(), TITLES, "s")
    assert table.header == ["arm", "teacher", "instructed on", "refined on", "recipe", "Sums & more", "Words_2"]
    rows = [row for row in table.rows if row is not None]
    assert [row[0] for row in rows] == [
        "baseline",
        "instruct",
        "instruct",
        "cross",
        "cross",
        "refine",
        "refine",
        "teacher",
    ]
    assert rows[1][2:5] == ["Sums & more", "", ""] and rows[3][2:5] == ["Sums & more", "Words_2", "cot"]
    assert rows[1][5] == Number(pytest.approx(40), pytest.approx(30), pytest.approx(50), 1, True)
    assert not rows[1][6].marked and rows[3][5].marked and rows[3][6].marked
    assert "95 % intervals" in table.caption and "2 seeds" in table.caption
    assert r"$\underline{40.0}_{30.0}^{50.0}$" in table.latex() and r"Words\_2" in table.latex()


def test_a_cell_that_the_study_leaves_out_is_a_dash(tmp_path):
    arms = planted_arms()
    kept = (arms.share != 50) | (arms.evaluation == arms.refine_task.where(arms.refine_task != "", arms.task))
    arms[kept].to_csv(tmp_path / "arms.csv", index=False)
    rows = summarise.accuracy_section(tmp_path, TITLES).splitlines()
    half = [row for row in rows if "50 %" in row]
    assert len(half) == 2 + 4 and all(row.count("–") == 1 for row in half)
    assert not any("–" in row for row in rows if row.startswith("| refine") and row not in half)
    left_out = arms[(arms.arm != "refine") | (arms.evaluation == arms.task)]
    table = layout.transfer(left_out, TITLES, "s")
    assert [row.count("–") for row in table.rows if row is not None and row[0] == "refine"] == [1, 1]


def test_the_transfer_table_of_a_study_without_refinement_has_no_columns_for_it():
    table = layout.transfer(planted_arms(("baseline", "instruct"), (100,)), TITLES, "s")
    assert table.header == ["arm", "teacher", "instructed on", "Sums & more", "Words_2"]
    assert layout.transfer(planted_arms(("baseline",), (100,)), TITLES, "s").header[0] == "arm"


def test_the_teachers_table_shows_the_styles_that_were_asked(tmp_path):
    rows = []
    for split, style, right in (("test", "cot", 3), ("train", "cot", 2), ("test", "plain", 1)):
        path = tmp_path / f"{split}-{style}.jsonl"
        write_jsonl(path, [{"strict": n < right} for n in range(4)])
        rows.append({"teacher": "t", "task": "sums", "split": split, "style": style, "answers": str(path)})
    table = layout.teachers(rows, TITLES, 0.95, "strict")
    assert table.header == ["teacher", "benchmark", "train, with CoT", "test, with CoT", "test, without CoT"]
    assert [number.texts() for number in table.rows[0][2:]] == [
        ["50.0", "15.0", "85.0"],
        ["75.0", "30.1", "95.4"],
        ["25.0", "4.6", "69.9"],
    ]


def test_the_split_table_counts_what_was_dropped_and_quotes_shortly(tmp_path):
    items, record = tmp_path / "items.jsonl", tmp_path / "record.json"
    write_jsonl(items, [{"id": "1", "question": "Why " * 100, "choices": ["a"], "answer": "A"}])
    counts = {"read": 9, "dropped": {"repeated": 2, "in_test": 0}, "not_needed": 6, "items": 1, "answers": {"A": 1}}
    write_json(record, {"figures": counts})
    row = {"task": "sums", "split": "test", "items": str(items), "record": str(record)}
    ((*cells, example, answer),) = layout.splits([row], TITLES).rows
    assert cells == ["Sums & more", "test", "9", "repeated 2", "6", "1", "A 1"]
    assert len(example) <= layout.QUOTED + 2 and example.endswith("…") and answer == "A"


def test_the_prompts_are_those_that_are_sent(tmp_path):
    items = tmp_path / "test.jsonl"
    write_jsonl(items, [{"id": "1", "question": "1+1?", "choices": [], "answer": "2"}])
    prompt = {"instruction": "Reckon.", "cot": "Step by step:", "plain": "Answer:"}
    row = {"kind": "math", "prompt": prompt, "items": str(items), "request": "", "system": None}
    rows = [
        row | {"name": "s", "style": "cot"},
        row | {"name": "u", "style": "cot"},
        row | {"name": "s", "style": "plain"},
    ]
    rows.append(row | {"name": "t", "style": "cot", "request": "Be brief.", "system": "You teach."})
    table = layout.prompts(rows)
    assert [cells[:3] for cells in table.rows] == [
        ["math", "cot", "s, u"],
        ["math", "plain", "s"],
        ["math", "cot", "t"],
    ]
    assert table.rows[0][3] == "[user] Reckon.\nQuestion: 1+1?\nStep by step:"
    assert table.rows[2][3] == "[system] You teach.\n[user] Reckon.\nQuestion: 1+1?\nStep by step:\nBe brief."


def checkpoint(arm: str, **facts) -> dict:
    return (
        dict.fromkeys(("teacher", "family", "task", "refine_task", "recipe", "share"), "")
        | {"arm": arm, "student": "s"}
        | facts
    )


def test_only_figures_and_tables_with_content_are_planned():
    base = checkpoint("baseline")
    instruct = [checkpoint("instruct", teacher="t", family="out", task="sums", share=share) for share in (50, 100)]
    refine = checkpoint("refine", teacher="t", family="in", task="sums", refine_task="sums", recipe="cot", share=100)
    assert outputs.figures([base], ["sums"]) == ["accuracy", "matrix"]
    assert outputs.figures([base, instruct[0]], ["sums"]) == [
        "accuracy",
        "matrix",
        "out-family",
        "lengths",
        "cost",
        "training",
    ]
    assert "low-resource-s" in outputs.figures([base, *instruct], ["sums"])
    assert outputs.figures([base, *instruct], ["words"]) == ["accuracy", "matrix", "cost", "training"]
    assert outputs.figures([base, refine], ["sums"])[2:] == [
        "in-family",
        "lengths",
        "solving-s",
        "yields-s",
        "cost",
        "training",
    ]
    cross = checkpoint("cross", teacher="t", family="in", task="sums", refine_task="words", recipe="cot", share=100)
    assert "in-family" not in outputs.figures([base, cross], ["sums", "words"])
    assert outputs.layouts([base]) == ["transfer-s", "teachers", "prompts", "splits", "lengths", "cost"]
    assert {"solving", "yields"} < set(outputs.layouts([base, refine]))
    assert outputs.kind_of("low-resource-llama-2-7b") == ("low-resource", "llama-2-7b")


def test_every_layout_is_made_of_what_the_study_makes():
    config = tiny_config(Path("model"), Path("boxes.jsonl"), Path("oracle.jsonl"))
    recipes = yaml.safe_load((REPOSITORY / "config/recipes.yaml").read_text())
    study = Study.read(recipes | config)
    finals = Finals(Artifacts(study, lambda stage: "version 1", lambda rule: rule, lambda path: f"what {path} holds"))
    layouts = {name: finals.layout(name) for name in study.layouts()}
    of_tables = {name: one for name, one in layouts.items() if one.inputs.get("tables") == (finals.tables(),)}
    assert set(of_tables) == {"transfer-tiny", "lengths", "solving", "yields", "cost"}
    behind = {name: one.inputs["behind"] for name, one in layouts.items() if "behind" in one.inputs}
    assert not {*of_tables} & {*behind} and {*of_tables, *behind} == {*layouts}
    assert {name: [(one.stage, *one.names) for one in found] for name, found in behind.items()} == {
        "teachers": [("teach", "oracle", f"{name}-cot") for name in ("boxes-test", "boxes-train", "far-test")],
        "prompts": [("prepare", "boxes-test")],
        "splits": [("prepare", name) for name in ("boxes-train", "boxes-test", "far-test")],
    }
    for name, found in behind.items():
        rows = layouts[name].settings["rows"]
        files = [row[kind] for row in rows for kind in ("answers", "items", "record") if kind in row]
        known = {str(path) for one in found for path in (one.file, one.record)}
        assert set(files) <= known and {Path(file).parent for file in files} == {one.folder for one in found}
    assert {name for name, one in layouts.items() if not one.settings["titles"]} == {"prompts", "cost"}
    asked = layouts["prompts"].settings["rows"]
    assert [(row["name"], row["style"]) for row in asked] == [("oracle", "cot"), ("tiny", "cot"), ("tiny", "plain")]
