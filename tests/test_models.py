"""Weights: what is refused, and that a checkpoint's files are checked before they are used."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from conftest import REPOSITORY, record_model, run
from selfrefine.errors import UserError
from selfrefine.models.checkpoints import convert_gguf, load_checkpoint, load_model, load_tokenizer, open_checkpoint
from selfrefine.store.files import write_json
from selfrefine.store.provenance import read_record, state_of, weights_of


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
        "from selfrefine.models.compute import bound_threads; bound_threads(2); import torch; "
        "print(os.environ['GOMP_SPINCOUNT'], torch.get_num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | told
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.split() == [looks, "2"]


def fetch_model(source, folder, **settings):
    made_with = json.dumps({"suffix": "", "sha256": None} | settings)
    arguments = ["--source", json.dumps({"source": source, "licence": "none"}), "--record", folder / "record.json"]
    return run("python", "scripts/fetch_model.py", "--settings", made_with, *arguments, check=False)


def test_pickled_weights_are_refused(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/pytorch_model.bin").write_bytes(b"pickle")
    outcome = fetch_model(f"file:{tmp_path / 'theirs'}", tmp_path / "ours")
    assert outcome.returncode == 1
    assert "pickled weights are refused" in outcome.stderr
    assert list((tmp_path / "ours").iterdir()) == []


def test_a_fetched_folder_has_a_record_of_all_its_files(tmp_path, tiny_model):
    (tmp_path / "theirs/deep").mkdir(parents=True)
    (tmp_path / "theirs/deep/notes.txt").write_text("theirs")
    shutil.copytree(tiny_model, tmp_path / "theirs", dirs_exist_ok=True)
    assert fetch_model(f"file:{tmp_path / 'theirs'}", tmp_path / "ours").returncode == 0
    files = [path for path in (tmp_path / "ours").rglob("*") if path.is_file() and path.name != "record.json"]
    assert {"model.safetensors", "tokenizer.json", "notes.txt"} < {path.name for path in files}
    record = read_record(tmp_path / "ours/record.json")
    assert record.outputs == {str(path): state_of(path) for path in files}
    assert record.figures["source"]["source"] == f"file:{tmp_path / 'theirs'}" and record.model is None


def trained(folder, model):
    """The record of a checkpoint with an adapter, which nobody loads, trained from a model with this record."""
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "training.jsonl"):
        (folder / name).write_text(f"the {name} of a test")
    return record_model(folder, stage="instruct", model=str(model))


DAMAGED = ["model/model.safetensors", "model/deep/notes.txt", "trained/adapter_model.safetensors"]


@pytest.fixture
def chain(tmp_path, tiny_model):
    """A checkpoint's record, and the folder that it and its model, which has a file in a folder of its own, lie in."""
    (tmp_path / "model/deep").mkdir(parents=True)
    (tmp_path / "model/deep/notes.txt").write_text("theirs")
    for path in tiny_model.iterdir():
        shutil.copyfile(path, tmp_path / "model" / path.name)
    return trained(tmp_path / "trained", record_model(tmp_path / "model")), tmp_path


@pytest.mark.parametrize("name", DAMAGED)
def test_a_checkpoint_whose_weights_are_cut_off_is_refused(chain, name):
    checkpoint, folder = chain
    model, adapter, weights = open_checkpoint(checkpoint)
    assert (model, adapter) == (folder / "model", folder / "trained")
    assert sorted(weights["trained"]) == ["adapter_config.json", "adapter_model.safetensors"]
    assert {"model.safetensors", "deep/notes.txt"} < weights["model"].keys()
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    said = rf"{name}: missing, or of another size than .*record.json says; .*study.py verify --set-aside"
    with pytest.raises(UserError, match=said):
        open_checkpoint(checkpoint)
    (folder / name).unlink()
    with pytest.raises(UserError, match=said):
        open_checkpoint(checkpoint)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_checkpoint_whose_weights_were_edited_is_refused_by_who_reads_them(chain, name):
    checkpoint, folder = chain
    assert sorted(weights_of(checkpoint)) == sorted(
        str(path) for path in folder.rglob("*") if path.is_file() and path.name != "record.json"
    )
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: has .* it was changed after it was made; .*verify --set-aside"):
        weights_of(checkpoint)
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: no such file; .*verify --set-aside"):
        weights_of(checkpoint)


def test_equal_weights_are_the_same_wherever_they_lie(tmp_path, tiny_model):
    found = []
    for name in ("one", "two"):
        shutil.copytree(tiny_model, tmp_path / name)
        record_model(tmp_path / name)
        found.append(open_checkpoint(trained(tmp_path / f"{name}-trained", tmp_path / name / "record.json"))[2])
    assert found[0] == found[1]
    assert found[0]["model"]["model.safetensors"] == state_of(tiny_model / "model.safetensors").sha256


def test_a_checkpoints_identity_follows_its_weights(base_checkpoint, chain):
    _, _, identity = load_checkpoint(base_checkpoint, "float32")
    _, _, other = load_checkpoint(base_checkpoint, "bfloat16")
    assert identity != other
    assert identity["weights"].keys() == {"model"}
    checkpoint, folder = chain
    before = open_checkpoint(checkpoint)[2]
    (folder / "trained/adapter_model.safetensors").write_text("another one")
    record_model(folder / "trained", stage="instruct", model=str(folder / "model/record.json"))
    after = open_checkpoint(checkpoint)[2]
    assert before["model"] == after["model"] and before["trained"] != after["trained"]


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
def test_a_model_that_generates_is_divided_among_the_gpus_and_one_that_trains_is_not(
    tiny_model, monkeypatch, gpus, training, placed
):
    import torch
    from transformers import AutoModelForCausalLM

    asked = {}
    plain = AutoModelForCausalLM.from_pretrained

    def from_pretrained(folder, **options):
        asked.update(options)
        return plain(folder, **{name: value for name, value in options.items() if name != "device_map"})

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr("selfrefine.models.checkpoints.state", lambda: SimpleNamespace(local_process_index=1))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    load_model(tiny_model, "float32", training=training)
    assert asked["device_map"] == (placed if placed == "auto" else {"": placed})
