"""A study on a cluster of this machine, and what can happen to it there: the events of cluster_faults.py."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

import yaml  # noqa: E402

from cluster import Cluster  # noqa: E402
from conftest import make_study  # noqa: E402
from selfrefine.store.locations import TRAINER  # noqa: E402
from selfrefine.study.open_study import open_study  # noqa: E402

INSTRUCTED = "tiny/instruct/oracle/boxes/100/0"
SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
CONFIGURED = ["--configfile", "config/tiny.yaml"]
POLLS = [
    "--slurm-init-seconds-before-status-checks",
    "6",
    "--seconds-between-status-checks",
    "3",
    "--latency-wait",
    "5",
]
LONGEST = 900


class Run:
    """One study on the cluster, and its driver."""

    def __init__(self, cluster: Cluster, model: Path, folder: Path, options: list[str]):
        self.cluster = cluster
        self.folder = folder
        folder.mkdir()
        self.target = make_tiny(folder, model)
        self.command = [SNAKEMAKE, str(self.target), *CONFIGURED, "--profile", "slurm", *POLLS, *options]
        self.began = time.time()
        self.before = {job["id"] for job in cluster.jobs()}
        self.drivers: list[subprocess.Popen] = []
        self.start()

    def start(self) -> None:
        """Starts the driver, once more after a kill."""
        with open(self.folder / "said.txt", "a") as said:
            self.drivers.append(subprocess.Popen(self.command, cwd=self.folder, stdout=said, stderr=said))

    def said(self) -> str:
        return (self.folder / "said.txt").read_text()

    def jobs(self, rule: str = "instruct") -> list[dict[str, str]]:
        """The run's jobs of a rule, oldest first."""
        found = [job for job in self.cluster.jobs() if job["id"] not in self.before]
        return sorted((job for job in found if job["rule"].startswith(f"rule_{rule}")), key=lambda job: int(job["id"]))

    def training(self) -> str:
        """Waits until the job that instructs has kept a checkpoint; its id."""
        scratch = self.folder / self.target.parent / TRAINER
        self.cluster.wait(lambda: any(scratch.glob("checkpoint-*/trainer_state.json")), "no checkpoint is kept", 400)
        return self.jobs()[-1]["id"]

    def state(self, job: str) -> str:
        """A job's state; "" where SLURM does not list it."""
        return next((one["state"] for one in self.cluster.jobs() if one["id"] == job), "")

    def seen(self, job: str, *states: str) -> str:
        """Waits until a job is in one of some states."""
        self.cluster.wait(lambda: self.state(job) in states, f"job {job} is not {' or '.join(states)}", 400)
        return self.state(job)

    def go_on(self, job: str) -> None:
        """SLURM holds a job that it queues again for two minutes."""
        self.seen(job, "PENDING", "RUNNING")
        self.cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)

    def end(self) -> int | None:
        """How the driver ends; None if it does not."""
        try:
            return self.drivers[-1].wait(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            self.drivers[-1].kill()
            return None


def over_memory(it: Run) -> str:
    """Polled every second instead of bound by a cgroup, a job that is ended for its memory has FAILED."""
    it.cluster.wait(lambda: it.jobs(), "no job is there", 400)
    was = it.seen(it.jobs()[0]["id"], "FAILED", "OUT_OF_MEMORY")
    told = any("Exceeded job memory limit" in log.read_text() for log in it.cluster.folder.glob("slurmd-*.log"))
    return f"{was}: {'' if told else 'not '}over its memory"


def over_time(it: Run) -> str:
    job = it.training()
    for pid in it.cluster.processes(job):  # so that it does not end in time, however fast the machine
        if "scripts/instruct.py" in command_of(pid):
            os.kill(pid, signal.SIGSTOP)
    return it.seen(job, "TIMEOUT")


def cancelled(it: Run) -> str:
    job = it.training()
    it.cluster.ask("scancel", job)
    return it.seen(job, "CANCELLED")


def requeued(it: Run) -> str:
    job = it.training()
    it.cluster.ask("scontrol", "requeue", job)
    it.go_on(job)
    return "the same job again"


def preempted(it: Run) -> str:
    """A job of more weight takes all nodes."""
    job = it.training()
    urgent = ["sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--mem=0", "--output=/dev/null"]
    other = it.cluster.ask(*urgent, "--wrap=sleep 3").stdout.strip()
    it.seen(other, "COMPLETED")
    was = it.state(job)
    if was == "PREEMPTED":
        it.cluster.wait(lambda: it.state(job) == "PENDING", "it stays PREEMPTED", 300)
    it.go_on(job)
    return was


def node_dies(it: Run) -> str:
    """The node's daemon is gone at once, and all that runs there."""
    return lose_node(it, it.cluster.kill_job, lambda job: None)


def node_is_cut_off(it: Run) -> str:
    """The node's daemon is gone; its job is held until its next attempt runs on another node, and then let go."""
    training = []

    def pause(job: str) -> None:  # so that it does not end before SLURM gives the node up
        training.extend(pid for pid in it.cluster.processes(job) if "scripts/instruct.py" in command_of(pid))
        for pid in training:
            os.kill(pid, signal.SIGSTOP)

    def resume(job: str) -> None:
        for pid in training:
            os.kill(pid, signal.SIGCONT)
        it.seen(job, "COMPLETED")

    return lose_node(it, pause, resume)


def lose_node(it: Run, before: Callable[[str], None], after: Callable[[str], None]) -> str:
    """A node's daemon is killed; what is done to its job then, and once the job is on another node."""
    job = it.training()
    node = next(one["node"] for one in it.jobs() if one["id"] == job)
    it.cluster.end(node, signal.SIGKILL)
    before(job)
    was = it.seen(job, "PENDING", "NODE_FAIL")
    it.go_on(job)
    it.seen(job, "RUNNING", "COMPLETED")
    after(job)
    it.cluster.run_node(node)
    return f"{was}, on another node then"


def driver_killed(it: Run) -> str:
    job = it.training()
    it.drivers[-1].kill()
    it.drivers[-1].wait()
    was = it.state(job)
    it.start()
    return f"the job went on ({was})"


def driver_interrupted(it: Run) -> str:
    job = it.training()
    it.drivers[-1].send_signal(signal.SIGINT)
    it.drivers[-1].wait(timeout=300)
    was = it.seen(job, "CANCELLED")
    it.start()
    return was


def controller_restarted(it: Run) -> str:
    it.training()
    it.cluster.end("slurmctld", signal.SIGKILL)
    time.sleep(60)
    it.cluster.run_controller()
    return "no answer for a minute"


def controller_forgets(it: Run) -> str:
    """It starts anew without its state, so that no job is known."""
    job = it.training()
    it.cluster.end("slurmctld", signal.SIGKILL)
    shutil.rmtree(it.cluster.folder / "state")
    (it.cluster.folder / "state").mkdir()
    it.cluster.run_controller()
    it.before.clear()
    return "not listed" if not it.state(job) else it.state(job)


EVENTS = {
    "over memory": (over_memory, ["--set-resources", "instruct:mem_mb=attempt * 500"]),
    "over time": (over_time, ["--set-resources", "instruct:runtime=attempt"]),
    "scancel": (cancelled, []),
    "scontrol requeue": (requeued, []),
    "preempted, PreemptMode=REQUEUE": (preempted, []),
    "preempted, PreemptMode=CANCEL": (
        preempted,
        ["--default-resources", "slurm_partition=fragile", "nodes=1", "mem_mb=4000", "runtime=60"],
    ),
    "a node dies": (node_dies, []),
    "a node is cut off": (node_is_cut_off, []),
    "Snakemake killed, and started again": (driver_killed, []),
    "Ctrl-C, and started again": (driver_interrupted, []),
    "the controller restarts": (controller_restarted, []),
    "the controller forgets its jobs": (controller_forgets, []),
}


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def make_tiny(folder: Path, model: Path) -> Path:
    """The tests' study, with a training long enough to be hit; returns its checkpoint's record."""
    path, config = make_study(folder, model)
    config["instruct"] |= {"epochs": 40, "save_every": 20}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    with contextlib.chdir(folder):
        return open_study([Path("config/tiny.yaml")]).artifacts.checkpoint(INSTRUCTED).record
