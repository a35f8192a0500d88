"""The gradient of Sinkhorn's limit, from the limit alone: one small linear system a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

# Keeps the system solvable where P falls apart into blocks; what it moves there has no weight in the gradient.
_RIDGE = 1e-14


def implicit_backward(grad: Tensor, out: Tensor) -> Tensor:
    """The gradient of the converged iteration at P = `out`, by the implicit function theorem.

    P stays doubly stochastic when the logits move, so the gradient is P * (G - a 1^T - 1 b^T) with a and b such
    that its row and column sums vanish: diag(r) a + P b = (P * G) 1 and P^T a + diag(c) b = (P * G)^T 1, r and c the
    sums of P as they are. One of these 2n equations is spare (b_n = 0); a is eliminated by hand. Where t_max has
    not converged this is not the gradient of `sinkhorn`: use it for large t_max.

    Args:
        grad: [..., n, n], the cotangent G.
        out: [..., n, n], a doubly stochastic P.

    Returns:
        [..., n, n] in the dtype of `out`; solved in fp64.
    """
    matrix, cotangent = out.double(), grad.double()
    pulled = matrix * cotangent
    rows, columns = matrix.sum(-1), matrix.sum(-2)  # [..., n]
    kept = matrix[..., :-1]  # [..., n, n - 1]
    weighted = kept / rows.unsqueeze(-1)
    row_target, column_target = pulled.sum(-1), pulled.sum(-2)
    system = torch.diag_embed(columns[..., :-1] + _RIDGE) - kept.mT @ weighted
    target = column_target[..., :-1] - (weighted.mT @ row_target.unsqueeze(-1)).squeeze(-1)
    # solve_ex: solve would wait for the device to say whether a matrix was singular.
    b = torch.linalg.solve_ex(system, target).result  # [..., n - 1]
    a = (row_target - (kept @ b.unsqueeze(-1)).squeeze(-1)) / rows
    b = torch.nn.functional.pad(b, (0, 1))
    result: Tensor = (matrix * (cotangent - a.unsqueeze(-1) - b.unsqueeze(-2))).to(out.dtype)
    return result
