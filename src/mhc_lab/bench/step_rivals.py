"""Other people's connections around the same layers, for whole training steps."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from mhc_lab.bench.adapters import Absent

Build = Callable[[Sequence[nn.Module], int, int, int], nn.Module]  # layers, C, n, t_max


def lucidrains_mhc(layers: Sequence[nn.Module], dim: int, streams: int, t_max: int) -> nn.Module:
    """hyper-connections, mHC: streams in the batch dimension."""
    module = _load("hyper_connections", "hyper-connections")
    made = module.mc_get_init_and_expand_reduce_stream_functions(streams, dim=dim, sinkhorn_iters=t_max)
    return _Lucidrains(layers, *made)


def lucidrains_hc(layers: Sequence[nn.Module], dim: int, streams: int, t_max: int) -> nn.Module:  # noqa: ARG001
    """hyper-connections, unconstrained."""
    module = _load("hyper_connections", "hyper-connections")
    return _Lucidrains(layers, *module.get_init_and_expand_reduce_stream_functions(streams, dim=dim))


def transformers_v4(layers: Sequence[nn.Module], dim: int, streams: int, t_max: int) -> nn.Module:
    """transformers' DeepSeek-V4 connection, applied as its decoder layer does."""
    module = _load("transformers.models.deepseek_v4.modeling_deepseek_v4", "transformers")
    settings = SimpleNamespace(
        hc_mult=streams, hc_sinkhorn_iters=t_max, hc_eps=1e-6, rms_norm_eps=1e-6, hidden_size=dim
    )
    return _TransformersV4(layers, [module.DeepseekV4HyperConnection(settings) for _ in layers])


STEP_RIVALS: Mapping[str, Build] = {
    "lucidrains_mhc": lucidrains_mhc,
    "lucidrains_hc": lucidrains_hc,
    "transformers_v4": transformers_v4,
}


class _Lucidrains(nn.Module):
    def __init__(
        self,
        layers: Sequence[nn.Module],
        connection: Callable[..., nn.Module],
        expand: nn.Module,
        reduce: nn.Module,
    ) -> None:
        super().__init__()
        self.expand, self.reduce = expand, reduce
        self.layers = nn.ModuleList([connection(branch=layer, layer_index=i) for i, layer in enumerate(layers)])

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]; between them [B n, T, C]."""
        streams = self.expand(hidden)
        for layer in self.layers:
            streams = layer(streams)
        out: Tensor = self.reduce(streams)
        return out


class _TransformersV4(nn.Module):
    def __init__(self, layers: Sequence[nn.Module], connections: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers, self.connections = nn.ModuleList(layers), nn.ModuleList(connections)
        with torch.no_grad():
            for name, parameter in self.connections.named_parameters():
                if name.endswith("fn"):
                    parameter.normal_(0.0, 0.02)
                else:
                    parameter.fill_(0.01 if name.endswith("scale") else 0.0)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]; between them [B, T, n, C]."""
        first: Any = self.connections[0]
        streams = hidden.unsqueeze(2).repeat(1, 1, first.hc_mult, 1)
        for layer, connection in zip(self.layers, self.connections, strict=True):
            post, comb, collapsed = connection(streams)
            output = layer(collapsed)
            mixed = torch.matmul(comb.to(streams.dtype).mT, streams)
            streams = post.to(streams.dtype).unsqueeze(-1) * output.unsqueeze(-2).to(streams.dtype) + mixed
        return streams.mean(2)


def _load(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Absent(f"not installed (pip install {package}): {error}") from error
