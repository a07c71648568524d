import json
from pathlib import Path

import pytest
import yaml

from selfrefine.data.duplicates import near_duplicates
from selfrefine.data.items import known_item, read_items, subset
from selfrefine.data.mapping import to_item
from selfrefine.data.splits import prepare
from selfrefine.errors import UserError
from selfrefine.schema.benchmark import Mapping
from selfrefine.schema.stages import PrepareSettings

REPOSITORY = Path(__file__).parent.parent
HUB = REPOSITORY / "tests/fixtures/hub"
CATALOGUE = yaml.safe_load((REPOSITORY / "config/benchmarks.yaml").read_text())["benchmarks"]
LETTERS = "ABCD"


def mapping_of(name: str) -> dict:
    return {key: value for key, value in CATALOGUE[name].items() if key in Mapping.model_fields}


def settings_of(name: str, split: str = "test", **changes) -> PrepareSettings:
    return PrepareSettings(**mapping_of(name), name=split, split={"file": "all"} | changes)


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(name: str) -> list[dict]:
    return [json.loads(line) for line in (HUB / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


SUM = {"kind": "math", "fields": {"question": "question", "answer": "answer", "answer_is": "number"}}
PICK = {
    "kind": "choice",
    "fields": {"question": "question", "choices": "options", "answer": "answer", "answer_is": "label"},
}
WORDS = ("oak", "elm", "ash", "fir", "yew", "bay", "fig", "may", "hop", "rye")


def word_of(i: int) -> str:
    return WORDS[i // 10] + WORDS[i % 10]


def question_of(i: int) -> str:
    return " ".join(word_of(i) + ending for ending in ("is", "ed", "ing", "er"))


def sums(number: int) -> list[dict]:
    return [{"question": question_of(i), "answer": i} for i in range(number)]


def picks(number: int) -> list[dict]:
    return [
        {"question": question_of(i), "options": [word_of(i) + letter for letter in LETTERS], "answer": LETTERS[i % 4]}
        for i in range(number)
    ]


def split(raw: Path, mapping: dict, name: str, held_out=(), **settings) -> tuple[list[dict], dict]:
    return prepare(
        raw, PrepareSettings(**mapping, name=name, split={"file": "all", **settings}), {"own": list(held_out)}
    )


def ids(items: list[dict]) -> list[str]:
    return [item["id"] for item in items]


# question, number of choices, one choice, answer of each of the three records in tests/fixtures/hub
HUB_ITEMS = {
    "csqa-hub": [
        ("Where would a baker leave dough to rise overnight?", 5, "fridge", "B"),
        ("What does a lighthouse keeper watch for?", 5, "ships", "E"),
        ("The piano tuner needed silence, so he closed the what?", 5, "window", "A"),
    ],
    "obqa-hub": [
        ("A puddle on a warm pavement disappears because its water", 4, "evaporates", "B"),
        ("Which of these needs sunlight to make its food?", 4, "a fern", "D"),
        ("A magnet would pull hardest on", 4, "an iron nail", "A"),
    ],
    "piqa-hub": [
        (
            "How do you keep cut apples from turning brown?",
            2,
            "Sprinkle them with lemon juice, then cover the bowl.",
            "A",
        ),
        ("loosen a tight jar lid", 2, "run hot water over the lid. Then twist.", "B"),
        ("To hang a picture straight,", 2, "use a spirit level", "A"),
    ],
    "siqa-hub": [
        (
            "Noor lent her umbrella to a stranger at the bus stop. How would you describe Noor?",
            3,
            "kind",
            "B",
        ),
        (
            "Ivo burned the soup an hour before the guests came. What will Ivo want to do next?",
            3,
            "cook something else",
            "A",
        ),
        (
            "Mei practised the violin every morning for a year. Why did Mei do this?",
            3,
            "to play well at the concert",
            "C",
        ),
    ],
    "gsm8k": [
        ("A press prints 250 posters an hour for 5 hours. How many posters is that?", 0, None, "1250"),
        (
            "The night began at 4 degrees and became 7 degrees colder. How many degrees was it then?",
            0,
            None,
            "-3",
        ),
        ("Three friends share a bill of $13.50 equally. How many dollars does each pay?", 0, None, "4.5"),
    ],
    "multiarith": [
        ("Tom folded 7 paper boats and Ana folded 5. After 3 sank, how many floated?", 0, None, "9"),
        ("A farmer filled 6 crates with 8 melons each and ate 2 melons. How many were left?", 0, None, "46"),
        (
            "Lea had 40 stamps, gave away 12 and put the rest on 4 pages alike. How many are on a page?",
            0,
            None,
            "7",
        ),
    ],
    "math-500": [
        ("What is the greatest prime factor of $1001$?", 0, None, "13"),
        ("A clock shows 4:00. What is the smaller angle between its hands, in degrees?", 0, None, "120"),
        ("A ticket costs \\$4 more than half of \\$57. What does it cost?", 0, None, "32.5"),
    ],
    "mmlu": [
        ("Which organ filters blood to make urine?", 4, "Kidney", "B"),
        ("For all real x, (x + 1)^2 - x^2 equals", 4, "2x + 1", "A"),
        ("A price ceiling below the equilibrium price leads to", 4, "a shortage", "D"),
    ],
    "svamp": [
        ("A baker had 18 rolls and sold 7 of them. How many rolls did the baker have left?", 0, None, "11"),
        ("Each of 6 shelves holds 24 books. How many books are on the shelves?", 0, None, "144"),
        ("Uma ran 2.5 miles on Monday and 4 miles on Friday How many miles did she run?", 0, None, "6.5"),
    ],
    "addsub": [
        ("Rosa picked 14 plums and Eli picked 9 plums . How many plums did they pick ?", 0, None, "23"),
        ("A rope of 12.5 feet lost 4 feet . How long is it now ?", 0, None, "8.5"),
        ("There were 40 gulls . 13 flew off . How many stayed ?", 0, None, "27"),
    ],
    "singleeq": [
        ("A crate weighs 3.25 pounds. What do 4 crates weigh?", 0, None, "13"),
        ("Ian shared 56 cards among 8 friends. How many did each get?", 0, None, "7"),
        ("A jacket of $45 is $12 cheaper today. What does it cost?", 0, None, "33"),
    ],
    "aqua": [
        ("A van drives 150 km in 3 hours. What is its speed?", 5, "50 km/h", "C"),
        ("What is 15% of 60?", 5, "9", "A"),
        ("The mean of 4, 8 and x is 9. What is x?", 5, "15", "E"),
    ],
    "arc-easy": [
        ("Which tool measures temperature?", 4, "a thermometer", "B"),
        ("What do roots do for a plant?", 3, "take in water", "A"),
        ("Which body gives off its own light?", 4, "the Sun", "D"),
    ],
    "arc-challenge": [
        ("What happens to most metals when they are heated?", 4, "They expand.", "A"),
        ("Which change is chemical?", 4, "wood burning", "C"),
        ("Which force slows a sliding box?", 4, "friction", "B"),
    ],
    "strategyqa": [
        ("Would a penguin win a flying contest?", 2, "no", "B"),
        ("Can two people play chess by letter?", 2, "yes", "A"),
        ("Would a spoon of frozen mercury melt in hot tea?", 2, "yes", "A"),
    ],
    "boolq": [
        (
            "Sea otters sleep on their backs in the water, and wrap themselves in kelp. do otters sleep in the water?",
            2,
            "yes",
            "A",
        ),
        ("Marlow lies a hundred miles inland. is the town on the coast?", 2, "no", "B"),
        ("The bridge of 1911 has two tracks and a footpath. can the bridge carry trains?", 2, "yes", "A"),
    ],
    "mmlu-pro": [
        ("Which of these is a vector?", 10, "velocity", "D"),
        ("A contract without consideration is usually", 10, "unenforceable", "J"),
        ("What is the derivative of x^2?", 3, "2x", "A"),
    ],
}


@pytest.mark.parametrize("name", HUB_ITEMS)
def test_hub_records_become_items(name):
    items, counts = prepare(HUB / f"{name}.jsonl", settings_of(name))
    found = {item["question"]: item for item in items}
    assert counts["read"] == counts["items"] == 3
    for text, number, right, answer in HUB_ITEMS[name]:
        item = found[text]
        assert item["kind"] == CATALOGUE[name]["kind"]
        assert item["answer"] == answer
        assert len(item["choices"]) == number
        if right:
            assert item["choices"]["ABCDEFGHIJ".index(answer)] == right


@pytest.mark.parametrize("name", HUB_ITEMS)
def test_every_benchmark_of_the_hub_catalogue_is_tried_with_the_files_it_names(name):
    from_hub = {n for n, e in CATALOGUE.items() if any(f["source"].startswith("hf:") for f in e["files"].values())}
    assert set(HUB_ITEMS) == from_hub
    for entry in CATALOGUE[name]["splits"].values():
        assert CATALOGUE[name]["files"][entry["file"]]["source"].endswith((".parquet", ".jsonl"))


@pytest.mark.parametrize(
    "answer", [r"\frac{14}{3}", r"(3, \frac{\pi}{2})", "p - q", r"\text{Evelyn}", "1, 2", "x=3", "11_2"]
)
def test_answers_of_math_that_are_no_numbers_are_dropped_and_counted(answer, tmp_path):
    rows = [*rows_of("math-500"), rows_of("math-500")[0] | {"problem": "Another?", "answer": answer}]
    items, counts = prepare(write_rows(tmp_path / "rows.jsonl", rows), settings_of("math-500"))
    assert (len(items), counts["dropped"]["answer_unmapped"]) == (3, 1)


@pytest.mark.parametrize("name", HUB_ITEMS)
def test_parquet_gives_the_same_items_as_json_lines(name, tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows_of(name)), tmp_path / "rows.parquet")
    assert prepare(tmp_path / "rows.parquet", settings_of(name), []) == prepare(
        HUB / f"{name}.jsonl", settings_of(name), []
    )


def test_json_array_and_csv_give_the_same_items_as_json_lines(tmp_path):
    rows = rows_of("multiarith")
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "rows.csv").write_text(
        "question,final_ans\n" + "".join(f'"{row["question"]}",{row["final_ans"]}\n' for row in rows)
    )
    expected = prepare(HUB / "multiarith.jsonl", settings_of("multiarith"))
    assert prepare(tmp_path / "rows.json", settings_of("multiarith"), []) == expected
    assert prepare(tmp_path / "rows.csv", settings_of("multiarith"), []) == expected


LETTERED = "\nA. a well?\nB. a barn\nC. the moon?\nD. a pond\nE. a road"


@pytest.mark.parametrize(
    ("name", "record", "question", "choices", "answer"),
    [
        (
            "asdiv",
            {"passage": "Ten hens lay.", "question": "How many eggs?", "answer": "9 eggs"},
            "Ten hens lay. How many eggs?",
            [],
            "9",
        ),
        ("asdiv", {"passage": "", "question": "How much?", "answer": "-1,250.50 dollars"}, "How much?", [], "-1250.5"),
        (
            "asdiv",
            {"passage": "A cake.", "question": "Which part?", "answer": "3/4"},
            "A cake. Which part?",
            [],
            "0.75",
        ),
        (
            "csqa",
            {"question": "Where is water?", "options": LETTERED, "answer": "D. a pond"},
            "Where is water?",
            ["a well", "a barn", "the moon", "a pond", "a road"],
            "D",
        ),
        (
            "siqa",
            {"passage": "Bo ran.", "question": "Why?", "options": "\nA. late\nB. bored\nC. ill", "answer": "C. ill"},
            "Bo ran. Why?",
            ["late", "bored", "ill"],
            "C",
        ),
        (
            "gsm_symbolic",
            {"question": "How many? Give the result as your final answer. Do not include units.", "answer": "44"},
            "How many?",
            [],
            "44",
        ),
    ],
)
def test_records_of_the_packaged_benchmarks_become_items(name, record, question, choices, answer):
    item = to_item(record, "raw.jsonl:1", Mapping(**mapping_of(name)))
    assert (item["question"], item["choices"], item["answer"]) == (question, choices, answer)


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("asdiv", {"passage": "", "question": "When?", "answer": "4:30 p.m."}),
        ("asdiv", {"passage": "", "question": "Which two?", "answer": "3 cats; 4 dogs"}),
        ("asdiv", {"passage": "", "question": "Who?", "answer": "Ann"}),
        ("csqa", {"question": "Where?", "options": "\nC. a well\nD. a barn", "answer": "C. a well"}),
    ],
)
def test_packaged_benchmarks_leave_out_and_count_what_has_no_single_answer(name, record, tmp_path):
    good = {"passage": "", "question": "Where is it?", "options": LETTERED, "answer": "B. a barn"}
    if name == "asdiv":
        good["answer"] = "5"
    items, counts = prepare(write_rows(tmp_path / "raw.jsonl", [record, good]), settings_of(name))
    assert len(items) == 1
    assert counts["dropped"]["answer_unmapped"] == 1


def test_options_with_labels_of_their_own_become_letters():
    fields = {"question": "q", "choices": "c", "labels": "l", "answer": "a", "answer_is": "label"}
    record = {"q": "Which?", "c": ["x", "y", "z"], "l": ["1", "2", "3"], "a": "3"}
    assert to_item(record, "raw:1", Mapping(kind="choice", fields=fields))["answer"] == "C"


@pytest.mark.parametrize(
    ("answer_is", "given", "expected"),
    [("text", "y", "B"), ("index0", 2, "C"), ("index1", "1", "A"), ("label", "B", "B")],
)
def test_answer_is_given_by_text_place_or_label(answer_is, given, expected):
    fields = {"question": "q", "choices": "c", "answer": "a", "answer_is": answer_is}
    record = {"q": "Which?", "c": ["x", "y", "z"], "a": given}
    assert to_item(record, "raw:1", Mapping(kind="choice", fields=fields))["answer"] == expected


# benchmark, what is changed in its second record (None: the key is taken away), what the error must name
BAD_RECORDS = [
    ("csqa-hub", {"question": None}, "'question' is missing"),
    ("csqa-hub", {"choices": {"label": ["A", "B"]}}, "'choices.text' is missing"),
    ("csqa-hub", {"choices": {"text": ["x", "y"]}}, "'choices.label' is missing"),
    ("csqa-hub", {"answerKey": None}, "'answerKey' is missing"),
    ("csqa-hub", {"answerKey": "F"}, "answer key 'F'"),
    ("csqa-hub", {"answerKey": ""}, "answer key ''"),
    ("csqa-hub", {"question": "  \t"}, "question is empty"),
    ("csqa-hub", {"choices": {"label": ["A", "B", "C"], "text": ["x", " ", "z"]}}, "option B is empty"),
    ("csqa-hub", {"choices": {"label": ["A"], "text": ["x"]}}, "2 to 26 options"),
    ("csqa-hub", {"choices": {"label": "A", "text": "x"}}, "2 to 26 options"),
    ("obqa-hub", {"question_stem": None}, "'question_stem' is missing"),
    ("obqa-hub", {"answerKey": "E"}, "answer key 'E'"),
    ("piqa-hub", {"sol2": None}, "'sol2' is missing"),
    ("piqa-hub", {"sol1": ""}, "option A is empty"),
    ("piqa-hub", {"label": 2}, "answer key '2'"),
    ("piqa-hub", {"label": -1}, "answer key '-1'"),
    ("siqa-hub", {"context": None}, "'context' is missing"),
    ("siqa-hub", {"label": "0"}, "answer key '0'"),
    ("siqa-hub", {"label": "4"}, "answer key '4'"),
    ("gsm8k", {"answer": "no mark of the end"}, "answer 'no mark of the end' does not match"),
    ("gsm8k", {"answer": "#### many"}, "answer 'many' is not a number"),
    ("multiarith", {"final_ans": None}, "'final_ans' is missing"),
    ("multiarith", {"final_ans": ""}, "answer '' is not a number"),
    ("multiarith", {"question": ""}, "question is empty"),
]


@pytest.mark.parametrize(("name", "change", "message"), BAD_RECORDS)
def test_bad_record_is_refused_with_file_line_and_key(name, change, message, tmp_path):
    rows = rows_of(name)
    rows[1] = {key: value for key, value in (rows[1] | change).items() if value is not None}
    raw = write_rows(tmp_path / "raw.jsonl", rows)
    with pytest.raises(UserError) as caught:
        prepare(raw, settings_of(name))
    assert str(caught.value).startswith(f"{raw}:2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"question": None},
        {"question": {"stem": "What?"}},
        {"choices": {"label": ["A", "B"], "text": ["x", None]}},
    ],
)
def test_null_or_object_in_place_of_text_is_refused(change, tmp_path):
    raw = write_rows(tmp_path / "raw.jsonl", [rows_of("csqa-hub")[0] | {"answerKey": "A"} | change])
    with pytest.raises(UserError, match=":1: "):
        prepare(raw, settings_of("csqa-hub"))


def test_mixed_number_is_not_read_as_another_one(tmp_path):
    raw = write_rows(tmp_path / "raw.jsonl", [{"question": "How many cups?", "answer": "1 1/2"}])
    try:
        items, _ = split(raw, SUM, "test")
    except UserError:
        return
    assert items[0]["answer"] == "1.5"


def test_invalid_utf8_is_refused_with_file_and_line(tmp_path):
    raw = tmp_path / "raw.jsonl"
    raw.write_bytes((HUB / "multiarith.jsonl").read_bytes() + b'{"question": "caf\xe9?", "final_ans": "3"}\n')
    with pytest.raises(UserError) as caught:
        prepare(raw, settings_of("multiarith"))
    assert str(caught.value).startswith(f"{raw}:4: ")
    assert "UTF-8" in str(caught.value)


def test_torn_last_line_is_refused_with_file_and_line(tmp_path):
    raw = tmp_path / "raw.jsonl"
    raw.write_bytes((HUB / "multiarith.jsonl").read_bytes()[:-20])
    with pytest.raises(UserError) as caught:
        prepare(raw, settings_of("multiarith"))
    assert str(caught.value).startswith(f"{raw}:3: ")
    assert "cut off" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("raw.csv", b"question,answer\nhow,1,2\n"),
        ("raw.csv", b"question,answer\nhow\n"),
        ("raw.csv", b"question,answer\nh\xff,1\n"),
        ("raw.parquet", b"PAR1"),
    ],
)
def test_damaged_table_is_refused_with_its_name(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        split(tmp_path / name, SUM, "test")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("raw.txt", "x", "unknown format '.txt'"),
        ("raw.json", "{}", "JSON array"),
        ("raw.json", "[1]", "raw.json:1: "),
        ("raw.jsonl", "", "no usable row among 0"),
        ("raw.jsonl", "[1]\n", "raw.jsonl:1: expected a JSON object, found list"),
    ],
)
def test_file_without_records_is_refused(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        split(tmp_path / name, SUM, "test")
    assert message in str(caught.value)


def test_unmapped_records_are_refused_or_dropped_and_counted(tmp_path):
    raw = write_rows(tmp_path / "raw.jsonl", [*sums(3), {"question": "When is it?", "answer": "noon"}])
    with pytest.raises(UserError, match=":4: .*drop_unmapped"):
        split(raw, SUM, "test")
    items, counts = split(raw, SUM | {"drop_unmapped": True}, "test")
    assert len(items) == 3
    assert counts["dropped"]["answer_unmapped"] == 1


def test_only_the_answer_may_be_unmapped(tmp_path):
    raw = write_rows(tmp_path / "raw.jsonl", [*sums(3), {"question": "", "answer": "1"}])
    with pytest.raises(UserError, match=":4: the question is empty"):
        split(raw, SUM | {"drop_unmapped": True}, "test")


def test_repeated_questions_are_kept_once_and_contradicted_ones_not_at_all(tmp_path):
    first, second, third = sums(3)
    rows = [
        first,
        second,
        first | {"question": first["question"].replace(" ", "  ")},
        third,
        second | {"answer": 999},
        second,
    ]
    items, counts = split(write_rows(tmp_path / "raw.jsonl", rows), SUM, "test")
    assert sorted(item["answer"] for item in items) == ["0", "2"]
    assert counts["read"] == 6
    assert counts["dropped"] == {"answer_unmapped": 0, "repeated": 3, "contradictory_answers": 1}


def test_equal_numbers_written_differently_do_not_contradict(tmp_path):
    rows = [{"question": "How many?", "answer": "1,000"}, {"question": "How many?", "answer": "1000.0"}]
    items, counts = split(write_rows(tmp_path / "raw.jsonl", rows), SUM, "test")
    assert [item["answer"] for item in items] == ["1000"]
    assert counts["dropped"]["contradictory_answers"] == 0


def test_id_depends_on_question_and_choices_alone():
    mapping = Mapping(**PICK)
    record = {"question": "Which one?", "options": ["x", "y"], "answer": "A"}
    item_id = to_item(record, "a:1", mapping)["id"]
    assert to_item(record | {"answer": "B"}, "b:9", mapping)["id"] == item_id
    assert to_item(record | {"question": "Which  one? "}, "a:1", mapping)["id"] == item_id
    assert to_item(record | {"question": "Which two?"}, "a:1", mapping)["id"] != item_id
    assert to_item(record | {"options": ["y", "x"]}, "a:1", mapping)["id"] != item_id


def test_ids_stay_the_same_in_later_versions():
    record = {"question": "What is 1 + 1?", "answer": 2}
    assert to_item(record, "a:1", Mapping(**SUM))["id"] == "ffad25d58b9f14cd"


def test_splits_do_not_depend_on_the_order_of_rows(tmp_path):
    rows = sums(60)
    forwards, backwards = write_rows(tmp_path / "a.jsonl", rows), write_rows(tmp_path / "b.jsonl", rows[::-1])
    test, _ = split(forwards, SUM, "test", size=20)
    assert split(backwards, SUM, "test", size=20)[0] == test
    assert split(backwards, SUM, "train", test, size=20) == split(forwards, SUM, "train", test, size=20)


def test_splits_of_one_file_are_disjoint(tmp_path):
    raw = write_rows(tmp_path / "raw.jsonl", sums(50))
    test, _ = split(raw, SUM, "test", size=20)
    train, counts = split(raw, SUM, "train", test, size=30)
    assert len(train) == 30
    assert not set(ids(test)) & set(ids(train))
    assert counts["dropped"]["in_test"] == 20


def test_splits_that_ask_for_more_than_there_is_are_refused(tmp_path):
    raw = write_rows(tmp_path / "raw.jsonl", sums(50))
    test, _ = split(raw, SUM, "test", size=20)
    with pytest.raises(UserError, match="'train': 31 items .* only 30"):
        split(raw, SUM, "train", test, size=31)
    with pytest.raises(UserError, match="'test': 51 items .* only 50"):
        split(raw, SUM, "test", size=51)


def test_training_split_of_which_nothing_is_left_is_refused(tmp_path):
    raw = write_rows(tmp_path / "raw.jsonl", picks(4))
    test, _ = split(raw, PICK, "test")
    for settings in ({"size": 4}, {"balance": True}, {}):
        with pytest.raises(UserError, match="'train'"):
            split(raw, PICK, "train", test, **settings)


@pytest.mark.parametrize(("mapping", "rows"), [(SUM, sums(80)), (PICK, picks(80))])
def test_enlarging_one_split_leaves_the_other_as_it_is(mapping, rows, tmp_path):
    raw = write_rows(tmp_path / "raw.jsonl", rows)
    small_test, _ = split(raw, mapping, "test", size=12)
    large_test, _ = split(raw, mapping, "test", size=24)
    small_train, _ = split(raw, mapping, "train", small_test, size=12)
    large_train, _ = split(raw, mapping, "train", small_test, size=24)
    assert set(ids(small_test)) < set(ids(large_test))
    assert set(ids(small_train)) < set(ids(large_train))
    assert split(raw, mapping, "train", large_test, size=12)[0] == small_train


def test_items_stand_in_the_order_of_their_ids(tmp_path):
    raw = write_rows(tmp_path / "raw.jsonl", picks(40))
    test, _ = split(raw, PICK, "test", size=8)
    train, _ = split(raw, PICK, "train", test, size=8)
    assert ids(test) == sorted(ids(test))
    assert ids(train) == sorted(ids(train))


def test_train_drops_and_counts_items_of_the_test_file_and_near_repeats_of_them(tmp_path):
    test_question = "Ann had 3 red apples and bought 4 green apples at the old market. How many has she?"
    same = {"question": test_question, "answer": "7"}
    other_numbers = {"question": test_question.replace("3", "12").replace("4", "1,250"), "answer": "1262"}
    other_case = {"question": test_question.upper().replace(".", " -"), "answer": "7"}
    other_words = {
        "question": "Bo sold 3 red boats and bought 4 green kites at the new harbour. How many?",
        "answer": "7",
    }
    test, _ = split(write_rows(tmp_path / "test.jsonl", [same]), SUM, "test")
    raw = write_rows(tmp_path / "train.jsonl", [same, other_numbers, other_case, other_words])
    train, counts = split(raw, SUM, "train", test)
    assert {item["question"] for item in train} == {other_numbers["question"], other_words["question"]}
    assert counts["dropped"]["in_test"] == 1
    assert counts["dropped"]["near_duplicate_of_test"] == 1


# Ten words are eight 3-grams. Another word at the end leaves seven: 7 / 9 = 0.78; in the middle five: 5 / 11 = 0.45.
@pytest.mark.parametrize(
    ("question", "threshold", "near"),
    [
        ("a b c d e f g h i j", 1.0, True),
        ("a b c d e f g h i x", 0.77, True),
        ("a b c d e f g h i x", 0.78, False),
        ("a b c d x f g h i j", 0.45, True),
        ("a b c d x f g h i j", 0.46, False),
    ],
)
def test_near_duplicates_by_hand_computed_jaccard_index(question, threshold, near):
    held_out = [{"id": "test", "question": "a b c d e f g h i j", "choices": []}]
    found = near_duplicates([{"id": "train", "question": question, "choices": []}], held_out, threshold)
    assert found == ({"train"} if near else set())


def test_short_questions_with_other_options_are_no_near_duplicates():
    held_out = [{"id": "test", "question": "Pick one", "choices": ["a red kite", "a blue boat"]}]
    other = {"id": "train", "question": "Pick one", "choices": ["two old shoes", "half a loaf of bread"]}
    assert near_duplicates([other], held_out, 0.8) == set()
    assert near_duplicates([held_out[0] | {"id": "same"}], held_out, 0.8) == {"same"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": 8}, {"A": 2, "B": 2, "C": 2, "D": 2}),
        ({"size": 10}, {"A": 3, "B": 3, "C": 2, "D": 2}),
        ({"balance": True}, {"A": 5, "B": 5, "C": 5, "D": 5}),
        ({}, {"A": 20, "B": 5, "C": 5, "D": 5}),
    ],
)
def test_answers_are_balanced(settings, expected, tmp_path):
    rows = picks(20)
    extra = [row | {"question": "more of " + row["question"], "answer": "A"} for row in picks(15)]
    items, counts = split(write_rows(tmp_path / "raw.jsonl", rows + extra), PICK, "test", **settings)
    assert counts["answers"] == expected
    assert len(items) == sum(expected.values())


def test_balance_that_cannot_be_had_is_refused_unless_it_is_switched_off(tmp_path):
    raw = write_rows(tmp_path / "raw.jsonl", picks(8) + [picks(9)[8]])
    with pytest.raises(UserError, match=r"3 items per answer .*\{'B': 2, 'C': 2, 'D': 2\}"):
        split(raw, PICK, "test", size=9)
    assert split(raw, PICK, "test", size=9, balance=False)[1]["items"] == 9


def test_subsets_are_nested_over_shares():
    names = [f"item{i}" for i in range(37)]
    subsets = [subset(names, share, seed=1) for share in (1, 10, 25, 50, 75, 100)]
    assert [len(found) for found in subsets] == [0, 4, 9, 18, 28, 37]
    assert all(small < large for small, large in zip(subsets, subsets[1:], strict=False))


def test_subset_depends_on_the_seed_but_not_on_the_order():
    names = [f"item{i}" for i in range(100)]
    assert subset(names, 30, seed=1) == subset(names[::-1], 30, seed=1)
    assert subset(names, 30, seed=1) != subset(names, 30, seed=2)


def test_prepared_items_are_read_by_id(tmp_path):
    items, _ = prepare(HUB / "piqa-hub.jsonl", settings_of("piqa-hub"))
    read = read_items(write_rows(tmp_path / "items.jsonl", items))
    assert list(read) == ids(items)
    assert known_item(read, {"id": "x", "item": items[1]["id"]}) == items[1]
    with pytest.raises(UserError, match="sample-7: .*0123"):
        known_item(read, {"id": "sample-7", "item": "0123"})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no item"),
        (
            [{"id": "1", "kind": "math", "question": "q", "choices": [], "answer": "1"}, {"id": "2"}],
            ":2: .*answer, choices",
        ),
    ],
)
def test_file_that_is_no_prepared_split_is_refused(rows, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_items(write_rows(tmp_path / "items.jsonl", rows))


@pytest.mark.parametrize(
    "mapping",
    [
        SUM | {"kind": "choice"},
        PICK | {"kind": "math"},
        {"kind": "choice", "fields": {"question": "q", "answer": "a", "answer_is": "label"}},
        {"kind": "math", "fields": {"question": "q", "choices": "c", "answer": "a", "answer_is": "number"}},
        {"kind": "math", "fields": {"question": "q", "answer": {"field": "a", "pattern": "x"}, "answer_is": "number"}},
    ],
)
def test_mapping_that_contradicts_itself_is_refused(mapping):
    with pytest.raises(ValueError, match="kind 'math' goes with|needs fields.choices|needs one"):
        Mapping(**mapping)


def test_a_split_can_leave_what_another_takes(tmp_path):
    """What a pilot evaluates are items that no study of up to `skip` test items does, nor near-duplicates of these."""
    raw = write_rows(tmp_path / "sums.jsonl", sums(60))
    tested, _ = split(raw, SUM, "test", size=20)
    others, counts = split(raw, SUM, "test", size=15, skip=20)
    smaller, _ = split(raw, SUM, "test", size=10, skip=20)
    assert len(others) == 15 and not set(ids(tested)).intersection(ids(others))
    assert set(ids(smaller)) < set(ids(others))
    assert counts["skipped"]["items"] == 20
    assert "skip" not in settings_of("gsm8k").model_dump()["split"]


@pytest.mark.parametrize("name", ["test", "train"])
def test_a_balanced_split_leaves_as_many_of_each_answer(name, tmp_path):
    raw, mapping = write_rows(tmp_path / "picks.jsonl", picks(80)), PICK
    taken, _ = split(raw, mapping, name, size=20)
    others, _ = split(raw, mapping, name, size=10, skip=20)
    assert len(others) == 10 and not set(ids(taken)).intersection(ids(others))
