"""What the tests share: a tiny language model, and a study small enough to run in seconds, both made here."""

import atexit
import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from forks import PYTHON, SNAKEMAKE, TRAINING, Forks
from job_forks import start_job_forks

pytest_plugins = ["crate_profile"]

os.environ["HF_HUB_OFFLINE"] = "1"
# Two files of tests run at a time: threads that wait for each other on shared cores would take ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The many processes that the tests start need not compile the code anew each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
REPOSITORY = Path(__file__).parent.parent
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INSTRUCTION = "Choose from {labels}."
COLOURS = ("red", "green", "blue", "white", "black")


# The files of tests that take longest, so that what runs side by side ends together.
LONGEST = ("survival", "reruns", "workflow", "quickstart", "slurm", "training", "server_engine", "vllm_engine", "crate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what loads a model, or runs a workflow on one; puts the longest files first."""
    for item in items:
        if "tiny_model" in item.fixturenames:
            item.add_marker("model")
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def tiny_records() -> list[dict]:
    """Questions of two options whose correct one is named in the question."""
    records = []
    for i, first in enumerate(COLOURS):
        for j, second in enumerate(COLOURS):
            for k in range(4):
                if i != j:
                    right = (i + j + k) % 2
                    question = f"Box {i}{j}{k} is {(first, second)[right]} today."
                    records.append({"question": question, "one": first, "two": second, "label": right})
    return records


def build_tiny_model(folder: Path, **shape: int) -> None:
    """A Llama of about 100,000 random weights, or of another `shape`; a byte-level tokenizer for the tiny study."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    texts = [record["question"] for record in tiny_records()]
    texts += [f"Choices:\nA) {first}\nB) {second}" for first in COLOURS for second in COLOURS]
    texts += [
        INSTRUCTION,
        "Answer: Let's think step by step",
        "The answer is A.",
        "The answer is B.",
        "system user assistant",
    ] * 20
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=420, special_tokens=specials, initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", bos_token="<|im_start|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    tiny = {
        "vocab_size": len(fast),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    config = LlamaConfig(
        **tiny | shape,
        initializer_range=0.25,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        tie_word_embeddings=not shape,
    )
    LlamaForCausalLM(config).to(torch.bfloat16 if shape else torch.float32).save_pretrained(folder)


def made_once(tmp_path_factory, name: str, make) -> Path:
    """The folder that `make` fills: of tests that run side by side (xdist), the first to need it fills it for all."""
    from selfrefine.store.locks import held

    place = tmp_path_factory.getbasetemp()
    folder = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / name
    done = folder.with_suffix(".done")
    with held(folder.with_suffix(".lock")):
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, pytestconfig) -> Path:
    """A tiny model's folder in the Hugging Face layout, with the pipeline's record."""
    assert "not model" not in pytestconfig.option.markexpr, "this test needs a model: mark it with pytest.mark.model"

    def make(folder: Path) -> None:
        build_tiny_model(folder)
        record_model(folder)

    return made_once(tmp_path_factory, "model", make)


def record_model(folder: Path, **more) -> Path:
    """Writes the record of a model, or with `model` and a stage of a checkpoint, that a test has made; returns it."""
    from selfrefine.schema.record import Record
    from selfrefine.store.locations import HASHES, RECORD
    from selfrefine.store.provenance import state_of

    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (RECORD, HASHES))
    record = Record(
        **{
            "stage": "fetch_model",
            "inputs": {},
            "outputs": {str(path): state_of(path) for path in files},
            "settings": {},
            "seed": None,
            "code": "0" * 16,
            "version": "version 1",
            "command": "",
            "content": "",
            "figures": {},
            "packages": {},
            "machine": {},
            "started": "2026-01-01T00:00:00Z",
            "wall_seconds": 0,
            "peak_memory_mib": 0,
            **more,
        }
    )
    (folder / RECORD).write_text(record.model_dump_json())
    return folder / RECORD


@pytest.fixture(scope="session")
def base_checkpoint(tiny_model) -> Path:
    """The record of the tiny model as it comes."""
    return tiny_model / "record.json"


# Set by tests that are about processes: jobs then start as those of users do.
REAL_JOBS = "REAL_JOBS"


def environment() -> dict[str, str]:
    """This process's environment with its programs first on the path."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(*command, cwd: Path = REPOSITORY, check: bool = True, **options) -> subprocess.CompletedProcess:
    """Runs a command with this environment's programs first on the path; its output is kept as text."""
    outcome = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, env=environment(), **options
    )
    return checked(outcome) if check else outcome


def run_training(*command, check: bool = True) -> subprocess.CompletedProcess:
    """As `run`; Python programs in forks of one process that has loaded what trains."""
    if command[0] != "python":
        return run(*command, check=check)
    outcome = _training_forks().run(*map(str, command[1:]), cwd=REPOSITORY, environment=environment())
    return checked(outcome) if check else outcome


@functools.cache
def _training_forks() -> Forks:
    forks = Forks(TRAINING)
    atexit.register(forks.__exit__)
    return forks


def checked(outcome: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    """A command's outcome; an error that shows what it said, if it failed."""
    if outcome.returncode:
        raise AssertionError(f"{outcome.args} failed:\n{outcome.stdout[-3000:]}\n{outcome.stderr[-6000:]}")
    return outcome


def tiny_config(model: Path, raw: Path, recording: Path) -> dict:
    """A whole study on the tiny model, in seconds."""
    return {
        "study": {
            "name": "tiny",
            "students": ["tiny"],
            "teachers": ["oracle"],
            "tasks": ["boxes"],
            "evaluate": ["boxes", "far"],
            "arms": ["baseline", "instruct", "refine"],
            "recipes": ["cot"],
        },
        "models": {"tiny": {"source": f"file:{model}", "licence": "none", "parameters": 0.0001}},
        "students": {"tiny": {"model": "tiny", "family": "tiny", "dtype": "float32", "batch_size": 16}},
        "teachers": {
            "oracle": {
                "family": "oracle",
                "engine": "recorded",
                "recording": str(recording),
                "generation": {"max_tokens": 16},
            }
        },
        "benchmarks": {
            name: {
                "title": name.title(),
                "kind": "choice",
                "files": {"all": {"source": f"file:{raw}", "licence": "none"}},
                "fields": {"question": "question", "choices": ["one", "two"], "answer": "label", "answer_is": "index0"},
                "near_duplicate": 1.0,
                "splits": {"train": {"file": "all", "size": 30}, "test": {"file": "all", "size": size}},
            }
            for name, size in (("boxes", 20), ("far", 10))
        },
        "prompts": {"choice": {"instruction": INSTRUCTION}, "math": {"instruction": "Compute."}},
        "sampling": {"cot": 3, "plain": 2, "generation": {"max_tokens": 12, "temperature": 1.0}},
        "validation": 0.3,
        "instruct": {
            "epochs": 12,
            "learning_rate": 0.02,
            "batch_size": 8,
            "micro_batch_size": 8,
            "lora": {"r": 16, "alpha": 32, "dropout": 0.0},
        },
        "refine": {
            "learning_rate": 0.001,
            "epochs": 2,
            "batch_size": 4,
            "micro_batch_size": 4,
            "warmup_steps": 1,
            "evaluate_every": 2,
            "lora": {"r": 16, "alpha": 32, "dropout": 0.0},
        },
        "evaluation": {"max_tokens": 12},
        "statistics": {"margin": 5},
    }


def write_recording(config: dict, raw: Path, target: Path) -> None:
    """What a teacher that is correct four times in five would answer to every item of the tiny benchmarks."""
    from selfrefine.data.mapping import to_item
    from selfrefine.engines.item_requests import requests_for
    from selfrefine.schema.generation import Generation
    from selfrefine.schema.prompt import Prompt
    from selfrefine.store.files import read_jsonl, write_jsonl
    from selfrefine.study.design import Study

    (target).write_text("")
    mapping = Study.read(config).benchmarks["boxes"]
    items = [to_item(record, str(raw), mapping) for record in read_jsonl(raw)]
    generation = Generation(**config["teachers"]["oracle"]["generation"])
    prompt = Prompt(**config["prompts"]["choice"])
    rows = []
    for request in requests_for({item["id"]: item for item in items}, prompt, "cot", 1, generation, 0):
        item = next(item for item in items if request.id.startswith(item["id"]))
        wrong = int(item["id"], 16) % 5 == 0
        label = {"A": "B", "B": "A"}[item["answer"]] if wrong else item["answer"]
        answer = {"text": f"The answer is {label}.", "finish_reason": "stop", "tokens": 6, "prompt_tokens": 40}
        rows.append({"key": request.key, "id": request.id, **answer})
    write_jsonl(target, [{"recording": {"teacher": "oracle"}}, *rows])


def make_workflow(folder: Path) -> None:
    """The workflow in `folder`, by links, with no study in its configuration."""
    for name in ("Snakefile", "rules", "scripts", "report", "envs", "profiles", "slurm"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / "config").mkdir()
    for name in ("benchmarks.yaml", "recipes.yaml", "assumptions.yaml"):
        (folder / "config" / name).symlink_to(REPOSITORY / "config" / name)


def make_study(folder: Path, model: Path) -> tuple[Path, dict]:
    """A copy of the workflow in `folder` with the tiny study; (configuration file, configuration)."""
    make_workflow(folder)
    raw, recording = folder / "boxes.jsonl", folder / "oracle.jsonl"
    raw.write_text("".join(json.dumps(record) + "\n" for record in tiny_records()))
    config = tiny_config(model, raw.relative_to(folder), recording.relative_to(folder))
    full = config | {"recipes": yaml.safe_load((REPOSITORY / "config/recipes.yaml").read_text())["recipes"]}
    write_recording(full, raw, recording)
    path = folder / "config" / "tiny.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path, config


def snakemake(folder: Path, *arguments, check: bool = True, cores: int = 2) -> subprocess.CompletedProcess:
    """Runs the tiny study's workflow in a folder that `make_study` made.

    It and its jobs are forks of processes that have loaded their libraries, unless REAL_JOBS is set.
    """
    command = ("snakemake", *arguments, "--cores", cores, "--configfile", "config/tiny.yaml")
    if os.environ.get(REAL_JOBS):
        return run(*command, cwd=folder, check=check)
    outcome = run_forked(*command, cwd=folder)
    return checked(outcome) if check else outcome


def run_forked(*command, cwd: Path, **settings: str) -> subprocess.CompletedProcess:
    """Runs Snakemake and its jobs in forks of processes that have loaded their libraries, with more in the environment."""
    python = {PYTHON: str(_job_forks() / "python")}
    return _forks_of_thread().run(*map(str, command), cwd=cwd, environment=environment() | settings | python)


@functools.cache
def _job_forks() -> Path:
    return start_job_forks()


def _forks_of_thread() -> Forks:
    if not hasattr(_LOCAL, "forks"):
        _LOCAL.forks = Forks(SNAKEMAKE)
        atexit.register(_LOCAL.forks.__exit__)
    return _LOCAL.forks


_LOCAL = threading.local()


def artifact(folder: Path, place: str) -> Path:
    """The folder of the one artifact that the store of a study has at `STAGE/NAMES`."""
    (record,) = folder.glob(f"results/store/{place}/*/record.json")
    return record.parent


def target(folder: Path, place: str) -> str:
    """The record of the artifact at `STAGE/NAMES`, made or not, that the tiny study in a folder asks for."""
    from selfrefine.study.open_study import open_study

    with contextlib.chdir(folder):
        (found,) = {
            str(one.record)
            for one in open_study([Path("config/tiny.yaml")]).behind_all()
            if "/".join((one.stage, *one.names)) == place
        }
    return found


# What tells of the time that jobs took, or is drawn from it.
TIMED = (
    *("stages.csv", "costs.csv", "summary.md", "details.md", "index.html"),
    *(f"cost.{end}" for end in ("svg", "pdf", "png", "csv", "md", "tex")),
)
# What of a record tells neither of a moment nor of what else was in the store then.
LASTING = ("stage", "settings", "seed", "code", "version", "command", "model", "packages", "machine")


def contents(folder: Path) -> dict[str, bytes | dict]:
    """A study's results by path, as they are at any time: files, and of records what tells of no moment.

    The store's own notes are left out, and the locks of killed processes, which nobody holds.
    """
    found: dict[str, bytes | dict] = {}
    for path in folder.glob("results/**/*"):
        name = path.relative_to(folder).as_posix()
        # A marker's ending says how often the results have been laid out under their names.
        name = name.rpartition(".")[0] if path.parent.name == ".shown" else name
        own = path.name == ".lock" or name.startswith(("results/store/.", "results/set-aside/"))
        if not path.is_file() or own or path.name.endswith(TIMED):
            continue
        found[name] = path.read_bytes()
        if path.name != "record.json":
            continue
        try:
            record = json.loads(found[name])
        except ValueError:  # torn by a test
            continue
        states = {
            kind: {
                file: None if file.endswith((*TIMED, "record.json")) else state for file, state in record[kind].items()
            }
            for kind in ("inputs", "outputs")
        }
        found[name] = {key: record[key] for key in LASTING} | states
    return found


def assert_same_results(folder: Path, other: Path) -> None:
    """Compares two finished studies file by file; what tells of the time that they took may differ."""
    expected, found = contents(folder), contents(other)
    assert sorted(found) == sorted(expected)
    assert len(expected) > 40
    assert [name for name in expected if expected[name] != found[name]] == []


def planned_jobs(outcome: subprocess.CompletedProcess) -> list[str]:
    """What a dry run says of each job, from the name of its rule on."""
    _, *blocks = re.split(r"\n *(?:local)?rule (?=\w+:\n)", outcome.stdout)
    return blocks


def planned_rules(outcome: subprocess.CompletedProcess) -> dict[str, int]:
    """How many jobs of each rule a dry run has planned, `all` left out."""
    found = [block.split(":", 1)[0] for block in planned_jobs(outcome)]
    return {rule: found.count(rule) for rule in sorted({*found} - {"all"})}


def loads(folder: Path) -> dict[str, int]:
    """How often jobs that generate have loaded weights, by `STAGE/NAMES`, by their last logs; others are left out."""
    found = {}
    for stage in ("sample", "evaluate"):
        for log in folder.glob(f"logs/{stage}/**/*.log"):
            if times := log.read_text().count("Loading weights: 100%"):
                found[log.parent.relative_to(folder / "logs").as_posix()] = times
    return found


def nothing_to_do(outcome: subprocess.CompletedProcess) -> bool:
    """Whether Snakemake said that there is nothing to be done."""
    return "Nothing to be done" in outcome.stdout + outcome.stderr


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_model) -> tuple[Path, subprocess.CompletedProcess]:
    """The finished tiny study, and what Snakemake said."""

    def make(folder: Path) -> None:
        make_study(folder, tiny_model)
        outcome = snakemake(folder)
        (folder / "said.json").write_text(json.dumps([outcome.stdout, outcome.stderr]))

    folder = tmp_path_factory.mktemp("study") / "finished"
    shutil.copytree(made_once(tmp_path_factory, "finished", make), folder, symlinks=True)
    said = json.loads((folder / "said.json").read_text())
    return folder, subprocess.CompletedProcess("snakemake", 0, *said)


@pytest.fixture
def fresh(tmp_path, tiny_model) -> tuple[Path, Path, dict]:
    """The tiny study before its first run: folder, configuration file, configuration."""
    path, config = make_study(tmp_path, tiny_model)
    return tmp_path, path, config
