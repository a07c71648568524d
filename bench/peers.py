"""How fast this repository generates and trains, compared with other programs on the same machine.

python bench/peers.py generation    the engine and transformers.generate, ctranslate2, vLLM, OpenVINO, llama.cpp
python bench/peers.py training      phase 1 and TRL's SFTTrainer
python bench/peers.py preference    phase 2 and TRL's DPOTrainer
python bench/peers.py study         the quickstart and the same work scripted with TRL, transformers and lm_eval

The work is the quickstart study's: run `make quickstart` first, or as much of it as gives weights, items and
demonstrations. Trained checkpoints and pairs are used if they exist. `--quick` takes a part of the items, or of the
updates. Peers run in processes of their own, with the same number of threads, and take turns. One that is not
installed is skipped by name; CTRANSLATE2_PYTHON, VLLM_PYTHON, OPENVINO_PYTHON and XLLAMACPP_PYTHON name interpreters
that have them. The last line is one JSON object.

On a CPU with AVX512, `ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 CT2_FORCE_CPU_ISA=AVX2` measures as on one
without it; only llama.cpp ignores these.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "bench/comparison"))

from quickstart import Quickstart  # noqa: E402
from workers import PEERS  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["generation", "training", "preference", "study"])
    parser.add_argument("--quick", action="store_true", help="a part of the work")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="(default: all cores)")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="(default: results/ of this checkout)")
    parser.add_argument(
        "--before",
        type=Path,
        help="another checkout of this repository, also one from before the store (e2542c9, say), as a further peer",
    )
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="of generation: these alone (default: all)")
    parser.add_argument("--part", choices=["all", "shape", "study"], default="all", help="of generation (default: all)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    args.before = args.before and args.before.resolve()
    # So that the workers are ended and the scratch folder is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        try:
            study = Quickstart(args.results.resolve(), Path(scratch), part=4 if args.quick else 1)
        except FileNotFoundError as error:
            sys.exit(str(error))
        # Only the bench that is asked for: its imports take seconds.
        if args.what == "generation":
            from generation_rates import measure
        elif args.what == "study":
            from scripted import measure
        elif args.what == "training":
            from trainers import training as measure
        else:
            from trainers import preference as measure
        measure(args, study)


if __name__ == "__main__":
    main()
