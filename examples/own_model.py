"""Connections in a model of your own: expand once, read and write at every layer, collapse once.

python examples/own_model.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mhc_lab import residual

DIM, LAYERS, STREAMS = 32, 6, 4


class Network(nn.Module):
    """A residual MLP whose connections are those of a variant."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.RMSNorm(DIM), nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM))
            for _ in range(LAYERS)
        )
        connections = [residual.build(variant, dim=DIM, layer_index=i, streams=STREAMS) for i in range(LAYERS)]
        self.connections = nn.ModuleList(connections)
        self.streams = connections[0].streams  # 1 for the plain residual

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        streams = residual.expand(x, streams=self.streams)  # [..., n, C]
        for layer, connection in zip(self.layers, self.connections, strict=True):
            streams = connection(streams, layer)  # read, layer, write
        return residual.collapse(streams)


def train(variant: str, steps: int = 100) -> float:
    """Learn a fixed rotation of noise; the last loss."""
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(DIM, DIM)).Q
    model = Network(variant)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        x = torch.randn(64, DIM)
        loss = (model(x) - torch.sin(x @ rotation)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


if __name__ == "__main__":
    for name in ("identity", "hc", "mhc"):
        print(f"{name:10} {train(name):.4f}")
