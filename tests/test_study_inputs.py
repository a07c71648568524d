"""What users' configurations, names and titles bring: refused in the dry run, or taken as they were written."""

import copy
import csv
import io
import re
import warnings

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import test_plot
import test_study
from conftest import artifact, make_study, planned_jobs, planned_rules, snakemake, target
from selfrefine.analysis.accuracy_tables import start_of
from selfrefine.engines.interface import Request
from selfrefine.engines.openai.bodies import answer_of, body_of
from selfrefine.errors import UserError
from selfrefine.report.figures import style, wording
from selfrefine.report.figures.accuracy_points import draw_accuracy
from selfrefine.report.figures.family_bars import draw_families
from selfrefine.report.figures.font_note import lacking_font
from selfrefine.report.figures.sampling_yields import draw_solving, draw_yields
from selfrefine.report.figures.share_curves import draw_low_resource
from selfrefine.report.figures.training_curves import draw_training
from selfrefine.report.formats import NONE, Number, Table, in_latex, in_markdown
from selfrefine.report.selection import in_figure
from selfrefine.schema.generation import Generation
from selfrefine.study.checkpoint_names import base, instructed, origin_of, refined, refinements_of, teacher_of
from selfrefine.study.design import Study
from selfrefine.study.resolve import training_of
from selfrefine.study.warm_up import long_warm_ups
from selfrefine.study.yaml_files import read_yaml

SMALL = test_study.SMALL


def put(path: str, value) -> dict:
    return test_study.changed(SMALL, path, value)


def several(*changes: tuple[str, object]) -> dict:
    config = copy.deepcopy(SMALL)
    for path, value in changes:
        config = test_study.changed(config, path, value)
    return config


# Refused by key.

REFUSED = {
    "a seed below 0": (put("study/seeds", [0, -1]), "study.seeds.1: Input should be greater than or equal to 0"),
    "a seed of 33 bits": (put("study/seeds", [2**32]), "study.seeds.0: Input should be less than or equal to"),
    "no plain samples": (
        put("sampling", {"plain": 0}),
        "sampling.plain: is 0, but recipe 'cot' draws on plain answers",
    ),
    "no chains": (put("sampling", {"cot": 0}), "sampling.cot: is 0, but recipe 'cot' draws on cot answers"),
    "no samples at all": (
        several(("sampling", {"cot": 0, "plain": 0}), ("recipes/cot/chosen/style", "any")),
        "sampling.cot and plain: are 0, but recipe 'cot' draws on answers",
    ),
    "a share of no item": (put("study/shares", [1]), "study.shares: 1 % of the 8 training items of benchmark 'add'"),
    "a share of one item, none held out": (put("study/shares", [15]), "leaves 1, and a refinement learns from one"),
    "one title twice": (put("benchmarks/pick/title", " Sums "), "benchmarks.pick.title: 'Sums' is also the title"),
    "no title": (put("benchmarks/pick/title", " "), "benchmarks.pick.title: is empty"),
    "a title of two lines": (put("benchmarks/pick/title", "a\nb"), "benchmarks.pick.title: has '\\n'"),
    "a student's title that is another's name": (
        several(("students/bee/title", "ant"), ("study/students", ["ant", "bee"])),
        "students.bee.title: 'ant' is also the title of student 'ant'",
    ),
    "one title of two teachers": (
        several(
            ("teachers/owl/title", "T"),
            ("teachers/jay", SMALL["teachers"]["owl"] | {"title": " T "}),
            ("study/teachers", ["owl", "jay"]),
        ),
        "teachers.jay.title: 'T' is also the title of teacher 'owl'",
    ),
    "a student without a title": (put("students/ant/title", " "), "students.ant.title: is empty"),
    "a teacher's title of two lines": (put("teachers/owl/title", "a\nb"), "teachers.owl.title: has '\\n'"),
    "half a character in a title": (
        put("benchmarks/pick/title", "a\ud83d"),
        "benchmarks.pick.title: has half a character",
    ),
    "a name of two lines": (put("students/a\nb", SMALL["students"]["ant"]), "students: 'a\\nb' cannot be a name"),
    "a long name": (put("recipes/" + "r" * 81, SMALL["recipes"]["cot"]), "has 81 characters"),
    "a name that repeats itself": (put("teachers/" + "ab" * 20, SMALL["teachers"]["owl"]), "ends in 20 times the same"),
    "the store's folder": (put("study/name", "store"), "study.name: 'store' is a folder of the store's own"),
    "a number for a name": (put("study/students", [2024]), "put it into quotes (found 2024)"),
    "nothing for a name": (put("study/students", [None]), "YAML reads it as nothing: put it into quotes"),
    "no for a name": (put("study/students", [False]), "YAML reads it as true or false: put it into quotes"),
    "a number for a key": (put("students", {2024: SMALL["students"]["ant"]}), "put it into quotes"),
    "an arm without a recipe": (put("recipes/cot/arms", ["refine"]), "study.arms: cross has no recipe"),
    "a recipe without an arm": (
        several(("recipes/cot/arms", ["cross"]), ("study/arms", ["refine"])),
        "recipes.cot.arms: none of them is among study.arms",
    ),
    "a teacher's recipe for refine-only": (
        several(("recipes/answer/arms", ["refine-only"]), ("study/recipes", ["cot", "answer"])),
        "recipes.answer.arms: refine-only has no teacher",
    ),
    "a recipe's setting that does not exist": (
        put("recipes/cot/refine", {"rate": 1}),
        "recipes.cot.refine: rate: unknown",
    ),
    "a recipe's batch that does not divide": (
        put("recipes/cot/refine", {"batch_size": 12, "micro_batch_size": 8}),
        "batch_size 12 is not a multiple of micro_batch_size 8",
    ),
    "no temperature without a server": (
        put("teachers/owl/generation", {"temperature": None}),
        "generation.temperature: null leaves it to a server",
    ),
    "no temperature of a student": (put("sampling", {"generation": {"temperature": None}}), "temperature: null"),
    "a licence beside weights": (put("teachers/owl/licence", "MIT"), "set models.large.licence"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_is_refused_by_key(name):
    config, message = REFUSED[name]
    with pytest.raises(UserError, match=re.escape(message)):
        Study.read(config)


@pytest.mark.parametrize(("least", "size"), [(1, 200), (2, 100), (13, 12)])
def test_the_least_share_of_which_something_is_left_is_taken(least, size):
    config = several(
        ("study/shares", [least]), *((f"benchmarks/{task}/splits/train/size", size) for task in ("add", "pick"))
    )
    assert Study.read(config)
    with pytest.raises(UserError, match=r"study\.shares: "):
        Study.read(test_study.changed(config, "study/shares", [least - 1]))


def test_what_no_arm_asks_for_is_not_refused():
    assert Study.read(several(("sampling", {"plain": 0}), ("study/arms", ["baseline", "instruct"])))
    assert Study.read(several(("study/shares", [1]), ("study/arms", ["baseline"])))
    assert Study.read(put("study/seeds", [0, 2**32 - 1]))


# Names are text.

NAMES = ("refine", "instruct", "base", "NA", "nan", "null", "None", "2024", "1e3", "no", "inf", "train", "teacher")


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_are_told_apart_by_places_not_by_words(name):
    start = instructed(name, name, name, 50, 7)
    assert (origin_of(start), refinements_of(start), teacher_of(start)) == (start, [], name)
    second = refined(refined(start, name, name, 50, 7), name, name, 50, 7)
    assert origin_of(second) == start and teacher_of(second) == name
    assert [step.recipe for step in refinements_of(second)] == [name, name]
    alone = refined(base(name), name, name, 100, 0)
    assert (origin_of(alone), teacher_of(alone)) == (base(name), None)
    assert [start_of(one, name) for one in (base(name), start, second, alone)] == [None, base(name), start, base(name)]


@pytest.mark.parametrize("name", ["refine", "base", "NA", "null", "2024"])
def test_any_name_is_planned(name, tmp_path, tiny_model):
    path, config = make_study(tmp_path, tiny_model)
    config["students"] = {name: config["students"]["tiny"]}
    config["teachers"] = {name: config["teachers"]["oracle"]}
    config["benchmarks"] = {name: config["benchmarks"]["boxes"], "far": config["benchmarks"]["far"]}
    config["recipes"] = {name: {"chosen": {"style": "cot", "verdict": "correct"}, "rejected": {"style": "plain"}}}
    config["study"] |= {"students": [name], "teachers": [name], "tasks": [name], "evaluate": [name, "far"]}
    config["study"] |= {"recipes": [name], "arms": ["baseline", "instruct", "refine", "refine-only"]}
    path.write_text(yaml.safe_dump(config))
    jobs = planned_jobs(snakemake(tmp_path, "-n"))
    assert len(jobs) > 20


# Schedules, recipes of arms, learning rates of recipes.


def test_a_schedule_of_twenty_rounds_and_more_is_planned(tmp_path, tiny_model):
    path, config = make_study(tmp_path, tiny_model)
    config["schedules"] = {"often": {"steps": ["cot"], "rounds": 25}}
    config["study"]["recipes"] = ["often"]
    path.write_text(yaml.safe_dump(config))
    outcome = snakemake(tmp_path, "-n")
    assert len([job for job in planned_jobs(outcome) if "round25" in job or "-round24" in job])


def test_refine_only_leaves_out_what_draws_on_a_teacher_and_arms_limit_a_recipe():
    config = put("study/recipes", ["cot", "answer"])

    def found(config: dict) -> set[tuple[str, str]]:
        return {(row["arm"], row["recipe"]) for row in Study.read(config).checkpoints() if row["recipe"]}

    both = {(arm, recipe) for arm in ("refine", "cross") for recipe in ("cot", "answer")}
    assert found(config) == both | {("refine-only", "cot")}
    limited = test_study.changed(config, "recipes/answer/arms", ["refine"])
    assert found(limited) == {
        ("refine", "answer"),
        ("refine-only", "cot"),
        *(pair for pair in both if pair[1] == "cot"),
    }


def test_a_study_without_instruct_plans_what_its_recipes_of_arms_need_and_no_more(tmp_path, tiny_model):
    path, config = make_study(tmp_path, tiny_model)
    config["study"] |= {"arms": ["refine", "refine-only"], "recipes": ["cot", "taught"]}
    taught = {"chosen": {"source": "teacher"}, "rejected": {"source": "student", "style": "cot"}}
    config["recipes"] = {"taught": taught | {"arms": ["refine"], "refine": {"learning_rate": 0.0005}}}
    path.write_text(yaml.safe_dump(config))
    outcome = snakemake(tmp_path, "-n")
    rules = planned_rules(outcome)
    # One student is instructed, to be refined by both recipes; the base model is refined by the one without a teacher.
    of_training = ("fetch_model", "demonstrate", "instruct", "sample", "pair", "refine", "evaluate")
    assert {rule: rules[rule] for rule in of_training} == {
        **dict.fromkeys(("fetch_model", "demonstrate", "instruct"), 1),
        "sample": 2,
        "pair": 3,
        "refine": 3,
        "evaluate": 6,
    }
    refined = re.findall(r"results/store/refine/(\S+)/[0-9a-f]{12}/record.json \(update\)", outcome.stdout)
    assert sorted(refined) == [
        "tiny/base-100-seed0/boxes-cot-round1",
        "tiny/oracle-boxes-100-seed0/boxes-cot-round1",
        "tiny/oracle-boxes-100-seed0/boxes-taught-round1",
    ]
    del config["recipes"]["taught"]["arms"]
    path.write_text(yaml.safe_dump(config))
    assert planned_rules(snakemake(tmp_path, "-n")) == rules
    config["recipes"]["taught"]["arms"] = ["cross"]
    path.write_text(yaml.safe_dump(config))
    outcome = snakemake(tmp_path, "-n", check=False)
    assert outcome.returncode and "recipes.taught.arms: none of them is among study.arms" in outcome.stdout
    config["recipes"]["taught"]["arms"] = ["refine-only"]
    path.write_text(yaml.safe_dump(config))
    outcome = snakemake(tmp_path, "-n", check=False)
    assert outcome.returncode and "refine-only has no teacher, but 'taught' draws on one" in outcome.stdout


def test_a_recipe_overrides_the_students_and_the_general_settings():
    config = several(
        ("refine", {"learning_rate": 1e-6, "epochs": 2}),
        ("students/ant/refine", {"learning_rate": 2e-6, "lora": {"r": 2}}),
        ("recipes/cot/refine", {"learning_rate": 3e-6, "lora": {"alpha": 9}}),
    )
    study = Study.read(config)
    of_recipe, of_other = training_of(study, "ant", "refine", "cot"), training_of(study, "ant", "refine", "answer")
    assert (of_recipe.learning_rate, of_other.learning_rate) == (3e-6, 2e-6)
    assert (of_recipe.epochs, of_recipe.lora.r, of_recipe.lora.alpha, of_other.lora.r) == (2, 2, 9, 2)


# Warm-up.


def test_a_warm_up_that_is_longer_than_the_run_is_told(tmp_path):
    def told(**refine) -> list[str]:
        return list(long_warm_ups(Study.read(put("refine", refine)), lambda task, split: tmp_path / "none"))

    (line,) = told(batch_size=4, micro_batch_size=4, learning_rate=0.001, epochs=2)
    # 8 items, one held out: two updates an epoch.
    assert "refine.warmup_steps: 100 updates" in line and "at most 4 updates" in line and "never reaches 0.001" in line
    assert not told(batch_size=4, micro_batch_size=4, epochs=2, warmup_steps=1)
    assert not told(schedule="constant") and not told(warmup_steps=0)


def test_the_warm_up_is_bounded_by_the_items_that_are_there(tmp_path):
    items = tmp_path / "items.jsonl"
    items.write_text("{}\n" * 3)
    study = Study.read(several(("refine", {"batch_size": 1, "micro_batch_size": 1, "epochs": 1, "warmup_steps": 2})))
    assert list(long_warm_ups(study, lambda task, split: items))
    assert not list(long_warm_ups(study, lambda task, split: tmp_path / "none"))


# Keys that stand twice.

TWICE = {
    "a section": ("refine: {beta: 0.5}\nstudy: {}\nrefine: {beta: 0.1}\n", "mine.yaml:3: 'refine' stands there twice"),
    "a key within": ("study:\n  seeds: [0]\n  name: a\n  seeds: [1]\n", "mine.yaml:4: 'seeds'"),
    "in a list": ("a:\n- {b: 1, b: 2}\n", "mine.yaml:2: 'b'"),
    "in flow": ("{a: 1, b: {c: 1,\n c: 2}}", "mine.yaml:2: 'c'"),
    "in quotes": ("a: 1\n'a': 2\n", "mine.yaml:2: 'a'"),
    "as JSON": ('{"a": 1,\n "a": 2}', "mine.yaml:2: 'a'"),
}


@pytest.mark.parametrize("name", TWICE)
def test_a_key_that_stands_twice_is_refused_by_line(name, tmp_path):
    text, message = TWICE[name]
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(message)):
        read_yaml(path)


def test_merged_keys_and_the_same_key_elsewhere_are_no_repetition(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: &base {a: 1, b: 2}\none: {<<: *base, a: 3}\ntwo: {a: 1}\nagain: *base\n")
    assert read_yaml(path)["one"] == {"a": 3, "b": 2}


def test_snakemake_refuses_a_section_that_stands_twice(tmp_path, tiny_model):
    path, _ = make_study(tmp_path, tiny_model)
    path.write_text("refine: {beta: 0.5}\n" + path.read_text())
    outcome = snakemake(tmp_path, "-n", check=False)
    assert outcome.returncode
    said = outcome.stdout + outcome.stderr
    assert "tiny.yaml:" in said and "'refine' stands there twice, first in line 1" in said


# Paths and sums.


def test_a_recording_in_a_folder_with_spaces_is_read(tmp_path, tiny_model):
    path, config = make_study(tmp_path, tiny_model)
    folder = tmp_path / "my recordings $HOME 'ä'"
    folder.mkdir()
    (tmp_path / "oracle.jsonl").rename(folder / "oracle 1.jsonl")
    config["teachers"]["oracle"]["recording"] = f"{folder.name}/oracle 1.jsonl"
    path.write_text(yaml.safe_dump(config))
    place = "demonstrate/oracle/boxes"
    snakemake(tmp_path, target(tmp_path, place))
    assert artifact(tmp_path, place).exists()


def test_the_message_of_a_sum_says_whose_it_may_be(tmp_path, tiny_model):
    path, config = make_study(tmp_path, tiny_model)
    config["benchmarks"]["boxes"]["files"]["all"]["sha256"] = "0" * 64
    path.write_text(yaml.safe_dump(config))
    outcome = snakemake(tmp_path, "-n", check=False)
    said = outcome.stdout + outcome.stderr
    assert "benchmarks.boxes.files.all.sha256" in said and "`sha256: null`" in said


# Titles are text, in every writer.

HOSTILE = (
    "Ba$$in",
    "Prices $5 to $10",
    "100 % & #1_a",
    r"\alpha^2 {x}_i \\",
    "<b>bold</b> & co &amp;",
    "*star* _under_ `code` ~~gone~~",
    "[link](http://x.y)",
    "# heading",
    "- item",
    "1. item",
    "数学推理",
    "a -- b --- c",
    "|pipe|",
    "x" * 300,
    "many words " * 30,
    "推理" * 60,
    "WWWW MMMM " * 12,
)
UNESCAPED = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"\textasciigrave{}": "`",
    r"\ldots{}": "…",
    r"$\rightarrow$": "→",
    "$-$": "−",
    "{[}": "[",
    "-{}": "-",
    **{f"\\{sign}": sign for sign in "&%$#_{}"},
}


def read_latex(text: str) -> str:
    """What LaTeX shows of an escaped text: each macro as its sign; an assertion fails for a sign that has a meaning."""
    shown = ""
    while text:
        known = next((one for one in UNESCAPED if text.startswith(one)), None)
        assert known or text[0] not in "\\&%$#_{}~^", text
        shown += UNESCAPED[known] if known else text[0]
        text = text.removeprefix(known) if known else text[1:]
    return shown


plain_text = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="–"), min_size=1, max_size=40)
tricky = st.text("\\$%_&#^{}<>~`*[]()!-+1. |ab数", min_size=1, max_size=20)


@given(plain_text | tricky)
def test_any_title_is_text_in_latex_and_csv(title):
    assert read_latex(in_latex(title)) == title
    table = Table("t", title, [title, "n"], [[title, Number(1.0)], [NONE, NONE]], ["l", "r"])
    rows = list(csv.reader(io.StringIO(table.csv())))
    assert rows[0] == [title, "n"] and rows[1] == [title, "1.0"] and rows[2] == ["", ""]


def rendered(text: str) -> str:
    """What a reader of Markdown sees of one line."""
    markdown_it = pytest.importorskip("markdown_it")
    import html

    page = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(f"| h |\n|---|\n| {text} |\n")
    (cell,) = re.findall(r"<td>(.*)</td>", page, re.DOTALL)
    assert not re.search(r"<(?!br)", cell), (text, cell)
    return html.unescape(cell)


@given(plain_text | tricky)
def test_any_title_is_text_in_markdown(title):
    assert " ".join(rendered(in_markdown(title)).split()) == " ".join(title.split())


@pytest.mark.parametrize("title", HOSTILE)
def test_hostile_titles_are_text_in_every_writer(title):
    assert read_latex(in_latex(title)) == title
    assert " ".join(rendered(in_markdown(title)).split()) == " ".join(title.split())


def test_numbers_of_laid_out_tables_are_numbers_and_empty_cells():
    rows = [["a", Number(1.5, 1.0, 2.0), NONE], ["b", NONE, Number(float("nan"))], ["c", "", Number(3)]]
    table = Table("t", "", ["name", "x", "y"], rows, ["l", "r", "r"])
    assert table.csv() == "name,x,x low,x high,y\na,1.5,1.0,2.0,\nb,,,,\nc,,,,3.0\n"
    assert "–" in table.markdown() and "--" in table.latex() and "nan" not in table.latex()


def test_latex_says_what_pdflatex_cannot_set():
    assert Table("t", "数", ["a"], [["≤"]], ["l"]).latex().startswith("% Has ≤ 数: compile it with XeLaTeX")
    assert Table("t", "ä –", ["a"], [["b"]], ["l"]).latex().startswith("% \\usepackage")


# Figures.


@pytest.fixture
def drawn():
    with plt.rc_context(style.STYLE):
        yield
    plt.close("all")


def figures_of(title: str, folder) -> dict[str, plt.Figure]:
    """Every figure that shows titles, each benchmark's with a number behind it."""
    titles = {name: f"{title} {number}" for number, name in enumerate(test_plot.BENCHMARKS)}
    arms = test_plot.plant()
    paths, pairs, rates = test_plot.yields()
    tables = zip((paths, pairs, rates), ("paths", "pairs", "solving"), strict=True)
    shown = [in_figure("yields", "llama-2-7b", rows, name) for rows, name in tables]
    return {
        "accuracy": draw_accuracy(arms, titles),
        "families": draw_families(in_figure("out-family", "", arms, "arms"), titles, "accuracy"),
        "low-resource": draw_low_resource(in_figure("low-resource", "llama-2-7b", arms, "arms"), titles),
        "solving": draw_solving(in_figure("solving", "llama-2-7b", rates, "solving"), titles),
        "yields": draw_yields(*shown, titles),
        "training": draw_training(test_plot.runs(folder), titles),
    }


@pytest.mark.parametrize("title", HOSTILE)
def test_hostile_titles_are_drawn_as_written_and_overlap_nothing(title, tmp_path, drawn):
    for name, figure in figures_of(title, tmp_path).items():
        test_plot.assert_nothing_overlaps(figure, name)
        texts = [re.sub(r"\s", "", text.get_text()) for text in figure.findobj(matplotlib.text.Text)]
        assert any(re.sub(r"\s", "", title) in text for text in texts), name
        file = io.StringIO()
        wording.complete_fonts(figure)
        figure.savefig(file, format="svg")
        if len(title) < 20:
            svg = re.sub("<!--.*?-->", "", file.getvalue(), flags=re.DOTALL)
            escaped = title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            assert escaped in svg or name == "yields", name


def test_characters_without_a_font_are_told(drawn):
    figure = plt.figure()
    figure.text(0.5, 0.5, "x ≤ \U0001f9ff")
    assert wording.complete_fonts(figure) in ("", "\U0001f9ff")
    assert wording.complete_fonts(plt.figure()) == ""


def test_a_title_without_a_font_gives_way_to_its_benchmarks_name():
    titles = {"cmath": "数学", "asdiv": "ASDiv", "other": "数 2", "boxes": "cmath"}
    assert wording.drawable(titles, "数") == titles | {"cmath": "cmath (benchmark)", "other": "other"}
    assert wording.drawable(titles, "") == titles
    assert "has 学 数: PDF and PNG" in lacking_font("学数")


@pytest.mark.parametrize("title", ["数学推理", "日本語の計算", "คณิตศาสตร์", "수학", "\U0001f9ff"])
def test_no_printed_figure_has_boxes(title, drawn):
    arms = test_plot.plant()
    titles = {name: f"{title} {number}" for number, name in enumerate(test_plot.BENCHMARKS)}
    lacking = wording.complete_fonts(draw_accuracy(arms, titles))
    assert {*lacking} <= {*title}
    readable = draw_accuracy(arms, wording.drawable(titles, lacking))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # "Glyph … missing from font(s)"
        assert wording.complete_fonts(readable) == ""
        for form in ("pdf", "png"):
            readable.savefig(io.BytesIO(), format=form)
    texts = "".join(text.get_text() for text in readable.findobj(matplotlib.text.Text))
    assert (next(iter(titles)) if lacking else title) in texts


def test_a_font_that_was_installed_since_is_found(monkeypatch, drawn):
    fonts = wording.font_manager.fontManager.ttflist
    sans, mono = (
        next(font for font in fonts if (font.name, font.style, font.weight) == (name, "normal", 400))
        for name in ("DejaVu Sans", "DejaVu Sans Mono")
    )
    monkeypatch.setattr(wording.font_manager.fontManager, "ttflist", [sans])
    monkeypatch.setattr(wording.font_manager, "findSystemFonts", lambda: [mono.fname])
    assert [name for name, _ in wording._fonts()] == ["DejaVu Sans", "DejaVu Sans Mono"]


def look_of(line) -> tuple:
    return line.get_linestyle(), line.get_color(), line.get_marker(), str(line._dash_pattern)


def test_five_teachers_look_like_five_in_every_figure(drawn):
    names = [*test_plot.FIVE]
    arms = test_plot.plant({"s": "llama"}, test_plot.FIVE)
    figures = {
        "low-resource": draw_low_resource(in_figure("low-resource", "s", arms, "arms"), test_plot.BENCHMARKS),
        "accuracy": draw_accuracy(arms, test_plot.BENCHMARKS),
        "solving": draw_solving(
            in_figure("solving", "s", test_plot.solving(("s",), ("", *names), ("csqa",)), "solving"),
            test_plot.BENCHMARKS,
        ),
    }
    for name, figure in figures.items():
        handles = [one for one in figure.legends[0].legend_handles if any(each in one.get_label() for each in names)]
        assert len(handles) == 5 and len({look_of(one)[:3] for one in handles}) == 5, name
    bars = draw_families(in_figure("out-family", "", arms, "arms"), test_plot.BENCHMARKS, "accuracy")
    hatches = [one.get_hatch() for one in bars.legends[0].legend_handles if "words" in one.get_label()]
    assert len(set(hatches)) == 5


def test_ten_teachers_have_ten_dashes_and_hatches():
    assert len(set(style.DASHES)) == len(set(style.BROKEN)) == len(set(style.HATCHES)) == 10


def test_a_run_of_one_update_is_drawn(tmp_path, drawn):
    figure = draw_training(test_plot.runs(tmp_path, updates=1), test_plot.BENCHMARKS)
    assert all(line.get_marker() not in ("", "None") for panel in figure.axes for line in panel.lines)


# Servers.


def request_of(**settings) -> Request:
    return Request("a", [{"role": "user", "content": "2 + 2?"}], Generation(**{"max_tokens": 8, **settings}))


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, {"temperature": 0.0}),
        ({"temperature": 0.7}, {"temperature": 0.7, "seed": 0}),
        ({"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7, "top_p": 0.9, "seed": 0}),
        ({"temperature": None, "top_p": 0.9}, {"top_p": 0.9}),
        ({"temperature": None}, {}),
    ],
)
def test_a_server_is_sent_what_is_set(settings, sent):
    body = body_of(request_of(**settings), "owl", {})
    assert {name: body[name] for name in body if name in ("temperature", "top_p", "seed")} == sent


@pytest.mark.parametrize(
    ("message", "reason", "tokens", "text", "end"),
    [
        ({"content": None, "reasoning_content": "Let us see"}, "length", 8, "", "length"),
        ({"content": None, "reasoning_content": "Let us see"}, "stop", 8, "", "length"),
        ({"content": "", "reasoning": "Let us see"}, None, 8, "", "length"),
        ({"content": None, "reasoning_content": "It is 4."}, "stop", 5, "It is 4.", "stop"),
        ({"content": "4", "reasoning_content": "Let us see"}, "stop", 8, "4", "stop"),
        ({"content": "<think>Let us see"}, "stop", 5, "<think>Let us see", "length"),
        ({"content": "<think>2 + 2</think>4"}, "stop", 8, "<think>2 + 2</think>4", "stop"),
    ],
)
def test_thinking_that_was_cut_counts_as_cut(message, reason, tokens, text, end):
    choice = {"message": message, "finish_reason": reason}
    usage = {"prompt_tokens": 3, "completion_tokens": tokens}
    answer = answer_of(request_of(), {"choices": [choice], "usage": usage})
    assert (answer["text"], answer["finish_reason"]) == (text, end)


def test_a_served_teachers_licence_is_listed():
    config = put("teachers/owl", {"family": "bird", "engine": "openai", "served": "owl-1", "licence": "OpenAI's terms"})
    assert Study.read(config).sources()[-1] == {
        "role": "teacher",
        "name": "owl",
        "source": "served:owl-1",
        "licence": "OpenAI's terms",
        "sha256": "",
    }
