"""The parts of a module by its syntax tree: functions, classes, assignments, and what each names.

Parts are compared by their syntax trees without docstrings, so comments and formatting do not show. Names in a
function's annotations count as unused. The text of a part is equal under every Python that can read the code.
"""

import ast
import builtins
from collections.abc import Iterator

# Fields of syntax trees that say nothing about behaviour.
UNSEEN = ("ctx", "kind", "type_comment", "type_ignores")
# Decorators that leave no trace elsewhere; a function under another one may be registered somewhere, so it is reached.
PURE = ("functools", "contextlib", "dataclasses", "staticmethod", "classmethod", "property", "torch")
ANNOTATIONS = {(ast.arg, "annotation"), (ast.FunctionDef, "returns"), (ast.AsyncFunctionDef, "returns")}
# The name of the part that holds a module's loose statements, which run when it is loaded.
LOADED = "(statements)"


class Module:
    """A module's parts by name, what it imports, and what of it runs when it is loaded."""

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
        found: dict[str, str] = {}
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


def _dump(value: object) -> str:
    """A syntax tree as text. `ast.dump` differs between versions of Python; this leaves out what differs."""
    if isinstance(value, ast.AST):
        fields = ((name, getattr(value, name, None)) for name in value._fields if name not in UNSEEN)
        inner = ",".join(f"{name}={_dump(field)}" for name, field in fields if field is not None and field != [])
        return f"{type(value).__name__}({inner})"
    if isinstance(value, list):
        return f"[{','.join(map(_dump, value))}]"
    return repr(value)
