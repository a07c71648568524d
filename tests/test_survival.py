"""Kills, full disks, two at once: the same command finishes the study, with the bytes of an undisturbed run.

What was damaged by hand is named, and set aside on request.

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

from conftest import artifact, assert_same_results, contents, make_study, nothing_to_do, run, snakemake, target
from selfrefine.errors import UserError
from selfrefine.store.locks import held, occupy, stamp_of

KILLS = int(os.environ.get("KILLS", "100"))
INSTRUCTED = "instruct/tiny/oracle-boxes-100-seed0"
PATHS = "sample/tiny/oracle-boxes-100-seed0/boxes-100-seed0"
PAIRS = "pair/tiny/oracle-boxes-100-seed0/boxes-cot-100-seed0"
# A stage's process, or the shell that it was started by.
STAGE = re.compile(r"(/scripts|SELFREFINE)/\w+\.py")
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
