"""Memory that ran out: how libraries say so, and what to lower for each stage."""

import errno
import os

# What messages of errors hold where an allocation failed, whatever their class.
SIGNS = ("out of memory", "can't allocate memory", "bad_alloc", "can't start new thread", os.strerror(errno.ENOMEM))
# By stage, the keys that its need of memory grows with.
KEYS = {
    "instruct": "`instruct.micro_batch_size`, or `instruct.max_length`",
    "refine": "`refine.micro_batch_size`, or `refine.max_length`",
    "embed": "`batch_size` of the student",
    "refine_online": "`refine.micro_batch_size`, or `batch_size` of the student",
    "sample": "`batch_size` of the student",
    "evaluate": "`batch_size` of the student",
    "teach": "`batch_size` of the teacher",
}


def ran_out(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised for, says that memory ran out."""
    while error is not None:
        if isinstance(error, MemoryError) or says_so(str(error)):
            return True
        error = error.__cause__
    return False


def says_so(text: str) -> bool:
    """Whether a text says that memory ran out."""
    return any(sign in text for sign in SIGNS)


def advice(stage: str) -> str:
    """What to do where memory ran out in a stage."""
    lower = f"lower {KEYS[stage]}, or " if stage in KEYS else ""
    return f"memory ran out: {lower}run fewer jobs at a time (`--cores`), and start again; finished work is kept"
