"""What a benchmark's files and rows may look like, and that none of it is misread in silence."""

import gzip
import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from selfrefine.data.duplicates import near_duplicates
from selfrefine.data.lookup import Unmapped
from selfrefine.data.mapping import to_item
from selfrefine.data.raw_rows import read_raw_rows
from selfrefine.data.splits import prepare
from selfrefine.errors import UserError
from selfrefine.schema.benchmark import Benchmark, Mapping
from selfrefine.schema.source import RawFile, Reading
from selfrefine.schema.stages import PrepareSettings

MATH = {"question": "q", "answer": "a", "answer_is": "number"}
CHOICE = {"question": "q", "choices": "c", "answer": "a", "answer_is": "label"}
ROW = {"q": "Which?", "c": ["x", "y", "z"], "a": "B"}


def mapped(row: dict, fields: dict, **more) -> dict:
    kind = "math" if fields.get("answer_is") == "number" else "choice"
    return to_item(row, "raw:7", Mapping(kind=kind, fields=fields, **more))


def found(row: dict, fields: dict, **more) -> tuple:
    item = mapped(row, fields, **more)
    return item["question"], item["choices"], item["answer"]


def settings(fields: dict, split: str = "test", **more) -> PrepareSettings:
    kind = "math" if fields.get("answer_is") == "number" else "choice"
    return PrepareSettings(kind=kind, fields=fields, name=split, split={"file": "all"}, **more)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# Names.


@pytest.mark.parametrize(
    "name", ["Question Text", "question-text", "q.1", "Frage (deutsch)", "問題", "q/a", "1", " q", "q:"]
)
@pytest.mark.parametrize("form", ["{name}", "{{{name}}}", "Ann: {{{name}}}!"])
def test_fields_are_looked_up_by_exactly_their_names(name, form):
    template = form.format(name=name)
    expected = template.replace("{" + name + "}", "How many?") if "{" in template else "How many?"
    assert found({name: "How many?", "a": 2}, MATH | {"question": template}) == (expected, [], "2")


@pytest.mark.parametrize(
    "question", ["Question text", "{Question text}", "{Case} {Qestion}", "a.b", "{ Question Text }"]
)
def test_a_field_that_is_not_there_is_an_error_that_names_those_that_are(question):
    with pytest.raises(UserError, match="raw:7: field .* is missing .*'Case', 'Question Text', 'a'"):
        mapped({"Case": "Ann", "Question Text": "?", "a": 1}, MATH | {"question": question})


@pytest.mark.parametrize("template", ["{q", "q}", "{}", "{q} {", "{{q}", "{a{q}}"])
def test_a_brace_that_stands_alone_is_refused(template):
    with pytest.raises(ValueError, match="brace stands alone"):
        Mapping(kind="math", fields=MATH | {"question": template})


def test_doubled_braces_stand_for_themselves_and_values_keep_theirs():
    row = {"q": r"What is \frac{1}{2} of {n}?", "a": 1}
    assert found(row, MATH | {"question": "{{set}} {q}"})[0] == r"{set} What is \frac{1}{2} of {n}?"


# Rows without an answer, and other values that are none.


@pytest.mark.parametrize(
    "change",
    [
        {"a": None},
        {"a": float("nan")},
        {"a": ""},
        {"c": ["x", "", "z"]},
        {"c": ["x", None, "z"]},
        {"c": None},
        {"c": ["x", "\ud83d", "z"]},
        {"q": "What is \ud83d?"},
        {"a": "D"},
    ],
)
def test_rows_that_cannot_be_mapped_are_refused_by_line_or_dropped_and_counted(change, tmp_path):
    raw = write(tmp_path / "raw.jsonl", [ROW, {**ROW, "q": "Other?"} | change])
    with pytest.raises(UserError, match=r"raw\.jsonl:2: .*drop_unmapped") as caught:
        prepare(raw, settings(CHOICE))
    str(caught.value).encode("utf-8")
    items, counts = prepare(raw, settings(CHOICE, drop_unmapped=True))
    assert [item["question"] for item in items] == ["Which?"]
    assert counts["dropped"]["answer_unmapped"] == 1


def test_an_optional_group_that_finds_nothing_is_unmapped():
    with pytest.raises(Unmapped):
        mapped({"q": "?", "a": "x"}, MATH | {"answer": {"field": "a", "pattern": r"x(\d+)?"}})


@pytest.mark.parametrize(("value", "gold"), [(145.0, "145"), (1e-05, "1e-05"), (2e16, "20000000000000000"), (-3, "-3")])
def test_numbers_of_json_are_golds(value, gold):
    assert float(mapped({"q": "?", "a": value}, MATH)["answer"]) == float(gold)


@pytest.mark.parametrize("key", ["2", "2.0", 2, 2.0])
def test_positions_that_a_table_made_decimal_are_positions(key):
    assert mapped(ROW | {"a": key}, CHOICE | {"answer_is": "index0"})["answer"] == "C"


# Files.

ROWS = [{"q": f"How many in box {i}?", "a": str(i)} for i in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
TABLE = "q,a\n" + "".join(f"{row['q']},{row['a']}\n" for row in ROWS)
BARE = TABLE.split("\n", 1)[1]
OTHERS = {
    "byte-order mark": lambda text: "\ufeff" + text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "blank last lines": lambda text: text + "\n\n  \n" if "{" in text else text + "\n\n",
    "no last line end": lambda text: text.rstrip("\n"),
    "all of it": lambda text: "\ufeff" + text.replace("\n", "\r\n") + "\r\n\r\n",
}


@pytest.mark.parametrize("how", OTHERS)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("raw.jsonl", LINES),
        ("raw.json", json.dumps(ROWS, indent=1) + "\n"),
        ("raw.csv", TABLE),
        ("raw.json", LINES),
        ("raw.tsv", TABLE.replace(",", "\t")),
    ],
)
def test_files_of_other_systems_are_read(name, text, how, tmp_path):
    (tmp_path / name).write_bytes(OTHERS[how](text).encode("utf-8"))
    assert [row for _, row in read_raw_rows(tmp_path / name)] == ROWS


@pytest.mark.parametrize(
    ("name", "text", "reading"),
    [
        ("raw.ndjson", LINES, {}),
        ("raw.JSONL", LINES, {}),
        ("raw.json", json.dumps({"examples": ROWS, "name": "boxes", "tags": ["x"]}), {}),
        ("raw.json", json.dumps({"a": {"b": ROWS}, "c": [{"d": 1}]}), {"rows": "a.b"}),
        ("raw.json", json.dumps({"data": [{"rows": ROWS[:1]}, {"rows": ROWS[1:]}]}), {"rows": "data[].rows[]"}),
        ("raw.csv", TABLE.replace(",", ";"), {"delimiter": ";"}),
        ("raw.csv", BARE, {"columns": ["q", "a"]}),
        ("raw.tsv", BARE.replace(",", "\t"), {"columns": ["q", "a"]}),
        ("raw.tsv", "q\ta\n" + "".join(f'"{row["q"]}"\t{row["a"]}\n' for row in ROWS), {}),
        ("raw.txt", LINES, {"format": "jsonl"}),
        ("raw", TABLE, {"format": "csv"}),
    ],
)
@pytest.mark.parametrize("is_packed", [False, True])
def test_shapes_of_files(name, text, reading, is_packed, tmp_path):
    path = tmp_path / (name + ".gz" if is_packed else name)
    path.write_bytes(gzip.compress(text.encode()) if is_packed else text.encode())
    assert [row for _, row in read_raw_rows(path, Reading(**reading))] == ROWS


def test_keyed_rows_keep_their_keys(tmp_path):
    (tmp_path / "raw.json").write_text(json.dumps({"first": ROWS[0], "second": ROWS[1]}))
    (one, row), (other, _) = read_raw_rows(tmp_path / "raw.json")
    assert (one.endswith(":first"), other.endswith(":second"), row) == (True, True, {"key": "first"} | ROWS[0])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("raw.csv", "q;a\nx;1\n", "delimiter"),
        ("raw.csv", "q,q\nx,1\n", "names q twice"),
        ("raw.csv", 'q,a\n"x\ny",1\nx,1,2\n', r"raw\.csv:4: more values \(3\)"),
        ("raw.tsv", "q\ta\nx\n", r"raw\.tsv:2: fewer values \(1\)"),
        ("raw.json", '{"a": [{}], "b": [{}]}', "several arrays .a, b.*`rows`"),
        ("raw.json", '{"a": 1}', "JSON array of objects"),
        ("raw.json", '{"a": 1}\n{"a": \n', r"raw\.json:2: "),
        ("raw.jsonl", '\n\n{"a": 1}\n3\n', r"raw\.jsonl:4: expected a JSON object, found int"),
    ],
)
def test_files_that_cannot_be_read_are_refused_by_line(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_raw_rows(tmp_path / name)


def test_a_damaged_gzip_file_is_refused_by_name(tmp_path):
    (tmp_path / "raw.jsonl.gz").write_bytes(gzip.compress(LINES.encode())[:-12])
    with pytest.raises(UserError, match=r"raw\.jsonl\.gz: damaged gzip"):
        read_raw_rows(tmp_path / "raw.jsonl.gz")


def test_quotes_of_a_tsv_file_stand_for_themselves(tmp_path):
    (tmp_path / "raw.tsv").write_text('q\ta\n"Hello" he said\t1\n5" nails\t2\n')
    assert [row["q"] for _, row in read_raw_rows(tmp_path / "raw.tsv")] == ['"Hello" he said', '5" nails']


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"source": "file:mine.xlsx"}, "unknown format '.xlsx'"),
        ({"source": "file:mine"}, "unknown format ''"),
        ({"source": "file:mine.jsonl.xz"}, "unknown format '.xz'"),
        ({"source": "file:mine.jsonl", "columns": ["q", "a"]}, "columns"),
        ({"source": "file:mine.csv", "columns": ["q", "q"]}, "twice"),
        ({"source": "file:mine.csv", "rows": "a"}, "rows"),
        ({"source": "file:mine.json", "rows": "a["}, "JMESPath"),
        ({"source": "file:mine.tsv", "delimiter": ";"}, "delimiter"),
    ],
)
def test_files_that_cannot_be_meant_are_refused_in_the_configuration(file, message):
    with pytest.raises(ValueError, match=message):
        RawFile(**file)


def test_settings_of_a_benchmark_that_uses_no_new_key_are_what_they_were():
    fields = {"question": "q", "answer": {"field": "a", "pattern": "(x)"}, "answer_is": "number"}
    whole = settings(fields).model_dump()
    assert set(whole) == {"kind", "fields", "drop_unmapped", "near_duplicate", "name", "split"}
    assert whole["fields"]["answer"] == {"field": "a", "pattern": "(x)"}
    assert RawFile(source="file:x.csv").model_dump().keys() == {"source", "parts", "sha256", "licence"}


# Shapes of rows: (row, fields, choices, answer).

SHAPES = {
    "objects with labels": (
        {
            "question": {"stem": "Which?", "choices": [{"label": "1", "text": "x"}, {"label": "2", "text": "y"}]},
            "key": "2",
        },
        {
            "question": "question.stem",
            "choices": {"path": "question.choices[].text"},
            "labels": {"path": "question.choices[].label"},
            "answer": "key",
            "answer_is": "label",
        },
        ["x", "y"],
        "B",
    ),
    "keys of target_scores": (
        {"q": "Which?", "target_scores": {"x": 0, "y": 1, "z": 0}},
        {
            "question": "q",
            "choices": {"path": "keys(target_scores)"},
            "answer": "target_scores",
            "answer_is": "scores",
        },
        ["x", "y", "z"],
        "B",
    ),
    "a truth for each option": (
        {"q": "Which?", "o": [{"t": "x", "ok": False}, {"t": "y", "ok": True}]},
        {"question": "q", "choices": {"path": "o[].t"}, "answer": {"path": "o[].ok"}, "answer_is": "scores"},
        ["x", "y"],
        "B",
    ),
    "the text of the correct one": (
        {"q": "Which?", "o": [{"t": "x", "ok": False}, {"t": "y", "ok": True}]},
        {"question": "q", "choices": {"path": "o[].t"}, "answer": {"path": "o[?ok].t | [0]"}, "answer_is": "text"},
        ["x", "y"],
        "B",
    ),
    "an answer in a list": (
        {"q": "Which?", "c": ["x", "y"], "answers": ["B"]},
        CHOICE | {"answer": {"path": "answers[0]"}},
        ["x", "y"],
        "B",
    ),
    "a correct text and distractors": (
        {"q": "Which?", "right": "x", "distractors": ["y", "z"]},
        {"question": "q", "choices": {"path": "[right, distractors][]"}, "answer": "right", "answer_is": "text"},
        ["x", "y", "z"],
        "A",
    ),
    "constant options and a truth": (
        {"q": "Which?", "a": False},
        {
            "question": "q",
            "choices": {"options": ["yes", "no"]},
            "answer": {"field": "a", "values": {True: "yes", False: "no"}},
            "answer_is": "text",
        },
        ["yes", "no"],
        "B",
    ),
    "constant options and a truth in a table": (
        {"q": "Which?", "a": "True"},
        {
            "question": "q",
            "choices": {"options": ["yes", "no"]},
            "answer": {"field": "a", "values": {True: "A", False: "B"}},
            "answer_is": "label",
        },
        ["yes", "no"],
        "A",
    ),
    "a number for each option": (
        {"q": "Which?", "c": [1, 2.5, True], "a": 2.5},
        CHOICE | {"answer_is": "text"},
        ["1", "2.5", "true"],
        "B",
    ),
    "values of options": (
        {"q": "Which?", "c": ["e", "c"], "a": "c"},
        CHOICE
        | {
            "choices": {"field": "c", "values": {"e": "entailed", "c": "contradicted"}},
            "answer": {"field": "a", "values": {"c": "contradicted"}},
            "answer_is": "text",
        },
        ["entailed", "contradicted"],
        "B",
    ),
    "labels in each option": (
        {"q": "Which?", "c": ["A)21", "B) 21.5"], "a": "B"},
        CHOICE | {"choices": {"field": "c", "pattern": r"^([A-E])\)\s*(.*)$"}},
        ["21", "21.5"],
        "B",
    ),
    "a pattern for each option": (
        {"q": "Which?", "c": ["(i) x", "(ii) y"], "a": 1},
        CHOICE | {"choices": {"field": "c", "pattern": r"^\(\w+\) (.*)$"}, "answer_is": "index0"},
        ["x", "y"],
        "B",
    ),
    "small labels in one text": (
        {"q": "Which?", "c": "a ) 38 , b ) 27 , c ) none of these", "a": "c"},
        CHOICE | {"choices": {"field": "c", "pattern": r"([a-e]) \) (.*?)(?= , [a-e] \)|$)"}},
        ["38", "27", "none of these"],
        "C",
    ),
    "templates": (
        {"q": "Which?", "one": "x", "two": "y", "unit": "kg", "side": "y"},
        {
            "question": "q",
            "choices": ["{one} {unit}", {"template": "{two} {unit}"}],
            "answer": "{side} {unit}",
            "answer_is": "text",
        },
        ["x kg", "y kg"],
        "B",
    ),
    "columns with blanks": (
        {"q": "Which?", "Option 1": "x", "Option-2": "y", "The Key": "B"},
        {"question": "q", "choices": ["Option 1", "Option-2"], "answer": "The Key", "answer_is": "label"},
        ["x", "y"],
        "B",
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_rows(shape):
    row, fields, choices, answer = SHAPES[shape]
    assert found(row, fields) == ("Which?", choices, answer)


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"answer": {"path": "answers[5]"}}, "empty"),
        ({"answer": {"field": "a", "values": {"x": "A"}}}, "'B' is none of `values`"),
        ({"choices": {"field": "c", "pattern": r"^(\d)$"}}, "option 'x' does not match"),
        ({"answer": "c", "answer_is": "scores"}, "not a score for each"),
    ],
)
def test_values_that_a_mapping_does_not_foresee_are_unmapped(change, answer):
    with pytest.raises(Unmapped, match=answer):
        mapped(ROW, CHOICE | change)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"choices": {"options": [True, False]}}, "quote the words"),
        ({"answer": {"field": "a", "values": {"t": True}}}, "quote the words"),
        ({"choices": {"path": "c["}}, "not a JMESPath expression"),
        ({"choices": {"pattern": "(x)"}}, "needs one of field, path, template, options"),
        ({"choices": {"field": "c", "path": "c"}}, "it has field and path"),
        ({"choices": {"options": ["x", "y"], "pattern": "(x)"}}, "go without pattern"),
        ({"answer": {"options": ["x", "y"]}}, "only choices"),
        ({"answer": "{a"}, "brace stands alone"),
    ],
)
def test_mappings_that_cannot_be_meant_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Mapping(kind="choice", fields=CHOICE | fields)


# Rows that are taken.


def test_rows_are_taken_where_an_expression_is_true(tmp_path):
    raw = write(tmp_path / "raw.jsonl", [row | {"level": i} for i, row in enumerate(ROWS)])
    items, counts = prepare(raw, settings(MATH, where="level == `2`"))
    assert ([item["answer"] for item in items], counts["dropped"]["filtered"]) == (["2"], 2)
    assert prepare(raw, settings(MATH, where="level"))[1]["items"] == 3
    with pytest.raises(UserError, match=r"no usable row among 3 \(3 are left out by `where`\)"):
        prepare(raw, settings(MATH, where="levle == `2`"))
    with pytest.raises(UserError, match=r"raw\.jsonl:1: .* cannot be evaluated"):
        prepare(raw, settings(MATH, where="contains(level, 'x')"))
    with pytest.raises(ValueError, match="JMESPath"):
        settings(MATH, where="level = 5")


# Golds that never move.


def first_is_correct(number: int) -> list[dict]:
    return [{"q": f"Question {i}?", "c": [f"{i}{word}" for word in "xyz"], "a": 0} for i in range(number)]


FIRST = CHOICE | {"answer_is": "index0"}


def test_a_file_whose_correct_option_never_moves_is_refused(tmp_path):
    raw = write(tmp_path / "raw.jsonl", first_is_correct(20))
    with pytest.raises(UserError, match="the correct option is A in all of 20 rows.*shuffle: true"):
        prepare(raw, settings(FIRST))
    assert prepare(write(raw, first_is_correct(19)), settings(FIRST))[1]["answers"] == {"A": 19}


def test_options_are_shuffled_by_item_and_the_same_each_time(tmp_path):
    rows = first_is_correct(300)
    items, counts = prepare(write(tmp_path / "raw.jsonl", rows), settings(FIRST, shuffle=True))
    again, _ = prepare(write(tmp_path / "raw.jsonl", rows[::-1]), settings(FIRST, shuffle=True))
    assert items == again
    assert "options_shuffled_by" in counts
    assert all(item["choices"]["ABC".index(item["answer"])].endswith("x") for item in items)
    assert all(70 < number < 130 for number in Counter(item["answer"] for item in items).values())
    assert len(counts["answers"]) == 3
    one = next(row for row in rows if row["q"] == items[0]["question"])
    assert to_item(one, "x:1", Mapping(kind="choice", fields=FIRST, shuffle=True)) == items[0]


def test_shuffling_needs_options():
    with pytest.raises(ValueError, match="shuffle"):
        Mapping(kind="math", fields=MATH, shuffle=True)


# Items that repeat others.


@pytest.mark.parametrize(
    ("test", "train"),
    [
        ("小明有12个苹果，给了小红5个，他还剩下多少个苹果？", "小明有12个苹果，给了小红5个，他现在还剩下多少个苹果？"),
        (
            "太郎はりんごを12個持っていて、花子に5個あげました。残りは何個ですか。",
            "太郎はりんごを12個持っていて、花子に5個あげました。残りは今何個ですか。",
        ),
        (
            "สมชายมีแอปเปิ้ล 12 ลูก ให้สมหญิงไป 5 ลูก เขาเหลือแอปเปิ้ลกี่ลูก",
            "สมชายมีแอปเปิ้ล 12 ลูก ให้สมหญิงไป 5 ลูก ตอนนี้เขาเหลือแอปเปิ้ลกี่ลูก",
        ),
        ("小明有１２个苹果，他还剩下多少个苹果？", "小明有12个苹果,他还剩下多少个苹果?"),
        ("Wie viele Äpfel hat Zoë jetzt?", unicodedata.normalize("NFD", "Wie viele Äpfel hat Zoë jetzt?")),
    ],
)
def test_near_duplicates_in_all_scripts(test, train):
    held_out = [{"id": "test", "question": test, "choices": []}]
    assert near_duplicates([{"id": "train", "question": train, "choices": []}], held_out, 0.8) == {"train"}


@pytest.mark.parametrize(
    ("test", "train"),
    [
        ("小明有12个苹果，给了小红5个，他还剩下多少个苹果？", "小明有30个苹果，给了小红7个，他还剩下多少个苹果？"),
        ("小明有12个苹果，给了小红5个，他还剩下多少个苹果？", "一辆汽车每小时行驶60公里，3小时行驶多少公里？"),
        ("สมชายมีแอปเปิ้ล 12 ลูก", "รถยนต์วิ่งได้ 60 กิโลเมตรต่อชั่วโมง"),
    ],
)
def test_other_questions_are_no_near_duplicates(test, train):
    held_out = [{"id": "test", "question": test, "choices": []}]
    assert near_duplicates([{"id": "train", "question": train, "choices": []}], held_out, 0.8) == set()


def test_composed_and_decomposed_letters_are_one_question(tmp_path):
    text = "Wie viele Äpfel hat Zoë?"
    rows = [{"q": unicodedata.normalize(form, text), "a": 3} for form in ("NFC", "NFD")]
    items, counts = prepare(write(tmp_path / "raw.jsonl", rows), settings(MATH))
    assert ([item["question"] for item in items], counts["dropped"]["repeated"]) == ([text], 1)


def test_a_training_split_repeats_no_benchmarks_test_items_and_counts_by_benchmark(tmp_path):
    rows = [
        {"q": f"{w}a {w}b {w}c {w}d {w}e {w}f?", "c": [w + "x", w + "y"], "a": "AB"[i % 2]}
        for i, w in enumerate("klmnop")
    ]
    train = write(tmp_path / "train.jsonl", rows)
    turned = {**rows[0], "c": rows[0]["c"][::-1], "a": "B"}
    own, _ = prepare(write(tmp_path / "own.jsonl", [rows[1]]), settings(CHOICE))
    far, _ = prepare(write(tmp_path / "far.jsonl", [turned, rows[1], rows[2]]), settings(CHOICE))
    items, counts = prepare(train, settings(CHOICE, "train"), {"own": own, "far": far})
    assert {item["question"][0] for item in items} == set("nop")
    assert counts["dropped"]["in_test"] == 3
    assert counts["held_apart_from"] == {
        "own": {"in_test": 1, "near_duplicate_of_test": 0},
        "far": {"in_test": 3, "near_duplicate_of_test": 0},
    }


def test_a_benchmark_of_every_new_key_is_valid():
    Benchmark(
        title="Mine",
        kind="choice",
        files={"all": {"source": "file:mine.TSV.gz", "columns": ["q", "x", "y", "a"]}},
        fields={"question": "q", "choices": ["x", "y"], "answer": "a", "answer_is": "text"},
        where="q != ''",
        shuffle=True,
        splits={"test": {"file": "all"}},
    )
