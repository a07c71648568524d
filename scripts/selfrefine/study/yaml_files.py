"""Reads YAML files of settings, and refuses a key that stands twice in one of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from selfrefine.errors import UserError

# The key under which YAML merges other mappings; it may stand beside what it brings.
MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a file; `UserError` names a file that cannot be read, or has a key twice, and the line."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        repeated = list(_repeated(text))
        found = yaml.safe_load(text)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if repeated:
        raise UserError(_told(path, repeated))
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no keys")
    return found


def check_keys(path: Path) -> None:
    """Refuses a file that Snakemake has read if a key stands in it twice: Snakemake takes the last and says nothing."""
    try:
        repeated = list(_repeated(Path(path).read_text(encoding="utf-8-sig")))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        # Snakemake reads what this cannot, such as JSON with tabs.
        return
    if repeated:
        raise UserError(_told(path, repeated))


def _told(path: Path, repeated: list[tuple[str, int, int]]) -> str:
    faults = "; ".join(
        f"{path}:{line}: {key!r} stands there twice, first in line {first}" for key, first, line in repeated
    )
    return f"{faults}: only the last would count; keep one, with the keys of both"


def _repeated(text: str) -> Iterator[tuple[str, int, int]]:
    """The keys that stand twice in a mapping, each with its two lines."""
    seen: set[int] = set()
    waiting = [yaml.compose(text, Loader=yaml.SafeLoader)]
    while waiting:
        node = waiting.pop()
        # What an alias stands for is read once.
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield from _repeated_in(node)
            waiting += [part for pair in reversed(node.value) for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)


def _repeated_in(node: yaml.MappingNode) -> Iterator[tuple[str, int, int]]:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
            continue
        line, named = key.start_mark.line + 1, (key.tag, key.value)
        if named in lines:
            yield key.value, lines[named], line
        lines.setdefault(named, line)
