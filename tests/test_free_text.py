"""Answers that are free text (`kind: text`): how they are read, compared, prepared and asked for."""

import csv
import json
import runpy
import string

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from conftest import COLOURS, REPOSITORY, artifact, make_study, run, snakemake
from selfrefine.answers.extraction import REASON, canonical, extract, matches, process_results
from selfrefine.data.mapping import to_item
from selfrefine.data.prompts import messages
from selfrefine.data.shots import items_to_show, refuse_shown, resolved
from selfrefine.data.splits import prepare
from selfrefine.engines.item_requests import requests_for
from selfrefine.errors import UserError
from selfrefine.schema.benchmark import Mapping
from selfrefine.schema.generation import Generation
from selfrefine.schema.prompt import Example, Shots, TaskPrompt
from selfrefine.schema.stages import PrepareSettings
from selfrefine.store.files import read_json, read_jsonl, write_jsonl

TEXT = {"question": "q", "answer": "a", "answer_is": "text"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is Paris.", "Paris"),
        ("It lies in France. The answer is Paris", "Paris"),
        ("The answer is the U.S. Army.", "U.S. Army"),
        ("The answer is St. Louis.", "St. Louis"),
        ("The answer is St. Louis, because it lies on the river.", "St. Louis"),
        ("The answer is J. K. Rowling. She wrote all seven.", "J. K. Rowling"),
        ("The answer is Samuel L. Jackson", "Samuel L. Jackson"),
        ("The answer is Washington, D.C. It is the capital.", "Washington, D.C."),
        ("The answer is Dr. Who. He travels.", "Dr. Who"),
        ("The answer is vitamin C. Then we are done.", "vitamin C"),
        ("The answer is Chanel No. 5.", "Chanel No. 5"),
        ("The answer is no. 5 is odd.", "no"),
        ("The answer is 12 p.m. because the sun is high.", "12 p.m."),
        ("The answer is 3.14.", "3.14"),
        ("The answer is Paris because it is the capital.", "Paris"),
        ("The answer is Paris, which is in France.", "Paris"),
        ("The answer is Paris; it is the capital.", "Paris"),
        ("The answer is Paris, not London.", "Paris"),
        ("The answer is Paris (the capital of France).", "Paris"),
        ("The answer is Iron (III) oxide.", "Iron (III) oxide"),
        ("The answer is Paris, France.", "Paris, France"),
        ('The answer is "Who\'s Afraid of Virginia Woolf?".', "Who's Afraid of Virginia Woolf?"),
        ("The answer is “To be, or not to be”, because Hamlet says so.", "To be, or not to be"),
        ('The answer is "Paris", "London" and "Rome".', "Paris, London and Rome"),
        ("The answer is *Moby Dick* by Herman Melville.", "Moby Dick by Herman Melville"),
        ("The answer is **Paris**, the capital.", "Paris"),
        ("**The answer is Paris.** It is the capital.", "Paris"),
        ("**Final answer: Paris** and nothing else", "Paris"),
        ("**Answer:** Paris", "Paris"),
        ("Answer:\n\nParis\n\nThat is all.", "Paris"),
        ("#### Paris\n", "Paris"),
        ("<answer>Paris. Texas</answer>", "Paris"),
        (r"The final answer is: $\boxed{\text{Paris}}$.", "Paris"),
        (r"\boxed{Because. Of that}", "Because. Of that"),
        (r"The answer is \(x^{2}+1\).", "x^2 + 1"),
        ("The answer is $x$ and $y$.", "x and y"),
        ("The answer is 東京。そして", "東京"),
        ("The answer is Ｐａｒｉｓ！", "paris"),
        ("The answer is: The answer is Paris", "Paris"),
        ("The answer is Rome, so the final answer is Paris", "Paris"),
        ("The answer is Paris.\nQuestion: What next?\nThe answer is Rome.", "Paris"),
        # A denial is no answer, unless it is the answer.
        ("The answer is not Paris.", None),
        ("The answer is **not** Paris.", None),
        ("The answer is clearly not Paris.", None),
        ("The answer is Not guilty.", "Not guilty"),
        ("Answer: not guilty", "not guilty"),
        ("The answer is never.", "never"),
        ("It must be Paris.", None),
        ("The answer is", None),
        ("The answer is ...", None),
        ("", None),
    ],
)
def test_an_answer_is_what_is_said_up_to_the_end_of_its_sentence(text, expected):
    found = extract(text, "text", [])
    assert found == (None if expected is None else canonical(expected))
    assert matches(found, expected or "Paris", "text") is (expected is not None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is Rome. No: the answer is Paris.", None),
        ("The answer is the U.S.; so the answer is: US", "us"),
        ("The answer is 5. So the answer is 5.0.", "5"),
        (r"The answer is $\boxed{\text{Paris}}$. #### paris", "paris"),
        ("The answer is Rome, so the final answer is Paris", None),
        ("The answer is not Rome. The answer is Paris.", "paris"),
        ("Paris.", None),
    ],
)
def test_several_different_answers_are_none_for_the_unanimous_extractor(text, expected):
    assert extract(text, "text", [], "unanimous") == expected


@pytest.mark.parametrize(
    ("kind", "choices", "one"), [("math", [], "5"), ("choice", ["x", "y"], "B"), ("text", [], "5")]
)
def test_a_phrase_that_announces_a_box_commits_once(kind, choices, one):
    for text in (
        "The answer is $\\boxed{%s}$.",
        "**Final answer:** \\[\\boxed{\\text{%s}}\\]",
        "Answer: The answer is %s",
    ):
        assert extract(text % one, kind, choices, "unanimous") == one
    assert extract("The answer is A. The answer is B.", "choice", ["x", "y"], "unanimous") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is Rome. Then the answer is: Paris.", "paris"),
        ("The answer is Paris because of the river", "paris because of river"),
        ("Answer: Paris", None),
        ("The answer is", None),
    ],
)
def test_legacy_takes_what_follows_the_last_answer_is(text, expected):
    assert extract(text, "text", [], "legacy") == expected


SAME = [
    ("The U.S. Army", "us army"),
    ("J. K. Rowling", "J.K. Rowling", "JK Rowling"),
    ("Vitamin A", "vitamin a."),
    ("a well-known fact", "Well known fact!"),
    ("COVID-19", "covid 19"),
    ("AC/DC", "ac dc"),
    ("It's", "its", "It’s"),
    ("Café", "Cafe\u0301", "CAFÉ"),
    ("ＡＢＣ 12", "abc 12"),
    ("H₂O", "H_2O", "h2o"),
    ("in 1,200 BC", "in 1200 BC"),
    ("Ph.D.", "PhD"),
    ("  two   words ", "two\u00a0words"),
    ("“Paris”", '"Paris"', "*Paris*", "**Paris**"),
    ("1,200", "1200.0", "$1,200", r"1\,200"),
    ("1/2", "0.5", "½", r"\frac{1}{2}", "the 0.50"),
    ("x^2 + 1", "x^{2}+1", "$x^2+1$", "x² + 1"),
    (r"\frac{\sqrt{3}}{2}", "√3/2"),
    (r"\frac{x+1}{2}", "(x+1)/2"),
    (r"\left[0, 1\right)", "[0,1)"),
    (r"2^{n+1}", "2^(n+1)"),
    ("50 %", r"50\%"),
    (r"\text{Paris}", "paris"),
    (r"2\sqrt{2}", r"2 \sqrt{2}", "2√2"),
    (r"x \ge 3", r"x\geq3", "x ≥ 3"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
]
DIFFERENT = [
    ("Paris", "Rome"),
    ("5", "-5"),
    ("x - 1", "x + 1"),
    ("x - 1", "x 1"),
    ("35", "3-5"),
    ("12", "1/2"),
    ("12", "1, 2"),
    ("3:30", "330"),
    ("2^{n+1}", "2^n+1"),
    ("(1, 2)", "[1, 2]"),
    ("(1, 2)", "1 2"),
    ("C", "C++"),
    ("C", "C#"),
    ("5", "5%"),
    ("Vitamin A", "Vitamin"),
    ("Iron (II)", "Iron (III)"),
    ("Café", "Cafe"),
    (r"\frac{x+1}{2}", "x+1/2"),
    (r"x \ge 3", r"x \le 3"),
    (r"x\sin x", r"x - \sin x"),
    ("3.14", "314"),
]


@pytest.mark.parametrize("group", SAME, ids=lambda group: group[0])
def test_answers_that_say_the_same_are_equal(group):
    assert len({canonical(text) for text in group}) == 1
    for one in group:
        for other in group:
            assert matches(one, other, "text")


@pytest.mark.parametrize("pair", DIFFERENT, ids=" ".join)
def test_answers_that_say_something_else_are_not(pair):
    one, other = pair
    assert canonical(one) != canonical(other)
    assert not matches(one, other, "text") and not matches(other, one, "text")


def test_no_incorrect_expression_is_taken_for_a_gold():
    bench = runpy.run_path(str(REPOSITORY / "bench/expressions.py"))
    cases = [case for made in ("polynomials", "complex_numbers", "fractions") for case in bench[made](10)]
    cases += bench["like_math"]()
    assert len(cases) > 200 and {case.correct for case in cases} == {True, False}
    for case in cases:
        found = extract(f"The answer is $\\boxed{{{case.answer}}}$.", "text", [])
        assert matches(found, case.gold, "text") <= case.correct, case
        assert case.answer != case.gold or matches(found, case.gold, "text"), case


def test_numbers_are_equal_by_value_within_one_part_in_a_million():
    assert matches("0.333333333", "1/3", "text") and not matches("0.3333", "1/3", "text")
    assert not matches(None, "1/3", "text")


FRAMES = (
    "The answer is {}.",
    "The answer is {}",
    "We know this. The answer is {}.\nThat is all.",
    "The answer is {}, because it is so.",
    "Answer: {}",
    "**Answer:** {}",
    "Answer: **{}**",
    'The answer is "{}".',
    "The answer is “{}”, since it is.",
    "The answer is `{}`.",
    "The final answer is:\n\n{}\n",
    "#### {}",
    "<answer>{}</answer>",
    r"\boxed{{{}}}",
    r"The answer is $\boxed{{\text{{{}}}}}$.",
)
letters = st.characters(categories=("Lu", "Ll", "Lo"), max_codepoint=0xFFFF)
words = st.one_of(
    st.text(letters, min_size=1, max_size=8),
    st.text(string.ascii_letters, min_size=2, max_size=8),
    st.integers(0, 9999).map(str),
    st.sampled_from(
        (
            "U.S.",
            "St.",
            "Dr.",
            "Samuel L. Jackson",
            "p.m.",
            "well-known",
            "it's",
            "O'Brien",
            "3.14",
            "1,200",
            "the",
            "C++",
        )
    ),
)
# What the sentence around an answer means something by: the next sentence, a reason, a denial, a further phrase.
AROUND = {"answer", "not", "never", "neither", "no", "it", "so", "then", "the", "is"}


@given(st.lists(words, min_size=1, max_size=5).map(" ".join), st.sampled_from(FRAMES))
def test_every_plain_text_is_read_back_from_every_way_to_print_it(text, frame):
    assume(canonical(text) and not REASON.search(f" {text}"))
    assume(not {word.strip(".").lower() for word in text.split()} & AROUND or " " not in text and text[-1] != ".")
    found = extract(frame.format(text), "text", [])
    assert found is not None and matches(found, text, "text"), (found, canonical(text))


@given(st.text(max_size=40))
def test_nothing_makes_the_reader_fail(text):
    for whole in (text, f"The answer is {text}", f"\\boxed{{{text}", f'Answer: "{text}"', f"Answer: **{text}** {text}"):
        for extractor in ("strict", "unanimous", "legacy"):
            found = extract(whole, "text", [], extractor)
            assert found is None or found and matches(found, found, "text")
    assert not canonical(text) or matches(canonical(text), text, "text")


def prepared(tmp_path, rows, name="test", kind="text", fields=TEXT, **more):
    raw = tmp_path / "raw.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = {"file": "all", "size": more.pop("size", None), "balance": more.pop("balance", None)}
    settings = {"kind": kind, "fields": fields, "name": name, "split": split, **more}
    return prepare(raw, PrepareSettings.model_validate(settings))


def test_a_row_becomes_an_item_whose_answer_is_its_text():
    mapping = Mapping.model_validate(
        {"kind": "text", "fields": TEXT | {"answer": {"field": "a", "pattern": "#### (.+)"}}}
    )
    item = to_item({"q": "Which  one?", "a": "so #### The  U.S.\u00a0Army"}, "raw:1", mapping)
    assert (item["kind"], item["question"], item["choices"]) == ("text", "Which one?", [])
    assert item["answer"] == "The U.S. Army"


def test_golds_without_content_are_unmapped_and_equal_ones_do_not_contradict_each_other(tmp_path):
    rows = [
        {"q": "One?", "a": "The U.S. Army"},
        {"q": "One?", "a": "U. S. army."},
        {"q": "Two?", "a": "1,200"},
        {"q": "Two?", "a": "1200.0"},
        {"q": "Three?", "a": "Rome"},
        {"q": "Three?", "a": "Paris"},
        *({"q": f"Four {i}?", "a": gold} for i, gold in enumerate(("...", "?!", None, "\ud83d"))),
    ]
    items, counts = prepared(tmp_path, rows, drop_unmapped=True)
    assert sorted(item["answer"] for item in items) in (["1,200", "The U.S. Army"], ["1200.0", "The U.S. Army"])
    assert counts["dropped"] == {"answer_unmapped": 4, "repeated": 3, "contradictory_answers": 1}
    assert "answers" not in counts
    with pytest.raises(
        UserError, match=r"raw\.jsonl:7: answer '\.\.\.' has nothing in it but punctuation; .*drop_unmapped"
    ):
        prepared(tmp_path, rows)


def test_a_balanced_split_has_equally_many_of_equal_answers(tmp_path):
    rows = [{"q": f"What is {i}?", "a": ("Yes", "yes.", "YES", "No")[i % 4]} for i in range(40)]
    items, _ = prepared(tmp_path, rows, size=10, balance=True)
    assert sorted(canonical(item["answer"]) for item in items) == ["no"] * 5 + ["yes"] * 5
    assert len(prepared(tmp_path, rows, size=10)[0]) == 10


def test_near_duplicates_are_found_whatever_their_answers(tmp_path):
    rows = [
        {"q": f"Which river runs through the old town number {i} of the east?", "a": f"River {i}"} for i in range(9)
    ]
    test, _ = prepared(tmp_path, rows, size=3)
    raw = tmp_path / "raw.jsonl"
    settings = {"kind": "text", "fields": TEXT, "name": "train", "split": {"file": "all"}, "near_duplicate": 0.5}
    with pytest.raises(UserError, match="near-duplicates cover all"):
        prepare(raw, PrepareSettings.model_validate(settings), {"mine": test})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "text", "fields": TEXT | {"answer_is": "number"}}, "kind 'text' with 'text'"),
        ({"kind": "text", "fields": TEXT | {"answer_is": "label"}}, "kind 'text' with 'text'"),
        ({"kind": "math", "fields": TEXT}, "kind 'math' goes with answer_is 'number'"),
        ({"kind": "text", "fields": TEXT | {"choices": "c"}}, "kind 'text' has none"),
        ({"kind": "text", "fields": TEXT | {"labels": "c"}}, "kind 'text' has none"),
        ({"kind": "choice", "fields": TEXT}, "kind 'choice' needs fields.choices"),
        ({"kind": "text", "fields": TEXT, "shuffle": True}, "kind 'text' has none"),
    ],
)
def test_a_mapping_that_fits_no_kind_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Mapping.model_validate(given)


def test_examples_of_free_text_are_checked_shown_and_kept_from_the_test_split(tmp_path):
    shots = Shots(
        examples=[Example(question="Where?", answer="Washington, D.C."), Example(question="When?", answer="1990")]
    )
    assert resolved(shots, "text", "shots").examples == shots.examples
    for example, message in (
        (Example(question="Where?", answer="?!"), "has nothing in it but punctuation"),
        (Example(question="Where?", answer="here", choices=["a", "b"]), "has choices, but .* free text"),
    ):
        with pytest.raises(UserError, match=message):
            resolved(Shots(examples=[example]), "text", "shots")
    prompt = TaskPrompt(instruction="Answer.", shots=shots)
    items, _ = prepared(
        tmp_path, [{"q": "Where?", "a": "here"}, {"q": "When?", "a": "in 1990"}, {"q": "Who?", "a": "me"}]
    )
    asked = {item["question"]: item for item in items}
    shown = items_to_show(prompt, None)
    (message,) = messages(asked["Who?"], prompt, "cot", shots=shown)
    assert "The answer is Washington, D.C.\n" in message["content"] and "The answer is 1990." in message["content"]
    for question in ("Where?", "When?"):
        (message,) = messages(asked[question], prompt, "cot", shots=shown)
        assert message["content"].count(f"Question: {question}") == 1
        with pytest.raises(UserError, match="is an item of the test split"):
            refuse_shown({"x": asked[question]}, shown, tmp_path)


def test_an_exported_task_judges_free_text_as_the_study_does():
    document = {"kind": "text", "choices": [], "answer": "The U.S. Army"}
    right = process_results(document, ["First it was the navy. Now the answer is US Army, because it grew."])
    assert (right["strict"], right["unanimous"], right["legacy"], right["committed"]) == (1, 1, 0, 1)
    assert process_results(document, ["The answer is the navy."])["strict"] == 0


def write_text_study(folder, model):
    """The tiny study with a benchmark whose answers are colours as free text, in place of `boxes`."""
    path, config = make_study(folder, model)
    rows = [json.loads(line) for line in (folder / "boxes.jsonl").read_text().splitlines()]
    rows = [{"q": row["question"], "a": f"The {(row['one'], row['two'])[row['label']].title()}."} for row in rows]
    (folder / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config["benchmarks"]["colours"] = {
        "title": "Colours",
        "kind": "text",
        "files": {"all": {"source": "file:colours.jsonl", "licence": "none"}},
        "fields": TEXT,
        "near_duplicate": 1.0,
        "splits": {"train": {"file": "all", "size": 30}, "test": {"file": "all", "size": 20}},
        "shots": {"examples": [{"question": "Box X is grey today.", "answer": "[grey]"}]},
    }
    config["prompts"]["text"] = {"instruction": "Name the colour."}
    config["study"] |= {"tasks": ["colours"], "evaluate": ["colours", "far"]}
    config["evaluation"] |= {"samples": 3, "temperature": 1.0}
    config["teachers"]["oracle"]["request"] = {"text": "Be brief."}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    prompt = TaskPrompt(**config["prompts"]["text"], shots=Shots(**config["benchmarks"]["colours"]["shots"]))
    mapping = Mapping.model_validate({"kind": "text", "fields": TEXT})
    items = {item["id"]: item for item in (to_item(row, "raw", mapping) for row in rows)}
    generation = Generation(**config["teachers"]["oracle"]["generation"])
    shots = items_to_show(prompt, None)
    recorded = read_jsonl(folder / "oracle.jsonl")
    for request in requests_for(items, prompt, "cot", 1, generation, 0, request="Be brief.", shots=shots):
        said = items[request.id.split("-")[0]]["answer"].removeprefix("The ").lower()
        answer = {"text": f"The answer is {said}", "finish_reason": "stop", "tokens": 6, "prompt_tokens": 40}
        recorded.append({"key": request.key, "id": request.id, **answer})
    write_jsonl(folder / "oracle.jsonl", recorded)


@pytest.mark.model
def test_a_study_of_free_text_runs_from_preview_to_page(tiny_model, tmp_path):
    write_text_study(tmp_path, tiny_model)
    given = ("--configfile", "config/tiny.yaml")
    shown = run("python", "scripts/study.py", "preview", "colours", *given, cwd=tmp_path).stdout
    assert "=> correct answer: The " in shown and "Name the colour." in shown and "The answer is [grey]." in shown
    assert "answers: 5 different ones, the longest of 10 characters; the most common:" in shown
    assert "evaluate" in run("python", "scripts/study.py", "plan", *given, cwd=tmp_path).stdout
    assert "prepare" in snakemake(tmp_path, "-n").stdout
    snakemake(tmp_path)
    figures = read_json(artifact(tmp_path, "teach/oracle/colours-train-cot") / "record.json")["figures"]
    assert figures["paths"]["cot"]["correct"] == 30
    samples = artifact(tmp_path, "evaluate/tiny/oracle-colours-100-seed0/colours") / "samples.jsonl"
    rows = read_jsonl(samples)
    assert len(rows) == 60 and {row["target"] for row in rows} <= {f"The {colour.title()}." for colour in COLOURS}
    assert all(row["strict"] == (row["extracted"] == row["target"][4:-1].lower()) for row in rows)
    assert 0 < sum(row["strict"] for row in rows) < 60
    assert "The Red." in (tmp_path / "results/tiny/index.html").read_text()
    # Votes for an answer are counted in the form in which answers are compared.
    with open(tmp_path / "results/tiny/tables/pass_at_k.csv") as file:
        table = [row for row in csv.DictReader(file) if row["arm"] == "instruct" and row["evaluation"] == "colours"]
    assert {(row["measure"], row["k"]) for row in table} >= {("maj", "3"), ("pass", "3")}
