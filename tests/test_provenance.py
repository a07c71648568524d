import json

import pytest

from selfrefine.errors import UserError
from selfrefine.provenance import Run, clear_scratch, differences, environment_differences, read_record

RECORD = {"packages": {"torch": "2.13.0", "trl": "1.16.0"}, "machine": {"cpu": "A", "cores": 2}}


@pytest.fixture
def made(tmp_path):
    """A stage's run: (a function that runs it, the record's path, input, output)."""
    data, output, path = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "out.provenance.json"
    data.write_text("1\n")

    def make(recipe: dict) -> bool:
        with Run(__file__.replace("tests/test_provenance", "scripts/pair"), recipe, [data], path, seed=3) as run:
            if run.made:
                return False
            output.write_text(data.read_text() * 2)
            run.record([output], items=2, tokens_made=10)
            return True

    return make, path, data, output


def test_a_record_names_inputs_outputs_recipe_seed_code_and_cost(made):
    make, path, data, output = made
    assert make({"rate": 1e-5})
    record = read_record(path)
    assert record.inputs[str(data)].bytes == 2 and record.outputs[str(output)].bytes == 4
    assert (record.stage, record.recipe, record.seed) == ("pair", {"rate": 1e-5}, 3)
    assert record.figures["items"] == 2 and record.figures["tokens_per_second"] > 0
    assert {"python", "torch", "trl", "snakemake"} <= record.packages.keys()
    assert {"system", "architecture", "cores", "cpu"} <= record.machine.keys()


def test_an_artifact_is_made_once_for_one_recipe_and_input(made):
    make, path, data, output = made
    assert make({"rate": 1})
    assert not make({"rate": 1})
    assert make({"rate": 2})
    output.write_text("edited")
    assert make({"rate": 2})
    data.write_text("3\n")
    assert make({"rate": 2})
    assert not path.with_name(f".{path.name}.lock").exists()


def test_an_input_that_is_not_there_is_named(made):
    make, _, data, _ = made
    data.unlink()
    with pytest.raises(UserError, match=r"in\.jsonl: no such file"):
        make({})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda record: record.pop("code"), "code: Field required"),
        (lambda record: record.update(more=1), "more: Extra inputs"),
        (lambda record: record["outputs"].clear(), "outputs: Dictionary should have at least 1 item"),
        (lambda record: next(iter(record["inputs"].values())).update(sha256="abc"), "sha256: String should match"),
        (lambda record: record.update(wall_seconds=-1), "wall_seconds: Input should be greater"),
    ],
)
def test_a_record_that_does_not_fit_the_schema_is_refused(made, spoil, message):
    make, path, _, _ = made
    make({})
    record = json.loads(path.read_text())
    spoil(record)
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=message):
        read_record(path)
    path.write_text('{"stage": ')
    assert make({})
    path.write_text('{"stage": ')
    with pytest.raises(UserError, match="not valid JSON.*run snakemake again"):
        read_record(path)


def test_differences_are_told_by_key():
    old = {"training": {"rate": 1e-5, "lora": {"r": 8}}, "style": "cot"}
    new = {"training": {"rate": "1e-05", "lora": {"r": 8, "alpha": 16}}, "style": "cot"}
    assert differences(old, new) == ["training.lora.alpha: not there → 16", 'training.rate: 1e-05 → "1e-05"']
    assert differences({"alpha": 16}, {"alpha": 16.0}) == []


def test_versions_and_hardware_that_differ_are_told():
    other = {"packages": {"torch": "2.14.0", "trl": "1.16.0"}, "machine": {"cpu": "A", "cores": 64, "gpus": ["H100"]}}
    assert environment_differences(RECORD, other) == ["torch: 2.13.0 against 2.14.0", "gpus: none against ['H100']"]
    assert environment_differences(RECORD, RECORD) == []


def test_only_what_a_stage_goes_on_from_is_cleared(tmp_path):
    names = ["adapter_model.safetensors", "manifest.json", "paths.jsonl", "paths.jsonl.partial", "other.partial"]
    torn = [".paths.jsonl.4242", ".paths.provenance.json.17", ".manifest.json.8"]
    for name in [*names, *torn, ".other.jsonl.4242"]:
        (tmp_path / name).write_text("x")
    (tmp_path / "trainer/checkpoint-2").mkdir(parents=True)
    clear_scratch([str(tmp_path / "paths.jsonl")])
    assert (tmp_path / "trainer").exists()
    clear_scratch([str(tmp_path / "manifest.json")])
    names = [".other.jsonl.4242", "adapter_model.safetensors", "manifest.json", "other.partial", "paths.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
