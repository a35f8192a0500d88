"""What is asked of H_res after t iterations: sums, gains, how fast streams contract, and its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

QUANTILE = 0.999
CONTRACTED_TOKENS = 64  # of which singular values are taken: those of all would cost more than all else
SINGULAR_MATRICES = 256  # of single layers


@dataclass(frozen=True)
class Gains:
    """Amax gains [L, T] of single layers, [T] of the composite (largest over start layers); fp64, forward and backward.

    `worst` is the larger of the two composite ones, token by token: what a bound is held against.
    """

    forward: Tensor
    backward: Tensor
    composite_forward: Tensor
    composite_backward: Tensor

    @property
    def worst(self) -> Tensor:
        return torch.maximum(self.composite_forward, self.composite_backward)

    @property
    def single(self) -> Tensor:
        """[L, T]: the larger of a layer's own forward and backward gain."""
        return torch.maximum(self.forward, self.backward)


def gains(matrices: Tensor) -> Gains:
    """[L, T, n, n] -> gains of every token; products in fp64, deepest layer on the left (mHC section 5)."""
    values = matrices.permute(0, 2, 3, 1).double().contiguous()  # [L, n, n, T]: sums run along long rows
    rows, columns = values.sum(2).abs().amax(1), values.sum(1).abs().amax(1)  # [L, T]
    product = values[-1]
    forward, backward = rows[-1], columns[-1]
    for matrix in reversed(values[:-1].unbind(0)):
        product = _times(product, matrix)
        forward = torch.maximum(forward, product.sum(1).abs().amax(0))
        backward = torch.maximum(backward, product.sum(0).abs().amax(0))
    return Gains(rows, columns, forward, backward)


def summary(values: Tensor) -> dict[str, float]:
    """Mean, 99.9 % quantile (the order statistic at ceil(.999 N)) and maximum."""
    flat = values.detach().double().flatten().numpy()
    return {"mean": float(flat.mean()), "q999": quantile(flat), "max": float(flat.max())}


def quantile(flat: Any, q: float = QUANTILE) -> float:
    """The smallest value that at least a share q of the values do not exceed; NaN where there is a NaN."""
    place = max(int(np.ceil(q * flat.size - 1e-9)) - 1, 0)
    return float(np.nan) if np.isnan(flat).any() else float(np.partition(flat, place)[place])


def sums(matrices: Tensor) -> dict[str, float]:
    """[..., n, n] -> |sum - 1| over matrices and rows, and over matrices and columns; sums in fp64."""
    values = matrices.double()
    rows, columns = summary((values.sum(-1) - 1).abs()), summary((values.sum(-2) - 1).abs())
    return {f"row_error_{k}": v for k, v in rows.items()} | {f"column_error_{k}": v for k, v in columns.items()}


def contraction(matrices: Tensor) -> dict[str, float]:
    """[L, T, n, n] -> how differences between streams shrink, on CONTRACTED_TOKENS tokens from all over.

    sigma2: second singular value of H_res, mean over SINGULAR_MATRICES. contraction: norm of H_res restricted to the
    complement of ones, Q^T H Q, mean over as many. composite_contraction: norm of the product of the L restrictions,
    median; it is the composite's own restriction where rows sum to 1, without the rounding that hides numbers below
    1e-16 in the composite. composite_sigma2: second singular value of the composite from the first layer to the last,
    median. All are NaN where a matrix is not finite.
    """
    layers, _, n, _ = matrices.shape
    names = ("sigma2", "contraction", "composite_contraction", "composite_sigma2")
    if n == 1:
        return dict.fromkeys(names, 0.0)
    values = spaced(matrices, CONTRACTED_TOKENS, dim=1).double().contiguous()
    if not values.isfinite().all():
        return dict.fromkeys(names, float("nan"))
    few = spaced(values, max(SINGULAR_MATRICES // layers, 1), dim=1)
    basis = torch.linalg.qr(torch.cat([torch.ones(n, 1), torch.eye(n)[:, 1:]], dim=1).double())[0][:, 1:]  # [n, n - 1]
    restricted = basis.T @ values @ basis
    alone = basis.T @ few @ basis
    product, whole = restricted[-1], values[-1]
    scale = torch.zeros(product.shape[0], dtype=torch.float64)
    for inner, outer in zip(reversed(restricted[:-1].unbind(0)), reversed(values[:-1].unbind(0)), strict=True):
        product, whole = product @ inner, whole @ outer
        size = product.flatten(1).norm(dim=-1).clamp_min(1e-300)
        product, scale = product / size[:, None, None], scale + size.log()  # hundreds of layers reach below fp64
    return {
        "sigma2": float(torch.linalg.svdvals(few)[..., 1].mean()),
        "contraction": float(torch.linalg.matrix_norm(alone, 2).mean()),
        "composite_contraction": float((torch.linalg.matrix_norm(product, 2).log() + scale).exp().median()),
        "composite_sigma2": float(torch.linalg.svdvals(whole)[..., 1].median()),
    }


def spaced(values: Tensor, count: int, dim: int) -> Tensor:
    """At most `count` slices along `dim`, evenly from the first to the last."""
    total = values.shape[dim]
    return values.index_select(dim, torch.linspace(0, total - 1, min(count, total), device=values.device).long())


def gradient_error(found: Tensor, true: Tensor) -> dict[str, float]:
    """[..., n, n] twice -> |found - true| / |true| (Frobenius) by matrix: median and 99.9 % quantile."""
    found, true = found.double().flatten(-2), true.double().flatten(-2)
    relative = ((found - true).norm(dim=-1) / true.norm(dim=-1).clamp_min(1e-300)).flatten()
    return {
        "gradient_error_median": float(relative.median()),
        "gradient_error_q999": quantile(relative.numpy()),
    }


def _times(left: Tensor, right: Tensor) -> Tensor:
    """[n, n, T] x [n, n, T] -> [n, n, T], token by token."""
    out = left[:, :1] * right[:1]
    for k in range(1, left.shape[1]):
        out.addcmul_(left[:, k : k + 1], right[k : k + 1])
    return out
