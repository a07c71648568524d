"""Weights: what is refused, and that a checkpoint's files are looked at before they are used."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from conftest import REPOSITORY, run
from selfrefine.checkpoints import write_manifest
from selfrefine.errors import UserError
from selfrefine.files import write_json
from selfrefine.models import convert_gguf, load_checkpoint, load_model, load_tokenizer, open_checkpoint
from selfrefine.provenance import describe_files


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00\xff\x00\x00\x00", b"not a model at all"])
def test_a_damaged_gguf_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "weights.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError, match="^file:theirs.gguf: cannot be read as GGUF"):
        convert_gguf(path, tmp_path / "out", "file:theirs.gguf")


@pytest.mark.parametrize(
    ("told", "looks"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")], ids=["by itself", "as told"]
)
@pytest.mark.parametrize("stage", ["teach", "sample", "evaluate", "instruct", "refine"])
def test_threads_that_wait_sleep_soon_before_torch_is_there(stage, told, looks):
    """OpenMP reads the setting when torch loads it: no stage may have loaded torch by then."""
    program = (
        "import os, sys; sys.path.insert(0, 'scripts'); import " + stage + "; assert 'torch' not in sys.modules; "
        "from selfrefine.computing import bound_threads; bound_threads(2); import torch; "
        "print(os.environ['GOMP_SPINCOUNT'], torch.get_num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | told
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.split() == [looks, "2"]


def fetch_model(source, folder):
    recipe = json.dumps({"source": source, "licence": "none"})
    arguments = ["--manifest", folder / "manifest.json", "--provenance", folder / "provenance.json"]
    return run("python", "scripts/fetch_model.py", "--recipe", recipe, *arguments, check=False)


def test_pickled_weights_are_refused(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/pytorch_model.bin").write_bytes(b"pickle")
    outcome = fetch_model(f"file:{tmp_path / 'theirs'}", tmp_path / "ours")
    assert outcome.returncode == 1
    assert "pickled weights are refused" in outcome.stderr
    assert not (tmp_path / "ours/manifest.json").exists()


def test_a_fetched_folder_has_a_manifest_of_all_its_files(tmp_path, tiny_model):
    assert fetch_model(f"file:{tiny_model}", tmp_path).returncode == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert "model.safetensors" in manifest["files"] and "tokenizer.json" in manifest["files"]
    assert manifest["files"] == describe_files(tmp_path, list(manifest["files"]))


def test_a_checkpoint_whose_weights_are_cut_off_is_refused(tmp_path, tiny_model):
    fetch_model(f"file:{tiny_model}", tmp_path / "model")
    write_manifest(tmp_path / "base/manifest.json", "base", tmp_path / "model", [])
    open_checkpoint(tmp_path / "base/manifest.json")
    weights = tmp_path / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(UserError, match="model.safetensors: missing or of another size"):
        open_checkpoint(tmp_path / "base/manifest.json")


def test_equal_weights_give_equal_manifests(tmp_path, tiny_model):
    for name in ("one", "two"):
        write_manifest(tmp_path / name / "manifest.json", "base", tiny_model, [])
    assert (tmp_path / "one/manifest.json").read_bytes() == (tmp_path / "two/manifest.json").read_bytes()


def test_a_checkpoints_identity_follows_its_weights(base_checkpoint):
    _, _, identity = load_checkpoint(base_checkpoint, "float32")
    _, _, other = load_checkpoint(base_checkpoint, "bfloat16")
    assert identity != other
    assert identity["weights"]["adapter"] == {}


def test_a_tokenizer_without_a_chat_template_is_refused(tmp_path, tiny_model):
    for path in tiny_model.iterdir():
        if path.name != "chat_template.jinja":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    write_json(tmp_path / "tokenizer_config.json", settings)
    with pytest.raises(UserError, match="no chat template"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("gpus", "training", "placed"), [(0, False, "cpu"), (1, False, 0), (2, False, "auto"), (2, True, 1)]
)
def test_what_writes_is_divided_among_the_gpus_and_what_trains_is_not(tiny_model, monkeypatch, gpus, training, placed):
    import torch
    from transformers import AutoModelForCausalLM

    asked = {}
    plain = AutoModelForCausalLM.from_pretrained

    def from_pretrained(folder, **options):
        asked.update(options)
        return plain(folder, **{name: value for name, value in options.items() if name != "device_map"})

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr("selfrefine.models.state", lambda: SimpleNamespace(local_process_index=1))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    load_model(tiny_model, "float32", training=training)
    assert asked["device_map"] == (placed if placed == "auto" else {"": placed})
