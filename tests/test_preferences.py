"""Preference recipes and pairs: which responses are chosen and rejected, and which items yield none."""

import random
from pathlib import Path

import pytest
import yaml

from selfrefine.data.demonstrations import demonstrations
from selfrefine.schema.preference import Recipe, Schedule, Selection
from selfrefine.schema.stages import DemonstrateSettings, PairSettings
from selfrefine.training.pairs import make_pairs, validation_items

REPOSITORY = Path(__file__).parent.parent
CATALOGUE = yaml.safe_load((REPOSITORY / "config/recipes.yaml").read_text())
RECIPES = CATALOGUE["recipes"]
# Those that learn from pairs, not from what they sample as they learn.
PAIRED = {name: recipe for name, recipe in RECIPES.items() if "online" not in recipe}


def path(item: str, style: str, sample: int, text: str, correct: bool, finish_reason: str = "stop") -> dict:
    return {
        "id": f"{item}-{style}-{sample}",
        "item": item,
        "style": style,
        "text": text,
        "correct": correct,
        "finish_reason": finish_reason,
    }


def demonstration(item: str, text: str) -> dict:
    return {
        "id": f"{item}-teacher-0",
        "item": item,
        "text": text,
        "correct": True,
        "finish_reason": "stop",
        "tokens": 9,
    }


# One of each sort of response: by style, verdict and end.
PATHS = [
    path("item", "cot", 0, "cot right", True),
    path("item", "cot", 1, "cot wrong", False),
    path("item", "cot", 2, "cot right cut", True, "length"),
    path("item", "cot", 3, "cot wrong cut", False, "length"),
    path("item", "plain", 0, "plain right", True),
    path("item", "plain", 1, "plain wrong", False),
    path("item", "plain", 2, "plain right cut", True, "length"),
    path("item", "plain", 3, "plain wrong cut", False, "length"),
]
TAUGHT = [demonstration("item", "taught")]


def made(paths: list[dict], taught=(), preference=None, **settings) -> tuple[list[dict], dict]:
    whole = preference or RECIPES["cot"]
    selection = {name: value for name, value in whole.items() if name in Selection.model_fields}
    return make_pairs(paths, list(taught), PairSettings(preference=selection, **settings))


def texts(pairs: list[dict]) -> list[tuple[str, str]]:
    return [tuple(pair[side] and pair[side]["text"] for side in ("chosen", "rejected")) for pair in pairs]


PLAIN = {"plain right", "plain wrong", "plain right cut", "plain wrong cut"}
WRONG = {"cot wrong", "cot wrong cut"}


@pytest.mark.parametrize(
    ("name", "chosen", "rejected"),
    [
        ("cot", {"cot right"}, PLAIN),
        ("answer", {"taught"}, {"plain wrong", "plain wrong cut"}),
        ("correctness", {"cot right"}, WRONG),
        ("ipo", {"cot right"}, PLAIN),
        ("simpo", {"cot right"}, PLAIN),
        ("orpo", {"cot right"}, PLAIN),
        ("kto", {"cot right"}, WRONG),
        ("rft", {"cot right"}, {None}),
        ("rest-em-round", {"cot right"}, {None}),
        ("star-round", {"cot right"}, {None}),
        ("irpo-round", {"cot right"}, WRONG),
        ("spin-round", {"taught"}, WRONG | {"cot right", "cot right cut"}),
        ("format-tuning", {"taught"}, {None}),
    ],
)
def test_shipped_recipes_draw_on_these_responses_and_no_others(name, chosen, rejected):
    seen_chosen, seen_rejected = set(), set()
    for i in range(40):
        rows = [row | {"id": f"{i}-{row['id']}"} for row in PATHS]
        pairs, _ = made(rows, TAUGHT, RECIPES[name] | {"per_item": 1})
        assert len(pairs) == 1
        seen_chosen.add(texts(pairs)[0][0])
        seen_rejected.add(texts(pairs)[0][1])
    assert (seen_chosen, seen_rejected) == (chosen, rejected)


def test_every_shipped_recipe_is_tested_and_names_its_source():
    tested = next(mark for mark in test_shipped_recipes_draw_on_these_responses_and_no_others.pytestmark).args[1]
    assert {name for name, _, _ in tested} == set(PAIRED)
    assert all(Recipe(**recipe).cited for recipe in RECIPES.values())
    for schedule in CATALOGUE["schedules"].values():
        assert set(Schedule(**schedule).steps) <= set(RECIPES) and schedule["cited"]


def test_star_takes_a_rationale_only_where_no_chain_is_correct():
    given = [
        path("item", "rationale", i, text, right)
        for i, (text, right) in enumerate([("made up", False), ("told", True)])
    ]
    assert texts(made([*PATHS, *given], [], RECIPES["star-round"])[0]) == [("cot right", None)]
    assert texts(made([PATHS[1], *given], [], RECIPES["star-round"])[0]) == [("told", None)]
    assert made(given, [], RECIPES["star-round"] | {"chosen": {}, "fallback": None})[1]["dropped"]["no_chosen"] == 1


def test_unpaired_responses_count_on_their_own():
    right = [path("item", "cot", i, f"right {i}", True) for i in range(3)]
    wrong = [path("item", "cot", 3 + i, f"wrong {i}", False) for i in range(5)]
    recipe = RECIPES["kto"]
    pairs, counts = made([*right, *wrong], [], recipe)
    assert {text for text, _ in texts(pairs)} == {"right 0", "right 1", "right 2", None}
    assert len({text for _, text in texts(pairs)}) == len(pairs) == 4
    assert counts["rejected_correct"] == 0
    assert [text for _, text in texts(made(right, [], recipe)[0])] == [None] * 3
    assert [text for text, _ in texts(made(wrong, [], recipe)[0])] == [None] * 4
    assert made([path("item", "plain", 0, "A", True)], [], recipe)[1]["dropped"]["no_chosen"] == 1
    same = recipe | {"rejected": {"source": "student", "style": "any"}}
    assert texts(made([right[0]], [], same)[0]) == [("right 0", None)]


def test_supervised_recipes_take_each_distinct_correct_chain_once():
    rows = [path("item", "cot", i, f"chain {i % 3}", i != 2) for i in range(8)] + [path("item", "plain", 0, "A", True)]
    pairs, counts = made(rows, [], RECIPES["rft"])
    assert sorted(texts(pairs)) == [("chain 0", None), ("chain 1", None), ("chain 2", None)]
    assert (counts["pairs"], counts["rejected_correct"], counts["dropped"]["no_rejected"]) == (3, 0, 0)
    assert len(made(rows, [], RECIPES["rft"] | {"per_item": 2})[0]) == 2
    assert made([path("item", "cot", 0, "chain", False)], [], RECIPES["rft"])[1]["dropped"]["no_chosen"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rejected": None}, "name the `rejected` side"),
        ({"objective": {"margin": 1}}, "margin needs `reference: none`"),
        ({"objective": {"margin": 1, "reference": "none"}}, "and `loss: sigmoid_norm`"),
        ({"objective": {"loss": "sft", "nll": 1}}, "loss sft has neither"),
        ({"objective": {"loss": "kto", "nll": 1}}, "loss kto has no nll"),
        ({"objective": {"loss": "odds_ratio"}}, "needs `reference: none`"),
        ({"unpaired": True}, "only loss kto can learn"),
        ({"objective": {"loss": "dpo"}}, "Input should be 'sigmoid'"),
        ({"objective": {"gamma": 1}}, "Extra inputs"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**RECIPES["cot"] | change)


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_say_whether_they_need_a_teacher(name):
    assert Recipe(**RECIPES[name]).needs_teacher is (name in ("answer", "spin-round", "format-tuning"))


@pytest.mark.parametrize("name", PAIRED)
def test_a_recipe_that_falls_back_on_a_teacher_needs_one(name):
    assert Recipe(**RECIPES[name] | {"fallback": {"source": "teacher"}}).needs_teacher


def test_pair_says_where_its_responses_come_from():
    pairs, _ = made([PATHS[0], PATHS[5]], TAUGHT, RECIPES["cot"])
    assert pairs == [
        {
            "id": "item-0",
            "item": "item",
            "split": "train",
            "prompt": "cot",
            "chosen": {
                "id": "item-cot-0",
                "text": "cot right",
                "source": "student cot",
                "finished": True,
                "correct": True,
            },
            "rejected": {
                "id": "item-plain-1",
                "text": "plain wrong",
                "source": "student plain",
                "finished": True,
                "correct": False,
            },
        }
    ]
    pairs, _ = made([PATHS[5]], TAUGHT, RECIPES["answer"])
    assert pairs[0]["chosen"] == {
        "id": "item-teacher-0",
        "text": "taught",
        "source": "teacher",
        "finished": True,
        "correct": True,
    }


@pytest.mark.parametrize("name", PAIRED)
def test_cut_responses_are_never_chosen(name):
    rows = [row | {"finish_reason": "length"} for row in PATHS]
    pairs, counts = made(rows, [], RECIPES[name])
    assert [pair for pair in pairs if pair["chosen"]] == []
    if not RECIPES[name].get("unpaired"):
        assert pairs == []
        assert counts["dropped"] == {"no_chosen": 1, "no_rejected": 0, "same_text": 0}


def test_cut_responses_are_not_chosen_as_a_fallback_either():
    preference = RECIPES["correctness"] | {"fallback": {"source": "student", "style": "plain"}}
    pairs, counts = made([PATHS[1], PATHS[6], PATHS[7]], [], preference)
    assert pairs == []
    assert counts["dropped"]["no_chosen"] == 1


def test_cut_demonstrations_are_not_chosen_even_where_they_are_kept():
    cut = TAUGHT[0] | {"finish_reason": "length"}
    kept, _ = demonstrations([cut | {"extracted": "1"}], DemonstrateSettings(keep_cut=True))
    assert kept == [cut]
    assert made([PATHS[5]], kept, RECIPES["answer"])[0] == []


def test_incorrect_demonstrations_stay_incorrect_where_they_are_kept():
    wrong = TAUGHT[0] | {"correct": False}
    kept, _ = demonstrations([wrong | {"extracted": "1"}], DemonstrateSettings(keep_wrong=True))
    assert kept == [wrong]
    preference = RECIPES["answer"] | {"chosen": {"source": "teacher", "verdict": "correct"}}
    assert made([PATHS[5]], kept, preference)[0] == []
    preference = RECIPES["answer"] | {"chosen": {"source": "teacher", "verdict": "any"}}
    assert made([PATHS[5]], kept, preference)[0][0]["chosen"]["correct"] is False


def test_reasons_are_counted_once_per_item():
    rows = [
        *(row | {"item": "both"} for row in PATHS),
        path("no right chain", "cot", 0, "a", False),
        path("no right chain", "plain", 0, "b", True),
        path("no plain answer", "cot", 0, "a", True),
        path("nothing at all", "cot", 0, "a", False),
        path("twice the same", "cot", 0, "a", True),
        path("twice the same", "plain", 0, "a", True),
        path("two of the same", "plain", 1, "b", False),
    ]
    pairs, counts = made(rows)
    assert [pair["item"] for pair in pairs] == ["both"]
    assert counts == {
        "items": 6,
        "items_with_pairs": 1,
        "pairs": 1,
        "train": sum(pair["split"] == "train" for pair in pairs),
        "validation": sum(pair["split"] == "validation" for pair in pairs),
        "dropped": {"no_chosen": 3, "no_rejected": 1, "same_text": 1},
        "rejected_correct": int(pairs[0]["rejected"]["correct"]),
    }


def test_correct_responses_on_the_rejected_side_are_counted():
    rows = [path(f"i{i}", style, 0, f"{style}{i}", True) for i in range(5) for style in ("cot", "plain")]
    rows.append(path("i9", "cot", 0, "right", True))
    rows.append(path("i9", "plain", 0, "wrong", False))
    assert made(rows)[1]["rejected_correct"] == 5


def test_one_text_never_stands_on_both_sides():
    rows = [
        path("i", "cot", 0, "same", True),
        path("i", "plain", 0, "same", True),
        path("i", "plain", 1, "other", True),
    ]
    assert texts(made(rows)[0]) == [("same", "other")]
    rows = [path("i", "cot", 0, "same", True), path("i", "cot", 1, "other", True), path("i", "plain", 0, "same", True)]
    assert texts(made(rows)[0]) == [("other", "same")]


@pytest.mark.parametrize(("per_item", "pairs_made"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_per_item_is_a_limit_and_no_response_is_used_twice_on_a_side(per_item, pairs_made):
    rows = [path("i", "cot", n, f"chain {n}", True) for n in range(3)]
    rows += [path("i", "plain", n, f"plain {n}", False) for n in range(5)]
    pairs, counts = made(rows, [], RECIPES["cot"] | {"per_item": per_item})
    assert counts["pairs"] == len(pairs) == pairs_made
    assert counts["items_with_pairs"] == 1
    assert [pair["id"] for pair in pairs] == [f"i-{n}" for n in range(pairs_made)]
    assert len({pair["chosen"]["text"] for pair in pairs}) == pairs_made
    assert len({pair["rejected"]["text"] for pair in pairs}) == pairs_made


def test_responses_sampled_twice_count_once():
    rows = [path("i", "cot", n, "same chain", True) for n in range(4)]
    rows += [path("i", "plain", n, "same answer", False) for n in range(4)]
    pairs, _ = made(rows, [], RECIPES["cot"] | {"per_item": 4})
    assert texts(pairs) == [("same chain", "same answer")]


def test_more_pairs_per_item_keep_the_earlier_ones():
    rows = [path("i", style, n, f"{style} {n}", True) for style in ("cot", "plain") for n in range(4)]
    few, _ = made(rows, [], RECIPES["cot"] | {"per_item": 2})
    many, _ = made(rows, [], RECIPES["cot"] | {"per_item": 4})
    assert many[:2] == few


def test_fallback_stands_in_only_where_nothing_may_be_chosen():
    preference = RECIPES["cot"] | {"fallback": {"source": "teacher"}}
    rows = [
        path("own", "cot", 0, "right chain", True),
        path("own", "plain", 0, "answer", False),
        path("taught", "cot", 0, "wrong chain", False),
        path("taught", "plain", 0, "answer", False),
        path("untaught", "cot", 0, "wrong chain", False),
        path("untaught", "plain", 0, "answer", False),
    ]
    taught = [demonstration("own", "teacher's"), demonstration("taught", "teacher's")]
    pairs, counts = made(rows, taught, preference)
    assert {pair["item"]: pair["chosen"]["text"] for pair in pairs} == {"own": "right chain", "taught": "teacher's"}
    assert counts["dropped"] == {"no_chosen": 1, "no_rejected": 0, "same_text": 0}
    assert made(rows, taught)[1]["dropped"]["no_chosen"] == 2


def test_demonstrations_of_items_without_paths_make_no_pairs():
    pairs, counts = made([PATHS[5]], [*TAUGHT, demonstration("elsewhere", "taught")], RECIPES["answer"])
    assert [pair["item"] for pair in pairs] == ["item"]
    assert counts["items"] == 1


def many_paths(items: int = 60) -> list[dict]:
    generator = random.Random(0)
    return [
        path(f"item{i}", style, n, f"{style} {generator.randrange(6)}", generator.random() < 0.5)
        for i in range(items)
        for style in ("cot", "plain")
        for n in range(4)
    ]


@pytest.mark.parametrize("name", PAIRED)
def test_pairs_do_not_depend_on_the_order_of_rows(name):
    rows = many_paths()
    taught = [demonstration(f"item{i}", f"taught {i}") for i in range(60)]
    preference = RECIPES[name] | {"per_item": 2}
    expected = made(rows, taught, preference)
    assert len(expected[0]) > 30
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        random.Random(seed).shuffle(taught)
        assert made(rows, taught, preference) == expected


def test_chosen_and_rejected_are_not_always_the_first_samples():
    rows = [
        path(f"i{i}", style, n, f"{style} {n}", True) for i in range(40) for style in ("cot", "plain") for n in (0, 1)
    ]
    assert set(texts(made(rows)[0])) == {(f"cot {a}", f"plain {b}") for a in (0, 1) for b in (0, 1)}


def test_validation_takes_all_pairs_of_an_item_and_its_share_of_the_items():
    rows = many_paths(200)
    pairs, counts = made(rows, [], RECIPES["correctness"] | {"per_item": 3}, validation=0.3)
    split_of = {}
    for pair in pairs:
        assert split_of.setdefault(pair["item"], pair["split"]) == pair["split"]
    held_out = [item for item, split in split_of.items() if split == "validation"]
    assert len(held_out) == round(0.3 * counts["items_with_pairs"])


def test_validation_items_are_nested_and_never_all_nor_none():
    names = {f"item{i}" for i in range(40)}
    tenth, third = validation_items(names, 0.1), validation_items(names, 0.3)
    assert len(tenth) == 4 and len(third) == 12 and tenth < third
    assert len(validation_items({"a", "b"}, 0.01)) == 1
    assert validation_items({"a"}, 0.5) == set()


def test_counts_add_up():
    rows = many_paths(100)
    pairs, counts = made(rows, [], RECIPES["correctness"] | {"per_item": 2}, validation=0.3)
    assert counts["items"] == 100
    assert counts["train"] + counts["validation"] == counts["pairs"] == len(pairs)
    assert counts["validation"] == sum(pair["split"] == "validation" for pair in pairs) > 0
    assert counts["items_with_pairs"] + sum(counts["dropped"].values()) == 100


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"chosen": {"source": "nobody"}}, "chosen.source"),
        ({"rejected": {"style": "verse"}}, "rejected.style"),
        ({"per_item": 0}, "per_item"),
        ({"choosen": {}}, "choosen"),
    ],
)
def test_recipe_with_an_unknown_key_or_value_is_refused(change, key):
    with pytest.raises(ValueError, match=key):
        Recipe(**RECIPES["cot"] | change)


def of_length(style: str, sample: int, tokens: int, correct: bool) -> dict:
    return path("item", style, sample, f"{style} {sample}", correct) | {"tokens": tokens}


MATCHED = RECIPES["correctness"] | {"per_item": 4, "length_ratio": 1.5}


def lengths_of(rows: list[dict], preference: dict) -> tuple[list[tuple[int, int]], dict]:
    tokens = {row["text"]: row["tokens"] for row in rows}
    pairs, counts = made(rows, [], preference)
    return [(tokens[chosen], tokens[rejected]) for chosen, rejected in texts(pairs)], counts


def test_pairs_of_close_length_come_first_and_no_response_stands_in_two():
    chosen = [of_length("cot", number, tokens, True) for number, tokens in enumerate((10, 40, 100))]
    rejected = [of_length("cot", 10 + number, tokens, False) for number, tokens in enumerate((44, 100, 12, 300))]
    found, counts = lengths_of(chosen + rejected, MATCHED)
    assert found == [(100, 100), (40, 44), (10, 12)]
    assert counts["lost_to_length"] == 0
    assert lengths_of(chosen + rejected, MATCHED | {"per_item": 1})[0] == [(100, 100)]


def test_pairs_beyond_the_ratio_are_refused_and_counted():
    rows = [of_length("cot", 0, 10, True), of_length("cot", 1, 30, True)]
    rows += [of_length("cot", 2, 16, False), of_length("cot", 3, 45, False)]
    found, counts = lengths_of(rows, MATCHED)
    assert (found, counts["lost_to_length"]) == ([(30, 45)], 1)
    assert counts["dropped"]["length_ratio"] == 0
    found, counts = lengths_of(rows, MATCHED | {"length_ratio": 1.4})
    assert (found, counts["lost_to_length"], counts["items_with_pairs"]) == ([], 2, 0)
    assert counts["dropped"] == {"no_chosen": 0, "no_rejected": 0, "same_text": 0, "length_ratio": 1}
    assert lengths_of(rows, MATCHED | {"length_ratio": 1.6})[0] == [(30, 45), (10, 16)]


def test_matched_pairs_do_not_depend_on_the_order_of_rows():
    rows = [of_length("cot", number, 20 + number % 3, number % 2 == 0) for number in range(12)]
    assert made(rows, [], MATCHED) == made(rows[::-1], [], MATCHED)


def test_without_a_ratio_nothing_is_said_of_lengths():
    rows = [of_length("cot", 0, 10, True), of_length("cot", 1, 300, False)]
    pairs, counts = made(rows, [], RECIPES["correctness"])
    assert len(pairs) == 1 and "lost_to_length" not in counts and "length_ratio" not in counts["dropped"]


@pytest.mark.parametrize(
    ("recipe", "said"),
    [("rft", "name a `rejected` side"), ("kto", "not `unpaired`"), ("answer", "of another tokenizer")],
)
def test_a_ratio_without_two_lengths_to_compare_is_refused(recipe, said):
    with pytest.raises(ValueError, match=said):
        Recipe(**RECIPES[recipe] | {"length_ratio": 1.5})
