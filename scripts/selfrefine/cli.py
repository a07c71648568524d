"""What the command-line programs share: arguments, and errors in one line."""

import argparse
import errno
import gc
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError

from selfrefine.computing import Compute
from selfrefine.errors import UserError


def parser(doc: str) -> argparse.ArgumentParser:
    """An argument parser whose help is the program's docstring."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def recipe(model: type[BaseModel]) -> Callable[[str], BaseModel]:
    """An argument type: a recipe as JSON text, checked; unknown keys and wrong values are refused."""

    def read(text: str) -> BaseModel:
        try:
            return model.model_validate(json.loads(text))
        except ValidationError as error:
            raise argparse.ArgumentTypeError("; ".join(describe(fault) for fault in error.errors())) from None
        except json.JSONDecodeError as error:
            raise argparse.ArgumentTypeError(f"not valid JSON: {error}") from None

    read.__name__ = "recipe"
    return read


def describe(fault: dict) -> str:
    """One fault that pydantic found, as `key: what is wrong`."""
    where = ".".join(str(part) for part in fault["loc"]) or "(whole)"
    message = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
    given = fault.get("input")
    # What stands there in place of a variable's name or a plain address may be a key.
    secret = bool(fault["loc"]) and fault["loc"][-1] in ("key_variable", "endpoint")
    shown = (
        f" (found {given!r})"
        if isinstance(given, str | int | float | bool) and fault["type"] != "extra_forbidden" and not secret
        else ""
    )
    return f"{where}: {message}{shown}"


def add_recipe(arguments: argparse.ArgumentParser, model: type[BaseModel]) -> None:
    """Adds `--recipe`, explained by the model's fields."""
    keys = "\n".join(
        f"  {name}: {field.description or field.annotation}" for name, field in model.model_fields.items()
    ).replace("%", "%%")
    arguments.epilog = f"keys of --recipe (JSON):\n{keys}"
    arguments.add_argument(
        "--recipe", required=True, type=recipe(model), metavar="JSON", help="the stage's settings; keys below"
    )


def add_vllm(arguments: argparse.ArgumentParser) -> None:
    """Adds `--memory` and `--batch-invariant`: how engine vllm uses the machine, which is part of no recipe."""
    arguments.add_argument(
        "--memory",
        type=float,
        default=0.9,
        help="share of each GPU's memory (without one, of the machine's) that engine vllm takes",
    )
    arguments.add_argument(
        "--batch-invariant",
        action="store_true",
        help="have engine vllm round a request alike whatever stands beside it: slower, on GPUs from compute capability 8.0",
    )


def add_compute(arguments: argparse.ArgumentParser) -> None:
    """Adds `--compute`, which is the machine's business and so part of no recipe."""
    arguments.add_argument(
        "--compute",
        choices=get_args(Compute),
        default="auto",
        help="what weights are multiplied in; auto: their dtype where the machine is fast in it, else float32",
    )


def add_provenance(arguments: argparse.ArgumentParser) -> None:
    """Adds `--provenance`."""
    arguments.add_argument(
        "--provenance", required=True, type=Path, help="the record of how the outputs came to be, as JSON; written last"
    )


def run(main: Callable[[], None]) -> None:
    """Runs a program; a fault that a user can mend ends it with one line on stderr and exit status 1."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        # Libraries wrap a full disk in errors of their own: its text may be the system's, or nothing that tells.
        told = any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
        if not told and shutil.disk_usage(".").free > 1 << 20:
            raise
        sys.exit(f"error: could not be written: {error}; free space and run again, finished work is kept")
    except KeyboardInterrupt:
        print("interrupted; run again to go on from here", file=sys.stderr)
        sys.exit(130)
    finally:
        # The interpreter's end looks for garbage among all that was imported: a second of a job that loads a model.
        gc.freeze()
