"""One run of a stage: its inputs are checked, its record is written, equal artifacts are reused."""

import contextlib
import datetime
import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import show
from conftest import REPOSITORY, record_model
from selfrefine.errors import UserError
from selfrefine.schema.record import Record
from selfrefine.store import provenance
from selfrefine.store.environment import differences, environment_differences
from selfrefine.store.files import write_json
from selfrefine.store.hashing import sha256_of
from selfrefine.store.locks import Busy
from selfrefine.store.provenance import read_record, state_of
from selfrefine.store.reuse import NO_LINKS
from selfrefine.store.run import Run

RECORD = {"packages": {"torch": "2.13.0", "trl": "1.16.0"}, "machine": {"cpu": "A", "cores": 2}}
SCRIPTS = REPOSITORY / "scripts"
PAIR = str(SCRIPTS / "pair.py")
SET_ASIDE = r"`python scripts/study\.py verify --set-aside` moves it out of the way"


@pytest.fixture
def made(tmp_path):
    """A stage's run: (a function that runs it, the record's path, input, output)."""
    data, path = tmp_path / "in.jsonl", tmp_path / "out/record.json"
    output = path.with_name("pairs.jsonl")
    data.write_text("1\n")

    def make(settings: dict) -> bool:
        with Run(PAIR, settings, [data], path, seed=3) as run:
            if run.made:
                return False
            output.write_text(data.read_text() * 2)
            run.record([output], items=2, tokens_made=10)
            return True

    return make, path, data, output


class Meter:
    """A stand-in for pynvml: from one reading to the next, the first GPU uses 1 Wh, the second 2, the third cannot say."""

    class NVMLError(Exception):
        """As the package has it."""

    def __init__(self, step: int = 3_600_000):
        self.step, self.readings = step, 0

    def nvmlInit(self) -> None:
        self.readings += 1

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:
        return f"GPU-0000000{handle}".encode()

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if handle == 2:
            raise self.NVMLError
        return 10**9 + self.step * (handle + 1) * self.readings


def with_gpus(monkeypatch, *uuids: str) -> None:
    """As if torch were loaded and saw GPUs of these uuids."""
    cuda = types.SimpleNamespace(
        is_available=lambda: bool(uuids),
        device_count=lambda: len(uuids),
        get_device_properties=lambda gpu: types.SimpleNamespace(uuid=uuids[gpu]),
        get_device_name=lambda gpu: "H100",
        max_memory_reserved=lambda gpu: 3 << 20,
    )
    absent = types.SimpleNamespace(is_available=lambda: False)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda, distributed=absent))


@pytest.mark.parametrize(
    ("uuids", "expected"),
    [
        (("00000001",), 2.0),
        (("00000000", "00000001"), 3.0),
        (("00000002",), None),
        (("MIG-00000001",), None),
        ((), None),
    ],
)
def test_a_record_has_the_energy_of_the_jobs_own_gpus(made, monkeypatch, uuids, expected):
    make, path, *_ = made
    monkeypatch.setitem(sys.modules, "pynvml", Meter())
    with_gpus(monkeypatch, *uuids)
    assert make({})
    record = read_record(path)
    assert record.figures.get("gpu_wh") == expected
    assert record.machine.get("gpus", []) == ["H100"] * len(uuids)


@pytest.mark.parametrize("fault", ["absent", "no driver", "reset"])
def test_without_a_counter_the_energy_is_not_known(made, monkeypatch, fault):
    make, path, *_ = made
    monkeypatch.setitem(sys.modules, "pynvml", None if fault == "absent" else Meter(-1 if fault == "reset" else 1))
    with_gpus(monkeypatch, "00000001")
    if fault == "no driver":
        monkeypatch.setattr(Meter, "nvmlInit", lambda self: 1 / 0)
    assert make({})
    assert "gpu_wh" not in read_record(path).figures


def test_a_record_names_inputs_outputs_settings_seed_code_and_cost(made):
    make, path, data, output = made
    assert make({"rate": 1e-5})
    record = read_record(path)
    assert record.inputs[str(data)].bytes == 2 and record.outputs[str(output)].bytes == 4
    assert (record.stage, record.settings, record.seed) == ("pair", {"rate": 1e-5}, 3)
    assert (record.model, record.reused) == (None, None)
    assert record.version in (record.code, *(f"version {number}" for number in range(1, 100)))
    # The rule's command, without where the record goes.
    assert "pair.py" in record.command and "--record" not in record.command
    assert record.figures["items"] == 2 and record.figures["tokens_per_second"] > 0
    assert {"python", "torch", "trl", "snakemake"} <= record.packages.keys()
    assert {"system", "architecture", "cores", "cpu"} <= record.machine.keys()


def test_an_artifact_is_made_once_and_never_overwritten(made):
    make, path, data, output = made
    assert make({"rate": 1})
    before = {file: (file.read_bytes(), file.stat().st_ino) for file in path.parent.iterdir()}
    assert sorted(before) == [output, path]
    assert not make({"rate": 1})
    with pytest.raises(UserError, match=r"record\.json: made with other settings \(rate: 1 → 2\)"):
        make({"rate": 2})
    data.write_text("3\n")
    assert not make({"rate": 1})
    assert {file: (file.read_bytes(), file.stat().st_ino) for file in path.parent.iterdir()} == before
    # What was edited is not made anew in silence either: who reads it is told.
    output.write_text("edited")
    assert not make({"rate": 1})
    with pytest.raises(UserError, match=rf"pairs\.jsonl: has 6 bytes .*record\.json says 4 bytes .*{SET_ASIDE}"):
        provenance.checked(output)
    path.unlink()
    assert make({"rate": 2})
    assert output.read_text() == "3\n3\n"


def test_an_input_that_is_not_there_is_named(made):
    make, _, data, _ = made
    data.unlink()
    with pytest.raises(UserError, match=r"in\.jsonl: no such file$"):
        make({})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda record: record.pop("code"), "code: Field required"),
        (lambda record: record.pop("version"), "version: Field required"),
        (lambda record: record.update(more=1), "more: Extra inputs"),
        (lambda record: record["outputs"].clear(), "outputs: Dictionary should have at least 1 item"),
        (lambda record: next(iter(record["inputs"].values())).update(sha256="abc"), "sha256: String should match"),
        (lambda record: record.update(wall_seconds=-1), "wall_seconds: Input should be greater"),
    ],
)
def test_a_record_that_does_not_fit_the_schema_is_refused(made, spoil, message):
    make, path, _, output = made
    make({})
    record = json.loads(path.read_text())
    spoil(record)
    path.write_text(json.dumps(record))
    for read in (lambda: read_record(path), lambda: make({}), lambda: provenance.checked(output)):
        with pytest.raises(UserError, match=rf"record\.json: not a record: .*{message}.*{SET_ASIDE}"):
            read()
    path.write_text('{"stage": ')
    for read in (lambda: read_record(path), lambda: make({}), lambda: provenance.checked(output)):
        with pytest.raises(UserError, match=rf"record\.json:1: not valid JSON.*{SET_ASIDE}"):
            read()


def test_differences_are_told_by_key():
    old = {"training": {"rate": 1e-5, "lora": {"r": 8}}, "style": "cot"}
    new = {"training": {"rate": "1e-05", "lora": {"r": 8, "alpha": 16}}, "style": "cot"}
    assert differences(old, new) == ["training.lora.alpha: not there → 16", 'training.rate: 1e-05 → "1e-05"']
    assert differences({"alpha": 16}, {"alpha": 16.0}) == []


def test_versions_and_hardware_that_differ_are_told():
    other = {"packages": {"torch": "2.14.0", "trl": "1.16.0"}, "machine": {"cpu": "A", "cores": 64, "gpus": ["H100"]}}
    assert environment_differences(RECORD, other) == ["torch: 2.13.0 against 2.14.0", "gpus: none against ['H100']"]
    assert environment_differences(RECORD, RECORD) == []


# In a store.

STORE = Path("results/store")
FIRST, SECOND, THIRD = (STORE / "pair" / name / f"{name[0] * 12}/record.json" for name in ("first", "second", "third"))
# What a run reads, by what it is called here.
TEXTS = {
    "paths": "one\n",
    "demonstrations": "two\n",
    "adapter": "adapter",
    "weights": "weights",
    "notes": "notes",
    "source": "mine",
}


def artifact(folder: Path, files: dict[str, str], **more) -> Path:
    """The record of an artifact with these files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return record_model(folder, **more)


def written(name: str, **texts: str) -> dict:
    """What a run reads, in artifacts of this name: two files, a checkpoint with its model, and a local file."""
    texts = TEXTS | texts
    paths = artifact(STORE / f"sample/{name}/aaaaaaaaaaaa", {"paths.jsonl": texts["paths"]})
    demonstrations = artifact(
        STORE / f"demonstrate/{name}/bbbbbbbbbbbb", {"demonstrations.jsonl": texts["demonstrations"]}
    )
    weights = {"model.safetensors": texts["weights"], "deep/notes.txt": texts["notes"]}
    model = artifact(STORE / f"fetch_model/{name}/cccccccccccc", weights)
    adapter = {"adapter_model.safetensors": texts["adapter"], "adapter_config.json": "{}"}
    checkpoint = artifact(STORE / f"instruct/{name}/dddddddddddd", adapter, stage="instruct", model=str(model))
    source = Path(f"data/{name}.txt")
    source.parent.mkdir(exist_ok=True)
    source.write_text(texts["source"])
    return {
        "inputs": [paths.with_name("paths.jsonl"), demonstrations.with_name("demonstrations.jsonl")],
        "checkpoint": checkpoint,
        "sources": {str(source): sha256_of(source)},
    }


class Stage:
    """A stage that trains, run in this process with code and command as a test sets them; counts what it computes."""

    def __init__(self):
        self.version, self.command, self.computed = "version 1", "python pair.py", 0

    def __call__(self, record: Path, settings: dict | None = None, **options) -> Record:
        """The record, once the stage has run."""
        options.setdefault("inputs", [])
        with Run(PAIR, settings or {"rate": 1}, record=record, seed=3, **options) as run:
            if not run.made:
                self.computed += 1
                (run.folder / "deep").mkdir(parents=True, exist_ok=True)
                files = [run.file, run.folder / "deep/more.txt"]
                for file in files:
                    file.write_text(f"computed {self.computed} times")
                run.record(files, trained="checkpoint" in options, items=self.computed)
        return read_record(record)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A stage in an empty folder."""
    one = Stage()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("selfrefine.store.run.version_of", lambda stage, folder: one.version)
    monkeypatch.setattr("selfrefine.store.run.commands_of", lambda folder: {"pair": one.command})
    return one


def contents(record: Path) -> dict[str, bytes]:
    """The files of an artifact's folder, its record among them, by name."""
    folder = record.parent
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_was_made_from_equal_contents_is_linked_whatever_the_names_and_keys(stage, capsys):
    first = stage(FIRST, **written("first"))
    assert first.reused is None and first.model == str(STORE / "fetch_model/first/cccccccccccc/record.json")
    assert {str(STORE / "fetch_model/first/cccccccccccc/deep/notes.txt"), "data/first.txt"} < first.inputs.keys()
    reads = written("second")
    second = stage(SECOND, **reads)
    assert stage.computed == 1
    assert f"{SECOND}: its files are those of {FIRST}" in capsys.readouterr().out
    assert sorted(contents(SECOND)) == sorted(contents(FIRST)) == ["deep/more.txt", "pairs.jsonl", "record.json"]
    for name in ("pairs.jsonl", "deep/more.txt"):
        assert os.path.samefile((FIRST.parent / name), (SECOND.parent / name))
        assert (FIRST.parent / name).stat().st_nlink == 2
    assert not os.path.samefile(FIRST, SECOND)
    # Its record is its own: what it read and rests on; how it was computed, the other's says.
    assert second.reused == str(FIRST)
    assert second.model == str(STORE / "fetch_model/second/cccccccccccc/record.json")
    assert len(second.inputs) == len(first.inputs) == 7
    assert second.inputs == {str(path): state_of(path) for path in map(Path, second.inputs)}
    assert not any("first" in path for path in (*second.inputs, *second.outputs))
    assert second.outputs == {
        str(SECOND.parent / name): state_of(SECOND.parent / name) for name in ("pairs.jsonl", "deep/more.txt")
    }
    own = {"inputs", "outputs", "model", "reused"}
    assert second.model_dump(exclude=own) == first.model_dump(exclude=own)
    # A linked one is as good to link from, once the first is gone.
    shutil.rmtree(FIRST.parent)
    assert stage(THIRD, **written("third")).reused == str(SECOND)
    assert stage.computed == 1 and SECOND.with_name("pairs.jsonl").stat().st_nlink == 2


def rename(path: Path) -> Path:
    """The same file under another name, in an artifact of its own."""
    return artifact(path.parent.with_name("eeeeeeeeeeee"), {"other.jsonl": path.read_text()}).with_name("other.jsonl")


# What differs, and how: of the stage, of what it reads, or of its settings.
DIFFERENT = {
    "a setting": lambda stage, reads: reads | {"settings": {"rate": 2}},
    "a default written out": lambda stage, reads: reads | {"settings": {"rate": 1, "style": "cot"}},
    "the code's version": lambda stage, reads: setattr(stage, "version", "version 2") or reads,
    "the code's fingerprint": lambda stage, reads: setattr(stage, "version", "0" * 16) or reads,
    "the rule's command": lambda stage, reads: setattr(stage, "command", "python pair.py --fast") or reads,
    "one input less": lambda stage, reads: reads | {"inputs": reads["inputs"][:1]},
    "an input under another name": lambda stage, reads: (
        reads | {"inputs": [rename(reads["inputs"][0]), reads["inputs"][1]]}
    ),
    "inputs that changed places": lambda stage, reads: reads | {"inputs": reads["inputs"][::-1]},
    "no local file": lambda stage, reads: reads | {"sources": {}},
    "the model without its adapter": lambda stage, reads: (
        reads | {"checkpoint": Path(read_record(reads["checkpoint"]).model)}
    ),
    **{f"the content of {name}": name for name in TEXTS},
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_was_made_otherwise_is_not_linked(stage, what):
    stage(FIRST, **written("first"))
    before, change = contents(FIRST), DIFFERENT[what]
    if isinstance(change, str):
        reads = written("second", **{change: TEXTS[change].swapcase() + "."})
    else:
        reads = change(stage, written("second"))
    second = stage(SECOND, **reads)
    assert (stage.computed, second.reused) == (2, None)
    assert contents(FIRST) == before and SECOND.with_name("pairs.jsonl").stat().st_nlink == 1


def test_what_no_content_depends_on_does_not_count(stage):
    """Where local files lie, and whether a file that is read belongs to an artifact."""
    reads = written("first")
    stage(FIRST, **reads)
    Path("elsewhere").mkdir()
    plain = [Path(shutil.copy(path, Path("elsewhere") / path.name)) for path in reads["inputs"]]
    moved = shutil.copy("data/first.txt", "elsewhere/other.txt")
    second = stage(SECOND, **reads | {"inputs": plain, "sources": {moved: sha256_of(moved)}})
    assert (stage.computed, second.reused) == (1, str(FIRST))
    assert {"elsewhere/paths.jsonl", "elsewhere/demonstrations.jsonl", "elsewhere/other.txt"} < second.inputs.keys()


def edited(path: Path) -> None:
    path.write_bytes(path.read_bytes().swapcase())


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = (edited, truncated, grown, emptied, Path.unlink)


@pytest.mark.parametrize("name", ["pairs.jsonl", "deep/more.txt", "record.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_candidate_is_not_linked(stage, damage, name):
    stage(FIRST, **written("first"))
    damage(FIRST.parent / name)
    if (damage, name) == (grown, "record.json"):
        # The same JSON still.
        assert stage(SECOND, **written("second")).reused == str(FIRST)
        return
    before = contents(FIRST)
    second = stage(SECOND, **written("second"))
    assert (stage.computed, second.reused) == (2, None)
    assert contents(FIRST) == before
    assert SECOND.with_name("pairs.jsonl").read_text() == "computed 2 times"
    # A whole one is taken, whichever is the older.
    third = stage(THIRD, **written("third"))
    assert (stage.computed, third.reused) == (2, str(SECOND))


@pytest.mark.parametrize("number", NO_LINKS)
def test_without_links_files_are_copied(stage, number, monkeypatch):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    stage(FIRST, **written("first"))
    monkeypatch.setattr(os, "link", refuse)
    second = stage(SECOND, **written("second"))
    assert (stage.computed, second.reused) == (1, str(FIRST))
    assert SECOND.with_name("pairs.jsonl").read_bytes() == FIRST.with_name("pairs.jsonl").read_bytes()
    assert SECOND.with_name("pairs.jsonl").stat().st_nlink == 1


def test_other_errors_of_linking_are_not_hidden(stage, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    stage(FIRST, **written("first"))
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        stage(SECOND, **written("second"))
    assert not SECOND.exists()


def test_outside_a_store_nothing_is_linked_and_nothing_kept(stage):
    for name in ("one", "two"):
        assert stage(Path(name, "record.json"), **written("first")).reused is None
    assert stage.computed == 2
    assert sorted(path.name for path in Path().iterdir()) == ["data", "one", "results", "two"]
    assert not (STORE / ".contents").exists() and not (STORE / "code").exists()


# What a stage reads is what its record says.

READ = {
    "an input": STORE / "sample/first/aaaaaaaaaaaa/paths.jsonl",
    "the other input": STORE / "demonstrate/first/bbbbbbbbbbbb/demonstrations.jsonl",
    "an adapter": STORE / "instruct/first/dddddddddddd/adapter_model.safetensors",
    "a model's weights": STORE / "fetch_model/first/cccccccccccc/model.safetensors",
    "a model's file in a folder": STORE / "fetch_model/first/cccccccccccc/deep/notes.txt",
}


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("what", READ)
def test_an_input_that_is_not_what_its_record_says_is_refused(stage, what, damage, absolute):
    reads, path = written("first"), READ[what]
    record = path.parent.parent / "record.json" if path.parent.name == "deep" else path.with_name("record.json")
    expected = state_of(path)
    damage(path)
    if absolute:
        reads["inputs"] = [path.absolute() for path in reads["inputs"]]
    with pytest.raises(UserError) as caught:
        stage(FIRST, **reads)
    said = str(caught.value)
    is_named_absolutely = absolute and "input" in what
    assert said.startswith(f"{path.absolute() if is_named_absolutely else path}: ")
    assert said.endswith("and snakemake makes it again") and "study.py verify --set-aside" in said
    if damage is Path.unlink:
        assert "no such file" in said
    else:
        found = state_of(path)
        assert f"has {found.bytes} bytes of sha256 {found.sha256[:12]} where " in said
        assert (
            f"{record} says {expected.bytes} bytes of {expected.sha256[:12]}: it was changed after it was made" in said
        )
    assert stage.computed == 0 and not FIRST.exists()


@pytest.mark.parametrize("what", READ)
@pytest.mark.parametrize("damage", [truncated, emptied])
def test_an_input_whose_record_cannot_be_read_is_refused(stage, what, damage):
    reads, path = written("first"), READ[what]
    record = path.parent.parent / "record.json" if path.parent.name == "deep" else path.with_name("record.json")
    damage(record)
    with pytest.raises(UserError, match=rf"{record}.*not valid JSON.*{SET_ASIDE}"):
        stage(FIRST, **reads)
    assert stage.computed == 0 and not FIRST.exists()


def test_a_checkpoint_without_a_record_is_not_finished(stage):
    reads = written("first")
    reads["checkpoint"].unlink()
    with pytest.raises(UserError, match=rf"{reads['checkpoint']}: no such file"):
        stage(FIRST, **reads)
    assert stage.computed == 0


@pytest.mark.parametrize("link", [True, False], ids=["could be linked", "nothing to link"])
def test_code_that_has_changed_since_the_job_was_planned_is_refused(stage, link):
    if link:
        stage(SECOND, **written("second"))
    reads, before = written("first"), stage.computed
    stage.version = "version 2"
    said = r"the code of stage pair has changed since snakemake planned this job \(version 1 then, version 2 now\)"
    with pytest.raises(UserError, match=f"{said}; start snakemake again"):
        stage(FIRST, version="version 1", **reads)
    assert stage.computed == before and not FIRST.parent.exists()
    assert stage(FIRST, version="version 2", **reads).version == "version 2"


@pytest.mark.parametrize("change", DAMAGES)
def test_a_local_file_that_has_changed_since_the_job_was_planned_is_refused(stage, change):
    reads = written("first")
    change(Path("data/first.txt"))
    said = "no such file" if change is Path.unlink else "has changed since snakemake planned this job; start snakemake"
    with pytest.raises(UserError, match=rf"^data/first\.txt: {said}"):
        stage(FIRST, **reads)
    assert stage.computed == 0 and not FIRST.exists()
    Path("data/first.txt").write_text(TEXTS["source"])
    assert stage(FIRST, **reads).inputs["data/first.txt"].sha256 == reads["sources"]["data/first.txt"]


# Several processes, and what they leave.


def test_a_run_that_shall_not_wait_says_that_another_is_at_it(stage):
    reads = written("first")
    with Run(PAIR, {"rate": 1}, [], FIRST):
        with pytest.raises(Busy, match=rf"{FIRST.with_name('.lock')}"):
            stage(FIRST, wait=False, **reads)
        # Those that help the one which leads hold no lock.
        with Run(PAIR, {"rate": 1}, [], FIRST, leads=False, wait=False):
            pass
        assert stage(SECOND, wait=False, **reads).reused is None
    assert stage.computed == 1 and not FIRST.exists()
    assert stage(FIRST, wait=False, **reads).reused == str(SECOND)
    assert sorted(contents(FIRST)) == ["deep/more.txt", "pairs.jsonl", "record.json"]


PROGRAM = """
import sys, time
sys.path.insert(0, sys.argv[1])
from selfrefine.store.run import Run
with Run(sys.argv[1] + "/pair.py", {"rate": 1}, [], sys.argv[2]) as run:
    if not run.made:
        print("computing", flush=True)
        sys.stdin.readline()
        run.file.write_text("made by " + sys.argv[3])
        run.record([run.file])
"""


@contextlib.contextmanager
def process(folder: Path, name: str):
    """A process that makes FIRST in a folder, once it is told to go on."""
    command = [sys.executable, "-c", PROGRAM, str(SCRIPTS), str(FIRST), name]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=folder, text=True, **pipes) as one:
        try:
            yield one
        finally:
            one.kill()


@pytest.mark.parametrize("killed", [False, True], ids=["the first ends", "the first is killed"])
def test_of_two_processes_that_make_one_artifact_one_makes_it(tmp_path, killed):
    with process(tmp_path, "one") as one:
        assert one.stdout.readline() == "computing\n"
        with process(tmp_path, "two") as two:
            lock = re.escape(str(FIRST.with_name(".lock")))
            who = rf"process {one.pid} on {re.escape(socket.gethostname())}, since \S+"
            assert re.fullmatch(rf"waiting for another process \({who}\), which holds {lock}\n", two.stderr.readline())
            if killed:
                one.kill()
                assert two.stdout.readline() == "computing\n"
                two.communicate("go on\n")
            else:
                one.communicate("go on\n")
                assert "its artifact is made already" in two.communicate()[0]
            assert (one.wait() == 0) is not killed and two.wait() == 0
    assert sorted(contents(tmp_path / FIRST)) == ["pairs.jsonl", "record.json"]
    assert (tmp_path / FIRST).with_name("pairs.jsonl").read_text() == f"made by {'two' if killed else 'one'}"


# What a stage keeps to go on from, what killed processes had begun to write, and files that are no business of either.
KEPT = (
    "pairs.jsonl.partial",
    "report.json.partial",
    "trainer/checkpoint-2/trainer_state.json",
    "trainer/identity.json",
)
TORN = (".pairs.jsonl.4242", ".record.json.17")
OTHERS = (".other.jsonl.4242", "notes.txt", "partial")


@pytest.mark.parametrize("how", ["computed", "linked", "fails"])
def test_what_is_kept_to_go_on_from_goes_once_the_record_is_there(stage, how, monkeypatch):
    if how == "linked":
        stage(SECOND, **written("second"))
    artifact(FIRST.parent, dict.fromkeys((*KEPT, *TORN, *OTHERS), "x")).unlink()
    if how == "fails":
        monkeypatch.setattr(Run, "record", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stage(FIRST, **written("first"))
        assert {*KEPT, *TORN, *OTHERS} < contents(FIRST).keys()
        return
    assert (stage(FIRST, **written("first")).reused is not None) == (how == "linked")
    assert sorted(contents(FIRST)) == sorted([*OTHERS, "deep/more.txt", "pairs.jsonl", "record.json"])
    assert not FIRST.with_name("trainer").exists()


def test_the_record_is_there_before_what_is_kept_goes(stage, monkeypatch):
    """So that a kill between the two costs nothing that was computed."""
    artifact(FIRST.parent, dict.fromkeys(KEPT, "x")).unlink()
    monkeypatch.setattr("selfrefine.store.run.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stage(FIRST, **written("first"))
    assert contents(FIRST).keys() > set(KEPT)


LATER, EARLIER = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp() for year in (2031, 2021))


@pytest.mark.parametrize("how", ["computed", "linked", "made already"])
def test_records_that_are_dated_in_the_future_are_dated_now(stage, how):
    """Snakemake deletes what is older than what it was made from."""
    if how == "linked":
        stage(SECOND, **written("second"))
    reads = written("first")
    if how == "made already":
        stage(FIRST, **reads)
    paths, demonstrations = (path.with_name("record.json") for path in reads["inputs"])
    for path, seconds in ((paths, LATER), (demonstrations, EARLIER), (reads["checkpoint"], LATER)):
        os.utime(path, (seconds, seconds))
    stage(FIRST, **reads)
    made = FIRST.stat().st_mtime
    for path in (paths, reads["checkpoint"]):
        assert path.stat().st_mtime <= made <= time.time() + 1
    assert demonstrations.stat().st_mtime == EARLIER
    assert provenance.checked(reads["inputs"][0]) and read_record(reads["checkpoint"])


def test_a_run_that_fails_leaves_times_as_they_are(stage, monkeypatch):
    reads = written("first")
    os.utime(reads["checkpoint"], (LATER, LATER))
    monkeypatch.setattr(Run, "record", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stage(FIRST, **reads)
    assert reads["checkpoint"].stat().st_mtime == LATER


def test_times_that_cannot_be_set_stop_nothing(stage, monkeypatch):
    def refuse(*_):
        raise PermissionError("read only")

    reads = written("first")
    os.utime(reads["checkpoint"], (LATER, LATER))
    monkeypatch.setattr(os, "utime", refuse)
    assert stage(FIRST, **reads).reused is None


@pytest.mark.parametrize("how", ["computed", "linked"])
def test_a_record_is_taken_back_if_an_output_was_removed_before_it_was_there(stage, monkeypatch, how):
    """As Snakemake removes the outputs of a job whose shell was killed while its program lived on."""
    reads = written("first")
    if how == "linked":
        stage(SECOND, **written("second"))

    def after_a_removal(path, value):
        if path == FIRST:
            Path(next(iter(value["outputs"]))).unlink()
        write_json(path, value)

    with monkeypatch.context() as patched:
        patched.setattr("selfrefine.store.run.write_json", after_a_removal)
        with pytest.raises(UserError, match="was removed while it was made"):
            stage(FIRST, **reads)
    assert not FIRST.exists()
    assert stage(FIRST, **reads) and FIRST.exists()


def test_the_marker_of_the_results_names_is_whole_or_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = artifact(STORE / "claims/aaaaaaaaaaaa", {"claims.md": "# Claims\n"}, stage="claims")
    marker = Path("results/mine/.shown/0123456789ab.0")
    monkeypatch.setattr(sys, "argv", ["show.py", "--records", str(record), "--shown", str(marker)])

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="could not be written"):
            show.main()
    assert list(marker.parent.iterdir()) == []
    show.main()
    assert marker.read_text() == f"{record}\n"
    assert Path("results/mine/claims.md").read_text() == "# Claims\n"
