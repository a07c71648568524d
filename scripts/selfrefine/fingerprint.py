"""The fingerprint of the code that a stage runs: its script, and of this repository's modules the parts that it can reach.

A part is a function, a class, an assignment or an import at the top of a module. Parts count by their syntax trees without
docstrings: comments and formatting do not change a fingerprint, a changed default, constant or decorator does. Which parts are
reached is read from names: what a reached part names is reached, in its own module or where it was imported from; a module that
is handed on as a whole counts whole, and so do statements that run when it is loaded, and data files that a reached part names.
A part that only `getattr` with a computed name would find is not seen. What reads the command line and keeps the records does
not count: no artifact's content depends on it. Names in a function's annotations reach nothing. Equal under every Python that can read the code.
"""

import ast
import builtins
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

UNSEEN = ("ctx", "kind", "type_comment", "type_ignores")
# Decorators that leave no trace elsewhere; a function under another one may be registered somewhere, and counts as reached.
PURE = ("functools", "contextlib", "dataclasses", "staticmethod", "classmethod", "property", "torch")
# By file, the parts that do not count; what only they reach does not either.
UNCOUNTED = {
    "selfrefine/along.py": None,
    "selfrefine/cli.py": None,
    "selfrefine/commands.py": None,
    "selfrefine/fingerprint.py": None,
    "selfrefine/provenance.py": {"Run", "Record", "read_record", "checked", "files_of", "weights_of", "state_of"},
    "selfrefine/store.py": None,
    "selfrefine/versions.py": None,
}
ANNOTATIONS = {(ast.arg, "annotation"), (ast.FunctionDef, "returns"), (ast.AsyncFunctionDef, "returns")}
WHOLE = "*"
LOADED = "(statements)"


class Code:
    """The repository's code as texts by path, relative to the folder of the scripts."""

    def __init__(self, texts: dict[str, str]):
        self.texts = texts
        self._modules: dict[str, _Module] = {}
        self._used: dict[tuple[str, str], list[tuple[str, str]]] = {}

    def module(self, path: str) -> "_Module":
        """A module's parts; parsed once."""
        if path not in self._modules:
            self._modules[path] = _Module(path, self.texts[path])
        return self._modules[path]

    def file_of(self, name: str) -> str | None:
        """The file of a module by its dotted name; None if it is none of the repository's."""
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
                if (path, part) not in reached and not self._is_uncounted(path, part):
                    reached[path, part] = module.text(part)
                    for target, name in self.uses(path, part):
                        if target.endswith(".py"):
                            waiting.append((target, name))
                        else:
                            reached[target, name] = self.texts[target]
        return reached

    def _is_uncounted(self, path: str, part: str) -> bool:
        return path in UNCOUNTED and (UNCOUNTED[path] is None or part in UNCOUNTED[path])

    def uses(self, path: str, part: str) -> list[tuple[str, str]]:
        """What a part names directly, as (file, part)."""
        if (path, part) not in self._used:
            self._used[path, part] = list(self._uses(self.module(path), part))
        return self._used[path, part]

    def _uses(self, module: "_Module", part: str) -> Iterator[tuple[str, str]]:
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


class _Module:
    def __init__(self, path: str, text: str):
        self.path = path
        self.lines = text.splitlines()
        self.parts: dict[str, list[ast.stmt]] = {}
        self.always: set[str] = {LOADED}
        self.imports: dict[str, str] = {}
        self.parts[LOADED] = []
        self._walked: dict[str, list[ast.AST]] = {}
        self._named: dict[str, list[tuple[str, set[str], bool]]] = {}
        self._texts: dict[str, str] = {}
        tree = ast.parse(text, filename=path)
        _drop_docstrings(tree)
        for node in tree.body:
            for name in self._names_of(node):
                self.parts.setdefault(name, []).append(node)

    def _names_of(self, node: ast.stmt) -> list[str]:
        """The parts that a statement belongs to; notes what runs on loading, and what is imported."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            roots = {ast.unparse(decorator).split("(")[0].split(".")[0] for decorator in node.decorator_list}
            if roots - set(PURE):
                self.always.add(node.name)
            return [node.name]
        if isinstance(node, ast.Import | ast.ImportFrom):
            self.imports.update(_bindings(node, self.path))
            return []
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [
                n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name) and hasattr(n, "ctx")
            ]
            if all(isinstance(target, ast.Name | ast.Tuple) for target in targets):
                return names
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                self.imports.update(_bindings(inner, self.path))
        return [LOADED]

    def imports_within(self, part: str) -> dict[str, str]:
        """What a part imports itself, by the name it is bound to."""
        found = {}
        for node in self._walk(part):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found.update(_bindings(node, self.path))
        return found

    def text(self, part: str) -> str:
        """A part's syntax trees as text, and what the imported names in it stand for."""
        if part not in self._texts:
            used = {name for name, _, _ in self.names(part)}
            bound = sorted(f"{name}={dotted}" for name, dotted in self.imports.items() if name in used)
            self._texts[part] = "\n".join([*map(_dump, self.parts[part]), *bound])
        return self._texts[part]

    def source(self, part: str) -> list[str]:
        """A part's lines as they stand in the file."""
        return [line for node in self.parts[part] for line in self.lines[node.lineno - 1 : node.end_lineno]]

    def names(self, part: str) -> list[tuple[str, set[str], bool]]:
        """The names that a part uses: (name, attributes read of it, whether it also stands alone)."""
        if part not in self._named:
            attributes: dict[str, set[str]] = {}
            inside = set()
            alone = set()
            for node in self._walk(part):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    attributes.setdefault(node.value.id, set()).add(node.attr)
                    inside.add(id(node.value))
            for node in self._walk(part):
                if isinstance(node, ast.Name) and id(node) not in inside:
                    alone.add(node.id)
            self._named[part] = [
                (name, attributes.get(name, set()), name in alone)
                for name in sorted({*attributes, *alone} - set(dir(builtins)))
            ]
        return self._named[part]

    def strings(self, part: str) -> set[str]:
        """The short strings that stand in a part."""
        return {
            node.value
            for node in self._walk(part)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < 200
        }

    def _walk(self, part: str) -> list[ast.AST]:
        if part not in self._walked:
            self._walked[part] = [node for statement in self.parts[part] for node in _nodes(statement)]
        return self._walked[part]


def _bindings(node: ast.Import | ast.ImportFrom, path: str) -> Iterator[tuple[str, str]]:
    """(local name, dotted name) of what a statement imports."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if not alias.asname:
                yield alias.name.split(".")[0], alias.name.split(".")[0]
            yield alias.asname or alias.name, alias.name
        return
    package = path.split("/")[: -node.level] if node.level else []
    module = ".".join([*package, *([node.module] if node.module else [])])
    for alias in node.names:
        yield f"{module}.*" if alias.name == "*" else alias.asname or alias.name, f"{module}.{alias.name}"


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it but annotations of functions; as `ast.walk` in another order, in half the time."""
    left = [node]
    while left:
        node = left.pop()
        yield node
        for name in node._fields:
            # What a function says of its arguments and of what it returns is not used when it runs.
            if (type(node), name) in ANNOTATIONS:
                continue
            value = getattr(node, name, None)
            if isinstance(value, ast.AST):
                left.append(value)
            elif isinstance(value, list):
                left += [item for item in value if isinstance(item, ast.AST)]


def _drop_docstrings(node: ast.AST) -> None:
    """Takes the docstrings out of a module, and of the classes and functions that stand anywhere in it."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            for inner in value:
                # No other nodes hold statements.
                if isinstance(inner, ast.stmt | ast.excepthandler | ast.match_case):
                    _drop_docstrings(inner)


def _dump(value) -> str:
    """A syntax tree as text. `ast.dump` differs between versions of Python; this leaves out what differs."""
    if isinstance(value, ast.AST):
        fields = ((name, getattr(value, name, None)) for name in value._fields if name not in UNSEEN)
        inner = ",".join(f"{name}={_dump(field)}" for name, field in fields if field is not None and field != [])
        return f"{type(value).__name__}({inner})"
    if isinstance(value, list):
        return f"[{','.join(map(_dump, value))}]"
    return repr(value)


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
    """16 hex digits that change when the behaviour of a script, or of what it reaches, may have changed."""
    script = Path(script).resolve()
    folder = scripts_folder(script)
    return fingerprint_of(read_code(folder), script.relative_to(folder).as_posix())


def fingerprint_of(code: Code, script: str) -> str:
    """The fingerprint of a script in code that need not be this repository's: a snapshot's, say."""
    parts = code.parts(script)
    text = "\n".join(f"{path}:{name}:{part}" for (path, name), part in sorted(parts.items()))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def snapshot(script: Path) -> dict:
    """The code that a script reaches as it stands, {script, files: {path: text}}; paths are relative to the scripts' folder."""
    script = Path(script).resolve()
    folder = scripts_folder(script)
    code, name = read_code(folder), script.relative_to(folder).as_posix()
    files = sorted({path for path, _ in code.parts(name)})
    return {"script": name, "files": {path: code.texts[path] for path in files}}
