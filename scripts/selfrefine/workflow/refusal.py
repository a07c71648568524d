"""Faults that a user can correct, as Snakemake reports them: in one line, without a traceback."""

import contextlib
from collections.abc import Iterator

from snakemake.exceptions import WorkflowError

from selfrefine.errors import UserError


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Turns a `UserError` into the error that Snakemake ends with in one line."""
    try:
        yield
    except UserError as error:
        raise WorkflowError(str(error)) from None
