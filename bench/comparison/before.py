"""Another checkout of this repository as a peer, also one from before the store (e2542c9, say)."""

from pathlib import Path

from quickstart import Quickstart

from selfrefine.store.files import write_json
from selfrefine.store.hashing import sha256_of
from selfrefine.store.locations import TRAINING
from selfrefine.store.provenance import files_of, read_record


def has_store(checkout: Path) -> bool:
    """Whether a checkout keeps its artifacts in a store."""
    return not (checkout / "scripts/selfrefine/checkpoints.py").exists()


def readable(checkpoint: Path, checkout: Path, study: Quickstart) -> Path:
    """A checkpoint's record, or the manifest that a checkout without a store needs instead."""
    return checkpoint if has_store(checkout) else _manifest_of(checkpoint, study)


def flags(checkout: Path, folder: Path) -> tuple[list, Path]:
    """The arguments that name the folder that a checkout's training stage writes to, and its record there."""
    if has_store(checkout):
        return ["--record", folder / "record.json"], folder / "record.json"
    record = folder / "provenance.json"
    return ["--manifest", folder / "manifest.json", "--log", folder / "training.jsonl", "--provenance", record], record


def _manifest_of(checkpoint: Path, study: Quickstart) -> Path:
    """Links to a checkpoint's files, and to its model's, with manifests beside them."""
    model = read_record(checkpoint).model
    base = _linked(study.folder / model if model else checkpoint, study.scratch / "before/model")
    if not base.exists():
        write_json(base, {"artifact": "model", "source": {}, "files": _described(base.parent)})
    manifest = study.scratch / "before/base/manifest.json"
    if model:
        manifest = _linked(checkpoint, study.scratch / "before" / checkpoint.parent.name)
    named = {"folder": str(base.parent), "manifest_sha256": sha256_of(base)}
    files = _described(manifest.parent) if model else {}
    write_json(
        manifest, {"artifact": "checkpoint", "stage": "instruct" if model else "base", "model": named, "files": files}
    )
    return manifest


def _linked(record: Path, folder: Path) -> Path:
    """The path of the manifest in a folder with links to the files that a record names."""
    for path in files_of(record):
        target = folder / path.relative_to(record.parent)
        if path.name != TRAINING and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    return folder / "manifest.json"


def _described(folder: Path) -> dict[str, dict]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in found
    }
