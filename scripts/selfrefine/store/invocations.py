"""The configuration files of a store's studies, so that advice can name a whole command."""

import contextlib
import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from selfrefine.errors import UserError
from selfrefine.store.files import read_json, write_json
from selfrefine.store.locations import INVOCATIONS


def note_files(store: Path, study: str, files: Iterable[str | Path]) -> None:
    """Notes the files that `--configfile` named for a study; on a full disk, nothing."""
    known = _known(store)
    named = [os.path.relpath(file) for file in files]
    if known.get(study) != named:
        with contextlib.suppress(UserError):
            write_json(Path(store) / INVOCATIONS, known | {study: named})


def command(store: Path, target: str) -> str:
    """The command that makes a target, with the configuration files of its study as far as the store knows them."""
    options = [f" --configfile {shlex.join(files)}" if files else "" for files in _known(store).values()]
    if len(set(options)) < 2:
        return f"`snakemake {target}{''.join(options[:1])}`"
    of = ", ".join(f"`{option.strip() or 'none'}`" for option in dict.fromkeys(options))
    return f"`snakemake {target}` with the options of its study ({of})"


def _known(store: Path) -> dict[str, list[str]]:
    try:
        return dict(read_json(Path(store) / INVOCATIONS))
    except (UserError, ValueError, TypeError):
        return {}
