"""Judges answers to golds that are expressions by canonical form (`kind: text`) and by math-verify.

pip install -r envs/math-verify.txt
python bench/expressions.py --show 40

Whether an answer is correct is known: it is made from its gold (random polynomials, reasoning-gym's complex numbers and
fractions, and the table below) by a change that keeps its value or does not.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import reasoning_gym
import sympy

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from selfrefine.answers.extraction import MATH_VERIFY, extract, matches, missing_package, verify  # noqa: E402

X = sympy.Symbol("x")
# As golds of MATH are: (gold, what says the same, what does not).
TABLE = (
    (r"\left[0, 1\right)", ("[0,1)", r"[0, 1)"), ("(0,1]", "[0,1]", r"\left(0, 1\right)")),
    (r"(-\infty, 2) \cup (3, \infty)", (r"(-\infty,2)\cup(3,\infty)",), (r"(-\infty, 2] \cup [3, \infty)", r"(2, 3)")),
    (r"\left( 3, \frac{\pi}{2} \right)", (r"(3, \pi/2)", r"(3,\frac{\pi}{2})"), (r"(3, \pi)", r"(\frac{\pi}{2}, 3)")),
    (r"\{1, 2, 3\}", (r"\{3, 1, 2\}", r"\{1,2,3\}"), (r"\{1, 2\}", r"\{1, 2, 4\}")),
    (r"1, -2", ("1,-2", "-2, 1"), ("1, 2", "1")),
    (
        r"\frac{\sqrt{3}}{2}",
        (r"\sqrt{3}/2", r"\dfrac{\sqrt3}{2}", r"\frac{3}{2\sqrt{3}}"),
        (r"\frac{\sqrt{2}}{3}", r"\frac{3}{2}"),
    ),
    (r"2\sqrt{2}", (r"\sqrt{8}", r"2 \sqrt{2}"), (r"\sqrt{2}", r"2\sqrt{3}")),
    (r"x^2 + 2x + 1", (r"(x+1)^2", r"1 + 2x + x^2", r"x^{2}+2x+1"), (r"x^2 + 2x - 1", r"x^2 + 1")),
    (r"y = 2x + 3", (r"y=2x+3", r"2x + 3 = y"), (r"y = 2x - 3", r"y = 3x + 2")),
    (r"x \ge 3", (r"x\geq 3", r"[3, \infty)"), (r"x > 3", r"x \le 3")),
    (
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",),
        (r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}",),
    ),
    (r"\text{Evelyn}", ("Evelyn", r"\text{ Evelyn }"), (r"\text{Evan}", "Eve")),
    (r"\text{even}", ("even", r"\textbf{even}"), (r"\text{odd}", "neither")),
    (r"90^\circ", (r"90^{\circ}", r"90°"), (r"45^\circ",)),
    (r"10\%", (r"10 \%",), (r"10", r"1\%")),
    (r"3 - 4i", ("3-4i", r"-4i + 3"), ("3 + 4i", "4 - 3i")),
    (r"e^{2}", ("e^2",), ("e^3", "2e")),
    (r"\log_2 3", (r"\log_{2}{3}", r"\log_2(3)"), (r"\log_3 2", r"\log 3")),
    (r"2^{n+1}", (r"2 \cdot 2^n", r"2^{1+n}"), (r"2^n + 1", r"2^{n}")),
    (r"6 \text{ cm}", (r"6\text{ cm}", "6 cm"), ("7 cm", r"5 \text{ cm}")),
)


class Case(NamedTuple):
    """An answer to a gold, and whether it is correct."""

    kind: str
    gold: str
    answer: str
    correct: bool


def polynomials(number: int) -> Iterator[Case]:
    """Products of polynomials: as they are, as LaTeX, in another order, factored; and with a changed term."""
    chance = random.Random(0)
    for _ in range(number):
        factors = [sum(chance.randint(1, 99) * chance.choice((1, -1)) * X**n for n in range(3)) for _ in range(2)]
        value = sympy.expand(factors[0] * factors[1])
        gold, terms = sympy.latex(value), value.as_ordered_terms()
        same = {gold, str(value), " + ".join(map(sympy.latex, reversed(terms))), sympy.latex(sympy.factor(value))}
        first = terms[0]
        other = {sympy.latex(changed) for changed in (value - 2 * first, value + X, value * X, value - first + 1)}
        yield from (Case("polynomial", gold, answer, True) for answer in sorted(same))
        yield from (Case("polynomial", gold, answer, False) for answer in sorted(other - {gold}))


def complex_numbers(number: int) -> Iterator[Case]:
    """Sums and products of complex numbers: without ".0", the imaginary part first; and with a changed part."""
    for row in reasoning_gym.create_dataset("complex_arithmetic", size=number, seed=0):
        real, imaginary = row["metadata"]["result"]
        if not (float(real).is_integer() and float(imaginary).is_integer() and real and imaginary):
            continue
        real, imaginary = int(real), int(imaginary)
        gold = f"{real} {'-' if imaginary < 0 else '+'} {abs(imaginary)}i"
        same = (gold, row["answer"], f"{imaginary}i {'-' if real < 0 else '+'} {abs(real)}", gold.replace(" ", ""))
        other = (
            f"{real} {'+' if imaginary < 0 else '-'} {abs(imaginary)}i",
            f"{real}",
            f"{imaginary} + {real}i",
            f"{real + 1} + {imaginary}i",
        )
        yield from (Case("complex number", gold, answer, True) for answer in same)
        yield from (Case("complex number", gold, answer, False) for answer in other if real != imaginary)


def fractions(number: int) -> Iterator[Case]:
    """Simplified fractions: as LaTeX and inline; and with another numerator or upside down."""
    for row in reasoning_gym.create_dataset("fraction_simplification", size=number, seed=0):
        above, below = row["metadata"]["simplified_numerator"], row["metadata"]["simplified_denominator"]
        gold = rf"\frac{{{above}}}{{{below}}}"
        same = (gold, f"{above}/{below}", rf"\dfrac{{{above}}}{{{below}}}", rf"\frac{{{2 * above}}}{{{2 * below}}}")
        other = (f"{above + 1}/{below}", f"{below}/{above}", f"-{above}/{below}", f"{above}")
        yield from (Case("fraction", gold, answer, True) for answer in same)
        yield from (Case("fraction", gold, answer, False) for answer in other if above not in (below, 1))


def like_math() -> Iterator[Case]:
    """The table."""
    for gold, same, other in TABLE:
        yield from (Case("as in MATH", gold, answer, True) for answer in (gold, *same))
        yield from (Case("as in MATH", gold, answer, False) for answer in other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=25, help="golds of each kind, beside the table")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N answers on which the two differ")
    args = parser.parse_args()
    if missing := missing_package(MATH_VERIFY):
        parser.error(missing)
    cases = [*polynomials(args.number), *complex_numbers(args.number), *fractions(args.number), *like_math()]
    differing = []
    print(
        "| golds | answers | verdicts of `text` that are wrong: accepted, refused | of math-verify: accepted, refused |"
    )
    print("|---|---|---|---|")
    for kind in dict.fromkeys(case.kind for case in cases):
        mine = [case for case in cases if case.kind == kind]
        counts = {"text": [0, 0], "math-verify": [0, 0]}
        for case in mine:
            text = rf"The answer is $\boxed{{{case.answer}}}$."
            ours, theirs = matches(extract(text, "text", []), case.gold, "text"), verify(text, case.gold)
            for name, verdict in (("text", ours), ("math-verify", theirs)):
                counts[name][case.correct] += verdict != case.correct
            differing += [(case, ours, theirs)] if ours != theirs else []
        print(f"| {kind} | {len(mine)} |", " | ".join(f"{low}, {high}" for low, high in counts.values()), "|")
    for case, ours, theirs in differing[: args.show]:
        print(f"\n{case.gold}  <-  {case.answer}: correct {case.correct}, text {ours}, math-verify {theirs}")


if __name__ == "__main__":
    main()
