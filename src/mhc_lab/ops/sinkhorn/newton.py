"""Newton's method on the dual of entropic optimal transport, whose solution is Sinkhorn's limit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mhc_lab.ops import check
from mhc_lab.ops.operation import operation
from mhc_lab.ops.sinkhorn.implicit import implicit_backward

_WARM_STEPS = 24  # after as many, all of 20,000 biases N(0, 5^2) for each of n = 2, 4 and 8 had converged
_WARM_ERROR = 1e-14


def newton(logits: Tensor, t_max: int) -> Tensor:
    """[..., n, n] -> [..., n, n]: t_max Newton steps on the 2n - 1 scalings; rows exact, columns quadratically.

    Rows are divided exactly, which leaves n - 1 column scalings and a Laplacian to solve (`_step`). Each matrix
    takes the Newton step or a Sinkhorn iteration, whichever leaves the smaller column error: far from the limit
    Newton may overshoot. In bf16 and fp16 the system alone is solved in fp32 (there is no solver) and rounded.

    The backward is the gradient of the limit (`implicit.py`), right only where t_max has converged.
    """
    out: Tensor = _Newton.apply(logits, t_max)  # type: ignore[no-untyped-call]
    return out


class _Newton(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, t_max: int) -> Tensor:
        scaled = logits - logits.logsumexp(-2, keepdim=True)
        for _ in range(t_max):
            scaled = _step(scaled)
        return torch.softmax(scaled, dim=-1)

    @staticmethod
    def setup_context(ctx: Any, _: tuple[Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return implicit_backward(grad, out), None


def _step(scaled: Tensor) -> Tensor:
    """[..., n, n] logits whose columns are scaled -> the same, nearer to the limit once rows are divided.

    With rows that sum to 1, Newton's column scalings d solve (diag(c) - P^T P) d = 1 - c, c the column sums. The
    matrix is the Laplacian of the graph with weights P^T P: made from these alone, nothing cancels where P is near
    a permutation. d is free up to a constant, so its last entry is 0.
    """
    log_matrix = torch.log_softmax(scaled, dim=-1)
    log_columns = log_matrix.logsumexp(-2, keepdim=True)  # [..., 1, n]: a column sum itself may be too small to store
    sinkhorn = scaled - log_columns
    matrix, columns = log_matrix.exp(), log_columns.exp()
    wide = torch.promote_types(scaled.dtype, torch.float32)
    weights = matrix.to(wide).mT @ matrix.to(wide)
    weights = weights - torch.diag_embed(weights.diagonal(dim1=-2, dim2=-1))
    laplacian = torch.diag_embed(weights.sum(-1)) - weights
    target = (1 - columns).to(wide).squeeze(-2)[..., :-1]
    # solve_ex: solve would raise for one singular matrix of many, and wait for the device to find out.
    found = torch.linalg.solve_ex(laplacian[..., :-1, :-1], target).result
    shift = torch.nn.functional.pad(found, (0, 1)).to(scaled.dtype).unsqueeze(-2)
    stepped = scaled + shift
    better = _column_error(stepped) < _column_error(sinkhorn)  # False for NaN and inf
    return torch.where(better[..., None, None], stepped, sinkhorn)


def _column_error(scaled: Tensor) -> Tensor:
    """[..., n, n] -> [...]: the sum of |column sum - 1| once rows are divided."""
    return (torch.softmax(scaled, dim=-1).sum(-2) - 1).abs().sum(-1)


def warm_shift(bias: Tensor) -> Tensor:
    """Where to start the iteration for logits near `bias`: row and column log-scalings of its converged projection.

    Added to logits that are `bias` plus something small, it leaves Sinkhorn's limit as it is (which no row or column
    scaling changes) and starts the iteration near it. It carries no gradient: that of the truncated iteration with
    respect to the bias through the shift is left out, and vanishes as t_max converges.

    Args:
        bias: [n, n] logits.

    Returns:
        [n, n], f 1^T + 1 g^T, in the dtype of `bias`; found in fp64.
    """
    shift: Tensor = _warm_shift(bias.detach())
    return shift


# An operation: how many steps it takes hangs on the values, which a compiled graph cannot follow.
@operation(check.warm_shift)
def _warm_shift(bias: Tensor) -> Tensor:
    logits = bias.double()
    scaled = logits - logits.logsumexp(-2, keepdim=True)
    for _ in range(_WARM_STEPS):
        # Only where asking costs no wait for the device.
        if scaled.device.type == "cpu" and float(_column_error(scaled)) < _WARM_ERROR:
            break
        scaled = _step(scaled)
    return (torch.log_softmax(scaled, dim=-1) - logits).to(bias.dtype)


@_warm_shift.register_fake
def _(bias: Tensor) -> Tensor:
    return torch.empty_like(bias)
