"""The fingerprint of the code that a stage runs: its script and every module of this repository that it imports.

Taken from the syntax trees without docstrings, so that comments and formatting do not count and a changed default,
constant or decorator does.
"""

import ast
import functools
import hashlib
from pathlib import Path


@functools.cache
def _module(path: Path) -> tuple[str, tuple[Path, ...]]:
    """One file's digest, and the files of this repository that it imports."""
    tree = ast.parse(path.read_bytes(), filename=str(path))
    scripts = next(parent for parent in path.parents if (parent / "selfrefine").is_dir())
    imported: set[Path] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(scripts).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            imported.update(_resolve(scripts, ".".join(parts[:depth])) for depth in range(1, len(parts) + 1))
    text = ast.dump(tree, annotate_fields=False, include_attributes=False)
    return hashlib.sha256(text.encode()).hexdigest(), tuple(sorted(imported - {None, path}))


def _resolve(scripts: Path, name: str) -> Path | None:
    base = scripts.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@functools.cache
def fingerprint(script: Path) -> str:
    """16 hex digits that change when the behaviour of a script or of a module it imports may have changed."""
    digests, waiting = {}, [Path(script).resolve()]
    while waiting:
        path = waiting.pop()
        if path not in digests:
            digests[path], imported = _module(path)
            waiting.extend(imported)
    return hashlib.sha256("".join(sorted(digests.values())).encode()).hexdigest()[:16]
