"""A decoder-only transformer: RMSNorm, RoPE, causal attention, SwiGLU or GELU."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhc_lab.config.schema import ModelConfig, ResidualConfig
from mhc_lab.models.cost import effective_model, ffn_width
from mhc_lab.models.init import initialise
from mhc_lab.models.stack import LayerTrace, ResidualStack


class RMSNorm(nn.RMSNorm):
    """In the dtype of its weight, whatever the streams' is: what follows multiplies by weights of that dtype."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class Attention(nn.Module):
    """Pre-norm causal self-attention with rotary positions: [B, T, C] -> [B, T, C]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = RMSNorm(config.dim)
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)
        head = config.dim // config.heads
        frequency = config.rope_theta ** (-torch.arange(0, head, 2).float() / head)
        angle = torch.arange(config.sequence_length).float().outer(frequency)  # [T, head / 2]
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, length, dim = hidden.shape
        qkv = self.qkv(self.norm(hidden)).view(batch, length, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, T, head]
        mixed = F.scaled_dot_product_attention(self._rotate(query), self._rotate(key), value, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, dim))
        return out

    def _rotate(self, x: Tensor) -> Tensor:
        length = x.shape[-2]
        assert isinstance(self.cos, Tensor) and isinstance(self.sin, Tensor)
        cos, sin = self.cos[:length].to(x.dtype), self.sin[:length].to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class FeedForward(nn.Module):
    """Pre-norm FFN, SwiGLU or GELU: [B, T, C] -> [B, T, C]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = ffn_width(config)
        self.gated = config.ffn == "swiglu"
        self.norm = RMSNorm(config.dim)
        self.up = nn.Linear(config.dim, 2 * width if self.gated else width, bias=False)
        self.out = nn.Linear(width, config.dim, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        up = self.up(self.norm(hidden))
        if self.gated:
            gate, value = up.chunk(2, dim=-1)
            up = F.silu(gate) * value
        else:
            up = F.gelu(up)
        out: Tensor = self.out(up)
        return out


class GPT(nn.Module):
    """Embedding, ResidualStack of 2 x blocks layers (attention, FFN), final norm, head."""

    def __init__(self, config: ModelConfig, residual: ResidualConfig, vocab_size: int) -> None:
        super().__init__()
        config = effective_model(config, residual)
        self.config = config
        self.embedding = nn.Embedding(vocab_size, config.dim)
        layers = [kind(config) for _ in range(config.blocks) for kind in (Attention, FeedForward)]
        self.stack = ResidualStack(layers, config.dim, residual)
        self.norm = RMSNorm(config.dim)
        self.head = nn.Linear(config.dim, vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor, trace: list[LayerTrace] | None = None) -> Tensor:
        """[B, T] tokens -> [B, T, vocab] logits; `trace` collects one LayerTrace a layer."""
        hidden = self.stack(self.embedding(tokens), trace)
        logits: Tensor = self.head(self.norm(hidden))
        return logits

    def init_weights(self, key: str) -> None:
        """Every parameter becomes a function of (key, its qualified name).

        Matrices N(0, init_std^2), what a layer writes divided by sqrt(number of layers) (GPT-2), norms 1.
        """
        initialise(self, key, self._table)

    def _table(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        with torch.no_grad():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
                return
            std = self.config.init_std
            if name.endswith(".out.weight"):
                std /= math.sqrt(2 * self.config.blocks)
            parameter.normal_(0.0, std, generator=generator)
