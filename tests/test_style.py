"""The prose of the repository: lines that fit, a README of a page, and the glossary's words."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import REPOSITORY

PAGES = ("README.md", "CHANGELOG.md", "config/README.md", "docs/*.md")
CODE = ("scripts/**/*.py", "rules/*.py", "bench/**/*.py", "envs/*.py", "tests/**/*.py")
REMARKS = (
    "Snakefile",
    "Makefile",
    "rules/*.smk",
    "config/*.yaml",
    "slurm/*.yaml",
    "profiles/**/*.yaml",
    ".test/**/*.yaml",
)
REMARKS += ("envs/*.yaml", "envs/*.txt", "envs/*.def")
CAPTIONS = ("report/*.rst",)

KEYS_AND_VALUES = r"(?<!queries, )\bkeys and values\b"

# A pattern that prose must not have, and what to say instead. To allow it somewhere, add the file to ALLOWED.
FORBIDDEN = {
    r"\breckon(s|ed|ing|ings)?\b": "estimate",
    r"\bcards?\b": "GPU",
    r"\bmoments\b": "optimizer state",
    KEYS_AND_VALUES: "KV cache",
    r"\btexts\b": "responses, answers or sequences",
    r"\bwritings?\b(?= (holds|takes|and training|or training))": "decoding",
    r"\b(right|wrong) (answers?|chains?|ones?|verdicts?|texts?|responses?|options?)\b": "correct, incorrect",
    r"\bright or wrong\b": "correct or incorrect",
    r"(?<!what )\b(is|are|was|were|answers?) (right|wrong)\b": "correct, incorrect",
    r"\buncommitted\b": "no answer extracted",
    r"\bof which\b": "two sentences",
    r"\blaid over\b|\bput over\b": "merged over",
    r"\blooked at\b": "the plain verb: evaluated, read, compared",
    r"\bout-domain\b": "out-of-domain",
    r"\bmend(s|ed|ing)?\b": "set aside, fix",
    r"\bcue\b|\bbegins? twice\b": "prompt",
    r"\bat stake\b": "that would be lost",
    r"\bnone the less\b|\ball the same\b|\bshall\b": "plain English",
    r"^(Lost|Gained|Left|Given|Kept|Named) is\b": "subject, verb, object",
}

# (file, pattern): why it may stand there.
ALLOWED: dict[tuple[str, str], str] = {
    ("tests/test_style.py", "*"): "the table itself",
    ("scripts/selfrefine/engines/kv_cache.py", KEYS_AND_VALUES): "the tensors that the KV cache holds",
}


def files(globs: tuple[str, ...]) -> list[Path]:
    """The files of the repository that some patterns match."""
    found = {path for pattern in globs for path in REPOSITORY.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not {".venv", "__pycache__", "results"}.intersection(path.parts))


def plain(text: str) -> str:
    """A text without what it quotes: code, and names of configuration values."""
    return re.sub(r"``.*?``|`[^`\n]*`", "`…`", text)


def page_prose(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a Markdown page outside of code blocks."""
    fenced = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            yield number, plain(line)


def code_prose(path: Path) -> Iterator[tuple[int, str]]:
    """The docstrings and comments of a Python file, line by line."""
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            quoted = node.body[0]
            for number, line in enumerate(quoted.value.value.splitlines(), quoted.lineno):
                yield number, plain(line)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], plain(token.string)


def remarks(path: Path) -> Iterator[tuple[int, str]]:
    """The comments, and a rule's docstrings, of a file in another language."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if found := re.search(r"(?:^|\s)#\s(.*)|^\s*\"\"\"(.*)", line):
            yield number, plain(found[1] or found[2] or "")


def captions(path: Path) -> Iterator[tuple[int, str]]:
    """All lines of a caption."""
    yield from enumerate(map(plain, path.read_text(encoding="utf-8").splitlines()), 1)


def prose() -> Iterator[tuple[str, int, str]]:
    """All prose of the repository: (file, line's number, line)."""
    for globs, lines in ((PAGES, page_prose), (CODE, code_prose), (REMARKS, remarks), (CAPTIONS, captions)):
        for path in files(globs):
            name = path.relative_to(REPOSITORY).as_posix()
            yield from ((name, number, line) for number, line in lines(path))


def test_prose_keeps_to_the_glossary():
    """Prints each place as FILE:LINE with what to say; `pytest tests/test_style.py -s` lists all of them."""
    faults = []
    for name, number, line in prose():
        for pattern, instead in FORBIDDEN.items():
            allowed = (name, pattern) in ALLOWED or (name, "*") in ALLOWED
            if not allowed and (found := re.search(pattern, line, re.IGNORECASE)):
                faults.append(f"{name}:{number}: {found[0]!r}: say {instead}: {line.strip()}")
    print("\n".join(faults))
    assert faults == []


def test_what_is_allowed_is_there():
    """An exception that nothing needs any more is removed."""
    found = {
        (name, pattern) for name, _, line in prose() for pattern in FORBIDDEN if re.search(pattern, line, re.IGNORECASE)
    }
    assert [key for key in ALLOWED if key[1] != "*" and key not in found] == []


@pytest.mark.parametrize("path", files(PAGES), ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_lines_fit_in_100_columns(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [f"{path.name}:{number}" for number, line in enumerate(lines, 1) if len(line) > 100] == []


def test_the_readme_is_at_most_120_lines():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_a_module_says_what_it_is_for_in_a_line():
    """The first line of its docstring, in under 100 characters."""
    long = []
    for path in files(("scripts/**/*.py",)):
        text = path.read_text(encoding="utf-8")
        first = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
        if text.strip() and not 0 < len(first) < 100:
            long.append(f"{path.relative_to(REPOSITORY)}: {first!r}")
    assert long == []
