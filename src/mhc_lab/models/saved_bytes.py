"""Bytes that autograd keeps between forward and backward, and bytes that live at one time, counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Storages:
    """Storages by weak reference, each once and whole; a model's own are there anyway and do not count."""

    def __init__(self, model: nn.Module | None) -> None:
        own = [*model.parameters(), *model.buffers()] if model is not None else []
        own += [tensor.grad for tensor in own if tensor.grad is not None]
        self.standing = {tensor.untyped_storage()._cdata for tensor in own}
        self.seen: dict[int, tuple[StorageWeakRef, int]] = {}

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.standing:
            self.seen[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())

    def alive(self) -> int:
        """Bytes of those that have not been freed."""
        self.seen = {key: held for key, held in self.seen.items() if not held[0].expired()}
        return sum(size for _, size in self.seen.values())


def measured_saved_bytes(run: Callable[[], Any], model: nn.Module | None = None) -> int:
    """Bytes of the storages that `run` saves for backward and that live as long as its result does.

    Each storage counts once and whole, whatever part of it was saved. Parameters, buffers and gradients of `model` do
    not count: they are there without a backward too. `run` returns what holds the graph, a loss for example.
    """
    storages = _Storages(model)

    def pack(tensor: Tensor) -> Tensor:
        storages.add(tensor)
        return tensor.detach()

    with torch.enable_grad(), saved_tensors_hooks(pack, _same):
        result = run()
    total = storages.alive()
    del result
    return total


class LiveBytes(TorchDispatchMode):
    """While it is on: bytes of all that operations gave out and that is not freed yet, and their peak.

    What an operation allocates for itself is not seen. Parameters, buffers and gradients that `model` has when this is
    made do not count.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._storages = _Storages(model)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._storages.add(value)
        self.peak = max(self.peak, self.now)
        return result

    @property
    def now(self) -> int:
        """Bytes alive at this moment."""
        return self._storages.alive()


def _same(packed: Tensor) -> Tensor:
    return packed
