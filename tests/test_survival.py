"""Kills, full disks, vanished and torn files: the same command finishes the study, with the bytes of an undisturbed run.

`pytest tests/test_survival.py -s -k random` prints how often it killed what. KILLS in the environment sets how often.
"""

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from conftest import assert_same_results, make_study, run, snakemake
from selfrefine.files import held

KILLS = int(os.environ.get("KILLS", "100"))
INSTRUCTED = "tiny/instruct/oracle/boxes/100/0"
COMMAND = ["snakemake", "--cores", "2", "--configfile", "config/tiny.yaml"]


def start(folder: Path) -> subprocess.Popen:
    """The workflow in a session of its own, so that all its processes can be found."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    return subprocess.Popen(COMMAND, cwd=folder, stdout=-3, stderr=-3, env=environment, start_new_session=True)


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
    stages = [pid for pid, command in living if " scripts/" in command and "python" in command]
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


def test_a_second_invocation_is_refused_at_once_and_harms_nothing(finished, fresh):
    folder, _, _ = fresh
    first = start(folder)
    while not (folder / "logs").exists():
        time.sleep(0.1)
    begun = time.time()
    second = snakemake(folder, check=False)
    assert time.time() - begun < 15
    assert second.returncode == 1
    assert f"another snakemake runs in {folder} (process {first.pid} on" in second.stdout + second.stderr
    planned = snakemake(folder, "-n")
    assert "Job stats" in planned.stdout + planned.stderr
    assert first.wait(timeout=300) == 0
    assert_same_results(finished[0], folder)


def test_a_stage_waits_for_another_that_makes_the_same_and_takes_its_result(finished, fresh):
    folder, _, _ = fresh
    target = "results/benchmarks/boxes/test.jsonl"
    snakemake(folder, target)
    record = folder / "results/benchmarks/boxes/test.provenance.json"
    recipe = json.dumps(json.loads(record.read_text())["recipe"])
    command = ["python", "scripts/prepare.py", "--recipe", recipe, "--raw", "results/benchmarks/boxes/raw/all.jsonl"]
    command += ["--output", target, "--provenance", record.relative_to(folder)]
    said = folder / "said.txt"
    with held(record.with_name(f".{record.name}.lock")), open(said, "w") as file:
        stage = subprocess.Popen(
            [sys.executable, *map(str, command[1:])], cwd=folder, stdout=file, stderr=subprocess.STDOUT
        )
        while "waiting for another process" not in said.read_text():
            assert stage.poll() is None
            time.sleep(0.1)
    assert stage.wait(timeout=60) == 0
    assert "made already" in said.read_text()


def test_a_full_disk_costs_nothing_that_was_made(finished, fresh):
    folder, _, _ = fresh
    # Less than the weights have, more than the texts of the code that the driver keeps.
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
    kept = {path: path.stat().st_ctime_ns for path in folder.glob("results/benchmarks/**/*.jsonl")}
    assert kept
    snakemake(folder)
    assert {path: path.stat().st_ctime_ns for path in kept} == kept
    assert_same_results(finished[0], folder)


def test_a_stage_that_fails_leaves_what_the_next_run_goes_on_from(fresh):
    folder, path, config = fresh
    config["instruct"] |= {"epochs": 40, "save_every": 4}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    process = start(folder)
    kept = folder / f"results/checkpoints/{INSTRUCTED}/trainer"
    while not any(kept.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None
        time.sleep(0.1)
    for pid, command in processes(process.pid):
        if " scripts/instruct.py" in command:
            os.kill(pid, signal.SIGKILL)
    assert process.wait(timeout=300) == 1
    assert any(kept.glob("checkpoint-*/trainer_state.json"))
    snakemake(folder, f"results/checkpoints/{INSTRUCTED}/manifest.json")
    assert "going on from checkpoint-" in (folder / "logs/instruct/tiny/oracle/boxes/100/0.log").read_text()
    assert not kept.exists()


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A finished study to spoil."""
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder, symlinks=True)
    return folder


def test_torn_half_written_and_vanished_files_are_made_again(finished, copy):
    torn = {
        f"results/paths/{INSTRUCTED}/boxes/100/0.jsonl": lambda text: text[: len(text) // 2],
        f"results/paths/{INSTRUCTED}/boxes/100/0.provenance.json": lambda text: text[:100],
        f"results/checkpoints/{INSTRUCTED}/adapter_model.safetensors": lambda text: text[:-1],
        "results/models/tiny/model.safetensors": lambda text: b"",
        "results/index/tables.json": lambda text: text + b"x",
    }
    for name, tear in torn.items():
        (copy / name).write_bytes(tear((copy / name).read_bytes()))
    (copy / "results/benchmarks/boxes/train.jsonl").unlink()
    (copy / f"results/checkpoints/{INSTRUCTED}/trainer/checkpoint-6").mkdir(parents=True)
    (copy / f"results/checkpoints/{INSTRUCTED}/trainer/checkpoint-6/optimizer.pt").write_bytes(b"half")
    (copy / f"results/paths/{INSTRUCTED}/boxes/100/0.jsonl.partial").write_text('[{"id": "torn')
    (copy / ".snakemake/running").write_text("process 1, which was killed")
    for name in ("figures/.accuracy.svg.4242", "reports/tiny/base/.far.provenance.json.4242"):
        (copy / "results" / name).write_bytes(b"what it had begun to write")
    snakemake(copy)
    assert_same_results(finished[0], copy)


def test_a_result_with_the_same_bytes_stops_the_cascade(copy):
    manifest = f"results/checkpoints/{INSTRUCTED}/manifest.json"
    for name in ("manifest.json", "adapter_model.safetensors", "provenance.json"):
        (copy / f"results/checkpoints/{INSTRUCTED}" / name).unlink()
    snakemake(copy, manifest)
    planned = snakemake(copy, "-n").stdout
    # The table of costs reads the new record; nothing else has changed.
    rules = set(re.findall(r"^(?:local)?rule (\w+):", planned, re.MULTILINE))
    assert rules == {"tables", "plot", "layout", "summarise", "all"}, planned


def test_a_stage_that_is_killed_says_so(copy):
    run("rm", "-r", f"results/paths/{INSTRUCTED}", cwd=copy)
    process = start(copy)
    deadline = time.time() + 60
    while time.time() < deadline:
        victims = [
            pid for pid, command in processes(process.pid) if " scripts/sample.py" in command and "bash" not in command
        ]
        if victims:
            os.kill(victims[0], signal.SIGKILL)
            break
        time.sleep(0.05)
    assert process.wait(timeout=300) == 1
    assert "Nothing to be done" not in snakemake(copy, "-n").stdout
    snakemake(copy)
    planned = snakemake(copy, "-n")
    assert "Nothing to be done" in planned.stdout + planned.stderr
