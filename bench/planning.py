"""What the pipeline's bookkeeping costs: planning a finished study, against plain Snakemake on the same jobs and files.

python bench/planning.py --seeds 1 100 1000

For each number of seeds, the default study's jobs are given outputs of a few bytes with valid records, once for this workflow
and once for a copy of it in which Snakemake keeps its own notes and every job has constant parameters. Dry runs and no-op runs
of both are timed in turn; the table shows medians and their ratio.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "rules")]

from selfrefine.files import write_json  # noqa: E402
from selfrefine.provenance import Record, state_of  # noqa: E402
from why import plan  # noqa: E402

COPIED = ("Snakefile", "rules", "scripts", "config", "report", "envs", "profiles")


def make_folder(folder: Path, seeds: int) -> None:
    """The workflow, and the default study with more seeds."""
    folder.mkdir()
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    config = yaml.safe_load((folder / "config/config.yaml").read_text())
    config["study"]["seeds"] = list(range(seeds))
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config))


def fill(folder: Path) -> int:
    """Writes outputs and records for every job of the study in `folder`; their number."""
    os.chdir(folder)
    dag, _ = plan(argparse.Namespace(artifact="all", configfile=[], snakefile=Path("Snakefile")))
    jobs = [job for level in dag.toposorted() for job in level if job.output]
    for job in jobs:
        text = job.params.get("text")
        record = job.output.get("provenance")
        for path in map(Path, job.output):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text if text is not None else str(path))
        if record:
            write_json(Path(record), make_record(job, record).model_dump(mode="json"))
    return len(jobs)


def make_record(job, record: str) -> Record:
    """A record with which the job is up to date."""
    return Record(
        stage=job.rule.name,
        inputs={str(path): state_of(path) for path in job.input},
        outputs={str(path): state_of(path) for path in job.output if path != record},
        recipe=json.loads(job.params.get("recipe", "{}")),
        seed=None,
        code=job.params.code,
        figures={},
        packages={},
        machine={},
        started=datetime.datetime.now(datetime.UTC),
        wall_seconds=0,
        peak_memory_mib=0,
    )


def make_plain(folder: Path) -> None:
    """Takes the bookkeeping out of a copy: Snakemake's own notes, and the same parameters for every job."""
    path = folder / "rules/common.smk"
    text = path.read_text().replace("bookkeeping.install()", "")
    text = re.sub(r"return lambda wildcards: study\.recipe\(.*\)", 'return lambda wildcards: "recipe"', text)
    text = re.sub(r"return lambda wildcards: made\(.*\)", 'return lambda wildcards: "text"', text)
    path.write_text(text.replace("    return fingerprint(path)", '    return "code"'))
    run(folder, "--touch")


def run(folder: Path, *arguments: str) -> float:
    """Seconds that snakemake takes."""
    begun = time.perf_counter()
    subprocess.run(
        ["snakemake", "--cores", "2", "--quiet", "all", *arguments], cwd=folder, check=True, capture_output=True
    )
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--times", type=int, default=5, help="runs of each, in turn (default: 5)")
    args = parser.parse_args()
    print("| jobs | run | this workflow, s | plain Snakemake, s | ratio |\n|---|---|---|---|---|")
    for seeds in args.seeds:
        with tempfile.TemporaryDirectory() as place:
            ours, plain = Path(place) / "ours", Path(place) / "plain"
            make_folder(ours, seeds)
            jobs = fill(ours)
            shutil.copytree(ours, plain)
            make_plain(plain)
            for title, flags in (("dry run", ["-n"]), ("no-op run", [])):
                seconds = {folder: [] for folder in (ours, plain)}
                for _ in range(args.times):
                    for folder, times in seconds.items():
                        times.append(run(folder, *flags))
                here, there = (statistics.median(seconds[folder]) for folder in (ours, plain))
                print(f"| {jobs} | {title} | {here:.2f} | {there:.2f} | {here / there:.2f} |", flush=True)
            os.chdir(ROOT)


if __name__ == "__main__":
    main()
