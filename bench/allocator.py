"""How much faster the student trains on this CPU when glibc keeps its memory (the settings of rules/common.smk).

Runs scripts/instruct.py for a few updates with and without the settings, in turn, and prints tokens per second and the ratio
pair by pair. Needs results/checkpoints/smollm2-135m/base and the quickstart's demonstrations: run the quickstart first.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SETTINGS = {"MALLOC_MMAP_THRESHOLD_": 4 << 30, "MALLOC_TRIM_THRESHOLD_": 16 << 30, "MALLOC_TOP_PAD_": 256 << 20}
TRAINED = Path("results/checkpoints/smollm2-135m/instruct/qwen2.5-coder-1.5b/asdiv/100/0")


def tokens_per_second(keep: bool, demonstrations: Path, threads: int) -> float:
    recipe = json.loads((TRAINED / "provenance.json").read_text())["recipe"]
    recipe["training"]["epochs"] = 1
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    if keep:
        environment |= {name: str(value) for name, value in SETTINGS.items()}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "scripts/instruct.py", "--recipe", json.dumps(recipe), "--threads", str(threads)]
        command += ["--start", "results/checkpoints/smollm2-135m/base/manifest.json"]
        command += ["--items", "results/benchmarks/asdiv/train.jsonl", "--demonstrations", str(demonstrations)]
        command += ["--manifest", f"{folder}/manifest.json", "--log", f"{folder}/training.jsonl"]
        command += ["--provenance", f"{folder}/provenance.json"]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.loads(Path(folder, "provenance.json").read_text())["figures"]["tokens_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--examples", type=int, default=64, help="demonstrations to train on (default: 64)")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = Path("results/demonstrations/qwen2.5-coder-1.5b/asdiv.jsonl").read_text().splitlines()[: args.examples]
        demonstrations = Path(folder, "demonstrations.jsonl")
        demonstrations.write_text("\n".join(lines) + "\n")
        ratios = []
        for _ in range(args.pairs):
            kept, returned = (tokens_per_second(keep, demonstrations, args.threads) for keep in (True, False))
            ratios.append(kept / returned)
            print(
                f"memory kept {kept:.0f} tokens/s, returned {returned:.0f} tokens/s, ratio {ratios[-1]:.2f}", flush=True
            )
    print(f"median ratio {statistics.median(ratios):.2f} (loading the model included)")


if __name__ == "__main__":
    main()
