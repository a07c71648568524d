"""`snakemake`, run time and again in forks of a process that has loaded it once: loading it takes longer than a plan."""

import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


class Planner:
    """A process that has loaded Snakemake, and nothing of a study's own code. Not for several threads at once."""

    def __enter__(self) -> "Planner":
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *fault) -> None:
        self._server.stdin.close()
        assert self._server.wait(timeout=60) == 0

    def snakemake(self, folder: Path, *arguments: str) -> tuple[int, str]:
        """(exit status, what was said) of `snakemake` in a folder."""
        with tempfile.NamedTemporaryFile("r") as said:
            print(json.dumps([str(folder), arguments, said.name]), file=self._server.stdin, flush=True)
            return int(self._server.stdout.readline()), said.read()


def serve() -> None:
    """Runs what is asked for on standard input, a line each; answers with the exit status."""
    import smart_open  # noqa: F401  (Snakemake loads it when it reads a Snakefile)
    from snakemake.cli import main

    gc.freeze()
    for line in sys.stdin:
        folder, arguments, said = json.loads(line)
        pid = os.fork()
        if not pid:
            os.chdir(folder)
            output = os.open(said, os.O_WRONLY)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.argv = ["snakemake", *arguments]
            sys.exit(main(arguments))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
