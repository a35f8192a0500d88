"""A block of connection steps, as backward needs it: what it keeps, what it dropped, and how it runs again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from mhc_lab.residual.connection import Connection, Mappings

Hooks = tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]  # pack, unpack
Step = Callable[[Tensor, Mappings | None, Tensor | None], tuple[Tensor, Tensor, Mappings]]
Key = tuple[str, int]  # ("saved", k): the k-th tensor that a step saved; ("given", k): the k-th that it returned


class Kept:
    """A tensor kept for backward. Hooks take over autograd's check that it is not changed until then."""

    __slots__ = ("outer", "packed", "requires_grad", "version")

    def __init__(self, tensor: Tensor, outer: Hooks | None) -> None:
        self.outer = outer
        self.requires_grad = tensor.requires_grad
        self.version = tensor._version
        with torch.no_grad():
            # Detached: an output that held its own graph would never be freed.
            self.packed = tensor.detach() if outer is None else outer[0](tensor)

    def get(self) -> Tensor:
        """RuntimeError if it was changed."""
        if self.outer is not None:
            return self.outer[1](self.packed)
        tensor: Tensor = self.packed
        if tensor._version != self.version:
            raise _modified(f"a saved tensor {list(tensor.shape)}", tensor, self.version)
        return tensor

    def as_input(self) -> Tensor:
        """With the same say on gradients as in forward, so that the same tensors are saved."""
        return self.get().detach().requires_grad_(self.requires_grad)


class Dropped:
    """What stands for a tensor that was not kept: which one of which step, and how it lay in its storage."""

    __slots__ = ("block", "key", "shape", "step", "storage_offset", "stride")

    def __init__(self, block: Block, step: Record, key: Key, tensor: Tensor) -> None:
        step.wanted[key] = step.wanted.get(key, 0) + 1
        self.block = block
        self.step = step
        self.key = key
        self.shape = tensor.shape
        self.stride = tensor.stride()
        self.storage_offset = tensor.storage_offset()

    def get(self) -> Tensor:
        """Made again, or still there from when another was."""
        return self.block.answer(self.step, self.key).as_strided(self.shape, self.stride, self.storage_offset)


class Record:
    """One connection step of a block: how to run it again, and what it has to give back then.

    It does not know its block: a circle would hold memory until the garbage collector comes by.
    """

    def __init__(self, run: Step, output: Kept | None) -> None:
        self.run = run
        self.output = output
        self.saved = 0  # tensors, so far
        self.wanted: dict[Key, int] = {}  # how many ask for each
        self.found: dict[Key, tuple[Tensor, int]] = {}  # and how many of those have not had it yet

    def take(self, key: Key) -> Tensor:
        """One answer."""
        tensor, waiting = self.found[key]
        self.found[key] = tensor, waiting - 1
        return tensor

    def let_go(self) -> None:
        """Of what all who want it have had."""
        self.found = {key: (tensor, waiting) for key, (tensor, waiting) in self.found.items() if waiting > 0}

    def run_again(self, streams: Tensor, weights: Mappings | None) -> tuple[Tensor, Mappings | None]:
        """Find all that is wanted of this step. Returns its streams and weights, without their graph."""
        count = 0

        def pack(tensor: Tensor) -> None:
            nonlocal count
            self._find(("saved", count), tensor)
            count += 1

        with saved_tensors_hooks(pack, _refuse):
            result = self.run(streams, weights, None if self.output is None else self.output.as_input())
        for slot, tensor in enumerate(tensors_of(result)):
            self._find(("given", slot), tensor)
        if count != self.saved:
            raise RuntimeError(
                f"recompute: a connection saved {count} tensors for backward where it had saved {self.saved}: it does "
                "not do the same twice; give residual.recompute=off"
            )
        return _leaf(result[0]), _replace(Tensor, _leaf, result[2])

    def _find(self, key: Key, tensor: Tensor) -> None:
        if key in self.wanted:
            self.found[key] = tensor.detach(), self.wanted[key]


class Block:
    """Consecutive connection steps, what they start from, and the state of the connections when they ran."""

    def __init__(
        self, connections: Iterable[Connection], streams: Tensor, weights: Mappings | None, outer: Hooks | None
    ) -> None:
        self.outer = outer
        self.streams = Kept(streams, outer)
        self.weights = _replace(Tensor, lambda tensor: Kept(tensor, outer), weights)
        self.device = streams.device.type
        self.autocast = torch.is_autocast_enabled(self.device), torch.get_autocast_dtype(self.device)
        self.states = [_State(connection) for connection in connections]
        self.steps: list[Record] = []
        self.answering: Record | None = None

    def involve(self, connection: Connection) -> None:
        """A further connection takes part."""
        self.states.append(_State(connection))

    def add(self, run: Step, output: Tensor | None) -> Record:
        """A step that is about to run, with the output of the layer before it."""
        self.steps.append(Record(run, None if output is None else Kept(output, self.outer)))
        return self.steps[-1]

    def answer(self, step: Record, key: Key) -> Tensor:
        """What `step` saved or gave under `key`, made again if it is not there."""
        if key not in step.found:  # the first to ask, or a second backward
            self.run_again()
        # Not sooner: some backward may look twice at what it has saved.
        if self.answering is not step and self.answering is not None:
            self.answering.let_go()
        self.answering = step
        return step.take(key)

    def run_again(self) -> None:
        """All steps, as they ran in forward."""
        streams, weights = self.streams.as_input(), _replace(Kept, Kept.as_input, self.weights)
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            enabled, dtype = self.autocast
            stack.enter_context(torch.autocast(self.device, dtype, enabled, cache_enabled=False))
            for state in self.states:
                stack.enter_context(state.restored())
            for step in self.steps:
                streams, weights = step.run_again(streams, weights)


class _State:
    """A connection's parameters, buffers and overrides in forward, as its second run must find them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.overrides = connection._overrides
        self.tensors = {name: (tensor, tensor._version) for name, tensor in self._found().items()}

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Overrides are put back for a while. A parameter that was changed is an error, as it is to autograd."""
        now = self._found()
        for name, (tensor, version) in self.tensors.items():
            if now.get(name) is not tensor:
                raise RuntimeError(
                    f"recompute: {name} of connection {self.connection.layer_index} is another tensor than in forward "
                    "(torch.func.functional_call?); give residual.recompute=off"
                )
            if tensor._version != version:
                raise _modified(f"{name} of connection {self.connection.layer_index}", tensor, version)
        before, self.connection._overrides = self.connection._overrides, self.overrides
        try:
            yield
        finally:
            self.connection._overrides = before

    def _found(self) -> dict[str, Tensor]:
        given = {f"the override of {name}": v for name, v in self.overrides.items() if isinstance(v, Tensor)}
        return {**dict(self.connection.named_parameters()), **dict(self.connection.named_buffers()), **given}


def unpack(packed: Kept | Dropped) -> Tensor:
    """The hook that answers backward."""
    return packed.get()


def _refuse(_: None) -> Tensor:
    raise AssertionError("a second run is not differentiated")


def storage(tensor: Tensor) -> int:
    """Tells storages apart as long as they live."""
    return int(tensor.untyped_storage()._cdata)


def tensors_of(result: tuple[Tensor, Tensor, Mappings]) -> list[Tensor]:
    """All tensors that a step gives, the streams and the hidden state first."""
    streams, hidden, weights = result
    found = [streams, hidden]
    _replace(Tensor, found.append, weights)
    return found


def _replace(kind: type, function: Callable[[Any], Any], value: Any) -> Any:
    """A dataclass with `function` of each `kind` in it, at whatever depth, in its place; what else is in it stays."""
    if isinstance(value, kind):
        return function(value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    fields = {f.name: _replace(kind, function, getattr(value, f.name)) for f in dataclasses.fields(value)}
    return type(value)(**fields)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _modified(what: str, tensor: Tensor, version: int) -> RuntimeError:
    return RuntimeError(
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        f"{what} is at version {tensor._version}; expected version {version} instead"
    )
