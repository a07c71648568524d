"""Looks at the files of a model's folder: whole, readable, and every weight finite."""

import json
import os
import shutil
from pathlib import Path

from selfrefine.errors import UserError

# How a file begins that git-lfs has left in place of a large one.
POINTER = b"version https://git-lfs"
# A tokenizer's vocabulary is in one of these files.
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


def copy_folder(source: Path, target: Path) -> None:
    """Copies a folder's files, behind links too, without their modes: shared models are often read-only."""
    for place, _, names in os.walk(source, followlinks=True):
        folder = target / Path(place).relative_to(source)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(Path(place) / name, folder / name)


def check_files(folder: Path, origin: str) -> None:
    """`UserError`, naming where a model comes from and the file, if one is missing, is not whole or holds no numbers."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        with path.open("rb") as file:
            if file.read(len(POINTER)) == POINTER:
                raise UserError(
                    f"{origin}: {path.name} is a pointer of git-lfs, not the file itself; run `git lfs pull` there"
                )
    if not (folder / "config.json").is_file():
        raise UserError(f"{origin}: has no config.json; name a folder or repository of a whole model")
    if not any((folder / name).is_file() for name in VOCABULARIES) and not list(folder.glob("*.tiktoken")):
        raise UserError(f"{origin}: has no tokenizer (none of {', '.join(VOCABULARIES)}); copy its files there as well")
    for index in folder.glob("*.safetensors.index.json"):
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{origin}: {index.name} is no index of weights; fetch or copy the model again") from None
        if missing := sorted(name for name in named if not (folder / name).is_file()):
            raise UserError(f"{origin}: {', '.join(missing)} missing, which {index.name} names; fetch the model again")
    for path in files:
        if path.suffix == ".safetensors":
            _check_tensors(path, origin)


def _check_tensors(path: Path, origin: str) -> None:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 # not a mapping
                weight = file.get_tensor(name)
                if not weight.is_floating_point() or not weight.numel():
                    continue
                # One pass that takes no memory; neither sees a number below the smallest, or a NaN, as the other does.
                low, high = torch.aminmax(weight.float() if weight.element_size() == 1 else weight)
                if not (torch.isfinite(low) and torch.isfinite(high)):
                    raise UserError(
                        f"{origin}: {path.name}: the weights {name} are not finite ({low.item()} to {high.item()}); the "
                        "model is damaged: take another copy or revision"
                    )
    except SafetensorError as error:
        raise UserError(
            f"{origin}: {path.name} is cut off or damaged ({error}); fetch or copy the model again"
        ) from error
