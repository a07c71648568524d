"""One grammar of numbers for gold answers and responses: what is read, what is not, and that it never fails."""

import string
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfrefine.answers.extraction import extract, format_number, parse_number

PLACES = ["library", "bank", "department store", "mall", "new york"]
TEN = [f"thing {letter}" for letter in "qrstuvwxyz"]

# Kinds of writing, each with the number that it is, or None where it is none or more than one.
RESPONSES = {
    "LaTeX groups of thousands": [
        (r"\boxed{1{,}200}", "1200"),
        (r"The answer is \$32,\!348.", "32348"),
        (r"\boxed{12\,500}", "12500"),
        (r"\boxed{1,200}", "1200"),
        (r"\boxed{82\,4564}", None),
    ],
    "spaces between groups of thousands": [
        ("The answer is 12\u00a0500.", "12500"),
        ("The answer is 1\u202f000\u202f000.", "1000000"),
        ("The answer is 12 500.", None),
    ],
    "commas that group no thousands": [
        ("The answer is 12,5.", None),
        ("The answer is 27,93.", None),
        ("The answer is 1.000,50 euros.", None),
        ("The answer is 1,2,34.", None),
        ("The answer is 1,00,000.", None),
        ("The answer is 12,5000", None),
        ("The answer is 0,500", None),
        ("The answer is 3,000,000.", "3000000"),
    ],
    "products, powers, roots, exponents": [
        (r"\boxed{3\times10^4}", None),
        (r"The answer is 2\sqrt{3}.", None),
        (r"The answer is \sqrt{3}.", None),
        (r"\boxed{2\pi}", None),
        ("The answer is 2π.", None),
        ("The answer is 3 × 10^4.", None),
        ("The answer is 1e-05.", None),
        ("The answer is 5e3", None),
        ("The answer is 3².", None),
        ("The answer is 5 squared.", None),
        ("The answer is 3 times 4.", None),
        ("The answer is 3 times.", "3"),
    ],
    "expressions": [
        ("The answer is x + 5.", None),
        ("The answer is 5x.", None),
        ("The answer is 12 - 5.", None),
        ("The answer is ±5.", None),
        (r"\boxed{3+4i}", None),
        (r"\boxed{\frac{x}{2}}", None),
        (r"\boxed{\frac{\sqrt{3}}{2}}", None),
        ("The answer is x = 5.", "5"),
        ("The answer is 2π ≈ 6.28", "6.28"),
    ],
    "lists, ranges, times": [
        (r"\boxed{(3, 4)}", None),
        (r"\boxed{[2,5]}", None),
        (r"\boxed{\{1,2\}}", None),
        (r"\boxed{x \in (2,3)}", None),
        ("The answer is 5, 6 and 7.", None),
        ("The answer is 5-7.", None),
        ("The answer is 5–7.", None),
        ("The answer is 5 to 7.", None),
        ("The answer is 5 or 6.", None),
        ("The answer is 3:45.", None),
        ("The answer is 12.5.3", None),
    ],
    "two units": [
        ("The answer is 2 hours 30 minutes.", None),
        ("The answer is 2 hours and 30 minutes.", None),
        ("The answer is 5 feet 3 inches.", None),
        ("The answer is 5'3\".", None),
        ("The answer is 45 after 3 days.", "45"),
    ],
    "one unit": [
        ("The answer is 5 kg.", "5"),
        ("The answer is 5kg.", "5"),
        ("The answer is 10am.", "10"),
        ("The answer is 60 km/h.", "60"),
        ("The answer is 5/hour", "5"),
        (r"\boxed{12 \text{ cm}^2}", "12"),
        (r"\boxed{90^\circ}", "90"),
        (r"\boxed{90^{\circ}}", "90"),
        (r"\boxed{50\%}", "50"),
        (r"\boxed{\text{12 apples}}", "12"),
    ],
    "words of scale": [
        ("The answer is 12 thousand.", "12000"),
        ("The answer is $1.5 million.", "1500000"),
        ("The answer is 2 dozen.", "24"),
        ("The answer is 3 and a half.", None),
    ],
    "fractions": [
        (r"\boxed{\frac{14}{3}}", "14/3"),
        (r"\boxed{2\frac{1}{2}}", "2.5"),
        (r"\boxed{-\frac{1}{2}}", "-0.5"),
        (r"\boxed{\dfrac12}", "0.5"),
        ("The answer is 3½.", "3.5"),
        ("The answer is ½.", "0.5"),
        ("The answer is 7/0.", None),
        ("The answer is 3 1/0", None),
    ],
    "currencies and signs": [
        ("The answer is $29.00.", "29"),
        ("The answer is -$5.", "-5"),
        ("The answer is $-5.", "-5"),
        ("The answer is €12.", "12"),
        ("The answer is £12.50.", "12.5"),
        ("The answer is Rs 500.", "500"),
        ("The answer is −0.", "0"),
        (r"**Answer: \$18 per day.**", "18"),
        ("Answer: $12$", "12"),
    ],
    "other scripts": [
        ("The answer is １２３.", "123"),
        ("The answer is ٣.", "3"),
    ],
    "a denied number is no answer": [
        ("The answer is not 5.", None),
        ("The answer is not 5 but 6.", None),
        ("The answer is 6. The answer is definitely not 5.", "6"),
    ],
    "ways to commit": [
        ("The answer should be 12.", "12"),
        ("The answer would be 12.", "12"),
        ("<answer>12</answer>", "12"),
        ("**Final Answer**\n12", "12"),
        ("✅ Final Answer: **73**", "73"),
        ("So \\boxed{840}. I explain below.\n\n**Final Answer**\n\\boxed{840}", "840"),
        (r"The answer is $\boxed{12}$ and $5$.", "12"),
        (r"\boxed{004}", "4"),
    ],
    "longer than a person writes": [("The answer is " + "9" * 5000 + ".", None)],
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [pytest.param(*row, id=f"{kind}-{i}") for kind, rows in RESPONSES.items() for i, row in enumerate(rows)],
)
def test_a_number_is_read_as_a_whole_or_not_at_all(text, expected):
    assert extract(text, "math", []) == expected


@pytest.mark.parametrize(
    ("choices", "text", "expected"),
    [
        (TEN, "Answer: I think it is C.", "C"),
        (TEN, "The answer is I.", "I"),
        (TEN, "The answer is I because the others are not.", "I"),
        (PLACES, "Answer: A person who needs cash goes there, so it is (B).", "B"),
        (PLACES, "The answer is A because it lends books.", "A"),
        (PLACES, r"\boxed{\text{B}}", "B"),
        (PLACES, r"\boxed{\text{B: bank}}", "B"),
        (PLACES, r"\boxed{\mathbf{B}}", "B"),
        (PLACES, r"\boxed{\text{ B }}", "B"),
        (PLACES, r"\boxed{\text{Option B}}", "B"),
        (PLACES, r"The answer is $\textbf{(B)}$", "B"),
        (PLACES, "The answer is Ｂ.", "B"),
        (PLACES, "The answer is bank (B).", "B"),
        (PLACES, "The answer is bank, B.", "B"),
        (PLACES, "The answer is neither (A) nor (B).", None),
        (PLACES, "Answer: A\nI check that again.\nAnswer: B", "B"),
        (PLACES, "<answer>B</answer>", "B"),
    ],
)
def test_a_letter_is_an_option_only_where_it_stands_for_one(choices, text, expected):
    assert extract(text, "choice", choices) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-2,1", None),
        ("12,5", None),
        ("1.000,50", None),
        ("82,4564", None),
        ("27,93", None),
        ("1,234,567.5", "1234567.5"),
        (r"\frac{14}{3}", "14/3"),
        (r"10,\!080", "10080"),
        (r"\$32,\!348", "32348"),
        (r"2\sqrt{3}", None),
        ("(3,4)", None),
        (r"\text{5}", "5"),
        ("$5$", "5"),
        ("3 4", None),
        ("1.5e3", None),
    ],
)
def test_a_gold_answer_is_one_number_or_none(text, expected):
    number = parse_number(text)
    assert (None if number is None else format_number(number)) == expected


def test_of_several_answers_the_last_one_counts_or_none_does():
    text = "The answer is 5. No: the answer is 6."
    assert extract(text, "math", []) == "6"
    assert extract(text, "math", [], "unanimous") is None
    assert extract("The answer is 5. So the answer is 5.0.", "math", [], "unanimous") == "5"
    assert extract("The answer is A. The answer is B.", "choice", PLACES, "unanimous") is None


decimals = st.builds(
    lambda number, places: Fraction(number, 10**places), st.integers(-(10**15), 10**15), st.integers(0, 9)
)
fractions = st.builds(Fraction, st.integers(-(10**6), 10**6), st.integers(1, 10**4))
FRAMES = (
    "The answer is {}.",
    "Answer: **{}**",
    "#### {}",
    r"\boxed{{{}}}",
    r"The answer is \({}\).",
    "The answer is ${}$.",
    "Answer: {} apples",
)
GROUPS = (",", "{,}", r",\!", r"\,", "\u202f")
MONEY = ("", "$", "€", r"\$", "US$")


@given(st.one_of(decimals, fractions))
def test_every_number_is_read_back_from_its_canonical_form(number):
    assert parse_number(format_number(number)) == number


@given(decimals, st.sampled_from(FRAMES), st.sampled_from(("", *GROUPS)), st.sampled_from(MONEY), st.sampled_from("-−"))
def test_every_number_is_read_back_from_every_way_to_print_it(number, frame, group, money, minus):
    whole, _, part = format_number(abs(number)).partition(".")
    grouped = f"{int(whole):,}".replace(",", group) if group else whole
    printed = (minus if number < 0 else "") + money + grouped + (f".{part}" if part else "")
    assert extract(frame.format(printed), "math", []) == format_number(number)


@given(
    decimals,
    st.sampled_from(
        ("{}^2", "{}, 7", "{}:30", "{} × 3", "{}π", "{}e5", "{} or 7", "{} to 7", "√{}", "{}/x", "{} 7", "x + {}")
    ),
)
def test_a_number_with_something_numeric_beside_it_is_none(number, frame):
    assert extract(f"The answer is {frame.format(format_number(abs(number)))}.", "math", []) is None


@given(st.text(alphabet=string.printable + "π√½²−–１，\u00a0\u202f", max_size=60))
def test_nothing_makes_the_extractor_fail(text):
    for whole in (text, f"The answer is {text}", f"\\boxed{{{text}"):
        found = extract(whole, "math", [])
        assert found is None or format_number(parse_number(found)) == found
        assert extract(whole, "choice", PLACES) in (None, *"ABCDE")
    parse_number(text)
