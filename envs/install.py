"""Installs files of requirements into the environment of the Python that runs this; standard library only.

On Linux without a GPU, torch comes as built for CPUs where pip finds such a build. What pip installs otherwise works,
but holds libraries for GPUs of several gigabytes.
"""

import argparse
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

DEVICES = Path("/dev")
PIP = (sys.executable, "-m", "pip", "install", "--quiet")


def has_gpu() -> bool:
    """Whether this machine shows a GPU of NVIDIA's or AMD's, or the programs that come with one's driver."""
    programs = any(map(shutil.which, ("nvidia-smi", "rocm-smi")))
    return programs or any(any(DEVICES.glob(name)) for name in ("nvidia[0-9]*", "nvidiactl", "kfd"))


def torch_pin(files: list[Path]) -> str | None:
    """The line that pins torch in files of requirements; None if there is none."""
    found = re.search(r"^torch==\S+$", "\n".join(file.read_text() for file in files), re.MULTILINE)
    return found and found[0]


def cpu_build(pin: str) -> str | None:
    """The requirement of torch's CPU build at the pinned version; None where pip finds none."""
    wanted = f"{pin}+cpu"
    found = subprocess.run([*PIP, "--dry-run", "--no-deps", wanted], capture_output=True)
    return None if found.returncode else wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requirements", nargs="+", type=Path, help="files of requirements")
    files = parser.parse_args().requirements
    more = []
    pin = torch_pin(files)
    if pin and platform.system() == "Linux" and not has_gpu():
        build = cpu_build(pin)
        if build:
            more = [build]
        else:
            print(
                "There is no GPU here, and pip finds no CPU build of torch: libraries for GPUs, of several GB, may "
                "follow. "
                "Smaller: `rm -rf .venv`, point PIP_EXTRA_INDEX_URL to PyTorch's CPU index, and run this again.",
                flush=True,
            )
    sys.exit(subprocess.run([*PIP, *(part for file in files for part in ("-r", str(file))), *more]).returncode)


if __name__ == "__main__":
    main()
