"""Connections run again in backward, from streams at block starts and the layers' outputs (mHC section 4.3, Eq. 20).

A layer's connection saves far more than its layer's output: streams, hidden, coefficients. Here a block of layers keeps
the streams that it starts from and what its layers gave; everything else that connections save is left out in forward
and made again, block by block, when backward first asks for it. Layers run once, so the price is one more pass of the
connections.

How: saved-tensor hooks. While a connection runs, each tensor that autograd saves becomes a number: the k-th of this
step. Running the same step on the same values saves the same tensors in the same order, so that the k-th tensor of the
second run is the answer; nothing need be known of what an operation saves. While a layer runs, what it saves is kept,
except for the hidden state that its connection gave it, which is known by its storage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from mhc_lab.config.schema import ResidualConfig
from mhc_lab.models.recompute_block import Block, Dropped, Hooks, Kept, Record, Step, storage, tensors_of, unpack
from mhc_lab.residual import registry
from mhc_lab.residual.connection import Connection, Mappings


def block_length(config: ResidualConfig, layers: int) -> int:
    """L_r, the layers from one kept stream to the next, for a stack of `layers`; 0 where nothing is recomputed.

    `auto` is round(sqrt(n L / (n + 2))), which makes n C ceil(L / L_r) + (n + 2) C L_r smallest (mHC Eq. 20).
    """
    if config.recompute == "off" or registry.variant(config.variant).plain:
        return 0
    if config.recompute == "auto":
        n = registry.stream_count(config)
        return max(1, round(math.sqrt(n * layers / (n + 2))))
    return int(config.recompute)


def steps(connections: Sequence[Connection], block: int) -> Steps:
    """The connections of one forward pass; with `block` >= 1 and gradients on, recomputed in blocks of so many layers.

    Under torch.compile nothing is recomputed: hooks do not reach into a compiled graph, whose partitioner decides for
    itself what to keep. The result is the same.
    """
    if block and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return RecomputedSteps(connections, block)
    return Steps(connections)


class Steps:
    """The connections of one forward pass, in the order in which a stack runs them."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.connections = connections

    def read(self, streams: Tensor) -> tuple[Tensor, Mappings]:
        """The first connection's read."""
        return self.connections[0].read(streams)

    def layer(self, layer: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        """The layer itself."""
        return layer(hidden)

    def write_read(
        self, index: int, streams: Tensor, output: Tensor, weights: Mappings
    ) -> tuple[Tensor, Tensor, Mappings]:
        """Connection `index` writes, the next one reads."""
        return self.connections[index].write_read(self.connections[index + 1], streams, output, weights)

    def write(self, streams: Tensor, output: Tensor, weights: Mappings) -> Tensor:
        """The last connection's write."""
        return self.connections[-1].write(streams, output, weights)


class RecomputedSteps(Steps):
    """Steps whose connections keep nothing for backward but streams at block starts and the layers' outputs.

    Block b starts at the streams in front of layer b L_r. A connection must give the same for the same streams: one
    with dropout of its own would be answered with another draw.
    """

    def __init__(self, connections: Sequence[Connection], block: int) -> None:
        super().__init__(connections)
        self.length = block
        # Hooks that were there before (offloading, an outer checkpoint, a counter) see what is kept here.
        self.outer: Hooks | None = torch._C._autograd._top_saved_tensors_default_hooks(False)
        self.block: Block
        # By storage: what the last step gave. Autograd holds on to the hooks that hold this: it is emptied in place.
        self.given: dict[int, _Given] = {}

    def read(self, streams: Tensor) -> tuple[Tensor, Mappings]:
        self.block = Block(self.connections[:1], streams, None, self.outer)
        reader = self.connections[0]
        _, hidden, weights = self._step(lambda streams, *_: (streams, *reader.read(streams)), streams)
        return hidden, weights

    def layer(self, layer: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        with self._outside():
            return layer(hidden)

    def write_read(
        self, index: int, streams: Tensor, output: Tensor, weights: Mappings
    ) -> tuple[Tensor, Tensor, Mappings]:
        writer, reader = self.connections[index : index + 2]
        if index and index % self.length == 0:
            self.block = Block([writer], streams, weights, self.outer)
        self.block.involve(reader)

        def step(streams: Tensor, weights: Mappings | None, output: Tensor | None) -> tuple[Tensor, Tensor, Mappings]:
            assert weights is not None and output is not None
            return writer.write_read(reader, streams, output, weights)

        return self._step(step, streams, weights, output)

    def write(self, streams: Tensor, output: Tensor, weights: Mappings) -> Tensor:
        with self._outside():  # what it saves was given by the step before, so that it need not run again
            written = super().write(streams, output, weights)
        self.given.clear()
        return written

    def _step(
        self, step: Step, streams: Tensor, weights: Mappings | None = None, output: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Mappings]:
        block, record = self.block, self.block.add(step, output)

        def pack(tensor: Tensor) -> Dropped:
            record.saved += 1
            return Dropped(block, record, ("saved", record.saved - 1), tensor)

        with saved_tensors_hooks(pack, unpack):
            result = step(streams, weights, output)
        self.given.clear()
        for slot, tensor in enumerate(tensors_of(result)):
            known = _Given(block, record, slot, tensor.detach(), tensor._version)
            self.given.setdefault(storage(tensor), known)
        return result

    def _outside(self) -> AbstractContextManager[Any]:
        """Keep what is saved, except for what the last step gave: that step can give it again."""
        given, outer = self.given, self.outer

        def pack(tensor: Tensor) -> Dropped | Kept:
            known = given.get(storage(tensor))
            # A layer may have changed its input in place, and is then not to be given the original.
            if known is None or known.version != tensor._version or known.tensor.dtype != tensor.dtype:
                return Kept(tensor, outer)
            return Dropped(known.block, known.record, ("given", known.slot), tensor)

        return saved_tensors_hooks(pack, unpack)


@dataclass(frozen=True)
class _Given:
    """One of the tensors that the last step returned, and its version then."""

    block: Block
    record: Record
    slot: int
    tensor: Tensor
    version: int
