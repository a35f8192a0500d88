"""Layers run through their connections: expand -> (read -> layer -> write) x L -> collapse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mhc_lab.config.schema import ResidualConfig
from mhc_lab.models import recompute
from mhc_lab.residual.connection import Connection
from mhc_lab.residual.factory import build_all
from mhc_lab.residual.gains import stream_spread


@dataclass(frozen=True)
class LayerTrace:
    """One layer's mappings on the traced tokens, fp32, and the spread of the streams behind it."""

    h_pre: Tensor  # [..., n]
    h_post: Tensor  # [..., n]
    h_res: Tensor  # [..., n, n]
    spread: float


class ResidualStack(nn.Module):
    """Owns the order of reads, layers and writes; connections are siblings of the layers, never inside them.

    (FSDP2 shards a layer by itself and leaves the connections in the root group; a connection inside a
    sharded layer would mix Tensor and DTensor.)
    """

    def __init__(self, layers: Sequence[nn.Module], dim: int, config: ResidualConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.expand, connections, self.collapse = build_all(config, dim, len(layers))
        self.connections = nn.ModuleList(connections)
        self.recompute = recompute.block_length(config, len(layers))

    def forward(self, hidden: Tensor, trace: list[LayerTrace] | None = None) -> Tensor:
        """[..., C] -> [..., C] in the dtype of the input, which the layers see too, whatever the streams are kept in.

        With `trace`, one LayerTrace a layer is appended (eager, under no_grad).
        """
        dtype = hidden.dtype
        connections = [c for c in self.connections if isinstance(c, Connection)]
        streams = self.expand(hidden)  # [..., C] -> [..., n, C]
        steps = recompute.steps(connections, self.recompute)
        hidden, weights = steps.read(streams)
        for index, layer in enumerate(self.layers):
            mappings = None if trace is None else connections[index].mappings(streams)
            output = steps.layer(layer, hidden.to(dtype))
            if index + 1 < len(connections):
                streams, hidden, weights = steps.write_read(index, streams, output, weights)
            else:
                streams = steps.write(streams, output, weights)
            if trace is not None and mappings is not None:
                assert mappings.h_pre is not None and mappings.h_post is not None and mappings.h_res is not None
                trace.append(
                    LayerTrace(
                        mappings.h_pre.detach().float(),
                        mappings.h_post.detach().float(),
                        mappings.h_res.detach().float(),
                        stream_spread(streams.detach()),
                    )
                )
        collapsed: Tensor = self.collapse(streams)  # [..., n, C] -> [..., C]
        return collapsed.to(dtype)
