import shutil
from pathlib import Path

import pytest

from selfrefine.store import fingerprint as module

FILES = {
    "x.py": '''
"""Does x."""

import argparse

from selfrefine import a

# the limit
LIMIT = 3


def main(times=2):
    """Runs."""
    print(a.work(times), LIMIT)


if __name__ == "__main__":
    main()
''',
    "selfrefine/__init__.py": '"""The library."""\n',
    "selfrefine/a.py": '''
"""Works."""

import functools

from selfrefine.b import RATE


class Worker:
    """Works."""

    speed: float = 1.0


@functools.cache
def work(times):
    """Returns what was done."""
    return times * RATE * Worker.speed


def other():
    return 7
''',
    "selfrefine/b.py": "RATE = 1e-5\n",
    "selfrefine/late.py": "def helper():\n    return 1\n",
    "selfrefine/unrelated.py": "ANSWER = 42\n",
    "y.py": "import selfrefine.unrelated\n",
}


@pytest.fixture
def scripts(tmp_path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "scripts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "scripts"


def fingerprint(scripts: Path, script: str = "x.py") -> str:
    module.read_code.cache_clear()
    module.fingerprint.cache_clear()
    return module.fingerprint(scripts / script)


def edit(scripts: Path, name: str, old: str, new: str) -> None:
    text = (scripts / name).read_text()
    assert text.count(old) == 1
    (scripts / name).write_text(text.replace(old, new))


def test_fingerprint_is_sixteen_hex_digits_and_the_same_each_time(scripts):
    first = fingerprint(scripts)
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert fingerprint(scripts) == first


def test_fingerprint_does_not_depend_on_where_the_repository_lies(scripts, tmp_path):
    first = fingerprint(scripts)
    (tmp_path / "elsewhere").mkdir()
    moved = scripts.rename(tmp_path / "elsewhere" / "scripts")
    assert fingerprint(moved) == first


HARMLESS = [
    ("x.py", "# the limit", "# the highest number"),
    ("x.py", "LIMIT = 3", "LIMIT = 3  # items"),
    ("x.py", '"""Does x."""', '"""Does x,\n\nand says how.\n"""'),
    ("x.py", '    """Runs."""\n', ""),
    ("x.py", "LIMIT = 3\n", "\n\nLIMIT    =    (3)\n"),
    ("x.py", "print(a.work(times), LIMIT)", "print(\n        a.work(times),\n        LIMIT,\n    )"),
    ("x.py", '"__main__"', "'__main__'"),
    ("selfrefine/a.py", '"""Works."""\n\nimport', "import"),
    ("selfrefine/a.py", '    """Works."""\n', '    """Works hard."""\n'),
    ("selfrefine/a.py", "    return times * RATE", "    # slow\n    return times * RATE"),
    ("selfrefine/a.py", "return 7", "return 8"),
    ("selfrefine/a.py", "def other", "UNUSED = 1\n\n\ndef other"),
    ("selfrefine/b.py", "1e-5", "0.00001"),
    ("selfrefine/__init__.py", "The library", "A library"),
    ("selfrefine/unrelated.py", "42", "43"),
    ("y.py", "import", "import argparse\nimport"),
]


@pytest.mark.parametrize(("name", "old", "new"), HARMLESS)
def test_comments_docstrings_formatting_and_unrelated_modules_do_not_count(name, old, new, scripts):
    before = fingerprint(scripts)
    edit(scripts, name, old, new)
    assert fingerprint(scripts) == before


CHANGES = [
    ("x.py", "LIMIT = 3", "LIMIT = 4"),
    ("x.py", "times=2", "times=3"),
    ("x.py", "times=2", "times"),
    ("x.py", "def main", "@staticmethod\ndef main"),
    ("x.py", "print(a.work(times), LIMIT)", 'print(a.work(times), LIMIT, "text")'),
    ("x.py", "LIMIT = 3\n", 'LIMIT = 3\n\nNOTE = "a text that is no docstring"\n'),
    ("selfrefine/a.py", "times * RATE", "times / RATE"),
    ("selfrefine/a.py", "@functools.cache", "@functools.lru_cache"),
    ("selfrefine/a.py", "@functools.cache\n", ""),
    ("selfrefine/a.py", "speed: float = 1.0", "speed: float = 2.0"),
    ("selfrefine/a.py", "speed: float = 1.0", "speed: int = 1.0"),
    ("selfrefine/b.py", "1e-5", "1e-6"),
    ("selfrefine/__init__.py", '"""The library."""', "print('loaded')"),
    ("selfrefine/a.py", "import functools", "import functools\n\nfunctools.spoiled = True"),
    ("selfrefine/a.py", "import functools", "import elsewhere as functools"),
    ("selfrefine/a.py", "from selfrefine.b import RATE", "from selfrefine.unrelated import ANSWER as RATE"),
    ("selfrefine/a.py", "def other", "@Worker\ndef other"),
]


@pytest.mark.parametrize(("name", "old", "new"), CHANGES)
def test_constants_defaults_decorators_and_imported_modules_count(name, old, new, scripts):
    before = fingerprint(scripts)
    edit(scripts, name, old, new)
    assert fingerprint(scripts) != before


@pytest.mark.parametrize(
    "statement",
    [
        "import selfrefine.late\nselfrefine.late.helper()",
        "import selfrefine.late as late\nlate.helper()",
        "from selfrefine import late\nlate.helper()",
        "from selfrefine import late\nprint(late)",
        "from selfrefine import late\ngetattr(late, 'help' + 'er')()",
        "from selfrefine.late import helper\nhelper()",
        "from selfrefine import b, late as later\nlater.helper()",
        "def f():\n    from selfrefine.late import helper\n    helper()",
        "if LIMIT:\n    import selfrefine.late\nselfrefine.late.helper()",
        "import y, selfrefine.late\nprint(selfrefine)",
        "from selfrefine.late import *",
        "from selfrefine import late\nprint(late.__file__)",
    ],
)
def test_every_way_to_import_counts(statement, scripts):
    edit(scripts, "x.py", "LIMIT = 3\n", f"LIMIT = 3\n{statement}\n")
    before = fingerprint(scripts)
    edit(scripts, "selfrefine/late.py", "return 1", "return 2")
    assert fingerprint(scripts) != before


@pytest.mark.parametrize("statement", ["from .late import helper", "from . import late"])
def test_relative_imports_count(statement, scripts):
    edit(scripts, "selfrefine/b.py", "RATE = 1e-5\n", f"{statement}\n\nRATE = [1e-5, {statement.split()[-1]}]\n")
    before = fingerprint(scripts)
    edit(scripts, "selfrefine/late.py", "return 1", "return 2")
    assert fingerprint(scripts) != before


def test_package_of_an_imported_module_counts(scripts):
    edit(scripts, "x.py", "from selfrefine import a", "import selfrefine.engines.fast as a")
    (scripts / "selfrefine/engines").mkdir()
    (scripts / "selfrefine/engines/fast.py").write_text("def work(times):\n    return times\n")
    (scripts / "selfrefine/engines/__init__.py").write_text("print(1)\n")
    before = fingerprint(scripts)
    edit(scripts, "selfrefine/engines/__init__.py", "1", "2")
    assert fingerprint(scripts) != before


def test_modules_that_import_each_other_are_followed_once(scripts):
    edit(scripts, "selfrefine/b.py", "RATE = 1e-5\n", "from selfrefine import a\n\nRATE = 1e-5 * a.other()\n")
    before = fingerprint(scripts)
    edit(scripts, "selfrefine/a.py", "return 7", "return 8")
    assert fingerprint(scripts) != before


def test_scripts_that_share_a_module_differ_from_each_other(scripts):
    assert fingerprint(scripts, "x.py") != fingerprint(scripts, "y.py")


def test_every_script_of_this_repository_has_a_fingerprint_of_its_own():
    scripts = Path(__file__).parent.parent / "scripts"
    found = {path.name: fingerprint(scripts, path.name) for path in scripts.glob("*.py")}
    assert len(found) > 5
    assert len(set(found.values())) == len(found)


@pytest.fixture
def ours(tmp_path) -> Path:
    """A copy of this repository's scripts, to be edited."""
    theirs = Path(__file__).parent.parent / "scripts"
    return Path(shutil.copytree(theirs, tmp_path / "ours", ignore=shutil.ignore_patterns("__pycache__")))


def test_what_keeps_the_records_does_not_count(ours):
    """No artifact's content depends on it. A module that is listed and not there may be a misspelled one."""
    before = {name: fingerprint(ours, name) for name in ("pair.py", "refine.py", "evaluate.py", "tables.py")}
    for path in module.UNCOUNTED:
        (ours / path).write_text(f"{(ours / path).read_text()}\n\nprint('loaded')\n")
    edit(ours, "selfrefine/store/run.py", "        self.leads = leads\n", "        self.leads = not leads\n")
    edit(ours, "selfrefine/store/environment.py", 'machine["gpus"]', 'machine["cards"]')
    assert {name: fingerprint(ours, name) for name in before} == before
    edit(ours, "selfrefine/store/hashing.py", "sort_keys=True", "sort_keys=False")
    assert {name: fingerprint(ours, name) for name in before} != before


def test_differences_between_environments_that_a_table_shows_count(ours):
    before = {name: fingerprint(ours, name) for name in ("tables.py", "pair.py")}
    edit(ours, "selfrefine/store/environment.py", "(here)} against {", "(here)} and {")
    after = {name: fingerprint(ours, name) for name in before}
    assert after["tables.py"] != before["tables.py"] and after["pair.py"] == before["pair.py"]


def test_data_files_that_a_reached_part_names_count(scripts):
    edit(scripts, "selfrefine/a.py", "return times", 'open("page.html")\n    return times')
    (scripts / "selfrefine/page.html").write_text("<p>")
    before = fingerprint(scripts)
    (scripts / "selfrefine/page.html").write_text("<b>")
    assert fingerprint(scripts) != before


def test_a_snapshot_holds_the_files_that_the_script_reaches(scripts):
    module.read_code.cache_clear()
    kept = module.snapshot(scripts / "x.py")
    assert kept["script"] == "x.py"
    assert set(kept["files"]) == {"x.py", "selfrefine/__init__.py", "selfrefine/a.py", "selfrefine/b.py"}
    assert module.Code(kept["files"]).parts("x.py") == module.read_code(scripts).parts("x.py")


def test_names_in_annotations_of_functions_reach_nothing(scripts):
    edit(scripts, "selfrefine/b.py", "RATE = 1e-5\n", "RATE = 1e-5\n\n\nclass Settings:\n    limit = 1\n")
    edit(scripts, "selfrefine/a.py", "import RATE", "import RATE, Settings")
    edit(scripts, "selfrefine/a.py", "def work(times):", "def work(times: Settings) -> Settings:")
    before = fingerprint(scripts)
    edit(scripts, "selfrefine/b.py", "limit = 1", "limit = 2")
    assert fingerprint(scripts) == before
    edit(scripts, "selfrefine/a.py", "return times * RATE", "return times * RATE * Settings.limit")
    used = fingerprint(scripts)
    edit(scripts, "selfrefine/b.py", "limit = 2", "limit = 3")
    assert used not in (before, fingerprint(scripts))
