"""The program for people, scripts/study.py: its help, its examples, and how it takes a configuration."""

import argparse
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

import study
from conftest import REPOSITORY, run
from selfrefine.errors import UserError
from selfrefine.programs.subcommands import configuration, configuration_last, configurations, program
from selfrefine.store.files import read_jsonl

COMMANDS = (
    "preview",
    "plan",
    "why",
    "trace",
    "verify",
    "prune",
    "adopt",
    "crate",
    "share",
    "record",
    "batch",
    "estimate",
)
EVERY = ((), *((name,) for name in COMMANDS), ("batch", "export"), ("batch", "import"))
# Modules that take long to load, or are not there where an archive is checked.
HEAVY = ("torch", "numpy", "pandas", "scipy", "yaml", "matplotlib", "snakemake", "transformers", "datasets", "jinja2")


def parser() -> argparse.ArgumentParser:
    return study.build()


def help_of(*command: str, capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([*command, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def examples_in(text: str) -> list[list[str]]:
    """The arguments of the examples in a help, as a shell splits them."""
    found = [shlex.split(line) for line in text.split("examples:\n")[1].splitlines()]
    assert all(words[:2] == ["python", "scripts/study.py"] for words in found)
    return [words[2:] for words in found]


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_every_help_says_in_one_line_what_the_command_does_and_has_examples_that_parse(command, capsys):
    text = help_of(*command, capsys=capsys)
    first = next(part for part in text.split("\n\n")[1:])
    assert first.endswith(".") and "\n" not in first and len(first) <= 120
    examples = examples_in(text)
    assert 1 <= len(examples) <= 4
    for arguments in examples:
        assert tuple(arguments[: len(command)]) == command
        assert callable(parser().parse_args(configuration_last(arguments)).run)


def test_the_help_lists_every_command(capsys):
    listed = help_of(capsys=capsys).split("commands:\n")[1].split("examples:")[0]
    assert tuple(re.findall(r"^    (\w+)", listed, re.MULTILINE)) == COMMANDS


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_no_help_needs_more_than_pydantic(command, monkeypatch):
    program = (
        f"import runpy, sys; sys.modules |= dict.fromkeys({HEAVY}); sys.argv[:] = sys.argv[1:]; "
        "sys.path.insert(0, sys.argv[0].rsplit('/', 1)[0]); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    outcome = run(sys.executable, "-c", program, REPOSITORY / "scripts/study.py", *command, "--help")
    assert outcome.stdout.startswith("usage: study.py")


PLACES = {
    "before the target": ["--configfile", "a.yaml", "results/tiny/summary.md"],
    "after the target": ["results/tiny/summary.md", "--configfile", "a.yaml"],
    "several, before": ["--configfile", "a.yaml", "b.json", "results/tiny/summary.md"],
    "several, after": ["results/tiny/summary.md", "--configfile", "a.yaml", "b.json"],
    "before a result that is YAML": ["--configfile", "a.yaml", "results/tiny/configuration.yaml"],
    "with an equals sign": ["--configfile=a.yaml", "results/tiny/summary.md"],
    "a file of any name": ["--configfile", "/dev/fd/63", "results/tiny/summary.md"],
}


@pytest.mark.parametrize("arguments", PLACES.values(), ids=PLACES)
def test_a_configuration_stands_before_or_after_the_target(arguments):
    args = parser().parse_args(configuration_last(["why", *arguments]))
    files = [part.removeprefix("--configfile=") for part in arguments if part.endswith((".json", "63", "a.yaml"))]
    assert configuration(args) == [Path(file) for file in files]
    assert args.target in arguments and args.target.startswith("results/tiny/")


def test_each_further_configuration_is_one_of_another_study():
    named = ["prune", "--configfile", "a.yaml", "b.yaml", "--yes", "--configfile", "c.yaml"]
    args = parser().parse_args(configuration_last(named))
    assert args.yes and configurations(args) == [[Path("a.yaml"), Path("b.yaml")], [Path("c.yaml")]]
    assert configurations(parser().parse_args(["prune"])) == [[]]
    with pytest.raises(UserError, match="name all files of the study after one --configfile"):
        configuration(args)


def test_an_option_without_a_file_is_refused(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(configuration_last(["why", "results/tiny", "--configfile"]))
    assert "--configfile: expected at least one argument" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parser().parse_args(configuration_last(["why", "--conf", "a.yaml"]))


def test_a_program_is_what_its_docstrings_say(capsys):
    def shout(command: argparse.ArgumentParser) -> None:
        """Say it loudly.

        shout hello
        """
        command.add_argument("word")
        command.set_defaults(run=lambda args: args.word.upper())

    made = program("Do things.\n\nshout hello\n", [shout])
    args = made.parse_args(["shout", "hello"])
    assert args.run(args) == "HELLO"
    assert "say it loudly" in made.format_help()
    assert made.format_help().endswith("examples:\n  python scripts/study.py shout hello\n")


# What the examples name, and its like in the tiny study.
TINY = {"quickstart": "tiny", "config/config.yaml": "config/tiny.yaml", "config/paper.yaml": "config/tiny.yaml"}
TINY |= {"config/studies/paper-pilot.yaml": "config/tiny.yaml"}
SAYS = {
    "plan": "Nothing would run",
    "why": "is made: nothing would run",
    "trace": "every link holds",
    "verify": "every artifact is what its record says",
    "prune": "0 folders, 0.0 MB, not needed",
    "estimate": "no teacher of the study is served",
}


@pytest.mark.parametrize("command", SAYS)
def test_the_examples_run_on_a_finished_study(command, finished, capsys):
    folder, _ = finished
    for arguments in examples_in(help_of(command, capsys=capsys)):
        for name, own in TINY.items():
            arguments = [argument.replace(name, own) for argument in arguments]
        if command in ("plan", "why", "prune", "estimate") and "--configfile" not in arguments:
            arguments += ["--configfile", "config/tiny.yaml"]
        outcome = run("python", "scripts/study.py", *arguments, cwd=folder)
        compares = command == "plan" and ("--against" in arguments or arguments[1:3] == ["--seeds", "3"])
        assert ("## Designs side by side" if compares else SAYS[command]) in outcome.stdout, arguments


def test_the_examples_of_archives_run_on_a_finished_study(finished, tmp_path, capsys):
    folder, _ = finished
    beside, archive = examples_in(help_of("crate", capsys=capsys))
    archive[archive.index("study.zip")] = str(tmp_path / "study.zip")
    whole, lighter = (
        run("python", "scripts/study.py", *arguments, cwd=folder).stdout for arguments in (beside, archive)
    )
    assert whole.startswith("ro-crate-metadata.json: ", whole.rfind("/") + 1)
    assert lighter.startswith(f"{tmp_path}/study.zip: ") and (tmp_path / "study.zip").exists()
    left_out = [int(re.search(r"(\d+) more by size", said)[1]) for said in (whole, lighter)]
    # The weights of the base model, of an instructed and of a refined student.
    assert left_out[1] - left_out[0] == len(list(folder.glob("results/store/**/*.safetensors"))) >= 3


def test_the_examples_of_sharing_run_on_a_finished_study(finished, tmp_path, capsys):
    folder, _ = finished
    names = {"laptop": "tiny", "docs/laptop-study": str(tmp_path / "shared")}
    ((*share,),) = examples_in(help_of("share", capsys=capsys))
    share = [names.get(argument, argument) for argument in share]
    trace = ("trace", "--all", "--results", tmp_path / "shared")
    assert run("python", "scripts/study.py", *share, cwd=folder).stdout.startswith(f"{tmp_path}/shared: ")
    assert run("python", "scripts/study.py", *trace, cwd=folder).stdout.endswith(": every link holds\n")
    assert not [*tmp_path.rglob("*.safetensors")]
    questions = [
        json.dumps(item["question"])[1:-1]
        for path in folder.glob("results/store/prepare/*/*/items.jsonl")
        for item in read_jsonl(path)
    ]
    assert len(questions) > 20
    texts = {
        path: path.read_text("utf-8")
        for path in tmp_path.rglob("*")
        if path.suffix in (".html", ".jsonl", ".json", ".csv")
    }
    quoted = {path: {question for question in questions if question in text} for path, text in texts.items()}
    # Two laid-out tables quote a question of each kind, or of each split; the page shows them.
    shown = set.union(*(found for path, found in quoted.items() if path.name in ("prompts.csv", "splits.csv")))
    assert 1 <= len(shown) <= 2
    assert all(found <= shown for found in quoted.values()), quoted


def test_a_teacher_that_is_not_served_has_no_batch(finished, tmp_path):
    folder, _ = finished
    batch = ("batch", "export", "--teacher", "oracle", "--configfile", "config/tiny.yaml")
    outcome = run("python", "scripts/study.py", *batch, "--output", tmp_path / "batch.jsonl", cwd=folder, check=False)
    assert outcome.returncode == 1
    assert outcome.stderr == "error: --teacher: the study asks no served teacher 'oracle'; it asks none\n"


def test_a_recording_of_a_recording_is_refused(finished, tmp_path):
    folder, _ = finished
    answers = sorted(folder.glob("results/store/teach/oracle/*/*/record.json"))
    command = ("record", "--teacher", "oracle", "--output", tmp_path / "again.jsonl", "--answers", *answers)
    outcome = run("python", "scripts/study.py", *command, cwd=folder, check=False)
    assert outcome.returncode == 1 and "was itself replayed from a recording" in outcome.stderr
    assert not (tmp_path / "again.jsonl").exists()
