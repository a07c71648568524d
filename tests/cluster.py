"""A real SLURM cluster on this machine, for tests: munged, slurmctld and two nodes with two pretended GPUs each.

    python tests/cluster.py start       installs what is missing, starts it and says how to stop it
    python tests/cluster.py stop FOLDER

Needs root on a Debian machine. No systemd, no cgroups, no accounting database: jobs are watched with squeue. A GPU is
a device file that jobs are given in CUDA_VISIBLE_DEVICES; nothing answers behind it. While it runs,
/etc/slurm/slurm.conf is a link to its configuration, since jobs drop SLURM_CONF from their environment.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGES = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "squeue": "slurm-client"}
CONFIGURATION = Path("/etc/slurm/slurm.conf")
NODES = ("n1", "n2")
SLURM = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
# Memory is checked each second, and a job that takes more than it asked for is ended.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0
SlurmdParameters=config_overrides
SlurmdTimeout={node_timeout}
ReturnToService=2
MinJobAge=3600
KillWait=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
DefMemPerCPU=100
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{nodes}] CPUs=4 RealMemory=16000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE
PartitionName=fragile Nodes=n[1-2] MaxTime=INFINITE PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent Nodes=n[1-2] MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


def missing() -> list[str]:
    """The packages that are not installed."""
    return [package for command, package in PACKAGES.items() if not shutil.which(command, path=_path())]


def obstacle() -> str | None:
    """Why no cluster can be started here, in one sentence; None if one can."""
    if os.geteuid() != 0:
        return "a SLURM cluster on this machine needs root"
    if os.path.lexists(CONFIGURATION):
        return f"this machine has a SLURM configuration of its own ({CONFIGURATION})"
    if missing() and not shutil.which("apt-get"):
        return (
            f"a SLURM cluster needs the Debian packages {', '.join(missing())}, and there is no apt-get to install them"
        )
    return None


def install() -> str | None:
    """Installs the packages that are missing; why it could not, in one sentence."""
    if not missing():
        return None
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing()]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300).stderr
    except subprocess.TimeoutExpired:
        said = "apt-get took more than five minutes"
    if missing():
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        return f"the Debian packages {', '.join(missing())} could not be installed ({last})"
    return None


class Cluster:
    """A running cluster, or one that is started; `folder` holds its configuration, state and logs."""

    def __init__(self, folder: Path, daemons: dict[str, int] | None = None):
        self.folder = Path(folder)
        self.name = re.sub(r"\W|_", "", self.folder.name).lower()
        self.daemons = daemons or {}
        self._children: list[subprocess.Popen] = []

    @classmethod
    def start(cls, node_timeout: int = 10) -> "Cluster":
        """Starts one in a new folder and waits until its nodes are idle."""
        folder = Path(tempfile.mkdtemp(prefix="selfrefine-slurm-"))
        cluster = cls(folder)
        cluster._write(node_timeout)
        try:
            cluster.run_munge()
            cluster.run_controller()
            for node in NODES:
                cluster.run_node(node)
            cluster.wait(lambda: cluster.nodes().count("idle") == len(NODES), "its nodes are not idle")
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @classmethod
    def opened(cls, folder: Path) -> "Cluster":
        """One that another process has started."""
        return cls(folder, json.loads((Path(folder) / "daemons.json").read_text()))

    def _write(self, node_timeout: int) -> None:
        for name in ("munge", "state", "gpu", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        self.folder.chmod(0o711)
        (self.folder / "munge").chmod(0o711)
        key = self.folder / "munge/key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for number in range(2):  # /dev/null by another name
            os.mknod(self.folder / f"gpu/fake{number}", 0o666 | 0o020000, os.makedev(1, 3))
        controller, first, _ = ports = _free_ports(3)
        assert ports[2] == first + 1
        text = SLURM.format(
            name=self.name,
            host=socket.gethostname(),
            folder=self.folder,
            controller=controller,
            nodes=f"{first}-{first + 1}",
            node_timeout=node_timeout,
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu/fake[0-1]\n")
        CONFIGURATION.parent.mkdir(exist_ok=True)
        CONFIGURATION.symlink_to(self.folder / "slurm.conf")

    # Its daemons.

    def run_munge(self) -> None:
        folder = self.folder / "munge"
        files = [f"--{name}-file={folder / name}" for name in ("key", "pid", "log", "seed")]
        self._run("munged", "--foreground", f"--socket={folder}/socket", *files)
        self.wait((folder / "socket").exists, "munged has made no socket")

    def run_controller(self) -> None:
        self._run("slurmctld", "-D")
        self.wait(lambda: self.ask("scontrol", "ping", check=False).returncode == 0, "slurmctld does not answer")

    def run_node(self, name: str) -> None:
        self._run("slurmd", "-D", "-N", name, name=name)

    def _run(self, command: str, *arguments: str, name: str | None = None) -> None:
        with open(self.folder / f"{name or command}.out", "a") as said:
            child = subprocess.Popen(
                [command, *arguments],
                stdout=said,
                stderr=said,
                cwd=self.folder,
                env=self._environment(),
                start_new_session=True,
            )
        self._children.append(child)
        self.daemons[name or command] = child.pid
        (self.folder / "daemons.json").write_text(json.dumps(self.daemons))

    def end(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends one daemon: "slurmctld", "munged" or a node's name."""
        pid = self.daemons.pop(name)
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            return
        self.wait(lambda: not self._lives(pid), f"{name} does not end")

    def _lives(self, pid: int) -> bool:
        for child in self._children:
            child.poll()
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def stop(self) -> None:
        """Ends jobs and daemons, takes the link away, and removes the folder."""
        if "slurmctld" in self.daemons:
            self.ask("scancel", "--user=root", check=False)
            self.wait(lambda: not self.jobs("all-but-ended"), "jobs do not end", seconds=20, needed=False)
        for name in ("slurmctld", *NODES, "munged"):
            if name in self.daemons:
                self.end(name)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if CONFIGURATION.is_symlink() and CONFIGURATION.readlink().parent == self.folder:
            CONFIGURATION.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    # What goes on in it.

    def ask(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        """One of SLURM's commands, and what it says."""
        return subprocess.run(command, capture_output=True, text=True, env=self._environment(), check=check, timeout=60)

    def _environment(self) -> dict[str, str]:
        # With the link alone, gres.conf would be looked for beside it.
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}

    def nodes(self) -> list[str]:
        """The state of each node."""
        return self.ask("sinfo", "--Node", "--noheader", "--partition=main", "--format=%T", check=False).stdout.split()

    def jobs(self, states: str = "all") -> list[dict[str, str]]:
        """{id, state, rule, node} of each job; `states` as for squeue, or "all-but-ended"."""
        asked = [] if states == "all-but-ended" else [f"--states={states}"]
        said = self.ask("squeue", *asked, "--noheader", "--format=%i|%T|%k|%N", check=False).stdout
        names = ("id", "state", "rule", "node")
        return [dict(zip(names, line.split("|"), strict=True)) for line in said.splitlines()]

    def processes(self, job: str | None = None) -> list[int]:
        """The processes that belong to a job, or to any job of this cluster."""
        found = []
        wanted = f"SLURM_JOB_ID={job}\0".encode() if job else b"SLURM_JOB_ID="
        mark = f"SLURM_CLUSTER_NAME={self.name}\0".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environment = (entry / "environ").read_bytes()
                except OSError:
                    continue
                if wanted in environment and mark in environment:
                    found.append(int(entry.name))
        return found

    def kill_job(self, job: str) -> None:
        """Ends all processes of a job at once, those first that would tell the controller."""
        found = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
        steps = [pid for pid in found if _command(pid).startswith(f"slurmstepd: [{job}.")]
        for pid in (*steps, *self.processes(job)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait(self, until, otherwise: str, seconds: float = 30, needed: bool = True) -> bool:
        """Waits until something holds; after so many seconds raises, or where it is not `needed`, gives up."""
        deadline = time.time() + seconds
        while not until():
            if time.time() > deadline:
                if needed:
                    raise TimeoutError(f"after {seconds:g} s, {otherwise}; see {self.folder}")
                return False
            time.sleep(0.1)
        return True


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _free_ports(number: int) -> list[int]:
    """Consecutive ports that nothing listens on now."""
    for first in range(26800, 28000, number):
        try:
            for port in range(first, first + number):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return list(range(first, first + number))
    raise OSError("no free ports")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("folder", nargs="?", type=Path, help="for stop: the folder that start named")
    args = parser.parse_args()
    if args.action == "stop":
        Cluster.opened(args.folder).stop()
        return
    reason = obstacle() or install()
    if reason:
        sys.exit(f"error: {reason}")
    cluster = Cluster.start()
    print(f"a cluster of {len(cluster.nodes())} nodes runs; `python tests/cluster.py stop {cluster.folder}` ends it")


if __name__ == "__main__":
    main()
