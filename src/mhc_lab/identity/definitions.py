"""A module as its definitions: functions, classes, constants, and what it does as it is imported.

Each has a hash of what it says: not of comments, docstrings, annotations, imports or the words of an error, and equal
on every Python that we name. (`ast.dump` and `ast.unparse` differ between 3.11, 3.12 and 3.13; a walk over the fields
that are not empty does not.)
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import mhc_lab

PACKAGE = "mhc_lab"
_ROOT = Path(mhc_lab.__file__).parent
_NOT_HASHED = {"annotation", "returns", "type_comment", "type_params", "type_ignores", "ctx", "kind"}
STATEMENTS = "<import>"  # the name of what a module does as it is imported


@dataclass(frozen=True)
class Definition:
    """One or, where a name is bound more than once, several statements of a module."""

    module: str
    name: str
    nodes: tuple[ast.stmt, ...]

    @property
    def key(self) -> str:
        """`models.stack.ResidualStack`."""
        return f"{self.module.removeprefix(PACKAGE + '.')}.{self.name}"

    @cached_property
    def digest(self) -> str:
        """8 hex digits of what it says."""
        return hashlib.sha256("".join(part for node in self.nodes for part in said(node)).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Module:
    """`names`: what an imported name stands for, "module" or "module:name"."""

    name: str
    definitions: dict[str, Definition]
    names: dict[str, str] = field(default_factory=dict)


@cache
def module(name: str) -> Module | None:
    """A module of this package; None for what is no file of it."""
    path = _file(name)
    return None if path is None else parsed(name, _text(path), path.name == "__init__.py")


def is_module(name: str) -> bool:
    return _file(name) is not None


def modules() -> list[str]:
    """The names of all modules of the package."""
    paths = [path.relative_to(_ROOT.parent).with_suffix("") for path in sorted(_ROOT.rglob("*.py"))]
    return [".".join(path.parts).removesuffix(".__init__") for path in paths]


def parsed(name: str, text: str, is_package: bool = False) -> Module:
    """A module's definitions and what its names stand for."""
    found: dict[str, list[ast.stmt]] = {}
    names: dict[str, str] = {}
    for node in ast.parse(text).body:
        names |= imported(node, name, is_package)
        for bound in _bound(node):
            found.setdefault(bound, []).append(node)
    return Module(name, {bound: Definition(name, bound, tuple(nodes)) for bound, nodes in found.items()}, names)


def imported(node: ast.AST, name: str, is_package: bool) -> dict[str, str]:
    """What the imports in `node`, however deep, make of names: local name -> "module" or "module:name"."""
    found: dict[str, str] = {}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            for alias in inner.names:
                if alias.asname is not None:
                    found[alias.asname] = alias.name
                else:
                    found[alias.name.partition(".")[0]] = alias.name.partition(".")[0]
        elif isinstance(inner, ast.ImportFrom):
            base = inner.module or ""
            if inner.level:
                parts = name.split(".") if is_package else name.split(".")[:-1]
                base = ".".join([*parts[: len(parts) - inner.level + 1], *([base] if base else [])])
            for alias in inner.names:
                target = f"{base}.{alias.name}"
                found[alias.asname or alias.name] = target if is_module(target) else f"{base}:{alias.name}"
    return found


def said(node: ast.AST) -> Iterator[str]:
    """What a node says, in pieces that are the same on every Python."""
    if isinstance(node, ast.AnnAssign):  # `x: int = 1` is `x = 1`; a bare `x: int` is a field's name
        yield "(Assign targets="
        yield from said(node.target)
        if node.value is not None:
            yield " value="
            yield from said(node.value)
        yield ")"
        return
    yield f"({type(node).__name__}"
    if isinstance(node, ast.Constant):
        yield f" {node.value!r}"
    elif isinstance(node, ast.Raise):  # which error it is, not its words
        exception = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        yield from said(exception) if exception is not None else ()
    elif isinstance(node, ast.Assert):
        yield from said(node.test)
    elif isinstance(node, ast.JoinedStr):
        yield from _pieces(node)
    else:
        for name, value in ast.iter_fields(node):
            if name in _NOT_HASHED:
                continue
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.Import | ast.ImportFrom) or _is_words(part):
                    continue
                if isinstance(part, ast.AST):
                    yield f" {name}="
                    yield from said(part)
                elif part is not None:
                    yield f" {name}={part!r}"
    yield ")"


def _pieces(node: ast.JoinedStr) -> Iterator[str]:
    """An f-string, whose neighbouring and empty texts Pythons join or not."""
    text = ""
    for value in node.values:
        if isinstance(value, ast.Constant):
            text += str(value.value)
            continue
        yield f" {text!r}"
        text = ""
        yield from said(value)
    yield f" {text!r}"


def _is_words(node: object) -> bool:
    """A docstring, or another text that is a statement."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _bound(node: ast.stmt) -> list[str]:
    """The names that a statement of a module defines; STATEMENTS where it only does something."""
    if isinstance(node, ast.Import | ast.ImportFrom) or _is_words(node) or _is_for_others(node):
        return []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [STATEMENTS if node.name == "_" else node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)]
        if not any(isinstance(target, ast.Attribute | ast.Subscript) for target in targets):
            return names
    return [STATEMENTS]


def _is_for_others(node: ast.stmt) -> bool:
    """`if TYPE_CHECKING:` and `if __name__ == "__main__":` are no part of what an import does."""
    return isinstance(node, ast.If) and any(
        isinstance(inner, ast.Name) and inner.id in ("TYPE_CHECKING", "__name__") for inner in ast.walk(node.test)
    )


def remember() -> None:
    """Read the package as it is now: a process runs what it has imported, whatever is edited meanwhile."""
    for path in _ROOT.rglob("*.py"):
        _text(path)


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _file(name: str) -> Path | None:
    package, _, inner = name.partition(".")
    if package != PACKAGE:
        return None
    base = _ROOT.joinpath(*inner.split(".")) if inner else _ROOT
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)
