"""Prints the JSON schema of a study's file, with which editors complete and check it.

PYTHONPATH=scripts python -m selfrefine.schema.export > config/schema.json

A study's file is merged over others, key by key, so no single file must have every key: nothing is required here. What
the merged configuration lacks is said before anything runs.
"""

import json

from selfrefine.schema.config import Configuration

TITLE = "Self-Refine Instruction-Tuning: a study"


def schema() -> dict[str, object]:
    """The schema of a file that holds any part of a configuration."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | _relaxed(Configuration.model_json_schema()) | {"title": TITLE}


def text() -> str:
    """The schema as config/schema.json has it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _relaxed(part: dict[str, object]) -> dict[str, object]:
    """A schema that requires no key at any depth, without the titles that pydantic derives from the keys."""
    found: dict[str, object] = {}
    for key, value in part.items():
        if key in ("properties", "$defs") and isinstance(value, dict):
            # These are names, which may be "required" or "title" too.
            found[key] = {name: _relaxed(each) for name, each in value.items()}
        elif isinstance(value, dict):
            found[key] = _relaxed(value)
        elif key == "anyOf" and isinstance(value, list):
            found[key] = [_relaxed(each) for each in value]
        elif key not in ("required", "title"):
            found[key] = value
    return found


if __name__ == "__main__":
    print(text(), end="")
