"""Extracts the answer that a completion commits to, and judges it against the gold answer.

Three extractors. `strict`, the default, accepts only an explicit commitment ("The answer is 12.", "#### 12",
"\\boxed{12}", "Answer: B"); the last one counts, since a chain of thought may revise itself. `unanimous` is as strict, and
accepts no answer where a completion commits to several different ones. `legacy` follows the public script of the source paper's first author (companion paper, EACL 2024): a pattern that cannot see option E and a
fuzzy match of the options at 0.6; for numbers it takes the last one.

Gold answers and extracted ones share one normaliser and one grammar of numbers. A number is read as a whole or not at
all: where something numeric follows it (a list, a power, a root, a pair of units, a comma that groups no thousands), no
answer is extracted. A free-text answer is what a commitment says up to the end of its sentence, or what stands in its
quotes; two are equal if their canonical forms are.

A further extractor, `math-verify`, computes with the package of that name, and judges only where a study names it.

An exported lm-eval task holds a copy of this file (answers.py), so it is one module and imports nothing of this
repository.
"""

import difflib
import importlib.util
import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

EXTRACTORS = ("strict", "unanimous", "legacy")
# A further extractor, and the version of its package that tests run with. It computes for at most so many seconds.
MATH_VERIFY, MATH_VERIFY_PIN, SECONDS = "math-verify", "math-verify==0.9.0", 5

# Normalisation: LaTeX, full-width characters, spaces and signs in one form.
SPACES = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\t\r\f\v]")
INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
SIGNS = str.maketrans(
    {power: f"^{i}" for i, power in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
    | dict.fromkeys("−‐‑‒–﹣－", "-")
    | {"⁻": "^-", "⁄": "/", "∕": "/", "⋅": "·", "∙": "·", "✕": "×", "✖": "×"}
)
VULGAR = re.compile(r"[¼½¾⅐-⅞]")
# Between groups of thousands: LaTeX's `{,}` and thin spaces.
GROUPING = re.compile(r"(?<=\d)(?:\{,\}|,?\\[,;: ]|[\u00a0\u2009\u202f]|~)(?=\d{3}(?!\d))")
LATEX_SPACE = re.compile(r"\\(?:[,;:> ]|(?:quad|qquad|displaystyle|left|right|limits)(?![A-Za-z]))|(?<!\\)~")
LATEX_BREAK = re.compile(r"\\[()\[\]]|\\\\")
WRAPPED = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|tt|bb)|[mhf]box|boldsymbol|bm|emph|operatorname"
    r"|underline)\s*\{([^{}]*)\}"
)
FRACTION = re.compile(r"(\d*)\s*\\[cdt]?frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
DEGREE = re.compile(r"\^\s*(?:\{\s*)?\\circ(?![A-Za-z])(?:\s*\})?")
SYMBOLS = {
    "$": "$",
    "%": "%",
    "#": "#",
    "&": "&",
    "_": "_",
    "times": "×",
    "cdot": "·",
    "div": "÷",
    "pm": "±",
    "pi": "π",
    "sqrt": "√",
    "approx": "≈",
    "infty": "∞",
    "degree": "°",
    "pounds": "£",
    "euro": "€",
    "dollar": "$",
}
SYMBOL = re.compile(r"\\([$%#&_]|(?:" + "|".join(filter(str.isalpha, SYMBOLS)) + r")(?![A-Za-z]))")

# Numbers. Commas group thousands and do nothing else; no number has more than a hundred digits.
CURRENCY = r"(?:(?:US|A|C|HK|NZ)?[$€£¥₹]|Rs\.?|USD|EUR|GBP)"
WHOLE = r"(?:[1-9]\d{0,2}(?:,\d{3}){1,9}|\d{1,100})(?!\d)"
QUANTITY = rf"(?:{WHOLE}(?:\.\d{{1,100}}(?!\d))?|\.\d{{1,100}}(?!\d))"
OVER = r"(?:\s\d{1,15}\s?/\s?\d{1,15}|\s?/\s?\d{1,100})(?!\d)"
NUMBER = re.compile(rf"(?<![\w.])(?P<sign>[-+]?)(?:{CURRENCY}\s?)?(?P<minus>-?)(?P<value>{QUANTITY}(?:{OVER})?)")
SCALES = {"dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
SCALE = re.compile(rf"\s?-?({'|'.join(SCALES)})\b", re.IGNORECASE)
UNIT = (
    r"(?:hours?|hrs?|h|minutes?|mins?|seconds?|secs?|s|days?|weeks?|months?|years?|feet|foot|ft|inch(?:es)?|in|yards?|yd"
    r"|miles?|(?:kilo|centi|milli)?(?:met(?:er|re)|gram|lit(?:er|re))s?|[kcm]?m|k?g|m?l|pounds?|lbs?|ounces?|oz"
    r"|gallons?|quarts?|pints?|cups?|dollars?|cents?|quarters?|dimes?|nickels?|pence|euros?|degrees?)"
)
OPERAND = r"(?:[-\d(\[{√π$.]|[A-Za-z](?![A-Za-z]))"
# After a number, what makes it part of something else.
GOES_ON = re.compile(
    "|".join(
        (
            r"\s?[\^√π∞]",
            r"[.,:]\d",
            r",\s?[-$€£]?\d",
            rf"\s?[×÷·±*/+]\s?{OPERAND}",
            r"\s?-\s?[\d($√π]",
            r"[(\[{]\s?[-\dxyπ√]",
            r"\s?\\(?!end\b|hspace|newline)[A-Za-z]",
            r"[eE][-+]?\d",
            r"\s+\d",
            r"[^\d=(,;.\n]*\band\s+[-$€£]?\d",
            r"\s+(?:[a-z]+\s+)?(?:or|to)\s+[-$€£]?\d",
            r"\s+(?:[a-z]+\s+)?and\s+(?:a|one|two|three)[\s-](?:half|halves|thirds?|quarters?)\b",
            rf"\s?{UNIT}\.?,?\s+[$]?\d",
            r"\s?['′’]\s?\d",
            r"\s+(?:plus|minus|times|over|divided\s+by|multiplied\s+by)\s+[-$(]?\d",
            r"\s+(?:squared|cubed)\b",
            # A letter next to a number is algebra, unless it is a unit.
            r"[A-Za-z](?<![gmshlLWVJNCF])(?![A-Za-z])",
            r"[xyz]{2,3}(?![A-Za-z])",
        )
    )
)
# Before a number, likewise.
CAME_BEFORE = re.compile(r"[\w)\]}]\s?[+*/×÷·±-]$|[√^π±]\s?[({]?$|\\[A-Za-z]+\s*(?:\{[^{}]*\}\s*)*\{$")

# What `legacy` takes for a number.
LEGACY_NUMBER = re.compile(
    r"(?<![\w.])[-−]?(?:\$\s?)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:\s\d+/\d+|\s?/\s?\d+)?(?!\d)"
    r"|(?<![\w.])[-−]?\$?\.\d+"
)

# The answer phrases that stand for `default`: what comes before the answer that a completion commits to.
PHRASES = (
    r"\banswer[*_]*(?:\s+(?:here|to\s+(?:the|this|your)\s+\w+))?\s*(?:is\b|:|=)",
    r"\banswer[*_]*\s+(?:should|would|must)\s+be\b",
    r"\bfinal\s+answer[*_]*\s*\n",
    r"<answer>",
    r"####",
    r"\\boxed\s*\{",
)
DEFAULT = ("default",)
# What stands around a thought. An answer in one is not yet given.
THOUGHT = ("<think>", "</think>")
SENTENCE_END = re.compile(r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)\.(?=\s|$|[\"'”*])|\n(?=\s*\S)|[?!]|</answer>")
NEXT_QUESTION = re.compile(r"\n\W*(?:question|problem|q)\b[ \d*]*:", re.IGNORECASE)
EXPLANATION = re.compile(r",\s+(?=[a-zA-Z])|;|\s\(|\b(?:because|since)\b")
DENIAL = re.compile(r"(?i)(?:\w+ly\s+)?(?:not|never|neither|no\s+longer|anything\s+but)\b")
# A commitment ends within so many characters.
REACH = 2000
# A character of a word; the scripts that write no spaces are left out, so that a label may stand before their words.
IN_WORD = r"[0-9A-Za-z_\u00c0-\u024f\u0370-\u052f]"
# Words that may follow a label; any other makes "A" an article and "I" a pronoun.
AFTER_LETTER = re.compile(
    r"\s(?:because|since|as|is|was|which|that|due|for|from|in|on|with|and|or|to|given|if|when|where|by|at|but|so|while"
    r"|not|than)\b"
)

# Words between a phrase and a further one that says the same: "The answer is: $\boxed{5}$".
FILLER = r"(?:[\W_]|\b(?:so|thus|hence|therefore|the|my|our|this|final|correct|is|and|(?:text|math)(?:bf|rm|it)?)\b)*"
ANNOUNCES = re.compile(FILLER, re.IGNORECASE)
TRAILING_FILLER = re.compile(rf"(?<![\W_]){FILLER}$", re.IGNORECASE)

# Free text: what ends an answer.
DELIMITERS = {
    "**": "**",
    "__": "__",
    "*": "*",
    "_": "_",
    "`": "`",
    '"': '"',
    "'": "'",
    "“": "”",
    "‘": "’",
    "«": "»",
} | {
    "\\(": "\\)",
    "\\[": "\\]",
    "$$": "$$",
    "$": "$",
}
OPENING = re.compile(r"(?:\*\*|__|\$\$|\\[(\[]|[*_`\"'“‘«$])(?=\S)")
# What follows quotes that hold all of an answer.
AFTER_QUOTE = re.compile(r"[*_`)\]\"'”’$]*(?:[.!?]|\s*(?:\n|$|</|<\||\\\\))")
AFTER_BOLD = re.compile(r"[,;:](?![^\n]*\*\*)|\s+(?:[-–—(]|is\b)")
TEXT_END = re.compile(r"[.?!](?=[\s\"'”’*_`)]|$)|[。！？]|\n|</answer>|<\||(?<=\S)\*\*(?!\S)")
INNER_PERIODS = re.compile(r"[^\W\d_]{1,2}(?:\.[^\W\d_]{1,2})+")
TITLES = re.compile(r"mr|mrs|ms|dr|prof|st|ste|mt|rev|hon|gov|sen|rep|gen|col|maj|capt|lt|sgt|cpl")
ABBREVIATIONS = re.compile(
    r"jr|sr|vs|v|ft|inc|ltd|co|corp|bros|ave|blvd|rd|approx|ca|etc|al|jan|feb|apr|jun|jul|aug|sept?|oct|nov|dec"
)
# How a sentence begins, even after an abbreviation: "… in Washington, D.C. It is …".
NEXT_SENTENCE = re.compile(
    r"\s+(?:It|Its|This|That|These|Those|There|The|He|She|They|We|You|I|His|Her|Their|My|Our|In|On|At|As|By|For|From|To"
    r"|If|So|Then|Thus|Hence|Therefore|Because|Since|When|While|Although|However|But|And|Also|Which|Here|Now|Note|Let"
    r"|Step|Explanation|Reason|Question|Answer|Final|Not|Both|All|Some|Most)\b"
)
REASON = re.compile(
    r"[,;:]?\s+(?:because|since|due\s+to|given\s+that|as\s+(?:it|he|she|they|we|you|this|that|these|those|there))\b"
    r"|[,;]\s+(?:as|which|whose|so|but|therefore|thus|hence|not|and\s+(?:it|this|he|she|they|not|so))\b"
    r"|[,;]\s+(?:it|this|that|he|she|they)(?:\s+(?:is|was|are|were|has|had)\b|['’]s)"
    r"|\s*—|\s+-\s+(?=(?:it|this|that|the|because|since)\b)"
    r"|\s+\((?-i:(?=[a-z]{2,}\s+[a-z]{2,}[^()]*(?:\)\W*)?$))",
    re.IGNORECASE,
)
# Free text: the canonical form.
ARTICLE = re.compile(r"\b(?:a|an|the)\s+(?=\w)")
GENERAL_FRACTION = re.compile(r"\\[cdt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
# Signs that mean something; other punctuation is left out.
KEPT = frozenset("-/()[]{}%*#·")
OPERATOR = re.compile(r"\s*([+*^=<>≥≤≠×·÷±|()\[\]{}]|%|°)\s*")
HYPHEN = re.compile(r"(\s*)([-/])(\s*)")


def normalise(text: str) -> str:
    """The text with LaTeX, full-width characters, spaces and signs in one plain form, as far as answers need it."""
    text = VULGAR.sub(lambda found: " " + unicodedata.normalize("NFKD", found[0]), text).translate(SIGNS)
    if not text.isascii():
        text = "".join(character if character < "\x80" else _plain_character(character) for character in text)
    text = GROUPING.sub(",", INVISIBLE.sub("", text).replace("\\!", ""))
    text = SPACES.sub(" ", text)
    if "\\" in text or "~" in text:
        text = SYMBOL.sub(lambda found: SYMBOLS[found[1]], DEGREE.sub("°", LATEX_SPACE.sub(" ", text)))
        text = FRACTION.sub(_fraction, text)
        for _ in range(3):
            text = WRAPPED.sub(r"\1", text)
        text = LATEX_BREAK.sub(" ", text)
    return text


def _plain_character(character: str) -> str:
    if "！" <= character <= "～":
        return chr(ord(character) - 0xFEE0)
    if unicodedata.category(character) == "Nd":
        return str(unicodedata.digit(character))
    return character


def _fraction(found: re.Match[str]) -> str:
    whole = f"{found[1]} " if found[1] else ""
    return f"{whole}{found[2] or found[3]}/{found[4] or found[5]}"


def parse_number(text: str) -> Fraction | None:
    """The number that a whole string such as "1,200", "$3.50", "5/2", "\\frac{14}{3}" or "-7" stands for, or None."""
    plain = normalise(text).strip(" {}").removesuffix(".").removesuffix("$").strip()
    found = NUMBER.fullmatch(plain)
    return _value(found) if found else None


def _value(found: re.Match[str]) -> Fraction | None:
    text = found["value"].replace(",", "")
    mixed = re.fullmatch(r"(\S+)\s(\d+\s?/\s?\d+)", text)
    whole, part = mixed.groups() if mixed else ("0", text)
    above, _, below = part.replace(" ", "").partition("/")
    if below and not int(below) or mixed and "." in whole:
        return None
    value = Fraction(whole) + Fraction(above) / Fraction(below or 1)
    return -value if (found["sign"] == "-") != (found["minus"] == "-") else value


def format_number(number: Fraction) -> str:
    """The shortest exact form: "12", "3.5", or "1/3" where no finite decimal exists."""
    if number.denominator == 1:
        return str(number.numerator)
    rest, places = number.denominator, {2: 0, 5: 0}
    for prime in places:
        while rest % prime == 0:
            rest, places[prime] = rest // prime, places[prime] + 1
    if rest != 1:
        return f"{number.numerator}/{number.denominator}"
    shift = max(places.values())
    digits = str(abs(number.numerator) * 10**shift // number.denominator).rjust(shift + 1, "0")
    return f"{'-' if number < 0 else ''}{digits[:-shift]}.{digits[-shift:]}"


def commitment(phrases: Sequence[str] = DEFAULT) -> re.Pattern[str]:
    """What answer phrases match, upper or lower case; `default` stands for those above."""
    patterns = [pattern for phrase in phrases for pattern in (PHRASES if phrase == "default" else (phrase,))]
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)


class Commitment(NamedTuple):
    """Where a completion commits to an answer."""

    start: int
    phrase: str
    end: int
    """Where the phrase ends, and what it announces begins."""
    rest: str
    """What follows, as it is written; of a box, what stands in it."""


def _committed(text: str, phrases: Sequence[str]) -> list[Commitment]:
    """Each explicit commitment."""
    found = []
    for match in commitment(phrases).finditer(text):
        rest = text[match.end() : match.end() + REACH]
        rest = _boxed(rest) if match[0].startswith("\\boxed") else rest
        found.append(Commitment(match.start(), match[0], match.end(), rest))
    # A model that runs on into a question of its own answers that.
    if found and (next_question := NEXT_QUESTION.search(text, found[0].start)):
        found = [each for each in found if each.start < next_question.start()]
    return found


def _with_next(found: Sequence[Commitment]) -> list[tuple[Commitment, Commitment | None]]:
    """Each commitment with the one after it."""
    return list(zip(found, [*found, None][1:], strict=True))


def _sentence(rest: str) -> str:
    """The rest of a commitment's sentence, normalised."""
    rest = normalise(re.sub(r"^(?:[\s*_:]|\\[\[(]|\$\$)+", "", rest))
    end = SENTENCE_END.search(rest)
    return (rest[: end.start()] if end else rest).strip()


def _boxed(text: str) -> str:
    """What stands before the brace that closes a box; all of it if none does."""
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if not depth:
            return text[:place]
    return text


def after_thoughts(text: str) -> str | None:
    """What follows the thoughts in a text, `<think>…</think>`; None where the last of them has no end."""
    answer = text.rpartition(THOUGHT[1])[2]
    return None if THOUGHT[0] in answer else answer


def extract(
    text: str, kind: str, choices: list[str], extractor: str = "strict", phrases: Sequence[str] = DEFAULT
) -> str | None:
    """The answer: a number in canonical form (kind `math`), a label "A", "B", … (kind `choice`), or None.

    Or a text in canonical form (kind `text`). `choices` are the options in order, empty for the other kinds. `phrases`
    are those that `strict` and `unanimous` accept before an answer.
    """
    if extractor not in EXTRACTORS:
        raise ValueError(f"extractor {extractor!r}: expected one of {', '.join(EXTRACTORS)}")
    answer = after_thoughts(text)
    if answer is None:
        return None
    text = answer
    if extractor == "legacy":
        return _legacy(text, kind, choices)
    found = _committed(text, phrases)
    # "The answer is: \boxed{5}" commits once.
    found = [
        each
        for each, following in _with_next(found)
        if following is None or not ANNOUNCES.fullmatch(text, each.end, following.start)
    ]
    if kind == "text":
        answers = _texts(text, found)
    else:
        sentences = [_sentence(each.rest) for each in reversed(found)]
        answers = _numbers(sentences) if kind == "math" else _letters(sentences, choices)
    last = next(answers, None)
    return None if extractor == "unanimous" and any(other != last for other in answers) else last


def matches(extracted: str | None, answer: str, kind: str) -> bool:
    """Whether an extracted answer equals the target: same label or text, or numbers within one part in a million."""
    if extracted is None:
        return False
    if kind == "choice":
        return extracted == answer
    if kind == "text" and canonical(answer) in (extracted, canonical(extracted)):
        return True
    found, target = parse_number(extracted), parse_number(answer)
    return found is not None and target is not None and abs(found - target) <= max(Fraction(1), abs(target)) / 10**6


def is_chain(text: str, phrases: Sequence[str] = DEFAULT) -> bool:
    """Whether it reasons first: a thought, six words before its last commitment, or two sentences without one."""
    answer = after_thoughts(text)
    thought = text if answer is None else text[: len(text) - len(answer)]
    if len(thought.split()) > 5:
        return True
    text = answer or ""
    starts = [each.start for each in _committed(text, phrases)]
    if starts:
        start = starts[-1]
        for earlier in reversed(starts[:-1]):
            if re.search(r"\d", text[earlier:start]) or SENTENCE_END.search(text[earlier:start]):
                break
            start = earlier
        return len(text[:start].split()) > 5
    return len([part for part in SENTENCE_END.split(text) if part.strip()]) >= 2


def _legacy(text: str, kind: str, choices: list[str]) -> str | None:
    if kind == "math":
        return _last_number(text)
    if kind == "choice":
        return _legacy_label(text, choices)
    _, announced, rest = text.rpartition("answer is")
    return (canonical(rest) or None) if announced else None


def _last_number(text: str) -> str | None:
    for match in reversed(list(LEGACY_NUMBER.finditer(text))):
        if (number := parse_number(match[0])) is not None:
            return format_number(number)
    return None


def _numbers(sentences: Iterable[str]) -> Iterator[str | None]:
    """The numbers committed to, in the order of their sentences; None for one that is part of something else."""
    for sentence in sentences:
        if DENIAL.match(sentence):
            continue
        for part in (EXPLANATION.split(sentence)[0], sentence):
            result = re.split(r"[=≈]", part)[-1]
            if found := NUMBER.search(result):
                yield _whole_number(result, found)
                break


def _whole_number(text: str, found: re.Match[str]) -> str | None:
    """The number that was found, if it stands there by itself."""
    number, after = _value(found), text[found.end() :]
    if number is None or CAME_BEFORE.search(text[: found.start()].rstrip()):
        return None
    if scale := SCALE.match(after):
        number, after = number * SCALES[scale[1].lower()], after[scale.end() :]
    return None if GOES_ON.match(after) else format_number(number)


def _labels(choices: list[str]) -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(choices)]


def _letters(sentences: Iterable[str], choices: list[str]) -> Iterator[str | None]:
    """The labels committed to, in the order of their sentences; None for a choice between several."""
    labels = _labels(choices)
    for sentence in sentences:
        bare = re.sub(
            r"(?i)^(?:indeed|clearly|most likely|probably)?,?\s*(?:the\s+)?(?:option|choice|letter)?\s*", "", sentence
        ).strip(" *_`\"'“”{}$")
        if DENIAL.match(bare):
            continue
        bare = re.sub(r"^[(\[]([a-z])[)\]]", lambda match: match[0].upper(), bare)
        named = [label for label, choice in zip(labels, choices, strict=True) if _plain(choice) == _plain(bare)]
        match = re.match(rf"[(\[]?([{labels}])(?!{IN_WORD}|['’])[)\]]?", bare)
        word = match and bare[0] in "AI" and re.match(rf"\s{IN_WORD}", bare[match.end() :])
        if match and not (word and (len(named) == 1 or not AFTER_LETTER.match(bare[match.end() :]))):
            rest = bare[match.end() :]
            yield None if re.match(rf"\s*(?:or|and|/|,)\s*[(\[]?[{labels}](?!\w)", rest) else match[1]
        elif len(named) == 1:
            yield named[0]
        elif found := _letter_behind(bare, labels, choices):
            yield found


def _letter_behind(sentence: str, labels: str, choices: list[str]) -> str | None:
    """The one label in brackets, or at the end, of a sentence: "bank (B)", "I think it is C"."""
    found = set(re.findall(rf"[(\[]([{labels}])[)\]]", sentence)) or set(
        re.findall(rf"\b(?:is|be)\s+([{labels}])$", sentence)
    )
    for label, choice in zip(labels, choices, strict=True):
        if last := re.fullmatch(rf"(.+?)\s*[,:-]?\s+([{labels}])", sentence):
            found |= {last[2]} if last[2] == label and _plain(last[1]) == _plain(choice) else set()
    return found.pop() if len(found) == 1 else None


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


def canonical(text: str) -> str:
    """A text in the form in which it is compared with others; of a number, its own canonical form.

    Without case, articles and the punctuation that means nothing, with LaTeX and Unicode in one form.
    """
    if (number := parse_number(text)) is not None:
        return format_number(number)
    text = unicodedata.normalize("NFKC", normalise(text)).casefold()
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"\\([gln])eq?(?![a-z])", lambda found: {"g": "≥", "l": "≤", "n": "≠"}[found[1]], text)
    text = re.sub(r"\$\$?(\S|\S[^$]*\S)\$\$?(?!\d)", r"\1", text)
    for _ in range(3):
        text = GENERAL_FRACTION.sub(r"{\1}/{\2}", re.sub(r"([\^_√/])\s*\{\s*([\w.√]*)\s*\}", r"\1\2", text))
        text = re.sub(r"(?<=[\^√/])\{([^{}]*)\}|\{([^{}]*)\}(?=/)", _bracketed, text)
    text = re.sub(r"\\(?=[a-z])", " ", text)
    # Initials stand together: "J. K. Rowling" is "J.K. Rowling".
    text = re.sub(r"\b([^\W\d_])\.\s*(?=[^\W\d_](?:\.|\W*$))", r"\1", text)
    text = re.sub(
        r"(?<=\d),(?=\d{3}(?!\d))|['’‘`´\\_]|(?<!\w)\*+(?=\w)|\*\*+(?!\w)|(?<=\w)\*+(?!\S)|\.(?![\d])", "", text
    )
    text = re.sub(r"(?<=\w)\s+(?=√)|(?<=√)\s+", "", text)
    text = "".join(_plain_sign(text, place) for place in range(len(text)))
    text = HYPHEN.sub(_hyphen, OPERATOR.sub(r"\1", text))
    text = " ".join(ARTICLE.sub("", " ".join(text.split())).split())
    number = parse_number(text)
    return text if number is None else format_number(number)


def _bracketed(found: re.Match[str]) -> str:
    """A group of LaTeX with brackets where it is more than a number or a name."""
    inner = (found[1] or found[2] or "").strip()
    return inner if re.fullmatch(r"[\w.√]*", inner) else f"({inner})"


def _plain_sign(text: str, place: int) -> str:
    """A sign of a text, or a space for punctuation; a colon or period within a number stays."""
    sign = text[place]
    if sign in ".:" and text[place + 1 : place + 2].isdigit() and not text[place - 1 : place].isalpha():
        return sign if sign == "." or text[place - 1 : place].isdigit() else " "
    return " " if sign not in KEPT and unicodedata.category(sign)[0] in "PCZ" else sign


def _hyphen(found: re.Match[str]) -> str:
    """A hyphen or slash: a space between words, an operator elsewhere."""
    before, after = found.string[: found.start()][-2:], found.string[found.end() :][:2]
    if not (len(before) == 2 and before.isalpha() and (after[:1].isdigit() or len(after) == 2 and after.isalpha())):
        return found[2]
    return f" {found[2]} " if found[1] and found[3] else " "


def _texts(text: str, found: Sequence[Commitment]) -> Iterator[str | None]:
    """The free-text answers committed to, in canonical form, from the last one back."""
    for each, following in reversed(_with_next(found)):
        if each.phrase.startswith("\\boxed"):
            said = each.rest
        else:
            stop = following.start - each.end if following else REACH
            said = _said(each.rest[:stop], is_cut=stop < len(each.rest), can_deny=each.phrase[-1:].isalnum())
        if answer := canonical(said):
            yield answer


def _said(rest: str, is_cut: bool, can_deny: bool) -> str:
    """What a commitment says: what stands in its quotes or markup, or the rest of its sentence without a reason."""
    rest = rest.lstrip(" \t\r\n:=")
    quoted = _quoted(rest)
    if quoted is not None:
        return quoted
    marked = OPENING.match(rest) is not None
    rest = re.sub(r"^[\s*_:]+", "", rest)
    end = _end_of_text(rest, marked)
    said = rest[:end] if end is not None else TRAILING_FILLER.sub("", rest) if is_cut else rest
    denial = DENIAL.match(said)
    if can_deny and denial and said[denial.end() :].strip(" .*_") and (said[:1].islower() or said.startswith("NOT ")):
        return ""
    reason = REASON.search(said, 1)
    return said[: reason.start()] if reason else said


def _quoted(rest: str) -> str | None:
    """What stands in quotes or markup, if that is all that is said."""
    opening = OPENING.match(rest)
    if not opening:
        return None
    closing = DELIMITERS[opening[0]]
    end = rest.find(closing, opening.end())
    while end >= 0 and rest[end + len(closing) :][:1].isalnum():
        end = rest.find(closing, end + len(closing))
    if end < 0 or "\n" in rest[opening.end() : end].strip():
        return None
    inner, after = rest[opening.end() : end], rest[end + len(closing) :]
    if not (AFTER_QUOTE.match(after) or REASON.match(after) or closing == "**" and AFTER_BOLD.match(after)):
        return None
    return _quoted(inner.strip()) or inner


def _end_of_text(text: str, marked: bool) -> int | None:
    """Where the sentence or line that a text begins with ends; abbreviations and initials do not end it.

    Nor, where a mark has been taken off its beginning (`marked`), does the other one of the pair.
    """
    for found in TEXT_END.finditer(text):
        if marked and found[0] == "**":
            continue
        if found[0] != "." or not _abbreviates(text, found.start()):
            return found.start()
    return None


def _abbreviates(text: str, period: int) -> bool:
    """Whether a period belongs to an abbreviation or to initials, and the sentence goes on."""
    *earlier, last = [""] + text[:period].split()
    word, after = last.lstrip("([\"'“‘*_"), text[period + 1 :]
    if TITLES.fullmatch(word.lower()):
        return True
    if word.lower() == "no":
        return earlier != [""] and re.match(r"\s?\d", after) is not None
    initial = len(word) == 1 and word.isupper() and (earlier[-1:] in ([""], ["the"]) or earlier[-1][:1].isupper())
    is_short = initial or ABBREVIATIONS.fullmatch(word.lower()) or INNER_PERIODS.fullmatch(word)
    return bool(is_short) and not NEXT_SENTENCE.match(after)


def missing_package(extractor: str | None) -> str | None:
    """What to install for an extractor, where its package is not there."""
    if extractor != MATH_VERIFY or importlib.util.find_spec("math_verify") is not None:
        return None
    return f"extractor: {MATH_VERIFY} is not installed for {sys.executable}; `pip install {MATH_VERIFY_PIN}`"


def _parsed(text: str) -> list[Any]:
    """What math-verify reads from a text; nothing if it cannot, or if that takes it too long.

    Only in a main thread: its limit of time is a signal.
    """
    import math_verify

    return list(math_verify.parse(text, parsing_timeout=SECONDS))


def read_by_math_verify(text: str) -> str | None:
    """The answer that math-verify reads from a completion of kind `math` or `text`."""
    found = _parsed(after_thoughts(text) or "")
    if not found:
        return None
    try:
        return str(found[0])
    except ValueError:  # An integer of more digits than Python prints.
        return str(found[-1])


def verify(text: str, answer: str) -> bool:
    """Whether the answer that math-verify reads equals the target; not if that takes it too long to find out."""
    import math_verify

    found = _parsed(after_thoughts(text) or "")
    if not found:
        return False
    is_marked = any(mark in answer for mark in ("$", r"\(", r"\[", r"\boxed"))
    gold = _parsed(answer if is_marked else f"${answer}$")
    return bool(math_verify.verify(gold, found, timeout_seconds=SECONDS))


def documents(**_: Any) -> dict[str, Any]:
    """lm-eval's hook for the data: the documents beside this file."""
    from datasets import Dataset

    with open(Path(__file__).with_name("docs.jsonl"), encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for extractor in {row.get("extractor") for row in rows}:
        if missing := missing_package(extractor):
            raise ImportError(missing)
    return {"test": Dataset.from_list(rows)}


def process_results(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """lm-eval's hook for one answer: correct by each extractor, whether one was extracted, whether it reasons first.

    By math-verify only where the document names it. Of several answers to an item, the means.
    """
    if isinstance(results[0], list):
        each = [process_results(doc, [text]) for text in results[0]]
        return {name: sum(scores[name] for scores in each) / len(each) for name in each[0]}
    text, phrases = results[0], doc.get("phrases") or DEFAULT
    verdicts = {name: extract(text, doc["kind"], doc["choices"], name, phrases) for name in EXTRACTORS}
    scores = {name: float(matches(found, doc["answer"], doc["kind"])) for name, found in verdicts.items()}
    if doc.get("extractor") == MATH_VERIFY:
        scores[MATH_VERIFY] = float(verify(text, doc["answer"]))
    return {**scores, "committed": float(verdicts["strict"] is not None), "chain": float(is_chain(text, phrases))}
