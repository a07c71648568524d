"""Faults that a user can correct, as Snakemake reports them: in one line, without a traceback."""

import contextlib
from collections.abc import Iterator
from types import TracebackType

from snakemake.exceptions import WorkflowError

from selfrefine.errors import UserError


class Error(WorkflowError):
    """An error that Snakemake prints under this name, without the lines of code that it passed through."""

    @property
    def __traceback__(self) -> TracebackType | None:
        """None: Snakemake looks here for the lines to print. Python keeps the traceback elsewhere."""
        return None

    @__traceback__.setter
    def __traceback__(self, traceback: TracebackType | None) -> None:
        pass


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Turns a `UserError` into the error that Snakemake ends with in one line."""
    try:
        yield
    except UserError as error:
        raise Error(str(error)) from None
