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
from selfrefine.files import read_json
from selfrefine.names import FILES


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


def add_record(arguments: argparse.ArgumentParser) -> None:
    """Adds `--record`, and what the workflow planned with: `--code` and `--sources`."""
    arguments.add_argument(
        "--record", required=True, type=Path, help="the record of the artifact, in the folder that its files go to"
    )
    arguments.add_argument("--code", metavar="VERSION", help="refuse to run if the code is another one by now")
    arguments.add_argument(
        "--sources",
        type=json.loads,
        default={},
        metavar="JSON",
        help="local files by path, with the sha256 that each must have",
    )


def add_source(arguments: argparse.ArgumentParser) -> None:
    """Adds `--source`: where a file comes from is no part of the settings, if its sha256 says what it is."""
    from selfrefine.sources import Source

    arguments.add_argument(
        "--source",
        required=True,
        type=recipe(Source),
        metavar="JSON",
        help="where to fetch from: source, parts, sha256",
    )


def file_of(stage: str) -> Callable[[str], Path]:
    """An argument type: the file that others read of a stage's artifact, by its record; or any file, as it is."""

    def read(text: str) -> Path:
        path = Path(text)
        if path.name != "record.json":
            return path
        if stage != "fetch":
            return path.with_name(FILES[stage])
        return next(iter(path.parent.glob("raw.*")), path.with_name("raw"))

    read.__name__ = "file"
    return read


def add_index(arguments: argparse.ArgumentParser, part: str, required: bool = True) -> None:
    """Adds `--index`, a listing of artifacts."""
    arguments.add_argument(
        "--index",
        required=required,
        type=lambda text: Path(text).with_name(f"{part}.json"),
        help="the record of the listing that says where the study's artifacts lie",
    )


def read_index(path: Path) -> dict:
    """A listing; checked before it is read, since it names what else a stage reads."""
    from selfrefine.provenance import checked

    checked(path)
    return read_json(path)


def add_tables(arguments: argparse.ArgumentParser, required: bool = False) -> None:
    """Adds `--tables`, as the folder that they lie in."""
    arguments.add_argument(
        "--tables", required=required, type=lambda text: Path(text).parent, help="the record of the study's tables"
    )


def begin(script: str, args: argparse.Namespace, inputs: list[Path], seed: int | None = None, **options):
    """The run (`provenance.Run`) of a stage with its arguments."""
    from selfrefine.provenance import Run

    settings = given(args.recipe) if "recipe" in args else {}
    return Run(script, settings, inputs, args.record, seed, version=args.code, sources=args.sources, **options)


def given(settings: BaseModel) -> dict:
    """What stands in settings as they were given, without the defaults that were filled in."""
    return settings.model_dump(mode="json", exclude_unset=True)


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
