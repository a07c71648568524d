"""What README.md, config/README.md and docs/ say can be done, tried: commands, YAML, links, and a few facts."""

import argparse
import functools
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest
import yaml

from conftest import REPOSITORY, make_workflow, run
from selfrefine.answers.extraction import parse_number
from selfrefine.schema import export
from selfrefine.store.files import read_jsonl, write_jsonl
from selfrefine.study.design import Study
from selfrefine.study.open_study import read_configuration

PAGES = sorted(
    (REPOSITORY / "README.md", REPOSITORY / "config/README.md", *REPOSITORY.glob("docs/*.md")),
    key=lambda path: path.as_posix(),
)
EXTENDING = REPOSITORY / "docs/extending.md"


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def commands(page: Path) -> list[str]:
    """The commands of a page: its indented lines, without what explains them on the right."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if line.startswith("    ")]
    joined = re.sub(r"\\\n\s+", "", "\n".join(lines))
    return [re.split(r"(?<=\S)\s{2,}", line.strip())[0] for line in joined.splitlines()]


def yaml_blocks(page: Path) -> list[str]:
    """The YAML of a page that is part of a study's file."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [block for block in blocks if yaml.safe_load(block)]


ALL_COMMANDS = sorted({(name_of(page), command) for page in PAGES for command in commands(page)})


@functools.cache
def snakemake_parser() -> argparse.ArgumentParser:
    from snakemake.cli import get_argument_parser

    return get_argument_parser()


@functools.cache
def help_of(*program: str) -> str:
    return run(*program, "--help").stdout


def try_snakemake(words: list[str]) -> None:
    """Its options are Snakemake's, its files are there, and no target is taken for a file."""
    args = snakemake_parser().parse_args(words)
    for path in args.configfile or []:
        assert name_of_study(path) or (REPOSITORY / path).is_file(), path
    for profile in [args.profile] if isinstance(args.profile, str) else args.profile or []:
        assert (REPOSITORY / profile / "config.yaml").is_file()
    rules = re.findall(r"^ *(?:use rule \w+ as|rule) (\w+)", rules_text(), re.MULTILINE)
    assert {*args.targets, *args.until} <= {*rules}


@functools.cache
def rules_text() -> str:
    return "\n".join(path.read_text() for path in (REPOSITORY / "Snakefile", *REPOSITORY.glob("rules/*.smk")))


def name_of_study(path: Path) -> bool:
    """Whether a configuration file is the reader's own, which the repository need not have."""
    return path.as_posix() == "config/mine.yaml"


@functools.cache
def study_program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("study_program", REPOSITORY / "scripts/study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def try_python(words: list[str]) -> None:
    """The program is there, and has the commands and options that it is given."""
    program, *arguments = words
    if program == "scripts/study.py" and "--help" not in arguments:
        own = study_program()
        own.build().parse_args(own.configuration_last(arguments))
        return
    shown = help_of("python", program)
    for option in (word for word in arguments if word.startswith("--")):
        assert re.search(rf"{option}\b", shown), f"{program} has no option {option}"
    if arguments and not arguments[0].startswith("-"):
        assert re.search(rf"[{{,]{arguments[0]}[,}}]", shown), f"{program} knows no {arguments[0]}"


def try_make(words: list[str]) -> None:
    (target,) = words
    assert run("make", "-n", target).returncode == 0


def try_files(words: list[str]) -> None:
    """The files that it names are there."""
    named = [word for word in words if re.match(r"(envs|tests)/", word) and not word.endswith(".sif")]
    assert named and all((REPOSITORY / word).is_file() for word in named)


def as_it_is(words: list[str]) -> None:
    """A program of the system, or one that another test runs."""


TRIED = {
    "snakemake": try_snakemake,
    "python": try_python,
    "make": try_make,
    "pytest": try_files,
    "pip": try_files,
    "apptainer": try_files,
    "source": as_it_is,
    "head": as_it_is,
    # tests/test_workflow.py runs it.
    "lm_eval": as_it_is,
}


@pytest.mark.parametrize(("page", "command"), ALL_COMMANDS)
def test_a_command_can_be_given(page, command):
    program, *words = shlex.split(command, comments=True)
    assert program in TRIED, f"{page}: say in TRIED how {program} is tried"
    TRIED[program](words)


def test_pages_have_commands_and_files():
    assert len(ALL_COMMANDS) > 40
    assert len(yaml_blocks(EXTENDING)) == 7


def test_configfile_takes_the_words_that_follow(capsys):
    """As config/README.md says; and both ways around it work."""
    parse = snakemake_parser().parse_args
    assert parse(["--configfile", "config/mine.yaml", "all"]).targets == set()
    for command in commands(REPOSITORY / "config/README.md")[:2]:
        args = parse(shlex.split(command)[1:])
        assert [path.as_posix() for path in args.configfile] == ["config/mine.yaml"]
        assert {*args.targets} == {"all"}


def study_of(folder: Path, *texts: str) -> Study:
    """The study of files with these contents, over the quickstart."""
    paths = [REPOSITORY / "config/config.yaml"]
    for number, text in enumerate(texts):
        paths.append(folder / f"{number}.yaml")
        paths[-1].write_text(text)
    return Study.read(read_configuration(paths))


@pytest.mark.parametrize(
    ("page", "block"),
    [(name_of(page), block) for page in PAGES for block in yaml_blocks(page)],
    ids=lambda value: value if len(value) < 30 else "",
)
def test_yaml_is_part_of_a_valid_study(tmp_path, page, block):
    study_of(tmp_path, block)


def test_the_catalogue_that_is_listed_is_the_catalogue():
    text = (REPOSITORY / "config/README.md").read_text()
    listed = re.search(r"^The catalogue has (.*?), each with its source", text, re.DOTALL | re.MULTILINE)
    catalogue = yaml.safe_load((REPOSITORY / "config/recipes.yaml").read_text())
    shown = set(re.findall(r"`([\w-]+)`", listed[1]))
    rounds = {name for name in catalogue["recipes"] if name.endswith("-round")}
    assert shown == {*catalogue["recipes"], *catalogue["schedules"]} - rounds


def test_the_items_of_the_pages_benchmark_are_shown(tmp_path):
    """The previews of docs/benchmarks.md and docs/extending.md on the benchmark of the latter, with a training split."""
    make_workflow(tmp_path)
    (block,) = [block for block in yaml_blocks(EXTENDING) if "mine.csv" in block]
    config = yaml.safe_load(block)
    config["study"] |= {"tasks": ["mine"], "evaluate": ["mine"]}
    config["benchmarks"]["mine"]["splits"]["train"] = {"file": "all", "size": 30}
    (tmp_path / "config/mine.yaml").write_text(yaml.safe_dump(config))
    for name in ("config.yaml", "recordings"):
        (tmp_path / "config" / name).symlink_to(REPOSITORY / "config" / name)
    rows = [
        f"{number} things are in box {number}.,What is in {number}?,red {number},blue,no,{number % 3}"
        for number in range(90)
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.csv").write_text("\n".join(["context,question,first,second,third,label", *rows]))
    for command in commands(REPOSITORY / "docs/benchmarks.md")[1:2] + [
        "python scripts/study.py preview mine --configfile config/mine.yaml"
    ]:
        shown = run(*shlex.split(command), cwd=tmp_path).stdout
        assert shown.count("=> correct answer: ") == 10 and "What is in" in shown
        assert re.search(r"^   Choices:$", shown, re.MULTILINE) and re.search(r"^=> B\) blue$", shown, re.MULTILINE)
    assert not (tmp_path / "results/store/fetch").exists(), "a file on this machine is read where it is"


def prepared(tmp_path: Path, fields: dict, row: dict, kind: str = "math") -> dict | str:
    """The item that a row becomes, or the error."""
    raw, record = tmp_path / "raw.jsonl", tmp_path / "out/record.json"
    write_jsonl(raw, [row])
    settings = {"kind": kind, "fields": fields, "name": "test", "split": {"file": "all"}}
    command = ["python", "scripts/prepare.py", "--settings", json.dumps(settings), "--raw", raw, "--record", record]
    outcome = run(*command, check=False)
    return next(iter(read_jsonl(record.with_name("items.jsonl")))) if not outcome.returncode else outcome.stderr


def test_patterns_match_as_the_page_says(tmp_path):
    question = {"field": "text", "pattern": "Q: (.*?) (?:A|B):"}
    fields = {"question": question, "answer": {"field": "text", "pattern": r"= (\d+)"}, "answer_is": "number"}
    item = prepared(tmp_path / "first", fields, {"text": "Q: one\ntwo A: = 3 B: = 4"})
    assert (item["question"], item["answer"]) == ("one two", "3")
    item = prepared(tmp_path / "whole", fields, {"text": "no question  = 5"})
    assert item["question"] == "no question = 5"
    assert "does not match" in prepared(tmp_path / "none", fields, {"text": "Q: one A: none"})


def test_numbers_are_what_the_page_says():
    text = (REPOSITORY / "docs/benchmarks.md").read_text()
    paragraph = re.search(r"\*\*What counts as a number\?\*\*(.*?)\n\n", text, re.DOTALL)[1]
    are, rest = " ".join(paragraph.split()).split(" do. ", 1)
    assert all(parse_number(example) is not None for example in re.findall(r"`(.*?)`", are))
    are_not = re.findall(r"`(.*?)`", rest.split(" do not", 1)[0])
    assert len(are_not) == 5 and [example for example in are_not if parse_number(example) is not None] == []


def links() -> Iterator[tuple[Path, str]]:
    """Links of the pages that stay in the repository."""
    for page in (*PAGES, REPOSITORY / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                yield page, target


def anchors(page: Path) -> set[str]:
    """What links may name in a page: its headings, as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    broken = []
    for page, target in links():
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.is_file() or anchor and anchor not in anchors(found):
            broken.append(f"{name_of(page)}: {target}")
    assert broken == []


def test_files_that_pages_name_are_there():
    folders = "bench|config|docs|envs|profiles|report|rules|scripts|slurm|tests"
    missing = []
    for page in PAGES:
        for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text(encoding="utf-8")):
            own = name in ("config/mine.yaml", "scripts/STAGE.py")
            if not own and not (REPOSITORY / name).exists():
                missing.append(f"{name_of(page)}: {name}")
    assert missing == []


def test_the_schema_is_that_of_the_configuration():
    """`make schema` writes it."""
    assert (REPOSITORY / "config/schema.json").read_text(encoding="utf-8") == export.text()


@pytest.mark.parametrize(
    "path", [*REPOSITORY.glob("config/*.yaml"), REPOSITORY / ".test/config/config.yaml"], ids=name_of
)
def test_the_shipped_files_name_the_schema_and_fit_it(path):
    if path.name == "assumptions.yaml":
        pytest.skip("not a study's file")
    first, *_ = path.read_text().splitlines()
    assert (path.parent / first.removeprefix("# yaml-language-server: $schema=")).resolve().name == "schema.json"
    jsonschema.validate(yaml.safe_load(path.read_text()), export.schema())


def test_the_schema_finds_a_misspelled_key():
    with pytest.raises(jsonschema.ValidationError, match="smapling"):
        jsonschema.validate({"smapling": {"cot": 8}}, export.schema())


def test_the_citation_names_the_paper_and_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    project = re.search(r'^version = "(.*)"', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    assert citation["version"] == project[1]
    changes = (REPOSITORY / "CHANGELOG.md").read_text()
    assert f"## [{project[1]}]" in changes or f"This will be {project[1].removesuffix('.dev0')}." in changes
    assert citation["references"][0]["identifiers"][0]["value"] == "arXiv:2405.00402"
    assert citation["license"] == "Apache-2.0"
    assert (REPOSITORY / "LICENSE").read_text().lstrip().startswith("Apache License\n")


def test_the_catalog_finds_what_it_asks_for():
    """The Snakemake workflow catalog: the word workflow, a usage section, and which deployments work."""
    text = (REPOSITORY / "README.md").read_text()
    assert "## Usage" in text and "Snakemake workflow" in text
    catalog = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())
    assert catalog["usage"]["report"] is True
    assert set(catalog["usage"]["software-stack-deployment"]) == {"conda", "apptainer", "apptainer+conda"}


def test_the_test_study_is_planned(tmp_path):
    """As the GitHub workflow does."""
    make_workflow(tmp_path)
    outcome = run(
        *("snakemake", "-n", "--cores", "2", "--snakefile", REPOSITORY / "Snakefile", "--directory", tmp_path),
        *("--configfile", ".test/config/config.yaml"),
    )
    assert "refine" in outcome.stdout


def test_the_github_workflow_runs_what_make_runs():
    steps = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())["jobs"]["quick"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    makefile = (REPOSITORY / "Makefile").read_text()
    assert "make check" in commands
    quick = re.search(r"^quick: setup check\n\t(.*)", makefile, re.MULTILINE)[1]
    assert f".venv/bin/{quick}" in commands


def test_the_map_of_the_code_is_true():
    """Each stage's row in docs/code.md names its rule file, settings, module and tests, and no stage is missing."""
    text = (REPOSITORY / "docs/code.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| `(.+?)` \| `(.+?)` \| `(.+?)` \| `(.+?)` \|$", text, re.MULTILINE)
    settings = (REPOSITORY / "scripts/selfrefine/schema/stages.py").read_text(encoding="utf-8")
    for stage, rules, name, module, tests in rows:
        assert re.search(
            rf"^rule {stage}:$", (REPOSITORY / "rules" / rules).read_text(encoding="utf-8"), re.MULTILINE
        ), stage
        assert f"class {name}(" in settings, stage
        assert (REPOSITORY / "scripts" / f"{stage}.py").is_file(), stage
        assert importlib.util.find_spec(f"selfrefine.{module}"), stage
        assert (REPOSITORY / "tests" / tests).is_file(), stage
    versions = json.loads((REPOSITORY / "scripts/versions.json").read_text(encoding="utf-8"))
    assert sorted(stage for stage, *_ in rows) == sorted(versions)
