"""What becomes of a study on a SLURM cluster when something goes wrong: each event, and what came of it.

python bench/cluster_faults.py
python bench/cluster_faults.py --only "scancel" "node dies"

Starts a real cluster of two nodes on this machine (tests/cluster.py: Debian, as root). For each event, the tests'
tiny study is made there up to its instructed student, with the repository's own rules and profile; the event hits the
job that instructs. Then its files are compared, byte by byte, with those of a run without a cluster.
"""

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from cluster_events import CONFIGURED, EVENTS, LONGEST, SNAKEMAKE, Run, make_tiny  # noqa: E402

from cluster import Cluster, install, obstacle  # noqa: E402
from conftest import build_tiny_model, record_model, run  # noqa: E402
from selfrefine.store.locations import HASHES, RECORD, STORE  # noqa: E402
from selfrefine.store.locks import LOCK  # noqa: E402
from selfrefine.store.provenance import read_record  # noqa: E402


def contents(folder: Path) -> dict[str, bytes]:
    """The study's files; of records, which tell of times, what they say was made."""
    files = (path for path in folder.glob("results/**/*") if path.is_file() and path.name not in (HASHES, LOCK))
    return {
        str(path.relative_to(folder)): (
            str(sorted(read_record(path).outputs.items())).encode() if path.name == RECORD else path.read_bytes()
        )
        for path in files
    }


def outcome(it: Run, expected: dict[str, bytes]) -> tuple[str, str]:
    """(how it ended, what of it shows that it was not begun anew)."""
    code = it.end()
    if code is None:
        ended = f"**still waits after {LONGEST} s**"
    elif code:
        ended = f"**fails (exit status {code})**"
    else:
        found = contents(it.folder)
        wrong = [name for name in {*found, *expected} if found.get(name) != expected.get(name)]
        ended = (
            f"**{len(wrong)} files differ: {', '.join(sorted(wrong)[:3])}**" if wrong else "complete, the same bytes"
        )
        planned = subprocess.run([*it.command, "-n"], cwd=it.folder, capture_output=True, text=True)
        ended += "" if "Nothing to be done" in planned.stdout + planned.stderr else "; **more is planned**"
    submitted = len(it.jobs())
    log = (it.folder / "logs" / it.target.parent.relative_to(STORE)).with_suffix(".log").read_text()
    kept = re.findall(r"going on from (checkpoint-\d+)|(is made already)|(waiting for another process)", log)
    words = [next(filter(None, found)) for found in kept]
    return ended, f"{submitted} submitted" + (f"; {', '.join(dict.fromkeys(words))}" if words else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(EVENTS), default=list(EVENTS), help="some events")
    parser.add_argument("--keep", type=Path, help="a new folder for the studies, to look at afterwards")
    args = parser.parse_args()
    # Started in the background, a process ignores Ctrl-C, and so would the drivers that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    reason = obstacle() or install()
    if reason:
        sys.exit(f"error: {reason}")
    place = args.keep or Path(tempfile.mkdtemp(prefix="selfrefine-faults-"))
    model = place / "model"
    model.mkdir(parents=True)
    build_tiny_model(model)
    record_model(model)
    undisturbed = place / "undisturbed"
    undisturbed.mkdir()
    run(SNAKEMAKE, make_tiny(undisturbed, model), *CONFIGURED, cwd=undisturbed)
    expected = contents(undisturbed)
    print("| event | SLURM says | the study | attempts at the job that was hit | seconds | Snakemake says |")
    print("|---|---|---|---|---|---|", flush=True)
    for number, name in enumerate(args.only):
        event, options = EVENTS[name]
        cluster = Cluster.start()
        it = Run(cluster, model, place / f"study{number}", options)
        try:
            try:
                seen = event(it)
            except TimeoutError as error:
                seen = f"**the event did not come about: {error}**"
            ended, attempts = outcome(it, expected)
            took = time.time() - it.began
        finally:
            for driver in it.drivers:
                driver.kill()
            cluster.stop()
        spoken = dict.fromkeys(re.sub(r"\d+", "N", line) for line in re.findall(r"^    … (.*)", it.said(), re.M))
        cells = (name, seen, ended, attempts, f"{took:.0f}", "; ".join(spoken))
        print(f"| {' | '.join(cells)} |", flush=True)
    if not args.keep:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
