"""Programs with subcommands: help and examples from docstrings, and a study's configuration files."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from selfrefine.errors import UserError

# Adds the arguments of a command, and what runs it as the default `run`.
Command = Callable[[argparse.ArgumentParser], None]


def program(doc: str | None, commands: Iterable[Command]) -> argparse.ArgumentParser:
    """A program whose help is a docstring: a description and, in the last paragraph, examples of arguments."""
    description, examples = _help_of(doc)
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, epilog=examples, formatter_class=formatter)
    add_commands(parser, commands, "COMMAND")
    return parser


def add_commands(parser: argparse.ArgumentParser, commands: Iterable[Command], metavar: str) -> None:
    """Adds the commands, each named and explained by the function that adds its arguments."""
    found = parser.add_subparsers(required=True, metavar=metavar, title="commands")
    for add in commands:
        description, examples = _help_of(add.__doc__)
        # argparse fills in what a help's percent signs name, but not a description's.
        short = description.partition("\n\n")[0].rstrip(".").replace("%", "%%")
        command = found.add_parser(
            add.__name__.strip("_"),
            help=f"{short[0].lower()}{short[1:]}",
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        add(command)


def _help_of(doc: str | None) -> tuple[str, str]:
    """A docstring's description, and its last paragraph as examples."""
    description, _, examples = (doc or "").strip().rpartition("\n\n")
    lines = [f"  python scripts/study.py {line.strip()}" for line in examples.splitlines()]
    return description, "\n".join(["examples:", *lines])


def add_configuration(command: argparse.ArgumentParser, more: str = "") -> None:
    """Adds `--configfile`, which takes the files of one study each time."""
    command.add_argument(
        "--configfile",
        type=Path,
        nargs="+",
        action="append",
        default=[],
        metavar="FILE",
        help=f"the study's configuration files, as for snakemake; a target may stand before or after them{more}",
    )


def configurations(args: argparse.Namespace) -> list[list[Path]]:
    """The files of each study that was named, or of the default one."""
    return args.configfile or [[]]


def configuration(args: argparse.Namespace) -> list[Path]:
    """The files of the one study that a command is about."""
    first, *others = configurations(args)
    if others:
        raise UserError("--configfile: name all files of the study after one --configfile")
    return first


def configuration_last(arguments: list[str]) -> list[str]:
    """The arguments with each `--configfile` and its files at the end, so that it does not take a target for a file.

    Its files are the argument after it and the further ones that are called *.yaml, *.yml or *.json and are not
    results.
    """
    others: list[str] = []
    configured: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument != "--configfile":
            others.append(argument)
            continue
        configured += [argument, *rest[:1]]
        rest = rest[1:]
        while rest and rest[0].endswith((".yaml", ".yml", ".json")) and not rest[0].startswith("results/"):
            configured.append(rest.pop(0))
    return others + configured
