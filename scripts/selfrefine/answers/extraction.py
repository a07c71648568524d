"""Extracts the answer that a completion commits to, and judges it against the target.

Two extractors. `strict`, the default, accepts only an explicit commitment ("The answer is 12.", "#### 12",
"\\boxed{12}", "Answer: B"); the last one counts, since a chain of thought may revise itself. `legacy` follows the
public script of the source paper's first author (companion paper, EACL 2024): a pattern that cannot see option E and a
fuzzy match of the options at 0.6; for numbers it takes the last one.

An exported lm-eval task holds a copy of this file (answers.py), so it imports nothing of this repository.
"""

import difflib
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

EXTRACTORS = ("strict", "legacy")
NUMBER = re.compile(
    r"(?<![\w.])[-−]?(?:\$\s?)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:\s\d+/\d+|\s?/\s?\d+)?(?!\d)"
    r"|(?<![\w.])[-−]?\$?\.\d+"
)
COMMITMENT = re.compile(r"(?i)\banswer[*_]*(?:\s+(?:here|to\s+(?:the|this|your)\s+\w+))?\s*(?:is\b|:|=)|####|\\boxed\{")
SENTENCE_END = re.compile(r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)\.(?=\s|$|[\"'”*])|\n(?=\s*\S)|[?!]")
EXPLANATION = re.compile(r",\s+(?=[a-zA-Z])|;|\s\(|\b(?:because|since)\b")
UNFINISHED = re.compile(r"\s*(?:[\^*+×÷π²³:]|[-−]\s*\d)(?=\s*[\w(]|$)|\s*[π²³]|[^\d=(,;.]*\band\s+\$?\d")


def parse_number(text: str) -> Fraction | None:
    """The number that a string such as "1,200", "$3.50", "5/2" or "-7" stands for, or None."""
    cleaned = re.sub(r"[,$]", "", text).replace("−", "-").strip().rstrip(".")
    try:
        if mixed := re.fullmatch(r"(-?)(\d+)\s+(\d+/\d+)", cleaned):
            return (-1 if mixed[1] else 1) * (int(mixed[2]) + Fraction(mixed[3]))
        return Fraction(re.sub(r"\s*/\s*", "/", cleaned))
    except (ValueError, ZeroDivisionError):
        return None


def format_number(number: Fraction) -> str:
    """The shortest exact form: "12", "3.5", or "1/3" where no finite decimal exists."""
    if number.denominator == 1:
        return str(number.numerator)
    denominator = number.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return f"{float(number):.12g}" if denominator == 1 else f"{number.numerator}/{number.denominator}"


def commitments(text: str) -> list[tuple[int, str]]:
    """Each explicit commitment: its position, and the rest of its sentence."""
    found = []
    for match in COMMITMENT.finditer(text):
        rest = re.sub(r"^(?:[\s*_:]|\\[\[(]|\$\$)+", "", text[match.end() :])
        end = SENTENCE_END.search(rest)
        found.append((match.start(), (rest[: end.start()] if end else rest).strip()))
    return found


def extract(text: str, kind: str, choices: list[str], extractor: str = "strict") -> str | None:
    """The answer: a number in canonical form (kind `math`), a label "A", "B", … (kind `choice`), or None.

    `choices` are the options in order, empty for `math`.
    """
    if extractor not in EXTRACTORS:
        raise ValueError(f"extractor {extractor!r}: expected one of {', '.join(EXTRACTORS)}")
    if kind == "math":
        return _strict_number(text) if extractor == "strict" else _last_number(text)
    return _strict_label(text, choices) if extractor == "strict" else _legacy_label(text, choices)


def matches(extracted: str | None, answer: str, kind: str) -> bool:
    """Whether an extracted answer equals the target: same label, or numbers within one part in a million."""
    if extracted is None:
        return False
    if kind == "choice":
        return extracted == answer
    found, target = parse_number(extracted), parse_number(answer)
    return found is not None and target is not None and abs(found - target) <= max(Fraction(1), abs(target)) / 10**6


def is_chain(text: str) -> bool:
    """Whether it reasons before it answers: six words before its last commitment, or, without one, two sentences."""
    found = commitments(text)
    if found:
        start = found[-1][0]
        for earlier, _ in reversed(found[:-1]):
            if re.search(r"\d", text[earlier:start]) or SENTENCE_END.search(text[earlier:start]):
                break
            start = earlier
        return len(text[:start].split()) > 5
    return len([part for part in SENTENCE_END.split(text) if part.strip()]) >= 2


def _last_number(text: str) -> str | None:
    for match in reversed(list(NUMBER.finditer(text))):
        if (number := parse_number(match[0])) is not None:
            return format_number(number)
    return None


def _strict_number(text: str) -> str | None:
    for _, sentence in reversed(commitments(text)):
        sentence = re.sub(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}", r"\1/\2", sentence)
        for part in (EXPLANATION.split(sentence)[0], sentence):
            result = part.rsplit("=", 1)[-1]
            for match in NUMBER.finditer(result):
                if (number := parse_number(match[0])) is not None:
                    return None if UNFINISHED.match(result[match.end() :]) else format_number(number)
    return None


def _labels(choices: list[str]) -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(choices)]


def _strict_label(text: str, choices: list[str]) -> str | None:
    labels = _labels(choices)
    for _, sentence in reversed(commitments(text)):
        bare = re.sub(
            r"(?i)^(?:indeed|clearly|most likely|probably)?,?\s*(?:the\s+)?(?:option|choice|letter)?\s*", "", sentence
        ).strip(" *_`\"'“”")
        bare = re.sub(r"^\\(?:text|textbf|mathrm)\{", "", bare)
        bare = re.sub(r"^[(\[]([a-z])[)\]]", lambda match: match[0].upper(), bare)
        match = re.match(rf"[(\[]?([{labels}])(?![\w'’])[)\]]?", bare)
        named = [label for label, choice in zip(labels, choices, strict=True) if _plain(choice) == _plain(bare)]
        if match and not (len(named) == 1 and re.match(r"A \w", bare)):
            rest = bare[match.end() :]
            return None if re.match(rf"\s*(?:or|and|/|,)\s*[(\[]?[{labels}](?!\w)", rest) else match[1]
        if len(named) == 1:
            return named[0]
    return None


def _plain(text: str) -> str:
    return re.sub(r"^(?:a|an|the) ", "", re.sub(r"[^\w\s]", "", text.lower()).strip())


def _legacy_label(text: str, choices: list[str]) -> str | None:
    match = re.search(r"answer is:?\s*\(?([A-D])\)?", text)
    if match:
        return match[1]
    tail = text.split("answer is")[-1].strip().lower()
    scored = [
        (difflib.SequenceMatcher(None, choice.lower(), tail).ratio(), label)
        for label, choice in zip(_labels(choices), choices, strict=True)
    ]
    score, label = max(scored, key=lambda pair: pair[0])
    return label if score >= 0.6 else None


def documents(**_: Any) -> dict[str, Any]:
    """lm-eval's hook for the data: the documents beside this file."""
    from datasets import Dataset

    with open(Path(__file__).with_name("docs.jsonl"), encoding="utf-8") as file:
        return {"test": Dataset.from_list([json.loads(line) for line in file])}


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """lm-eval's hook for one answer: correct by each extractor, whether one was extracted, whether it reasons first."""
    text = results[0]
    verdicts = {name: extract(text, doc["kind"], doc["choices"], name) for name in EXTRACTORS}
    scores = {name: float(matches(found, doc["answer"], doc["kind"])) for name, found in verdicts.items()}
    return {**scores, "committed": float(verdicts["strict"] is not None), "chain": float(is_chain(text))}
