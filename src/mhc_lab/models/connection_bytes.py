"""What connections and ends keep for backward, by formula (mHC Table 3, and the coefficients that it leaves out)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mhc_lab.config.schema import ResidualConfig
from mhc_lab.models.recompute import block_length
from mhc_lab.models.saved_bytes import measured_saved_bytes
from mhc_lab.residual import registry
from mhc_lab.residual.constraints.base import Constraint
from mhc_lab.residual.constraints.unconstrained import Unconstrained
from mhc_lab.residual.factory import layer_constraint

FP32, BF16 = 4, 2  # bytes


@dataclass(frozen=True)
class ConnectionBytes:
    """`kept` from forward to backward; `again`: what the last block, the first in backward, makes again and holds."""

    kept: int
    again: int


@dataclass(frozen=True)
class _Small:
    """A layer's coefficients: bytes a token that its write wants too, and others; and bytes whatever the tokens."""

    weights: int = 0
    others: int = 0
    once: int = 0


def connection_bytes(
    residual: ResidualConfig, dim: int, layers: int, tokens: int, output_item: int = FP32
) -> ConnectionBytes:
    """Bytes of all connections and ends of a stack.

    Off, each layer keeps its streams (n C), its hidden state (C, where the layer itself keeps it: bf16 is cast), its
    output (C) and its coefficients; recomputed, streams and weights at block starts and all outputs.

    Args:
        residual: the connections, `recompute` too.
        dim: C.
        layers: L, two a block.
        tokens: of one forward pass.
        output_item: bytes of an element of the layers' outputs.
    """
    if registry.variant(residual.variant).plain:
        return ConnectionBytes(0, 0)
    n, block = residual.streams, block_length(residual, layers)
    item = BF16 if residual.stream_dtype == "bf16" else FP32
    streams, hidden, output = item * n * dim, item * dim if item == FP32 else 0, output_item * dim
    # The first streams are one state seen n times, unless they had to be cast or scaled.
    first = streams if item == BF16 or residual.expand == "scaled" else item * dim
    small = [_small(residual, dim, layer) for layer in range(layers)]
    if block:
        starts = range(0, max(layers - 1, 1), block)  # behind the last layer's read there is nothing to run again
        kept = first + len(starts[1:]) * streams + layers * output + sum(small[start].weights for start in starts[1:])
        once = 0
        made = small[starts[-1] + 1 :] if starts[-1] else small
        held = sum(s.weights + s.others + streams + hidden for s in made) * tokens + sum(s.once for s in made)
    else:
        modes = {name: registry.mode(residual, name) for name in registry.TOGGLES}
        added = modes["h_post"] == modes["h_res"] == "fixed"  # such a write keeps nothing
        # But where it is one operation with the next read, of which the last write has none.
        fused = residual.variant != "hc" and modes["h_pre"] == "dynamic"
        outputs = layers if not added else layers - 1 if fused else 0
        kept = layers * hidden + outputs * output + sum(s.weights + s.others for s in small)
        if not (added and modes["h_pre"] == "fixed"):  # the read is then a mean, which keeps nothing either
            kept += first + (layers - 1) * streams
        if residual.variant == "hc" and first < streams and "dynamic" in modes.values():
            kept += streams  # it looks at one stream at a time: n states have to be made of the one
        once, held = sum(s.once for s in small), 0
    return ConnectionBytes((kept + _ends(residual, dim, item)) * tokens + once, held)


def _small(residual: ResidualConfig, dim: int, layer: int) -> _Small:
    """What `ops.coefficients` and the constraint keep: projected, 1 / rms, the coefficients; phi side by side."""
    n, constraint = residual.streams, layer_constraint(residual, layer)
    dynamic = [name for name in registry.TOGGLES if registry.mode(residual, name) == "dynamic"]
    if not dynamic:
        return _Small()
    if residual.variant == "hc":
        rows = sum(n if name == "h_res" else 1 for name in dynamic)
        # Projected and tanh of it, for each stream; theta, its product with the norm's weight, alpha and bias.
        once = FP32 * rows * (2 * dim + 2)
        return _Small(FP32 * n * rows, FP32 * n * (2 * rows + 1), once)
    logits = constraint.logits if constraint is not None else 0
    width = sum(logits if name == "h_res" else n for name in dynamic)
    mixing = _constraint_bytes(constraint) if constraint is not None and "h_res" in dynamic else _Small()
    once = FP32 * width * (n * dim + 2) + mixing.once
    return _Small(FP32 * width + mixing.weights, FP32 * (width + 1) + mixing.others, once)


def _constraint_bytes(constraint: Constraint) -> _Small:
    """H_res, where it is not a view of the coefficients, and what its map keeps beside it: counted, not by formula.

    A map outside of `ops.coefficients` keeps whatever autograd wants of it, up to several matrices an iteration.
    """
    if constraint.fused_t_max or isinstance(constraint, Unconstrained):
        return _Small()
    one, two = (_counted(constraint, tokens) for tokens in (1, 2))
    matrix = FP32 * constraint.streams**2
    return _Small(matrix, two - one - matrix, 2 * one - two)


def _counted(constraint: Constraint, tokens: int) -> int:
    """Bytes that stand between forward and backward for H_res of so many tokens, H_res with them."""
    logits = nn.ParameterList([nn.Parameter(torch.zeros(tokens, constraint.logits))])
    return measured_saved_bytes(lambda: constraint(logits[0]).square(), logits)


def _ends(residual: ResidualConfig, dim: int, item: int) -> int:
    """A scaled expand keeps what it scales; a learned read the last streams and its coefficients."""
    n = residual.streams
    scaled = FP32 * dim if residual.expand == "scaled" else 0
    return scaled + (item * n * dim + FP32 * (4 * n + 1) if residual.collapse == "read" else 0)
