"""The ends of the streams: expand one hidden state into n, collapse n into one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mhc_lab import ops
from mhc_lab.config.schema import ResidualConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def expand(hidden: Tensor, streams: int) -> Tensor:
    """[..., C] -> [..., n, C]: repeat (a view). ValueError unless n is a whole number, at least 1."""
    if isinstance(streams, bool) or not isinstance(streams, int) or streams < 1:
        raise ValueError(f"streams={streams!r}: must be a whole number, at least 1")
    return hidden.unsqueeze(-2).expand(*hidden.shape[:-1], streams, hidden.shape[-1])


def collapse(streams: Tensor) -> Tensor:
    """[..., n, C] -> [..., C]: mean."""
    return streams.mean(-2)


class Expand(nn.Module):
    """Repeat, in the stream dtype; `scaled` multiplies stream i by a learned scale that starts at base ** i."""

    def __init__(self, config: ResidualConfig, streams: int) -> None:
        super().__init__()
        self.streams = streams
        self.dtype = DTYPES[config.stream_dtype]
        self.base = config.expand_base
        self.scale = nn.Parameter(torch.empty(streams)) if config.expand == "scaled" else None
        if self.scale is not None:
            self.init_parameter("scale", self.scale, None)

    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator | None) -> None:
        with torch.no_grad():
            parameter.copy_(torch.tensor([self.base**i for i in range(self.streams)]))

    def forward(self, hidden: Tensor) -> Tensor:
        streams = expand(hidden, self.streams)
        if self.scale is not None:
            streams = streams * self.scale.unsqueeze(-1)
        # fp32 streams are a floor: a model in fp64 keeps its precision.
        wider = self.dtype == torch.float32 and hidden.dtype == torch.float64
        return streams if wider else streams.to(self.dtype)


class Collapse(nn.Module):
    """Mean, sum, or a learned read: sum_j (sigmoid(alpha (RMSNorm(vec x) phi)_j + b_j) + collapse_eps) x_j.

    DeepSeek-V4's head is that with collapse_eps = 1e-6 and norm_eps = 1e-6.
    """

    def __init__(self, config: ResidualConfig, streams: int, dim: int) -> None:
        super().__init__()
        self.kind = config.collapse
        self.streams = streams
        self.config = config
        if self.kind == "read":
            self.phi_head = nn.Parameter(torch.empty(streams * dim, streams))
            self.alpha_head = nn.Parameter(torch.empty(1))
            self.b_head = nn.Parameter(torch.empty(streams))
            for name, parameter in self.named_parameters(recurse=False):
                self.init_parameter(name, parameter, None)

    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator | None) -> None:
        with torch.no_grad():
            if name == "phi_head":
                parameter.normal_(0.0, self.config.phi_std, generator=generator)
            elif name == "alpha_head":
                parameter.fill_(self.config.alpha_init)
            else:
                # Starts as the mean; one stream would need sigmoid = 1, so it starts at 0.98.
                parameter.fill_(-math.log(self.streams - 1) if self.streams > 1 else 4.0)

    def forward(self, streams: Tensor) -> Tensor:
        if self.kind == "mean":
            return streams.squeeze(-2) if self.streams == 1 else collapse(streams)
        if self.kind == "sum":
            return streams.sum(-2)
        found = ops.coefficients(streams, self.phi_head, norm_eps=self.config.norm_eps)
        raw = torch.addcmul(self.b_head, found, self.alpha_head)
        return ops.read(streams, torch.sigmoid(raw) + self.config.collapse_eps)
