"""The laptop study that is shipped with its results: it can be traced, and its page says what they say."""

import csv
import json
import re

import pytest

from conftest import REPOSITORY, run

RESULTS = REPOSITORY / "docs/laptop-study"
SHOWN = RESULTS / "laptop"
PAGE = REPOSITORY / "docs/laptop-study.md"
# A number with its interval, in percent or points.
INTERVAL = re.compile(r"([+−]?\d+\.\d) (?:points )?\[([+−]?\d+\.\d), ([+−]?\d+\.\d)\]")


def rows_of(name: str) -> list[dict[str, str]]:
    with open(SHOWN / "tables" / name, newline="") as file:
        return list(csv.DictReader(file))


def rounded(*values: float | str) -> tuple[float, ...]:
    return tuple(round(100 * float(value), 1) for value in values)


def shown_intervals() -> set[tuple[float, ...]]:
    """What the study's tables and claims say, in percent or points."""
    found = {rounded(row["accuracy"], row["low"], row["high"]) for row in rows_of("arms.csv")}
    for claim in json.loads((SHOWN / "claims.json").read_text())["claims"]:
        for part in claim["parts"]:
            found |= {
                rounded(one["difference"], one["low"], one["high"])
                for comparison in part["comparisons"]
                for one in (comparison, comparison.get("matched_length"))
                if one and "difference" in one
            }
    return found


def test_every_link_of_the_shipped_study_holds():
    assert run("python", "scripts/study.py", "trace", "--all", "--results", RESULTS).stdout.endswith(
        ": every link holds\n"
    )


def test_no_weights_and_no_questions_are_shipped():
    names = {path.name for path in RESULTS.rglob("*")}
    assert not any(name.endswith((".safetensors", ".bin", ".gguf")) for name in names)
    assert not names & {"items.jsonl", "pairs.jsonl", "paths.jsonl", "demonstrations.jsonl", "raw.jsonl"}


def test_intervals_on_the_page_are_those_of_the_results():
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    found = [tuple(float(number.replace("−", "-")) for number in match.groups()) for match in INTERVAL.finditer(text)]
    assert len(found) >= 28
    known = shown_intervals()
    missing = [numbers for numbers in found if not any(numbers == pytest.approx(one, abs=0.051) for one in known)]
    assert missing == []


def test_verdicts_on_the_page_are_those_of_the_results():
    verdicts = {
        (str(claim["claim"]), claim["recipe"]): claim["verdict"]
        for claim in json.loads((SHOWN / "claims.json").read_text())["claims"]
        if claim["verdict"] != "not tested"
    }
    told = re.findall(
        r"^\| ([\w-]+)[^|]*\| `?(\w*)`? *\| ([a-z ]+?) *\|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {(claim, recipe): verdict for claim, recipe, verdict in told if verdict != "verdict"} == verdicts
