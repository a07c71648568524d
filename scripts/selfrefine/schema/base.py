"""The base of all schemas: unknown keys are refused, and errors say what was meant."""

import datetime
import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
TASK_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"


class Strict(BaseModel):
    """Refuses keys that it does not know, numbers that are not finite, and cannot be changed."""

    # Somebody may have set an API key where an address or a variable's name belongs; `describe` decides what is shown.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_meant(cls, given: Any, info: ValidationInfo) -> Any:
        """Refuses `true` for a number, which would count as 1, and half a character, which no file can hold."""
        kinds = set(_kinds(cls.model_fields[str(info.field_name)].annotation))
        several = [*given.values()] if isinstance(given, dict) else given
        for one in several if isinstance(several, list) else [given]:
            if isinstance(one, bool) and kinds & {int, float} and not kinds & {bool, Any}:
                raise ValueError("Input should be a number, and YAML reads it as true or false")
            if isinstance(one, str) and any("\ud800" <= letter <= "\udfff" for letter in one):
                raise ValueError("has half a character (a lone surrogate); correct or remove it")
        return given


_READ_AS: dict[type, str] = {bool: "true or false", type(None): "nothing", datetime.date: "a date"}


def describe(fault: Mapping[str, Any]) -> str:
    """One error that pydantic found, as `key: what is wrong`."""
    where = ".".join(str(part) for part in fault["loc"]) or "(whole)"
    message = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
    given = fault.get("input")
    if fault["type"] == "string_type" and (given is None or isinstance(given, bool | int | float | datetime.date)):
        # `2024`, `no` and `null` are names to their author, and none to YAML.
        message += f"; YAML reads it as {_READ_AS.get(type(given), 'a number')}: put it into quotes"
    secret = bool(fault["loc"]) and fault["loc"][-1] in ("key_variable", "endpoint")
    shown = (
        f" (found {given!r})"
        if isinstance(given, str | int | float | bool) and fault["type"] != "extra_forbidden" and not secret
        else ""
    )
    return f"{where}: {message}{shown}"


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """The end of an error about a name that is not defined: the closest one that is, or all of them."""
    names = [str(one) for one in known]
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; defined are {', '.join(sorted(names))}"


def suggestion(model: type[BaseModel], fault: Mapping[str, Any]) -> str:
    """The end of an error about an unknown key: the keys that may stand there; nothing for other errors."""
    if fault["type"] != "extra_forbidden":
        return ""
    known = _fields_at(model, fault["loc"][:-1])
    return did_you_mean(fault["loc"][-1], known) if known else ""


def _fields_at(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand at a place of the configuration."""
    found: Any = model
    for part in place:
        if _is_model(found):
            if part in found.model_fields:
                found = found.model_fields[str(part)].annotation
            else:
                # Entries by name beside keys, as in `claims`.
                further = _models_in(found.__annotations__.get("__pydantic_extra__"))
                if not further:
                    return []
                found = further[-1]
        else:
            inner = _models_in(found)
            if not inner:
                return []
            found = inner[-1]
    if not isinstance(found, type):
        found = next(iter(_models_in(found)), None)
    return list(found.model_fields) if _is_model(found) else []


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that an annotation names, at any depth."""
    yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)


def _is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models among the parameters of `dict[str, Model]`, `Model | None` and the like."""
    return [inner for inner in getattr(annotation, "__args__", ()) if _is_model(inner)]
