"""The fingerprint of a stage's code: its script, and what it can reach of this repository's modules.

Code counts by parts (syntax.py): the functions, classes and assignments at the top of a module. A changed default,
constant or decorator changes the fingerprint; comments, formatting and docstrings do not. Names say what is reached:

- what a reached part names is reached, in its own module or where it was imported from;
- a module that is passed on as a whole counts whole;
- statements that run when a reached module is loaded count, and data files that a reached part names.

A part that only `getattr` with a computed name finds is not seen. What reads the command line and keeps the records
does not count (UNCOUNTED): no artifact's content depends on it.
"""

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from selfrefine.store.syntax import LOADED, Module

# Modules that do not count, nor what only they reach. store/environment.py is none of them: a table prints the
# differences that it finds.
UNCOUNTED = {
    "selfrefine/programs/cli.py",
    "selfrefine/programs/further_evaluations.py",
    "selfrefine/schema/record.py",
    "selfrefine/store/commands.py",
    "selfrefine/store/fingerprint.py",
    "selfrefine/store/provenance.py",
    "selfrefine/store/reuse.py",
    "selfrefine/store/run.py",
    "selfrefine/store/syntax.py",
    "selfrefine/store/versions.py",
}
# Stands for all parts of a module.
WHOLE = "*"


class Code:
    """The repository's code, {path relative to the folder of the scripts: text}."""

    def __init__(self, texts: dict[str, str]):
        self.texts = texts
        self._modules: dict[str, Module] = {}
        self._used: dict[tuple[str, str], list[tuple[str, str]]] = {}

    def module(self, path: str) -> Module:
        """A module's parts; parsed once."""
        if path not in self._modules:
            self._modules[path] = Module(path, self.texts[path])
        return self._modules[path]

    def file_of(self, name: str) -> str | None:
        """The file of a module by its dotted name; None for a module that is not in the repository."""
        base = name.replace(".", "/")
        return next((path for path in (f"{base}.py", f"{base}/__init__.py") if path in self.texts), None)

    def parts(self, script: str) -> dict[tuple[str, str], str]:
        """What a script reaches, {(file, part): text}; a data file is one part, `(file)`."""
        reached: dict[tuple[str, str], str] = {}
        loaded: set[str] = set()
        waiting = [(script, WHOLE)]
        while waiting:
            path, name = waiting.pop()
            module = self.module(path)
            wanted = {name}
            if path not in loaded:
                loaded.add(path)
                wanted |= module.always
            if WHOLE in wanted:
                wanted |= set(module.parts)
            for part in wanted & module.parts.keys():
                if (path, part) not in reached and path not in UNCOUNTED:
                    reached[path, part] = module.text(part)
                    for target, name in self.uses(path, part):
                        if target.endswith(".py"):
                            waiting.append((target, name))
                        else:
                            reached[target, name] = self.texts[target]
        return reached

    def uses(self, path: str, part: str) -> list[tuple[str, str]]:
        """What a part names directly, as (file, part)."""
        if (path, part) not in self._used:
            self._used[path, part] = list(self._uses(self.module(path), part))
        return self._used[path, part]

    def _uses(self, module: Module, part: str) -> Iterator[tuple[str, str]]:
        if part == LOADED:
            for dotted in module.imports.values():
                yield from self._loading(dotted)
        bound = module.imports | module.imports_within(part)
        for name, attributes, alone in module.names(part):
            if name in module.parts and name not in bound:
                yield module.path, name
            if name in bound:
                yield from self._through_import(bound[name], attributes, alone)
                for dotted in bound.values() if alone else ():
                    if dotted.startswith(f"{bound[name]}."):
                        yield from self._through_import(dotted, set(), True)
        for text in module.strings(part):
            if text in module.parts:
                yield module.path, text
            folder = module.path.rpartition("/")[0]
            data = f"{folder}/{text}".lstrip("/")
            if data in self.texts and not data.endswith(".py"):
                yield data, "(file)"

    def _through_import(self, dotted: str, attributes: set[str], alone: bool) -> Iterator[tuple[str, str]]:
        """What the use of an imported name reaches."""
        yield from self._loading(dotted)
        if path := self.file_of(dotted):
            for attribute in sorted(attributes):
                yield from self._symbol(path, dotted, attribute)
            if alone:
                yield path, WHOLE
        elif path := self.file_of(dotted.rpartition(".")[0]):
            yield from self._symbol(path, *dotted.rpartition(".")[::2])

    def _loading(self, dotted: str) -> Iterator[tuple[str, str]]:
        """What an import alone reaches: loading a module runs its packages and its loose statements."""
        parts = dotted.removesuffix(".*").split(".")
        for depth in range(1, len(parts) + 1):
            if package := self.file_of(".".join(parts[:depth])):
                yield package, WHOLE if dotted.endswith(".*") and depth == len(parts) else LOADED

    def _symbol(self, path: str, dotted: str, name: str) -> Iterator[tuple[str, str]]:
        module = self.module(path)
        if name in module.parts:
            yield path, name
        elif inner := self.file_of(f"{dotted}.{name}"):
            yield inner, WHOLE
        elif name in module.imports:
            yield from self._through_import(module.imports[name], set(), True)
        else:
            yield path, WHOLE


def scripts_folder(script: Path) -> Path:
    """The folder of the scripts, which holds the library."""
    return next(parent for parent in Path(script).resolve().parents if (parent / "selfrefine").is_dir())


@functools.cache
def read_code(folder: Path) -> Code:
    """The code in a folder of scripts: every module, and the data files beside the library's modules."""
    paths = [*folder.glob("*.py"), *(path for path in (folder / "selfrefine").rglob("*") if path.is_file())]
    texts = {}
    for path in sorted(paths):
        if "__pycache__" not in path.parts:
            texts[path.relative_to(folder).as_posix()] = path.read_text("utf-8", errors="surrogateescape")
    return Code(texts)


@functools.cache
def fingerprint(script: Path) -> str:
    """16 hex digits that change when the behaviour of a script, or of code that it reaches, may have changed."""
    folder, name = _placed(script)
    return fingerprint_of(read_code(folder), name)


def fingerprint_of(code: Code, script: str) -> str:
    """The fingerprint of a script in any code, such as a snapshot's."""
    parts = code.parts(script)
    text = "\n".join(f"{path}:{name}:{part}" for (path, name), part in sorted(parts.items()))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


class Snapshot(TypedDict):
    """The code that a script reaches, as text by path; paths are relative to the folder of the scripts."""

    script: str
    files: dict[str, str]


def snapshot(script: Path) -> Snapshot:
    """The code that a script reaches, as it stands now."""
    folder, name = _placed(script)
    code = read_code(folder)
    files = sorted({path for path, _ in code.parts(name)})
    return {"script": name, "files": {path: code.texts[path] for path in files}}


def _placed(script: Path) -> tuple[Path, str]:
    """The folder of the scripts, and a script's path within it."""
    script = Path(script).resolve()
    folder = scripts_folder(script)
    return folder, script.relative_to(folder).as_posix()
