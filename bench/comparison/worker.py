"""A peer's side of workers.py: python worker.py MODULE TASK ASKED ANSWERED, the last two file descriptors."""

import importlib
import json
import os
import resource
import sys
import time


def main() -> None:
    module, task, asked, answered = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    questions, answers = os.fdopen(asked), os.fdopen(answered, "w")

    def say(answer: dict) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        began = time.perf_counter()
        program = importlib.import_module(f"with_{module}").Program(task)
        seconds = time.perf_counter() - began
        say({"load_seconds": seconds, "compute": program.compute, "version": program.version})
        for line in questions:
            wanted = json.loads(line)
            began = time.perf_counter()
            tokens = program.generate(wanted)
            seconds = time.perf_counter() - began
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            say({"seconds": seconds, "tokens": tokens, "memory_mib": memory})
    except Exception as error:  # whatever a library raises is sent to the other side
        say({"error": f"{type(error).__name__}: {error}"})
        raise


if __name__ == "__main__":
    main()
