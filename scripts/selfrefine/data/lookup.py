"""Looks up what a row holds: by a field's name, a template, or a JMESPath expression."""

import decimal
import functools
import math
from collections.abc import Callable
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from selfrefine.errors import UserError
from selfrefine.schema.benchmark import TEMPLATE

Row = dict[str, Any]
LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Unmapped(Exception):
    """A row whose answer or options the mapping cannot read."""


def look_up(row: Row, name: str, place: str) -> Any:
    """The value of a field: of the one with exactly this name or, walking into objects at each dot, of theirs.

    Of a list of objects, the list of their values.
    """
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        is_list = isinstance(value, list) and value
        for each in value if is_list else [value]:
            if not isinstance(each, dict) or part not in each:
                raise UserError(
                    f"{place}: field {name!r} is missing ({has(each if isinstance(each, dict) else row)}); correct the "
                    "file or the benchmark's `fields`"
                )
        value = [each[part] for each in value] if is_list else value[part]
    return value


def has(value: Row) -> str:
    """What fields a row or an object in it has, for an error."""
    return f"the row has: {', '.join(sorted(map(repr, value)))}"


def is_empty(value: object) -> bool:
    """Whether a value stands for none: null, or NaN, as which some programs write it."""
    return value is None or isinstance(value, float) and math.isnan(value)


def as_text(value: object, name: str, place: str, truth: bool = False) -> str:
    """A string or number as a string, with `truth` a boolean too; `UserError` for another value."""
    if truth and isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bool) or is_empty(value) or not isinstance(value, str | int | float | decimal.Decimal):
        inside = f" (its values are {', '.join(f'{name}.{key}' for key in value)})" if isinstance(value, dict) else ""
        raise UserError(
            f"{place}: field {name!r} holds {value!r}, not a string or number; correct the row or `fields`{inside}"
        )
    if isinstance(value, float) and math.isfinite(value) and "e" in repr(value):
        return f"{decimal.Decimal(repr(value)):f}"
    return str(value)


def fill(template: str, value_of: Callable[[str], str]) -> str:
    """A template with the value of each name in it; `{{` and `}}` stand for braces."""
    return TEMPLATE.sub(lambda found: value_of(found[1]) if found[1] else found[0][0], template)


def query(value: Any, path: str, place: str) -> Any:
    """What a JMESPath expression finds; None where it finds nothing."""
    try:
        return _compiled(path).search(value)
    except JMESPathError as error:
        raise UserError(
            f"{place}: {path!r} cannot be evaluated: {' '.join(str(error).split())}; correct the benchmark's `fields` "
            "or `where`"
        ) from None


@functools.cache
def _compiled(path: str) -> Any:
    return jmespath.compile(path)
