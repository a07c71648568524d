"""How much faster the student trains on this CPU when glibc keeps its memory (settings: workflow/rule_flags.py).

Runs scripts/instruct.py for a few updates with and without these settings, alternating, and prints tokens per second
and the ratio of each pair of runs. It needs the quickstart's weights, items and demonstrations: run the quickstart's
first steps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "bench/comparison"))

from quickstart import Quickstart  # noqa: E402

from selfrefine.store.files import read_json, read_jsonl, write_jsonl  # noqa: E402

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": 4 << 30, "MALLOC_TRIM_THRESHOLD_": 16 << 30, "MALLOC_TOP_PAD_": 256 << 20}


def tokens_per_second(keep: bool, study: Quickstart, demonstrations: Path, threads: int) -> float:
    training = study.settings["instruct"] | {"epochs": 1}
    settings = {"prompt": study.prompt, "system": study.system, "training": training}
    environment = {name: value for name, value in os.environ.items() if name not in ALLOCATOR}
    if keep:
        environment |= {name: str(value) for name, value in ALLOCATOR.items()}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / "scripts/instruct.py", "--settings", json.dumps(settings)]
        command += ["--start", study.base, "--items", study.train_items, "--demonstrations", demonstrations]
        command += ["--threads", str(threads), "--record", f"{folder}/record.json"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, check=True, env=environment, cwd=study.folder, **quiet)
        return read_json(Path(folder, "record.json"))["figures"]["tokens_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--examples", type=int, default=64, help="demonstrations to train on (default: 64)")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            study = Quickstart(ROOT / "results", Path(folder))
        except FileNotFoundError as error:
            sys.exit(str(error))
        demonstrations = Path(folder, "demonstrations.jsonl")
        write_jsonl(demonstrations, read_jsonl(study.demonstrations_file)[: args.examples])
        ratios = []
        for _ in range(args.pairs):
            kept, returned = (tokens_per_second(keep, study, demonstrations, args.threads) for keep in (True, False))
            ratios.append(kept / returned)
            print(
                f"memory kept {kept:.0f} tokens/s, returned {returned:.0f} tokens/s, ratio {ratios[-1]:.2f}", flush=True
            )
    print(f"median ratio {statistics.median(ratios):.2f} (loading the model included)")


if __name__ == "__main__":
    main()
