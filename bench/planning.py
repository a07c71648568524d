"""What planning costs: a study in the store, against plain Snakemake on jobs of the same number and dependencies.

python bench/planning.py config/config.yaml config/paper.yaml

Of each study, both plan all of its jobs (a dry run in an empty folder), and find that nothing is to be done where
each job's record lies (a no-op run; nothing computes). The plain workflow has a rule for each stage; an input
function looks its jobs' inputs up in a table. Both run with the options of profiles/default, in turn; the table shows
medians and their ratio.

A dry run of one job is what the process of a job costs that runs by itself, on a cluster's node.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts")]

from selfrefine.study.final_artifacts import FinalArtifacts  # noqa: E402
from selfrefine.study.open_study import open_study  # noqa: E402
from show import lay_out  # noqa: E402

COPIED = ("Snakefile", "rules", "scripts", "config", "report", "envs", "profiles")
RECORD = "record.json"
PLAIN = """
import json

MADE_OF = json.loads(open("made_of.json").read())

rule all:
    input:
        MADE_OF["all"],
"""
RULE = """
rule {stage}:
    input:
        lambda wildcards: MADE_OF[f"made/{stage}/{{wildcards.names}}/{record}"],
    output:
        "made/{stage}/{{names}}/{record}",
    shell:
        "touch {{output}}"
"""


def make_ours(folder: Path) -> None:
    """The workflow, by copies."""
    folder.mkdir()
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)


def fill_ours(folder: Path, configuration: str) -> None:
    """Lays a file of a few bytes in the place of each that planning looks for."""
    with contextlib.chdir(folder):
        finals = open_study([Path(configuration)])
        for one in finals.behind_all():
            one.folder.mkdir(parents=True)
            one.record.write_text("{}\n")
        files = {finals.name_of(one, file): file for one in finals.all() for file in finals.files(one)}
        for file in files.values():
            file.touch()
        marker = Path(finals.shown())
        lay_out(marker.parent.parent, files)
        marker.parent.mkdir(parents=True)
        marker.touch()


def make_plain(folder: Path, finals: FinalArtifacts) -> int:
    """The same jobs for plain Snakemake; their number."""
    folder.mkdir()
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    name = {one.folder: str(Path("made", one.stage, *(one.names or ("study",)), RECORD)) for one in finals.behind_all()}
    table = {
        name[one.folder]: [name[each.folder] for inputs in one.inputs.values() for each in inputs]
        for one in finals.behind_all()
    }
    table[f"made/show/study/{RECORD}"] = [name[one.folder] for one in finals.all()]
    table["all"] = [*table[f"made/show/study/{RECORD}"], f"made/show/study/{RECORD}"]
    (folder / "made_of.json").write_text(json.dumps(table))
    stages = sorted({Path(path).parts[1] for path in table if path != "all"})
    (folder / "Snakefile").write_text(PLAIN + "".join(RULE.format(stage=stage, record=RECORD) for stage in stages))
    return len(table) - 1


def fill_plain(folder: Path) -> None:
    """Lays each job's file, what it is made of first."""
    table = json.loads((folder / "made_of.json").read_text())
    done: set[str] = set()

    def lay(path: str) -> None:
        for before in table[path]:
            if before not in done:
                lay(before)
        done.add(path)
        if path != "all":
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()

    sys.setrecursionlimit(len(table) + 1000)
    lay("all")


def run(folder: Path, *arguments: str) -> float:
    """Seconds that snakemake takes."""
    begun = time.perf_counter()
    command = ["snakemake", "--cores", "2", "--quiet", "all", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - begun


def compare(title: str, times: int, ours: tuple, plain: tuple) -> None:
    """Prints a row: the median seconds of two commands {folder, arguments}, run in turn."""
    seconds: dict[tuple, list[float]] = {ours: [], plain: []}
    for _ in range(times):
        for (folder, *arguments), found in seconds.items():
            found.append(run(folder, *arguments))
    here, there = (statistics.median(found) for found in seconds.values())
    print(f"| {title} | {here:.2f} | {there:.2f} | {here / there:.2f} |", flush=True)


def bench(configuration: str, times: int, place: Path) -> None:
    """Prints the rows of one study."""
    ours, plain = place / "ours", place / "plain"
    make_ours(ours)
    with contextlib.chdir(ours):
        finals = open_study([Path(configuration)])
        jobs = make_plain(plain, finals)
    configured, study = ("--configfile", configuration), f"{configuration} | {jobs:,}"
    # One that needs no other, so that what is planned does not grow with the study.
    own, other = str(finals.listings.artifact("sources").record), f"made/listing/sources/{RECORD}"
    compare(f"{study} | dry run of all jobs", times, (ours, *configured, "-n"), (plain, "-n"))
    compare(f"{study} | dry run of one job", times, (ours, *configured, "-n", own), (plain, "-n", other))
    fill_ours(ours, configuration)
    fill_plain(plain)
    compare(f"{study} | dry run of none", times, (ours, *configured, "-n"), (plain, "-n"))
    compare(f"{study} | no-op run", times, (ours, *configured), (plain,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "configurations", nargs="+", metavar="CONFIGURATION", help="a study's file, from this repository"
    )
    parser.add_argument("--times", type=int, default=5, help="runs of each, in turn (default: 5)")
    args = parser.parse_args()
    print("| study | jobs | run | this workflow, s | plain Snakemake, s | ratio |\n|---|---|---|---|---|---|")
    for configuration in args.configurations:
        with tempfile.TemporaryDirectory() as place:
            bench(configuration, args.times, Path(place))


if __name__ == "__main__":
    main()
