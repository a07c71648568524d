"""What the command-line programs share: arguments, and errors in one line."""

import argparse
import gc
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from selfrefine.errors import UserError
from selfrefine.programs import memory
from selfrefine.schema.base import describe
from selfrefine.schema.generation import Compute
from selfrefine.schema.results import SELECT
from selfrefine.schema.source import Source
from selfrefine.store.files import read_json, says_full, unwritten
from selfrefine.store.locations import FILES, RECORD
from selfrefine.store.provenance import checked
from selfrefine.store.run import Run

Model = TypeVar("Model", bound=BaseModel)


def parser(doc: str) -> argparse.ArgumentParser:
    """An argument parser whose help is the program's docstring."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def as_json(model: type[Model]) -> Callable[[str], Model]:
    """An argument type: a model as JSON; unknown keys and invalid values are refused."""

    def read(text: str) -> Model:
        try:
            return model.model_validate(json.loads(text))
        except ValidationError as error:
            raise argparse.ArgumentTypeError("; ".join(describe(fault) for fault in error.errors())) from None
        except json.JSONDecodeError as error:
            raise argparse.ArgumentTypeError(f"not valid JSON: {error}") from None

    read.__name__ = "JSON"
    return read


def add_settings(arguments: argparse.ArgumentParser, model: type[BaseModel]) -> None:
    """Adds `--settings`, explained by the model's fields."""
    keys = "\n".join(
        f"  {name}: {field.description or field.annotation}" for name, field in model.model_fields.items()
    ).replace("%", "%%")
    arguments.epilog = f"keys of --settings (JSON):\n{keys}"
    arguments.add_argument(
        "--settings", required=True, type=as_json(model), metavar="JSON", help="the stage's settings; keys below"
    )


def add_vllm(arguments: argparse.ArgumentParser) -> None:
    """Adds `--memory` and `--batch-invariant`: how engine vllm uses the machine, which is not part of the settings."""
    arguments.add_argument(
        "--memory",
        type=float,
        default=0.9,
        help="share of each GPU's memory (without one, of the machine's) that engine vllm takes",
    )
    arguments.add_argument(
        "--batch-invariant",
        action="store_true",
        help="make engine vllm's completions independent of the batch: slower; needs compute capability 8.0",
    )


def add_compute(arguments: argparse.ArgumentParser) -> None:
    """Adds `--compute`, which depends on the machine and so is not part of the settings."""
    arguments.add_argument(
        "--compute",
        choices=get_args(Compute),
        default="auto",
        help="the dtype that weights are multiplied in; auto: their own where the machine is fast in it, else float32",
    )


def add_record(arguments: argparse.ArgumentParser) -> None:
    """Adds `--record`, and `--code` and `--sources`, which the workflow planned with."""
    arguments.add_argument(
        "--record", required=True, type=Path, help="the record to write; the artifact's other files go beside it"
    )
    arguments.add_argument("--code", metavar="VERSION", help="the code's version; refuse to run if it has changed")
    arguments.add_argument(
        "--sources",
        type=json.loads,
        default={},
        metavar="JSON",
        help="{path: sha256} of local files; refuse to run if one has changed",
    )


def add_source(arguments: argparse.ArgumentParser) -> None:
    """Adds `--source`: where a file comes from is not part of the settings, since its sha256 identifies it."""
    arguments.add_argument(
        "--source",
        required=True,
        type=as_json(Source),
        metavar="JSON",
        help="where to fetch from: source, parts, sha256",
    )


def file_of(stage: str) -> Callable[[str], Path]:
    """An argument type: the file that others read of a stage's artifact, given by its record or itself."""

    def read(text: str) -> Path:
        path = Path(text)
        if path.name != RECORD:
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
        help="the record of the listing with the locations of the study's artifacts",
    )


def read_index(path: Path) -> Any:
    """A listing; checked before it is read, since it names what else a stage reads."""
    checked(path)
    index = read_json(path)
    for cell in index.get("cells", ()):
        cell.setdefault(SELECT, "")
    return index


def add_shots(arguments: argparse.ArgumentParser) -> None:
    """Adds `--shots`, the training split from which prompts show worked examples."""
    arguments.add_argument(
        "--shots", type=file_of("prepare"), help="the training items that prompts show as worked examples, if they do"
    )


def shots_given(args: argparse.Namespace) -> list[Path]:
    """The file of `--shots` among a stage's inputs, where it is not another of them."""
    return [args.shots] if args.shots and args.shots != args.items else []


def add_flips(arguments: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds `--flips`, the verdicts under other choices."""
    arguments.add_argument(
        "--flips",
        required=required,
        type=file_of("flips"),
        help="the record of the verdicts on the claims under other choices",
    )


def add_tables(arguments: argparse.ArgumentParser, required: bool = False) -> None:
    """Adds `--tables`, which stands for their folder."""
    arguments.add_argument(
        "--tables", required=required, type=lambda text: Path(text).parent, help="the record of the study's tables"
    )


def whole_number(text: str) -> int:
    """An argument that is a whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return int(text)


def begin(script: str, args: argparse.Namespace, inputs: list[Path], seed: int | None = None, **options: Any) -> Run:
    """The run of a stage with its arguments; `options` are further ones of `Run`."""
    settings = given(args.settings) if "settings" in args else {}
    return Run(script, settings, inputs, args.record, seed, version=args.code, sources=args.sources, **options)


def given(settings: BaseModel) -> dict[str, Any]:
    """Settings as they were given, without the defaults that were filled in."""
    return settings.model_dump(mode="json", exclude_unset=True)


def run(main: Callable[[], None]) -> None:
    """Runs a program; an error that the user can fix ends it with one line on stderr and exit status 1."""
    try:
        main()
    except Exception as error:
        stage = Path(sys.argv[0]).stem
        if memory.ran_out(error):
            sys.exit(f"error: {memory.advice(stage)} ({type(error).__name__}: {error})")
        if isinstance(error, UserError):
            sys.exit(f"error: {error}")
        # Libraries wrap a full disk in errors of their own, with or without the system's message.
        if says_full(error) or shutil.disk_usage(".").free < 1 << 20:
            sys.exit(f"error: {unwritten(_folder_given(), error)}")
        raise
    except KeyboardInterrupt:
        print("interrupted; run again to go on from here", file=sys.stderr)
        sys.exit(130)
    finally:
        # Otherwise the interpreter searches all imported modules for garbage at its end: a second of a job that loads a
        # model.
        gc.freeze()


def _folder_given() -> Path:
    """The folder that a stage's artifact goes to, as its arguments say; without one, the working directory."""
    named = [value for flag, value in zip(sys.argv, sys.argv[1:], strict=False) if flag == "--record"]
    return Path(named[0]).parent if named else Path()
