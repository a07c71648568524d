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

from conftest import REPOSITORY, tiny_config
from selfrefine.analysis import pass_at_k, solving
from selfrefine.analysis.costs import costs_table
from selfrefine.analysis.lengths import lengths_table, mean_and_interval
from selfrefine.analysis.paper_claims import CLAIMS
from selfrefine.analysis.statistics import wilson
from selfrefine.report import formats, paper_tables, spending
from selfrefine.report.details import accuracy, stages_table
from selfrefine.report.formats import Number, Table
from selfrefine.report.selection import in_layout, of_layout
from selfrefine.report.study_tables import StudyTables
from selfrefine.report.summary import COLUMNS, LINES, summary
from selfrefine.schema.assumptions import Costs
from selfrefine.store.files import write_json, write_jsonl
from selfrefine.study import figures_and_layouts
from selfrefine.study.artifacts import Artifacts
from selfrefine.study.design import Study
from selfrefine.study.final_artifacts import FinalArtifacts

TITLES = {"sums": "Sums & more", "words": "Words_2"}


@pytest.mark.parametrize(
    ("samples", "correct", "k", "expected"),
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
def test_pass_at_k_is_one_minus_the_chance_of_drawing_incorrect_ones_only(samples, correct, k, expected):
    assert pass_at_k.pass_at_k(samples, correct, k) == pytest.approx(expected, abs=1e-12)


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
    assert pass_at_k.majority_at_k(given, [a == "A" for a in given], k) == pytest.approx(expected, abs=1e-12)


def test_maj_at_k_agrees_with_every_draw_and_maj_at_1_with_pass_at_1():
    generator = random.Random(1)
    for _ in range(100):
        answers = [generator.choice(["A", "B", "C", None]) for _ in range(generator.randint(1, 7))]
        correct = [answer == "A" for answer in answers]
        k = generator.randint(1, len(answers))
        shares = []
        for draw in itertools.combinations(answers, k):
            votes = collections.Counter(answer for answer in draw if answer)
            leading = [answer for answer, count in votes.items() if count == max(votes.values())]
            shares.append(leading.count("A") / len(leading) if leading else 0)
        assert pass_at_k.majority_at_k(answers, correct, k) == pytest.approx(np.mean(shares))
        assert pass_at_k.majority_at_k(answers, correct, 1) == pytest.approx(
            pass_at_k.pass_at_k(len(answers), sum(correct), 1)
        )


def sampled(item: str, verdicts: str, style: str = "cot") -> list[dict]:
    """Paths of one item: R correct, W incorrect, - without an answer."""
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
    assert pass_at_k.depths(6) == [1, 2, 4, 6]
    assert {k for _, _, k in pass_at_k.solved(sampled("a", "RRRR") + sampled("b", "WWW"))} == {1, 2, 3}


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
        # Training takes two GPUs, which a meter counted where it took long, and evaluation one.
        machine = (
            {"gpus": ["H100"] * {"instruct": 2, "evaluate": 1}[stage]} if stage in ("instruct", "evaluate") else {}
        )
        metered = {"gpu_wh": 3.0} if seconds == 30 else {}
        write_json(tmp_path / name, facts | {"figures": {"tokens_made": tokens, **metered}, "machine": machine})
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
    costs_table(cells, names).assign(unrefined=0).to_csv("costs.csv", index=False)
    rows = of_layout("cost", "", StudyTables(tmp_path).costs())
    laid_out = [row[:5] for row in paper_tables.cost(rows, PRICES).rows if row is not None]
    assert laid_out[0] == ["s", "instruct", "teach", "2", "1"] and len(laid_out) == 4
    table = pd.read_csv("costs.csv")
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
    on_gpus = ["gpu_seconds", "metered_gpu_seconds", "gpu_wh"]
    assert table.loc[("instruct", "instruct"), on_gpus].tolist() == [40, 30, 1.5]
    assert table.loc[("instruct", "evaluate"), on_gpus].tolist() == [4, 0, 0]
    assert table.loc[("instruct", "teach"), on_gpus].tolist() == [0, 0, 0]


PRICES = Costs(
    currency="EUR",
    gpu_hour={"cluster": 0.5, "cloud": 2, "none": None},
    gpu_watts=400,
    host_watts=100,
    pue=1.5,
    grid=0.2,
)


def cost_row(**known) -> dict:
    """A row of costs.csv: two GPUs for half an hour, which no meter counted."""
    row = dict(zip(("student", "arm", "share", "stage"), ("s", "instruct", "100", "instruct"), strict=True))
    row |= {"checkpoints": 1, "unrefined": 0, "jobs": 1.0, "tokens": 10.0, "tokens_trained": 5.0, "peak_memory_mib": 5}
    row |= dict.fromkeys(("wall_seconds", "least", "most"), 1800.0)
    return row | {"gpu_seconds": 3600.0, "metered_gpu_seconds": 0.0, "gpu_wh": 0.0} | known


def spent(*rows: dict) -> tuple[list[str], list[str], str]:
    """(header, cells of the first row, caption) of the table of costs, from the GPU hours on."""
    table = paper_tables.cost(rows, PRICES)
    place = table.header.index("peak memory (MiB)") + 1
    return table.header[place:], list(table.rows[0][place:]), table.caption


def test_the_table_of_costs_tells_money_energy_and_emissions():
    header, cells, caption = spent(cost_row())
    assert header == ["GPU hours", "EUR, cluster", "EUR, cloud", "kWh", "kg CO2e"]
    # One GPU hour of 400 W and 100 W beside it, times 1.5.
    assert cells == ["1", "0.5", "2", "0.75", "0.15"]
    assert "Energy: assumed, with 400 W a GPU and 100 W for the rest of the machine a GPU, times 1.5" in caption
    assert "0.2 kg CO2e a kWh. Prices assumed of a GPU hour, in EUR: cluster 0.5, cloud 2." in caption


def test_what_a_meter_counted_takes_the_place_of_assumed_watts():
    _, cells, caption = spent(cost_row(metered_gpu_seconds=3600.0, gpu_wh=300.0))
    assert cells[-2:] == ["0.6", "0.12"]
    assert "Energy: metered for 100% of the GPU hours; else assumed, with 100 W for the rest" in caption
    _, cells, caption = spent(cost_row(metered_gpu_seconds=1800.0, gpu_wh=300.0))
    assert cells[-2] == "0.9", "300 Wh, half an hour of 400 W, and 100 Wh, times 1.5"
    assert "metered for 50% of the GPU hours; else assumed, with 400 W a GPU and 100 W" in caption


def test_without_gpus_there_is_no_price_and_the_machine_is_assumed():
    header, cells, caption = spent(cost_row(gpu_seconds=0.0))
    assert (header, cells) == (["kWh", "kg CO2e"], ["0.075", "0.015"])
    assert "Energy: assumed, with 100 W for the rest of the machine a job" in caption and "EUR" not in caption


def test_the_stages_of_a_study_end_with_what_all_of_it_took():
    rows = [cost_row(), cost_row(stage="refine"), cost_row(stage="refine")]
    table = stages_table([row | {"artifact": "x", "tokens_per_second": 1.0} for row in rows], PRICES)
    assert [row[0] for row in table.rows] == ["instruct", "refine", "all"]
    assert [row[6] for row in table.rows] == ["1", "2", "3"] and table.rows[-1][7:9] == ["1.5", "6"]
    assert "assumed, with 400 W a GPU" in table.caption


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (0.00042, "0.00042"), (0.5, "0.5"), (9.96, "10"), (123.4, "123"), (12345.6, "12346")],
)
def test_estimates_are_shown_with_the_digits_that_they_deserve(number, shown):
    assert spending.plain(number) == shown


def a_table() -> Table:
    rows = [["50 %_a & #1", Number(12.34, 5, 20.06)], None, ["x|y\nz <b> ~^\\{$}", Number(3, decimals=0)]]
    return Table("name", "A caption: 100 %.", ["who_is", "correct (%)"], rows, ["l", "r"])


def test_latex_escapes_what_means_something_to_it():
    text = a_table().latex()
    assert r"50 \%\_a \& \#1 & $12.3_{5.0}^{20.1}$ \\" in text
    assert (
        r"x\textbar{}y\newline z \textless{}b\textgreater{} \textasciitilde{}\textasciicircum{}\textbackslash{}\{\$\}"
        r" & $3$ \\" in text
    )
    assert r"who\_is & correct (\%) \\" in text and r"\caption{A caption: 100 \%.}" in text
    assert text.count(r"\midrule") == 2 and r"\begin{tabular}{@{}lr@{}}" in text
    assert text.count("{") == text.count("}")
    # A bracket at the start of a line would be taken for an argument of the line before.
    assert formats.escape("[user] Why", formats.LATEX) == "{[}user] Why"


def test_markdown_keeps_cells_apart_and_shows_intervals():
    header, rule, first, second, blank, caption = a_table().markdown().splitlines()
    assert first.endswith("| 12.3 [5.0, 20.1] |")
    assert r"x\|y<br>z &lt;b&gt; \~^\\{$}" in second
    assert (blank, caption) == ("", "A caption: 100 %.")
    assert len({len(line) for line in (header, rule, first, second)}) == 1


def test_csv_keeps_numbers_apart_from_their_intervals():
    rows = list(csv.reader(io.StringIO(a_table().csv())))
    assert rows[0] == ["who_is", "correct (%)", "correct (%) low", "correct (%) high"]
    assert rows[1] == ["50 %_a & #1", "12.3", "5.0", "20.1"]
    assert rows[2][1:] == ["3", "", ""]


def test_no_number_is_minus_nothing():
    assert Number(-0.04, -1, 0.04).texts() == ["0.0", "-1.0", "0.0"]


def test_a_marked_number_is_set_off():
    assert formats.in_latex(Number(50, 40, 60, marked=True)) == r"$\underline{50.0}_{40.0}^{60.0}$"
    assert formats.in_markdown(Number(50, 40, 60, marked=True)) == "*50.0 [40.0, 60.0]*"


def planted_arms(arms=("baseline", "instruct", "refine", "cross"), shares=("50", "100")) -> list[dict]:
    """The rows of arms whose accuracy tells what they are."""
    rows = []

    def add(arm: str, accuracy: float, **facts) -> None:
        blank = dict.fromkeys(["student", "teacher", "family", "task", "refine_task", "recipe", "share"], "")
        for place, name in enumerate(TITLES):
            value = accuracy + place / 100
            numbers = {
                "seeds": 2,
                "unrefined": 0,
                "n": 40,
                "accuracy": value,
                "low": value - 0.1,
                "high": value + 0.1,
                "level": 0.95,
            }
            rows.append({"arm": arm, **blank, **facts, "evaluation": name, **numbers})

    if "baseline" in arms:
        add("baseline", 0.2, student="s")
    for share, task in itertools.product(shares, TITLES):
        at = {"student": "s", "teacher": "t", "family": "out", "task": task, "share": share}
        if "instruct" in arms:
            add("instruct", 0.3 + int(share) / 1000, **at)
        for refine_task in TITLES:
            arm = "refine" if task == refine_task else "cross"
            if arm in arms:
                add(arm, 0.5 + int(share) / 1000, refine_task=refine_task, recipe="cot", **at)
        if "refine-only" in arms:
            add("refine-only", 0.25, student="s", refine_task=task, recipe="cot", share=share)
    add("teacher", 0.8, teacher="t")
    return rows


def transfer(arms: list[dict]) -> Table:
    return paper_tables.transfer(of_layout("transfer", "s", arms), TITLES, "s", list(TITLES))


def test_the_transfer_table_has_the_papers_rows_and_columns():
    table = transfer(planted_arms())
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


def test_a_cell_that_the_study_leaves_out_is_a_dash():
    arms = planted_arms()
    kept = [row for row in arms if row["share"] != "50" or row["evaluation"] == (row["refine_task"] or row["task"])]
    rows = accuracy(kept, TITLES).rows
    half = [row for row in rows if "50 %" in row[2]]
    assert len(half) == 2 + 4 and all(row.count("–") == 1 for row in half)
    assert not any("–" in row for row in rows if row[0] == "refine" and row not in half)
    left_out = [row for row in arms if row["arm"] != "refine" or row["evaluation"] == row["task"]]
    assert [row.count("–") for row in transfer(left_out).rows if row is not None and row[0] == "refine"] == [1, 1]


def test_the_transfer_table_of_a_study_without_refinement_has_no_columns_for_it():
    table = transfer(planted_arms(("baseline", "instruct"), ("100",)))
    assert table.header == ["arm", "teacher", "instructed on", "Sums & more", "Words_2"]
    assert transfer(planted_arms(("baseline",), ("100",))).header[0] == "arm"


def test_a_row_of_a_laid_out_table_leads_to_the_rows_that_it_shows():
    arms = planted_arms()
    table = transfer(arms)
    laid = list(csv.DictReader(io.StringIO(table.csv())))
    behind = [in_layout("transfer", "s", row, arms, TITLES, "") for row in laid]
    assert [len(rows) for rows in behind] == [len(TITLES)] * len(laid)
    for row, rows in zip(laid, behind, strict=True):
        assert [row[TITLES[found["evaluation"]]] for found in rows] == [
            f"{100 * found['accuracy']:.1f}" for found in rows
        ]
    (cell,) = in_layout("transfer", "s", laid[-1], arms, TITLES, "Words_2")
    assert (cell["arm"], cell["evaluation"]) == ("teacher", "words")


def test_the_teachers_table_shows_the_styles_that_were_asked(tmp_path):
    rows = []
    for split, style, correct in (("test", "cot", 3), ("train", "cot", 2), ("test", "plain", 1)):
        path = tmp_path / f"{split}-{style}.jsonl"
        write_jsonl(path, [{"strict": n < correct} for n in range(4)])
        rows.append({"teacher": "t", "task": "sums", "split": split, "style": style, "answers": str(path)})
    table = paper_tables.teachers(rows, TITLES, 0.95, "strict")
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
    ((*cells, example, answer),) = paper_tables.splits([row], TITLES).rows
    assert cells == ["Sums & more", "test", "9", "repeated 2", "6", "1", "A 1"]
    assert len(example) <= paper_tables.QUOTED + 2 and example.endswith("…") and answer == "A"


def test_the_prompts_are_those_that_are_sent(tmp_path):
    items = tmp_path / "test.jsonl"
    write_jsonl(items, [{"id": "1", "question": "1+1?", "choices": [], "answer": "2"}])
    prompt = {"instruction": "Compute.", "cot": "Step by step:", "plain": "Answer:"}
    row = {"kind": "math", "prompt": prompt, "items": str(items), "request": "", "system": None}
    rows = [
        row | {"name": "s", "style": "cot"},
        row | {"name": "u", "style": "cot"},
        row | {"name": "s", "style": "plain"},
    ]
    rows.append(row | {"name": "t", "style": "cot", "request": "Be brief.", "system": "You teach."})
    table = paper_tables.prompts(rows)
    assert [cells[:3] for cells in table.rows] == [
        ["math", "cot", "s, u"],
        ["math", "plain", "s"],
        ["math", "cot", "t"],
    ]
    assert table.rows[0][3] == "[user] Compute.\nQuestion: 1+1?\nStep by step:"
    assert table.rows[2][3] == "[system] You teach.\n[user] Compute.\nQuestion: 1+1?\nStep by step:\nBe brief."


def study_tables(folder: Path, arms: list[dict], refinements: int = 1, barren: int = 0, worse: int = 0) -> StudyTables:
    """The tables that a summary reads."""
    start = {"student": "s", "teacher": "t", "task": "sums", "after": "", "refine_task": "sums", "share": "100"}
    of_pairs = start | {"sampled": "x", "recipe": "cot", "seed": "0", "dropped_no_chosen": 1, "items": 9, "pairs": 5}
    of_pairs |= {"items_with_pairs": 5, "validation": 1, "yield": 0.5, "low": 0.4, "high": 0.6}
    refined = start | {"log": "x", "recipe": "cot", "seed": "0", "updates": 20, "held_out": 50, "kept_update": 20}
    refined |= {"loss": 0.1, "accuracy": 0.5, "chosen_token_logp": -1, "rejected_token_logp": -2}
    refined |= {"highest_accuracy": 0.9, "highest_update": 10, "highest_chosen_token_logp": -1}
    stage = {"artifact": "x", "tokens": 600, "tokens_per_second": 1.5, "peak_memory_mib": 2048, "unrefined": 0}
    stage |= dict.fromkeys(("gpu_seconds", "metered_gpu_seconds", "gpu_wh"), 0)
    samples = {"interval": "wilson", "samples": "x"}
    tables = {
        "arms": [row | samples for row in arms],
        "pairs": [
            of_pairs | {"train": int(number >= barren), "unrefined": int(number < barren)}
            for number in range(refinements)
        ],
        "refinements": [refined | {"worse": int(number < worse)} for number in range(refinements)],
        "stages": [
            stage | {"stage": name, "wall_seconds": 400} for name in ("teach", "instruct", "sample", "pair", "refine")
        ],
    }
    for name, rows in tables.items():
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    (folder / "comparisons.csv").write_text("arm\n")
    return StudyTables(folder)


def claims(recipes=("",), seeds: int = 1, **verdicts: str) -> list[dict]:
    return [
        {"claim": claim.number, "title": claim.title, "recipe": recipe, "seeds": seeds, "parts": []}
        | {"verdict": verdicts.get(recipe, "supported")}
        for claim in CLAIMS
        for recipe in recipes
    ]


def test_the_summary_has_verdicts_the_telling_numbers_the_cost_and_where_to_look_on(tmp_path):
    text = summary(study_tables(tmp_path, planted_arms()), claims(), TITLES, False)
    assert (
        "| supported | 1. Instructed students beat the baseline " in text and "for these checkpoints: one seed" in text
    )
    assert "- s, instructed by t on Sums & more (40 items, 2 seeds):" in text
    assert "  baseline 20.0 [10.0, 30.0] → instruct 40.0 [30.0, 50.0] → refine 60.0 [50.0, 70.0]" in text
    assert "33 min of jobs one after the other" in text and "3,000 tokens" in text and "2.0 GiB" in text
    assert all(name in text for name in ("index.html", "claims.md", "details.md", "tables/", "figures/"))
    assert "Beware" not in text


def test_the_summary_says_where_recipes_differ_and_refinements_had_no_pairs(tmp_path):
    tables = study_tables(tmp_path, planted_arms(), refinements=4, barren=3)
    text = summary(tables, claims(("cot", "answer"), 3, answer="undecided"), TITLES, False)
    assert "| by recipe | 2. " in text and "for new seeds too" in text
    assert "3 of 4 refinements had too few pairs" in text
    assert "worse at held-out pairs" not in text


def test_the_summary_says_how_many_refinements_kept_weights_that_are_worse_than_others(tmp_path):
    text = summary(study_tables(tmp_path, planted_arms(), refinements=4, worse=1), claims(), TITLES, False)
    assert "- 1 of 4 refinements kept weights worse at held-out pairs than others they had: details.md." in text


@pytest.mark.parametrize(("students", "name"), [(1, "s"), (9, "s"), (9, "a student of a long name, " * 5)])
def test_the_summary_fits_one_screen(tmp_path, students, name):
    arms = [
        row | {"student": f"{name}{number}" if row["student"] else "", "teacher": row["teacher"] and f"{name}t"}
        for number in range(students)
        for row in planted_arms()
    ]
    tables = study_tables(tmp_path, arms, refinements=2, barren=1, worse=1)
    flips = "of 1000 verdicts under other choices, 100 reversed, 100 lost, 100 gained"
    found = claims(("cot", "answer"), answer="contradicted")
    lines = summary(tables, found, TITLES, False, flips=flips).splitlines()
    assert f"- tables/flips.md: {flips}" in lines
    assert len(lines) <= LINES and max(map(len, lines)) <= COLUMNS
    assert any(line.startswith("- … and ") for line in lines) == (students > 1)


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
    assert figures_and_layouts.figures([base], ["sums"]) == ["accuracy"]
    assert figures_and_layouts.figures([base, instruct[0]], ["sums"]) == [
        "accuracy",
        "out-family",
        "lengths",
        "cost",
        "training",
        "claims",
        "flips",
    ]
    assert "low-resource-s" in figures_and_layouts.figures([base, *instruct], ["sums"])
    assert figures_and_layouts.figures([base, *instruct], ["words"]) == [
        "accuracy",
        "cost",
        "training",
        "claims",
        "flips",
    ]
    assert figures_and_layouts.figures([base, refine], ["sums"])[1:] == [
        "in-family",
        "lengths",
        "solving-s",
        "yields-s",
        "cost",
        "training",
        "claims",
        "flips",
    ]
    cross = checkpoint("cross", teacher="t", family="in", task="sums", refine_task="words", recipe="cot", share=100)
    assert "in-family" not in figures_and_layouts.figures([base, cross], ["sums", "words"])
    assert figures_and_layouts.layouts([base]) == ["transfer-s", "teachers", "prompts", "splits", "lengths", "cost"]
    assert {"solving", "yields"} < set(figures_and_layouts.layouts([base, refine]))
    assert figures_and_layouts.kind_of("low-resource-llama-2-7b") == ("low-resource", "llama-2-7b")


def test_every_layout_is_made_of_what_the_study_makes():
    config = tiny_config(Path("model"), Path("boxes.jsonl"), Path("oracle.jsonl"))
    recipes = yaml.safe_load((REPOSITORY / "config/recipes.yaml").read_text())
    study = Study.read(recipes | config)
    finals = FinalArtifacts(
        Artifacts(study, lambda stage: "version 1", lambda rule: rule, lambda path: f"what {path} holds")
    )
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
