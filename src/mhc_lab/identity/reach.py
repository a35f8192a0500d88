"""The definitions that one reaches: by its names, through imports, from module to module.

A name is followed to where it is defined, whether it is imported at the top, inside a function or as an attribute of a
module. An operation's backend is found by its name at run time (`ops.backends.run`): which one, the caller says.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache

from mhc_lab.identity.definitions import PACKAGE, STATEMENTS, Definition, Module, imported, is_module, module, modules

# They place, write, show or refuse, and compute nothing that a result holds; what `config` says is in the run id.
NOT_COUNTED = tuple(
    f"{PACKAGE}.{room}"
    for room in (
        "addresses",
        "analysis",
        "bench",
        "cli",
        "command",
        "config",
        "disk",
        "doctor",
        "errors",
        "files",
        "identity",
        "kernel_cache",
        "machine",
        "ops.warm_up",
        "report",
        "run_folder",
        "runs",
        "secrets",
        "study",
        "tracking",
        "training.callbacks.checkpoint",
        "training.callbacks.mirror",
        "training.callbacks.progress",
        "training.callbacks.pruning",
        "training.callbacks.time_limit",
        "training.interrupts",
        "training.joining",
        "training.launch",
        "training.placement",
        "training.record",
        "tries",
        "units",
    )
)

# What a registry does as it is imported is to register everything: of that, a run's own entry counts alone.
REGISTRIES = (f"{PACKAGE}.residual.registry",)

Backend = Callable[[str], Iterable[str]]  # an operation -> the backends, its modules, that count


def reached(roots: Iterable[str], backend: Backend, without: Iterable[str] = ()) -> list[Definition]:
    """What the definitions "module:name" reach, themselves included, by module and name; not those `without`."""
    seen = {(module_name, name) for module_name, _, name in (other.partition(":") for other in without)}
    found: list[Definition] = []
    open_ends = [(module_name, name) for module_name, _, name in (root.partition(":") for root in roots)]
    while open_ends:
        module_name, name = open_ends.pop()
        definition = _find(module_name, name)
        if definition is None or (definition.module, definition.name) in seen:
            continue
        seen.add((definition.module, definition.name))
        found.append(definition)
        names, dispatched = _links(definition.module, definition.name)
        open_ends += names
        open_ends += [
            (f"{PACKAGE}.ops.{operation}.{name}", function)
            for operation, function in dispatched
            for name in backend(operation)
        ]
        if definition.module not in REGISTRIES:
            open_ends.append((definition.module, STATEMENTS))
    return sorted(found, key=lambda definition: (definition.module, definition.name))


def counted() -> list[Definition]:
    """All definitions of the modules that count."""
    homes = [module(name) for name in modules() if not _beside(name)]
    return [definition for home in homes if home is not None for definition in home.definitions.values()]


def _beside(name: str) -> bool:
    return any(name == room or name.startswith(room + ".") for room in NOT_COUNTED)


def _find(module_name: str, name: str) -> Definition | None:
    """Where a module's name is defined: there, or where it was imported from. None outside of what counts."""
    for _ in range(10):  # a name that is handed on from package to package
        home = None if _beside(module_name) else module(module_name)
        if home is None:
            return None
        if name in home.definitions:
            return home.definitions[name]
        target = home.names.get(name, "")
        if ":" not in target:
            return None
        module_name, _, name = target.partition(":")
    raise AssertionError(f"{module_name}.{name}: imported in a circle")


Pairs = tuple[tuple[str, str], ...]


@cache
def _links(module_name: str, name: str) -> tuple[Pairs, Pairs]:
    """What a definition names, as (module, name), and what it asks of a backend, as (operation, function)."""
    home = module(module_name)
    assert home is not None
    is_package = is_module(f"{module_name}.__init__")
    named: dict[tuple[str, str], None] = {}
    dispatched: dict[tuple[str, str], None] = {}
    for node in home.definitions[name].nodes:
        names = home.names | imported(node, module_name, is_package)
        for path in _read(node, frozenset()):
            named |= dict.fromkeys(_targets(home, names, path))
        for inner in ast.walk(node):
            dispatched |= dict.fromkeys(_dispatched(inner))
    return tuple(named), tuple(dispatched)


def _targets(home: Module, names: dict[str, str], path: list[str]) -> Iterator[tuple[str, str]]:
    """What a dotted name may stand for: `stack`, `ops.sinkhorn`, `mhc_lab.ops.read.reference.read_reference`."""
    first, *rest = path
    if first not in names:
        yield home.name, first
        return
    module_name, _, name = names[first].partition(":")
    if name:
        yield module_name, name
        return
    while rest and is_module(f"{module_name}.{rest[0]}"):
        owner = module(module_name)
        if owner is not None and rest[0] in {*owner.names, *owner.definitions}:
            yield module_name, rest[0]  # a function that has the name of its module
        module_name = f"{module_name}.{rest.pop(0)}"
    if rest:
        yield module_name, rest[0]


def _dispatched(node: ast.AST) -> Iterator[tuple[str, str]]:
    """`backends.run("write_read", "forward", ...)`: that function, in the backend that runs."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "run"):
        return
    first = [argument.value for argument in node.args[:2] if isinstance(argument, ast.Constant)]
    if isinstance(node.func.value, ast.Name) and node.func.value.id == "backends" and len(first) == 2:
        yield str(first[0]), str(first[1])


def _read(node: ast.AST, own: frozenset[str]) -> Iterator[list[str]]:
    """The dotted names that are read in a node, annotations and a function's own names left out."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for decorator in getattr(node, "decorator_list", []):
            yield from _read(decorator, own)
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                yield from _read(default, own)
        inner = own | _own_names(node)
        for part in node.body if isinstance(node.body, list) else [node.body]:
            yield from _read(part, inner)
        return
    if isinstance(node, ast.Attribute):
        path = _dotted(node)
        if path is not None:
            if path[0] not in own:
                yield path
            return
    if isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Load) and node.id not in own:
            yield [node.id]
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params"):
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST):
                yield from _read(part, own)


def _dotted(node: ast.expr) -> list[str] | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else None


def _own_names(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> frozenset[str]:
    """Parameters and what a function assigns; a name that it declares global is not its own."""
    arguments = function.args
    names = {a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
    names |= {a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None}
    for inner in ast.walk(function):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            names.add(inner.id)
        elif isinstance(inner, ast.FunctionDef | ast.ClassDef) and inner is not function:
            names.add(inner.name)
    for inner in ast.walk(function):
        if isinstance(inner, ast.Global):
            names -= set(inner.names)
    return frozenset(names)
