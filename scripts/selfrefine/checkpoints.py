"""Checkpoints: a small manifest that names a model's folder and, by sha256, the adapter or weights trained from it."""

from pathlib import Path

from selfrefine.files import sha256_of, write_json
from selfrefine.provenance import describe_files


def write_manifest(path: Path, stage: str, model_folder: Path, names: list[str]) -> None:
    """Writes a checkpoint's manifest; it depends on the weights alone, so that equal weights give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = {"folder": str(model_folder), "manifest_sha256": sha256_of(model_folder / "manifest.json")}
    files = describe_files(path.parent, names)
    write_json(path, {"artifact": "checkpoint", "stage": stage, "model": model, "files": files})
