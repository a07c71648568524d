"""Kills, full disks, two at once: the same command finishes the study, with the bytes of an undisturbed run.

What was damaged by hand is named, and set aside on request.

`pytest tests/test_survival.py -s -k random` prints how often it killed what. KILLS in the environment sets how often.
"""

import contextlib
import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from conftest import (
    REAL_JOBS,
    REPOSITORY,
    artifact,
    assert_same_results,
    contents,
    environment,
    make_study,
    nothing_to_do,
    run,
    snakemake,
    target,
)
from selfrefine.errors import UserError
from selfrefine.store.files import naming_write_errors
from selfrefine.store.locks import held, occupy, stamp_of
from selfrefine.workflow import failures


@pytest.fixture(autouse=True)
def real_jobs(monkeypatch):
    """Jobs are processes of Snakemake's, to be found and killed as those of users are."""
    monkeypatch.setenv(REAL_JOBS, "1")


KILLS = int(os.environ.get("KILLS", "100"))
INSTRUCTED = "instruct/tiny/oracle-boxes-100-seed0"
PATHS = "sample/tiny/oracle-boxes-100-seed0/boxes-100-seed0"
PAIRS = "pair/tiny/oracle-boxes-100-seed0/boxes-cot-100-seed0"
# A stage's process, or the shell that it was started by.
STAGE = re.compile(r"(/scripts|SELFREFINE)/\w+\.py")
COMMAND = ["snakemake", "--cores", "2", "--configfile", "config/tiny.yaml"]


def start(folder: Path, *targets: str, output=subprocess.DEVNULL) -> subprocess.Popen:
    """The workflow in a session of its own, so that all its processes can be found."""
    streams = {"stdout": output, "stderr": output}
    return subprocess.Popen(
        [COMMAND[0], *targets, *COMMAND[1:]],
        cwd=folder,
        **streams,
        env=environment(),
        start_new_session=True,
        # Tests that were started in the background (nohup, &) ignore it, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def processes(session: int) -> list[tuple[int, str]]:
    """(process id, command line) of each living process of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append((int(entry.name), (entry / "cmdline").read_text().replace("\0", " ")))
            except (OSError, IndexError):
                continue
    return found


def kill(process: subprocess.Popen, victim: str, chance: random.Random) -> bool:
    """Kills the driver, one stage, or everything; False if there was no such process."""
    living = processes(process.pid)
    stages = [pid for pid, command in living if STAGE.search(command)]
    if victim == "driver":
        targets = [process.pid]
    elif victim == "stage":
        targets = [chance.choice(stages)] if stages else []
    else:
        targets = [pid for pid, _ in living]
    for pid in targets:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return bool(targets)


def test_killed_at_random_moments_the_study_ends_the_same(finished, tmp_path, tiny_model):
    chance = random.Random(2024)
    done, studies, orphans = Counter(), 0, []
    while sum(done.values()) < KILLS:
        studies += 1
        folder = tmp_path / f"study{studies}"
        folder.mkdir()
        make_study(folder, tiny_model)
        ended = False
        while not ended and sum(done.values()) < KILLS:
            process = start(folder)
            victim = chance.choice(["driver", "stage", "everything"])
            try:
                process.wait(timeout=chance.uniform(0.3, 4.5))
            except subprocess.TimeoutExpired:
                while process.poll() is None and not kill(process, victim, chance):
                    time.sleep(0.05)  # no stage runs just now
                done[victim] += 1
                if victim == "driver":
                    orphans.append(process.pid)  # its stages live on, beside those of the next invocation
            # A driver whose stage was killed ends by itself, once the other stages have.
            ended = process.wait(timeout=600) == 0
        snakemake(folder)
        assert_same_results(finished[0], folder)
    print(
        f"\n{sum(done.values())} kills ({dict(done)}) over {studies} studies; every one ended like an undisturbed run"
    )
    assert not [command for session in orphans for _, command in processes(session)]


@pytest.fixture
def light(tmp_path) -> tuple[Path, str]:
    """The tiny study with no model to load, and the record of items, which need none: the folder, the record."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    make_study(tmp_path, model)
    return tmp_path, target(tmp_path, "prepare/boxes-test")


@contextlib.contextmanager
def waiting(light: tuple[Path, str]) -> Iterator[tuple[subprocess.Popen, Path, Callable[[], None]]]:
    """A workflow whose one job waits for a lock: the driver, the file with what it prints, and what frees the lock."""
    folder, record = light
    said = folder / "said.txt"
    with contextlib.ExitStack() as lock, open(said, "w") as file:
        lock.enter_context(held((folder / record).with_name(".lock")))
        driver = start(folder, record, output=file)
        log = folder / f"logs/prepare/boxes-test/{Path(record).parent.name}.log"
        wait_for(lambda: log.exists() and "waiting for another process" in log.read_text(), driver)
        try:
            yield driver, said, lock.close
        finally:
            driver.kill()
            driver.wait()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen | None = None, seconds: float = 60) -> None:
    """Waits until something holds, a minute at most and while a process lives."""
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline and (process is None or process.poll() is None)
        time.sleep(0.05)


def test_a_job_that_waits_for_a_lock_says_on_the_console_whose(light):
    with waiting(light) as (driver, said, _):
        wait_for(lambda: "waits for" in said.read_text(), driver)
        line = next(line for line in said.read_text().splitlines() if "waits for" in line)
        folder = Path(light[1]).parent
        assert f"prepare of {folder} waits for process {os.getpid()} on {socket.gethostname()}, since 2" in line
        log = (light[0] / f"logs/prepare/boxes-test/{folder.name}.log").read_text()
        assert f"waiting for another process (process {os.getpid()} on {socket.gethostname()}, since 2" in log
        # Once, however long it waits.
        time.sleep(5)
        assert said.read_text().count("waits for") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_says_what_is_waited_for_and_lets_it_end(light, number):
    with waiting(light) as (driver, said, let_go):
        driver.send_signal(number)
        wait_for(lambda: "once more stops them" in said.read_text(), driver)
        told = said.read_text()
        assert f"{number.name}: no further job starts. Waiting for those that run; once more stops them" in told
        assert re.search(rf"prepare of {Path(light[1]).parent}, running for \d+ s\n", told)
        time.sleep(1)
        assert driver.poll() is None
        let_go()
        assert driver.wait(timeout=20) == 128 + number
    assert (light[0] / light[1]).exists()
    assert said.read_text().count("Stopping") == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_the_jobs_and_the_same_command_goes_on(light, number):
    folder, record = light
    with waiting(light) as (driver, said, _):
        driver.send_signal(number)
        wait_for(lambda: "once more stops them" in said.read_text(), driver)
        driver.send_signal(number)
        assert driver.wait(timeout=20) == 128 + number
        assert not processes(driver.pid)
        told = said.read_text()
        assert told.count("Stopping them.") == told.count("Interrupted. The same command goes on from here.") == 1
        assert "Traceback" not in told and "graceful" not in told and "scheduler" not in told
    snakemake(folder, record)
    assert nothing_to_do(snakemake(folder, record, "-n"))


def test_ctrl_c_at_a_terminal_ends_at_once(light):
    folder, record = light
    with waiting(light) as (driver, said, _):
        # A terminal sends it to every process that it has started.
        os.killpg(driver.pid, signal.SIGINT)
        assert driver.wait(timeout=20) == 128 + signal.SIGINT
        assert not processes(driver.pid)
    assert "Interrupted. The same command goes on from here." in said.read_text()
    assert "Traceback" not in said.read_text()
    snakemake(folder, record)


@pytest.mark.parametrize("study", ["config/tiny.yaml", "config/other.yaml"])
def test_a_second_invocation_is_refused_without_lines_of_code(light, study):
    folder, record = light
    other = yaml.safe_load((folder / "config/tiny.yaml").read_text())
    other["study"]["name"] = "other"
    (folder / "config/other.yaml").write_text(yaml.safe_dump(other, sort_keys=False))
    with waiting(light) as (driver, _, _):
        second = run("snakemake", record, "--cores", "1", "--configfile", study, cwd=folder, check=False)
    assert refused(second, driver)
    *_, before, last = (second.stdout + second.stderr).strip().splitlines()
    assert before == "Error:" and last.endswith("This one has touched nothing.")


@pytest.fixture
def protected(light) -> Iterator[Path]:
    """The light study with results in a file system that can only be read."""
    results = light[0] / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    with mounted(results, "ro,size=1m"):
        yield light[0]


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system in memory at a folder."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount, and not in every container")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_folder_that_cannot_be_written_to_is_refused_before_planning(protected):
    record = target(protected, "prepare/boxes-test")
    outcome = snakemake(protected, record, check=False)
    said = outcome.stdout + outcome.stderr
    assert outcome.returncode == 1 and "Building DAG" not in said and "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("results: this folder is write-protected for user ")
    assert "Job stats" in (planned := snakemake(protected, record, "-n")).stdout + planned.stderr


@pytest.mark.parametrize("size", [24, 44])
def test_a_full_disk_names_the_file_that_could_not_be_written(light, size):
    folder, record = light
    (folder / "results").mkdir(exist_ok=True)
    with mounted(folder / "results", f"size={size}k"):
        outcome = snakemake(folder, record, check=False)
        said = outcome.stdout + outcome.stderr
        assert outcome.returncode == 1 and "Traceback" not in said
        assert re.search(r"error: results/store/\S+: could not be written: No space left on device; free space", said)
        assert f"error: the disk that holds {folder}/results is full: free space and start again" in said
        subprocess.run(["mount", "-o", "remount,size=10m", str(folder / "results")], check=True)
        snakemake(folder, record)
        assert nothing_to_do(snakemake(folder, record, "-n"))


LIBRARIES_ON_A_FULL_DISK = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
    RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
]


@pytest.mark.parametrize("error", LIBRARIES_ON_A_FULL_DISK, ids=str)
def test_a_librarys_word_for_a_full_disk_gets_the_name_of_the_file(error, tmp_path):
    path = tmp_path / "model.safetensors"
    with (
        pytest.raises(UserError, match=r"model\.safetensors: could not be written: .*free space"),
        naming_write_errors(path, all_of_them=False),
    ):
        raise error
    with pytest.raises(ValueError), naming_write_errors(path):
        raise ValueError("something else")
    with pytest.raises(PermissionError), naming_write_errors(path, all_of_them=False):
        raise PermissionError(errno.EACCES, "of a file that is read")


# A stage that runs out of memory: for real, and as libraries say it.
HUNGRY = """
import resource, sys
sys.path.insert(0, {scripts!r})
from selfrefine.errors import UserError
from selfrefine.programs import cli
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
def wrapped():
    try:
        raise MemoryError
    except MemoryError as error:
        raise UserError("model: the file is damaged") from error
def said(text):
    raise RuntimeError(text)
cli.run(lambda: {does})
"""


@pytest.mark.parametrize(
    "does",
    [
        "bytearray(1 << 31)",
        "wrapped()",
        "said('CUDA out of memory. Tried to allocate 2.00 GiB')",
        "said('DefaultCPUAllocator: can\\'t allocate memory: you tried to allocate 4 bytes')",
    ],
)
@pytest.mark.parametrize(("stage", "key"), [("instruct", "instruct.micro_batch_size"), ("evaluate", "`batch_size` of")])
def test_memory_that_ran_out_is_said_with_what_to_lower(does, stage, key, tmp_path):
    script = tmp_path / f"{stage}.py"
    script.write_text(HUNGRY.format(scripts=str(REPOSITORY / "scripts"), does=does))
    outcome = run(sys.executable, script, check=False)
    assert outcome.returncode == 1 and "Traceback" not in outcome.stderr
    assert outcome.stderr.startswith("error: memory ran out: lower ")
    assert key in outcome.stderr and "`--cores`" in outcome.stderr and "finished work is kept" in outcome.stderr


class Failed:
    """A failed job as Snakemake has it."""

    def __init__(self, log: Path):
        self.log, self.output = [str(log)], ["results/store/instruct/tiny/record.json"]
        self.rule = type("Rule", (), {"name": "instruct", "shellcmd": "python"})


@pytest.mark.parametrize(
    ("log", "killed", "expected"),
    [
        ("step 3", 1, "memory ran out: lower `instruct.micro_batch_size`"),
        ("step 3", 0, "it was killed, by hand or for lack of memory"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", 0, "memory ran out: lower "),
        ("error: no such file", 1, None),
        ("Traceback (most recent call last)", 1, None),
    ],
)
def test_what_a_log_cannot_say_of_a_failed_job_is_said(log, killed, expected, tmp_path, monkeypatch):
    (tmp_path / "vmstat").write_text("pgfault 9\noom_kill 4\n")
    monkeypatch.setattr(failures, "VMSTAT", tmp_path / "vmstat")
    before = failures.killed_for_memory()
    (tmp_path / "vmstat").write_text(f"pgfault 9\noom_kill {4 + killed}\n")
    (tmp_path / "log").write_text(log)
    lines = list(failures.reasons([Failed(tmp_path / "log")], before))
    assert len(lines) == (expected is not None)
    assert all(expected in line and "instruct (results/store/instruct/tiny/record.json)" in line for line in lines)


def test_touching_what_is_not_there_names_the_option(light):
    outcome = snakemake(light[0], "--touch", check=False)
    said = outcome.stdout + outcome.stderr
    assert outcome.returncode == 1 and "Traceback" not in said
    assert "`--touch` makes nothing, and " in said and "start snakemake without `--touch`" in said


def refused(outcome: subprocess.CompletedProcess, driver: subprocess.Popen) -> bool:
    """Whether an invocation ended with one line that names the other one's process."""
    assert outcome.returncode == 1
    said = [line for line in (outcome.stdout + outcome.stderr).splitlines() if "another snakemake" in line]
    assert len(said) == 1 and "Traceback" not in outcome.stderr
    return f"another snakemake works on results/store (process {driver.pid} on " in said[0]


def test_a_second_invocation_is_refused_at_once_and_harms_nothing(finished, fresh):
    folder, _, _ = fresh
    first = start(folder)
    while not (folder / "logs").exists():
        time.sleep(0.1)
    begun = time.time()
    second = snakemake(folder, check=False)
    assert time.time() - begun < 15
    assert refused(second, first)
    planned = snakemake(folder, "-n")
    assert "Job stats" in planned.stdout + planned.stderr
    assert first.wait(timeout=300) == 0
    assert_same_results(finished[0], folder)


def test_of_two_that_start_together_one_works(finished, fresh):
    folder, _, _ = fresh
    both = [start(folder), start(folder)]
    assert sorted(process.wait(timeout=300) for process in both) == [0, 1]
    assert_same_results(finished[0], folder)


def test_one_that_planned_before_another_ended_is_refused(tmp_path):
    first = occupy(tmp_path / "store", stamp_of(tmp_path / "store"))
    planned_at = stamp_of(tmp_path / "store")
    with pytest.raises(UserError, match="another snakemake works on .*This one has touched nothing"):
        occupy(tmp_path / "store", planned_at)
    first.close()
    # As if the second had planned while nobody worked yet.
    with pytest.raises(UserError, match="another snakemake has worked on .* since this one planned .*start it again"):
        occupy(tmp_path / "store", "")
    occupy(tmp_path / "store", planned_at).close()


@pytest.mark.parametrize("victim", ["driver", "everything"])
def test_a_killed_invocation_leaves_nothing_that_the_next_one_must_clear_away(finished, fresh, victim):
    folder, _, _ = fresh
    first = start(folder)
    while not any(folder.glob("results/store/instruct/**/.lock")):
        assert first.poll() is None
        time.sleep(0.05)
    kill(first, victim, random.Random(0))
    first.wait(timeout=60)
    snakemake(folder)
    assert nothing_to_do(snakemake(folder, "-n"))
    assert_same_results(finished[0], folder)
    assert not processes(first.pid)


def test_a_stage_waits_for_another_that_makes_the_same_and_takes_its_result(fresh):
    folder, _, _ = fresh
    snakemake(folder, target(folder, "prepare/boxes-test"))
    record, raw = (artifact(folder, f"{place}") / "record.json" for place in ("prepare/boxes-test", "fetch/boxes-all"))
    recipe = json.dumps(json.loads(record.read_text())["settings"])
    command = ["scripts/prepare.py", "--settings", recipe, "--raw", raw.relative_to(folder)]
    command += ["--record", record.relative_to(folder)]
    said = folder / "said.txt"
    with held(record.with_name(".lock")), open(said, "w") as file:
        stage = subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=folder, stdout=file, stderr=subprocess.STDOUT
        )
        while "waiting for another process" not in said.read_text():
            assert stage.poll() is None
            time.sleep(0.1)
    assert stage.wait(timeout=60) == 0
    assert "made already" in said.read_text()


def test_a_full_disk_costs_nothing_that_was_made(finished, fresh):
    folder, _, _ = fresh
    # Less than the weights have, more than the kept code takes.
    limit = 300_000
    full = subprocess.run(
        [*COMMAND, "--keep-going"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert full.returncode == 1
    assert "could not be written" in full.stdout + full.stderr
    kept = {path: path.stat().st_ctime_ns for path in folder.glob("results/store/prepare/**/*.jsonl")}
    assert kept
    snakemake(folder)
    assert {path: path.stat().st_ctime_ns for path in kept} == kept
    assert_same_results(finished[0], folder)


def test_a_stage_that_fails_leaves_what_the_next_run_goes_on_from(fresh):
    folder, path, config = fresh
    config["instruct"] |= {"epochs": 40, "save_every": 4}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    record = target(folder, INSTRUCTED)
    process = start(folder)
    kept = (folder / record).parent / "trainer"
    while not any(kept.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None
        time.sleep(0.1)
    for pid, command in processes(process.pid):
        if "/scripts/instruct.py" in command:
            os.kill(pid, signal.SIGKILL)
    assert process.wait(timeout=300) == 1
    assert any(kept.glob("checkpoint-*/trainer_state.json"))
    snakemake(folder, record)
    log = folder / f"logs/{INSTRUCTED}/{kept.parent.name}.log"
    assert "going on from checkpoint-" in log.read_text()
    assert not kept.exists()


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A finished study to spoil."""
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder, symlinks=True)
    return folder


def remove(folder: Path, *places: str) -> None:
    for place in places:
        shutil.rmtree(artifact(folder, place))


TORN = {
    f"{PATHS}/paths.jsonl": lambda text: text[: len(text) // 2],
    f"{PATHS}/record.json": lambda text: text[:100],
    f"{INSTRUCTED}/adapter_model.safetensors": lambda text: text[:-1],
    "fetch_model/tiny/model.safetensors": lambda text: b"",
    "listing/tables/tables.json": lambda text: text + b"x",
    "prepare/boxes-train/items.jsonl": None,
}


def tear(folder: Path, name: str) -> Path:
    """Damages a file of the store, or takes it away; its path from the folder."""
    place, _, file = name.rpartition("/")
    path = artifact(folder, place) / file
    if TORN[name]:
        path.write_bytes(TORN[name](path.read_bytes()))
    else:
        path.unlink()
    return path.relative_to(folder)


# What reads each of them, if it is not there itself.
READER = {
    f"{PATHS}/paths.jsonl": PAIRS,
    f"{PATHS}/record.json": PAIRS,
    f"{INSTRUCTED}/adapter_model.safetensors": PATHS,
    "fetch_model/tiny/model.safetensors": "evaluate/tiny/base/far",
    "listing/tables/tables.json": "claims",
    "prepare/boxes-train/items.jsonl": PATHS,
}


@pytest.mark.parametrize("name", TORN)
def test_a_torn_file_is_an_error_where_it_is_read_and_nothing_else_is_touched(copy, name):
    wanted = target(copy, READER[name])
    remove(copy, READER[name])
    torn = tear(copy, name)
    before = contents(copy)
    outcome = snakemake(copy, wanted, check=False)
    said = outcome.stdout + outcome.stderr
    assert outcome.returncode == 1 and "Traceback" not in said
    assert f"error: {torn}:" in said
    assert "study.py verify --set-aside` moves it out of the way, and snakemake makes it again" in said
    assert contents(copy) == before


def test_what_is_torn_is_found_set_aside_and_made_again(finished, copy):
    targets = [target(copy, place) for place in sorted({name.rpartition("/")[0] for name in TORN})]
    torn = [tear(copy, name) for name in TORN]
    found = run("python", "scripts/study.py", "verify", cwd=copy, check=False)
    assert found.returncode == 1
    assert {line.split(":")[0] for line in found.stdout.splitlines()} == {str(path.parent) for path in torn}
    # Nothing that is missing is read: what was made of it is there.
    assert nothing_to_do(snakemake(copy, "-n"))
    run("python", "scripts/study.py", "verify", "--set-aside", cwd=copy)
    for path in torn:
        assert not (copy / path.parent).exists()
    assert "every artifact is what its record says" in run("python", "scripts/study.py", "verify", cwd=copy).stdout
    snakemake(copy, *targets)
    assert_same_results(finished[0], copy)


def test_half_made_artifacts_are_made_whole(finished, copy):
    made = {place: artifact(copy, place) for place in (INSTRUCTED, PATHS, "evaluate/tiny/base/far", "plot/accuracy")}
    shutil.rmtree(copy / "results/store/page")  # which needs the paths, and these the checkpoint
    for folder in made.values():
        (folder / "record.json").unlink()
    (made[INSTRUCTED] / "adapter_model.safetensors").write_bytes(b"half")
    (made[INSTRUCTED] / "trainer/checkpoint-6").mkdir(parents=True)
    (made[INSTRUCTED] / "trainer/checkpoint-6/optimizer.pt").write_bytes(b"half")
    (made[PATHS] / "paths.jsonl").unlink()
    (made[PATHS] / "paths.jsonl.partial").write_text('[{"id": "torn')
    for place, name in (("evaluate/tiny/base/far", "record.json"), ("plot/accuracy", "accuracy.svg")):
        (made[place] / f".{name}.4242").write_bytes(b"what it had begun to write")
        (made[place] / ".lock").touch()
    shutil.rmtree(copy / ".snakemake")
    snakemake(copy, *(target(copy, place) for place in made), "all")
    assert_same_results(finished[0], copy)


def test_an_artifact_that_comes_out_the_same_makes_nothing_anew(copy):
    record = target(copy, INSTRUCTED)
    before = contents(copy)
    remove(copy, INSTRUCTED)
    assert nothing_to_do(snakemake(copy, "-n"))
    snakemake(copy, record)
    assert nothing_to_do(snakemake(copy, "-n"))
    assert contents(copy) == before


def test_what_follows_from_the_same_contents_is_linked(finished, copy):
    recording = copy / "oracle.jsonl"
    before = {place: artifact(copy, place) for place in (INSTRUCTED, PATHS, "evaluate/tiny/base/far")}
    rows = recording.read_text().splitlines()
    recording.write_text("\n".join([rows[0], *reversed(rows[1:])]) + "\n")
    snakemake(copy)
    record = json.loads((copy / target(copy, INSTRUCTED)).read_text())
    assert record["reused"] == str((before[INSTRUCTED] / "record.json").relative_to(copy))
    for place, file in ((INSTRUCTED, "adapter_model.safetensors"), (PATHS, "paths.jsonl")):
        after = (copy / target(copy, place)).parent
        assert after != before[place]
        assert os.path.samefile(after / file, before[place] / file)
        assert "which was made from the same contents" in (copy / f"logs/{place}/{after.name}.log").read_text()
    # The student as it comes has nothing to do with its teacher.
    assert target(copy, "evaluate/tiny/base/far") == str(
        (before["evaluate/tiny/base/far"] / "record.json").relative_to(copy)
    )
    shown = "results/tiny/tables/accuracy.csv"
    drop = re.compile(r"results/store/[^,\s]+")
    assert drop.sub("", (copy / shown).read_text()) == drop.sub("", (finished[0] / shown).read_text())


def test_a_stage_that_is_killed_says_so(copy):
    remove(copy, PATHS, "page")
    process = start(copy)
    deadline = time.time() + 60
    while time.time() < deadline:
        victims = [
            pid for pid, command in processes(process.pid) if "/scripts/sample.py" in command and "bash" not in command
        ]
        if victims:
            os.kill(victims[0], signal.SIGKILL)
            break
        time.sleep(0.05)
    assert process.wait(timeout=300) == 1
    assert not nothing_to_do(snakemake(copy, "-n"))
    snakemake(copy)
    assert nothing_to_do(snakemake(copy, "-n"))
