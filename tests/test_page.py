"""The study's page: its numbers are those of the tables and of the responses, and in a browser all of it works."""

import collections
import json
import re
from pathlib import Path

import jinja2
import pytest

from browser import PHONE, browser, needs_chromium, opened
from conftest import REPOSITORY, make_study, snakemake
from page_study import HOSTILE, PROMPT, SHOTS, TITLES, PageStudy
from selfrefine.data.prompts import messages
from selfrefine.data.shots import items_to_show
from selfrefine.report.page import captions, changes, claim_rows, funnels, making, model_titles, result_tables
from selfrefine.report.page.assemble import assemble
from selfrefine.report.page.embedded import embedded, without_questions
from selfrefine.report.page.responses import Reader
from selfrefine.schema.prompt import Prompt, TaskPrompt
from selfrefine.store.files import read_jsonl

FAST = 200  # milliseconds from a filter or a scroll to what it shows


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return PageStudy().inputs()


def write(inputs, path: Path) -> Path:
    path.write_text(assemble(inputs), encoding="utf-8")
    return path


def cells(inputs, evaluation: str = "sums") -> dict[str, list[dict]]:
    """The judged answers to a benchmark, by arm."""
    mine = (cell for cell in inputs.index["cells"] if cell["evaluation"] == evaluation)
    return {cell["arm"]: read_jsonl(Path(cell["samples"])) for cell in mine}


# What the page says.


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("smollm2-135m", "SmolLM2-135M"),
        ("qwen2.5-coder-1.5b", "Qwen2.5-Coder-1.5B"),
        ("llama-3.2-1b-instruct", "Llama-3.2-1B-Instruct"),
        ("mixtral-8x7b", "Mixtral-8x7B"),
        ("gpt-4o", "GPT-4o"),
        ("phi3-mini", "Phi3-Mini"),
        ("my_own_model", "my_own_model"),
        ("", ""),
    ],
)
def test_models_are_called_as_their_makers_spell_them(name, title):
    assert model_titles.model_title(name) == title


def test_a_checkpoint_is_told_in_words():
    facts = {"arm": "instruct", "student": "smollm2-135m", "teacher": "qwen2.5-coder-1.5b", "task": "asdiv", "seed": 1}
    titles = {"asdiv": "ASDiv"}
    assert model_titles.who(facts, titles, set()) == "SmolLM2-135M, instructed by Qwen2.5-Coder-1.5B on ASDiv"
    refined = facts | {"arm": "refine", "refine_task": "asdiv"}
    assert model_titles.who(refined, titles, {"seed"}).endswith("on ASDiv, then refined, seed 1")
    assert model_titles.who({"arm": "teacher", "teacher": "gpt-4o"}, titles, set()) == "GPT-4o (teacher)"


def test_changes_are_those_of_the_judged_answers_and_of_the_table(inputs):
    found = changes.changes(inputs)
    rows = {(row["samples"], row["gained"], row["lost"]) for row in inputs.tables.comparisons()}
    assert {(f"{one.treated} {one.control}", one.gained, one.lost) for one in found} == rows
    answers = cells(inputs)
    before = {row["id"]: row["strict"] for row in answers["baseline"]}
    counts = collections.Counter((bool(before[row["id"]]), bool(row["strict"])) for row in answers["instruct"])
    (one,) = (one for one in found if one.step == "Baseline → instructed" and one.benchmark == TITLES["sums"])
    assert (one.gained, one.lost) == (counts[False, True], counts[True, False])
    assert (one.stayed_correct, one.stayed_incorrect) == (counts[True, True], counts[False, False])
    assert one.gained
    assert one.items == len(answers["instruct"])


def test_the_funnel_is_that_of_the_tables_and_of_the_files(inputs):
    (funnel,) = funnels.funnels(inputs)
    numbers = {step.title: step.number for step in (*funnel.taught, *funnel.sampled)}
    (demonstrations,), (pairs,) = inputs.tables.demonstrations(), inputs.tables.pairs()
    paths = read_jsonl(Path(inputs.index["paths"][0]))
    assert numbers == {
        "Questions": len(read_jsonl(Path(inputs.index["items"]["sums"]))),
        "Answered by the teacher": demonstrations["answers"] - demonstrations["dropped"]["cut"],
        "Demonstrations": demonstrations["kept"],
        "Sampled paths": len(paths),
        "Correct paths": sum(row["correct"] for row in paths),
        "Preference pairs": pairs["pairs"],
    }
    assert numbers["Sampled paths"] == sum(row["paths"] for row in inputs.tables.paths())
    assert numbers["Preference pairs"] == len(read_jsonl(Path(inputs.index["pairs"][0])))
    assert "incorrect" in funnel.taught[-1].note
    assert max(step.share for step in (*funnel.taught, *funnel.sampled)) == 100


def test_effects_stand_on_an_axis_that_holds_their_intervals(inputs):
    rows, scale = claim_rows.claim_rows(inputs)
    assert [(row.number, row.verdict) for row in rows] == [(one["claim"], one["verdict"]) for one in inputs.claims]
    effects = [effect for row in rows for effect in (*row.first, *row.others)]
    assert len(effects) == sum(len(part["comparisons"]) for one in inputs.claims for part in one["parts"])
    for effect in effects:
        assert 0 <= effect.left <= effect.x <= effect.right <= claim_rows.WIDTH
        assert scale.low <= effect.low <= effect.high <= scale.high
    assert "0" in [text for _, text in scale.ticks]
    assert any(row.missing for row in rows)


def test_cost_and_versions_are_those_of_the_records(inputs):
    spent, known = making.cost(inputs), making.made(inputs)
    stages = inputs.tables.stages()
    assert (spent.jobs, spent.tokens) == (len(stages), sum(row["tokens"] for row in stages))
    assert sum(stage.jobs for stage in spent.stages) == spent.jobs
    assert known.packages == [("python", "3.11"), ("torch", "2.13.0")]
    assert known.machines == ["cpu made up, cores 2"]
    assert known.first == known.last == "2026-01-02"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (0.2, "under 1 s"), (59.4, "59 s"), (250, "4 min 10 s"), (7500, "2 h 5 min")]
)
def test_durations_read_well(seconds, text):
    assert making.duration(seconds) == text


def test_tables_have_numbers_to_sort_by(inputs):
    tables = {table.name: table for table in result_tables.all_tables(inputs)}
    accuracy = tables["accuracy"]
    assert [cell.number for cell in next(zip(*(row[3:4] for row in accuracy.rows), strict=True))] == [
        pytest.approx(100 * row["accuracy"]) for row in inputs.tables.arms()
    ]
    assert accuracy.numeric == [False, False, False, True, True, True]
    laid_out = tables["cost"]
    assert laid_out.header == ["Student", "Arm", "Wall seconds"]
    assert laid_out.rows == [[("ant-135M", "", None), ("Refined", "", None), ("5", "4 to 6", 5.0)]]


def test_captions_are_those_of_snakemakes_report():
    for name, kinds, variable in (("figures", captions.FIGURES, "figure"), ("layouts", captions.LAYOUTS, "layout")):
        template = jinja2.Template((REPOSITORY / f"report/{name}.rst").read_text())
        for kind, caption in kinds.items():
            for wildcard in (kind, f"{kind}-ant"):
                per_student = kind in ("low-resource", "selection", "solving", "pass-at-k", "yields", "transfer")
                # Lengths and yields are called alike as a figure and as a table: some have a student's name.
                if (wildcard == kind) == per_student and not (variable == "layout" and wildcard == kind):
                    continue
                text = template.render(snakemake={"wildcards": {"name": wildcard}}).strip()
                assert text in (caption.text, ""), wildcard


# What the page embeds.


def test_every_response_is_embedded_with_its_verdict(inputs):
    data = Reader(inputs).data()
    columns = data["responses"]
    for arm, rows in cells(inputs).items():
        sets = {number for number, one in enumerate(data["sets"]) if one["arm"] == arm and one["benchmark"] == 0}
        shown = collections.Counter(
            (data["items"][item][0], text, bool(correct))
            for item, number, text, correct in zip(
                columns["item"], columns["set"], columns["text"], columns["correct"], strict=True
            )
            if number in sets and data["items"][item][2] == "test"
        )
        assert shown == collections.Counter(
            (row.get("item", row["id"]), row["text"], bool(row["strict"])) for row in rows
        )
    assert len({len(column) for column in columns.values()}) == 1


def test_pairs_lead_to_the_paths_that_they_are_made_of(inputs):
    data = Reader(inputs).data()
    texts = data["responses"]["text"]
    for pair, item, (chosen, rejected, *_) in zip(
        read_jsonl(Path(inputs.index["pairs"][0])), data["pairs"]["item"], data["pairs"]["sides"], strict=True
    ):
        assert data["items"][item][0] == pair["item"]
        assert (texts[chosen], texts[rejected]) == (pair["chosen"]["text"], pair["rejected"]["text"])
        assert data["sets"][data["responses"]["set"][chosen]]["kind"] == "sampled"


def test_beyond_the_limit_the_first_items_are_kept_with_all_their_responses(inputs):
    whole, cut = Reader(inputs), Reader(inputs, most=60)
    assert not whole.notes
    assert len(cut.data()["responses"]["text"]) <= 60
    assert any(re.match(r"first \d+ of 40 items; all in results/store/export_task/", note) for note in cut.notes)
    counts = collections.Counter(cut.data()["responses"]["item"])
    test = [number for number, item in enumerate(cut.data()["items"]) if item[2] == "test"]
    assert {counts[number] for number in test} == {4}


@pytest.mark.parametrize("text", HOSTILE)
def test_embedded_text_neither_ends_the_script_nor_changes(text):
    found = embedded({"text": text})
    assert "<" not in found
    assert json.loads(found) == {"text": text}
    found.encode("utf-8")


def test_a_page_without_questions_keeps_all_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = assemble(PageStudy(texts=HOSTILE).inputs())
    cut = without_questions(whole, "left <out>")
    start, end = '<script type="application/json" id="data">', "</script>"
    (before, data, after), (same_before, cut_data, same_after) = (
        (page[: page.index(start)], *page[page.index(start) + len(start) :].split(end, 1)) for page in (whole, cut)
    )
    assert (before, after) == (same_before, same_after)
    left, kept = json.loads(cut_data), json.loads(data)
    questions = [(item[3], *item[4]) for item in kept["items"]]
    assert any(len(one) > 1 for one in questions) and "left" not in data
    for item, (_, *options) in zip(kept["items"], questions, strict=True):
        item[3], item[4] = "left <out>", ["left <out>" for _ in options]
    assert left == kept
    with pytest.raises(ValueError, match="no page"):
        without_questions("<html></html>", "")


def test_model_output_is_in_the_data_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    html = assemble(PageStudy(texts=HOSTILE).inputs())
    assert html.count("<script") == html.count("</script>") == 2
    assert "onerror=alert" not in re.sub(r'<script type="application/json".*?</script>', "", html, flags=re.DOTALL)
    assert "Sums &amp; &lt;more&gt;" in html


# What the page does in a browser.


@pytest.fixture(scope="module")
def running():
    with browser() as found:
        yield found


def found_counts(page) -> tuple[int, int]:
    """(items or pairs, responses) that match, as the reader says."""
    page.wait_for_timeout(200)
    counts = page.locator(".found").evaluate("element => [element.dataset.rows, element.dataset.responses]")
    return int(counts[0]), int(counts[1])


@needs_chromium
def test_filters_find_what_the_files_hold(inputs, tmp_path, running):
    answers = cells(inputs)
    responses = [row for rows in answers.values() for row in rows]
    with opened(running, write(inputs, tmp_path / "index.html")) as page:
        page.select_option("[name=benchmark]", label=TITLES["sums"])
        assert found_counts(page) == (40, 160)
        page.select_option("[name=verdict]", "correct")
        correct = [row for row in responses if row["strict"]]
        assert found_counts(page)[1] == len(correct)
        page.select_option("[name=verdict]", "none")
        assert found_counts(page)[1] == sum(row["extracted"] is None for row in responses)
        page.select_option("[name=verdict]", "incorrect")
        page.select_option("[name=arm]", "refine")
        wrong = [row for row in answers["refine"] if not row["strict"] and row["extracted"] is not None]
        assert found_counts(page) == (len(wrong), len(wrong))
        page.select_option("[name=verdict]", "")
        page.fill("[name=least]", "20")
        page.fill("[name=most]", "30")
        assert found_counts(page)[1] == sum(20 <= row["tokens"] <= 30 for row in answers["refine"])
        page.click(".clear")
        assert found_counts(page) == (48, 192)
        page.fill("[name=text]", "STEP 7 of arm 2")
        assert found_counts(page) == (2, 2)
        page.fill("[name=text]", "option l")
        assert found_counts(page) == (8, 32)
        page.fill("[name=text]", "no such thing <b>")
        assert found_counts(page) == (0, 0)
        assert "Nothing matches" in page.inner_text(".detail")
        page.click(".clear")
        page.locator(".views label", has_text="Sampled paths").click()
        paths = read_jsonl(Path(inputs.index["paths"][0]))
        page.select_option("[name=style]", "rationale")
        assert found_counts(page)[1] == sum(row["style"] == "rationale" for row in paths)
        page.select_option("[name=style]", "cot")
        page.select_option("[name=arm]", "instruct")
        page.select_option("[name=verdict]", "correct")
        assert found_counts(page)[1] == sum(row["correct"] and row["style"] == "cot" for row in paths)
        page.locator(".views label", has_text="Preference pairs").click()
        assert found_counts(page)[0] == len(read_jsonl(Path(inputs.index["pairs"][0])))


@needs_chromium
def test_changes_lead_to_the_items_that_changed(inputs, tmp_path, running):
    with opened(running, write(inputs, tmp_path / "index.html")) as page:
        links = page.locator(".changes a")
        known = {one.treated: one for one in changes.changes(inputs)}
        assert links.count() == sum(bool(one.gained) + bool(one.lost) for one in known.values())
        for place in range(links.count()):
            number = int(links.nth(place).inner_text().split()[0])
            links.nth(place).click()
            assert found_counts(page) == (number, number)


@needs_chromium
def test_a_link_opens_its_item_with_all_options_and_prompts(inputs, tmp_path, running):
    items = read_jsonl(Path(inputs.index["tasks"]["letters"]))
    path = write(inputs, tmp_path / "index.html")
    with opened(running, path, f"#item={items[5]['id']}&benchmark=letters&view=evaluated") as page:
        assert items[5]["question"] in page.inner_text(".detail .question")
        assert page.locator(".options li").count() == 12
        assert page.locator(".options .target").inner_text().startswith(f"{items[5]['answer']}) ")
        assert page.locator(".card header").all_inner_texts()[0].startswith("Baseline")
        heads = [text.split("\n")[0] for text in page.locator(".card header").all_inner_texts()]
        assert heads == ["Baseline", "Instructed", "Refined", "Teacher"]
        page.locator(".prompt").first.locator("summary").click()
        prompt = TaskPrompt(**PROMPT, shots=SHOTS)
        (asked,) = messages(items[5], prompt, "cot", shots=items_to_show(prompt, None))
        assert page.locator(".prompt pre").first.inner_text() == asked["content"]
        assert asked["content"].count("Question: ") == 2
        page.locator(".prompt").last.locator("summary").click()
        (asked,) = messages(items[5], Prompt(**PROMPT), "cot", "Finish with a number.")
        assert page.locator(".prompt pre").last.inner_text() == asked["content"]
        assert page.locator(".row[aria-selected=true] p").inner_text() == items[5]["question"]
    for view in ("sampled", "pairs"):
        pair = read_jsonl(Path(inputs.index["pairs"][0]))[-1]
        with opened(running, path, f"#item={pair['item']}&benchmark=sums&view={view}") as page:
            assert page.inner_text(".detail code") == pair["item"]
            assert page.input_value("[name=view]:checked") == view
            if view == "pairs":
                assert page.locator(".card .said").first.inner_text() == pair["chosen"]["text"]
                page.click("text=All sampled paths")
                assert page.inner_text(".detail code") == pair["item"]
    with opened(running, path, "#item=none") as page:
        assert "There is no item none" in page.inner_text(".found")


@needs_chromium
def test_the_list_is_worked_by_keys(inputs, tmp_path, running):
    with opened(running, write(inputs, tmp_path / "index.html")) as page:
        page.focus(".list")
        for key, place in (("ArrowDown", 1), ("End", 47), ("ArrowDown", 47), ("ArrowUp", 46), ("Home", 0)):
            page.keyboard.press(key)
            assert page.get_attribute(".list", "aria-activedescendant") == f"row-{place}"
            assert page.locator(f"#row-{place}").get_attribute("aria-selected") == "true"
        assert "item=" in page.evaluate("location.hash")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.className") == "detail"


@needs_chromium
def test_tables_sort_both_ways(inputs, tmp_path, running):
    with opened(running, write(inputs, tmp_path / "index.html")) as page:
        button = page.locator("#table-accuracy th button", has_text="Accuracy")
        column = page.locator("#table-accuracy tbody td:nth-child(4)")
        for direction in ("ascending", "descending"):
            button.click()
            numbers = [float(text.split("\n")[0]) for text in column.all_inner_texts()]
            assert numbers == sorted(numbers, reverse=direction == "descending")
            assert page.locator("#table-accuracy th[aria-sort]").get_attribute("aria-sort") == direction
        page.locator("#table-accuracy th button", has_text="Benchmark").click()
        names = [text.strip() for text in page.locator("#table-accuracy tbody td:nth-child(3)").all_inner_texts()]
        assert names == sorted(names)


def spelled(text: str) -> str:
    """A text as any program hands it over: half a surrogate pair has no UTF-8, and becomes a question mark."""
    return text.encode("utf-8", "replace").decode().replace("\ufffd", "?")


@needs_chromium
def test_hostile_output_is_shown_as_text(tmp_path, monkeypatch, running):
    monkeypatch.chdir(tmp_path)
    inputs = PageStudy(texts=HOSTILE).inputs()
    with opened(running, write(inputs, tmp_path / "index.html")) as page:
        page.focus(".list")
        seen = set()
        for _ in range(11):
            seen |= set(page.locator(".said").evaluate_all("all => all.map(one => one.textContent)"))
            assert page.locator(".detail script, .detail img, .detail b").count() == 0
            page.keyboard.press("ArrowDown")
        assert set(map(spelled, HOSTILE)) <= set(map(spelled, seen))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@needs_chromium
@pytest.mark.parametrize("view", [{}, {"viewport": PHONE, "is_mobile": True}, {"color_scheme": "dark"}])
def test_the_page_fits_its_screen_and_can_be_read_aloud(inputs, tmp_path, running, view):
    with opened(running, write(inputs, tmp_path / "index.html"), **view) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for image in page.locator("img").all():
            image.scroll_into_view_if_needed()
            assert image.evaluate("image => image.complete && image.naturalWidth > 0")
            assert image.get_attribute("alt")
        captions_shown = page.locator("figcaption").all_inner_texts()
        assert captions_shown == [captions.FIGURES[name].text for name in inputs.figures]
        levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(one => Number(one.tagName[1]))")
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
        unnamed = page.evaluate(
            "[...document.querySelectorAll('input, select, button, svg[role=img]')].filter("
            "one => !one.closest('label') && !one.getAttribute('aria-label') && !one.textContent.trim()).length"
        )
        assert unnamed == 0
        verdicts = page.locator(".claim .verdict").all_inner_texts()
        assert verdicts
        assert all(text.endswith(("supported", "contradicted", "undecided", "not tested")) for text in verdicts)


@needs_chromium
def test_ten_thousand_items_are_read_without_lag(tmp_path, monkeypatch, running):
    monkeypatch.chdir(tmp_path)
    text = "She starts with 12 and buys 30 more, so she has 12 + 30 = 42. Then she gives away half of them. " * 2
    path = write(
        PageStudy(test=10_000, texts=[text + str(number) for number in range(9)]).inputs(), tmp_path / "index.html"
    )
    assert path.stat().st_size < 16_000_000
    with opened(running, path) as page:
        page.locator(".found").wait_for()
        changed = {
            "fields.benchmark.value = '1'": 10_000,
            "fields.verdict.value = 'correct'": None,
            "fields.change.value = fields.change.options[1].value": None,
            "fields.verdict.value = ''; fields.change.value = ''": 10_000,
        }
        for change, expected in changed.items():
            started = "const fields = document.querySelector('.filters').elements; const start = performance.now();"
            page.evaluate(f"{started} {change}; fields.seed.dispatchEvent(new Event('input', {{bubbles: true}}))")
            page.wait_for_timeout(400)
            assert int(page.get_attribute(".found", "data-ms")) <= FAST, change
            assert expected in (None, int(page.get_attribute(".found", "data-rows")))
        for words in ("question 99", "so she has", "nowhere"):
            page.fill("[name=text]", words)
            page.wait_for_timeout(600)
            assert int(page.get_attribute(".found", "data-ms")) <= FAST, words
        page.fill("[name=text]", "")
        page.wait_for_timeout(600)
        for place in (100_000, 500_000, 3):
            took = page.evaluate(
                "top => new Promise(done => { const list = document.querySelector('.list'), start = performance.now();"
                "list.scrollTop = top;"
                "requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start))); })",
                place,
            )
            assert took <= FAST
            top = page.locator(".row").evaluate_all("(rows, top) => Math.min(...rows.map(row => row.offsetTop))", place)
            assert top <= place
        assert page.locator(".row").count() < 60


@needs_chromium
def test_a_studys_page_and_its_report_open_in_a_browser(tmp_path, tiny_model, running):
    make_study(tmp_path, tiny_model)
    snakemake(tmp_path)
    snakemake(tmp_path, "--report", "report.html")
    with opened(running, tmp_path / "results/tiny/index.html") as page:
        figures = page.locator("figure img")
        assert figures.count() == len(list((tmp_path / "results/tiny/figures").glob("*.svg")))
        assert all(image.evaluate("image => image.naturalWidth > 0") for image in figures.all())
        assert all(page.locator("figcaption").all_inner_texts())
        assert found_counts(page) == (30, 120)
        page.locator(".views label", has_text="Sampled paths").click()
        assert found_counts(page)[0] == 30
    with opened(running, tmp_path / "report.html") as page:
        for category in ("Page", "Tables", "Claims", "Summary", "Configuration", "Figures"):
            page.get_by_text(category, exact=True).first.wait_for()
        figures = sorted(path.stem for path in (tmp_path / "results/tiny/figures").glob("*.svg"))
        for name in figures:
            caption = captions.caption_of(name, captions.FIGURES, ["tiny"])
            page.reload()
            page.get_by_text("Figures", exact=True).first.click()
            row = page.locator("tr", has=page.get_by_text(name, exact=True))
            row.locator("a[iconname=eye]").click()
            page.wait_for_function(
                "[...document.images].some(image => image.naturalWidth > 0) || document.querySelector('iframe')"
            )
            page.reload()
            page.get_by_text("Figures", exact=True).first.click()
            row.locator("a[iconname=information-circle]").click()
            page.get_by_text(caption.text[:40]).first.wait_for()
