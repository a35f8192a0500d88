"""Maps onto doubly stochastic matrices that hold exactly and iterate nothing."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def permutations(n: int) -> tuple[tuple[int, ...], ...]:
    """All n! permutations in lexicographic order, I first: row i of P_k has its 1 at column permutations(n)[k][i]."""
    return tuple(itertools.permutations(range(n)))


def mix_of_permutations(logits: Tensor, n: int) -> Tensor:
    """sum_k softmax(logits)_k P_k over all n! permutation matrices (mHC-lite, arXiv 2601.05732).

    Reaches every doubly stochastic matrix with positive entries (Birkhoff-von Neumann).

    Args:
        logits: [..., n!], any float dtype.
        n: streams; n! logits are many from n = 6 on.

    Returns:
        [..., n, n] in the dtype of `logits`; rows and columns sum to 1 to rounding (on a GPU where matmul may use
        TF32, to the rounding of that).
    """
    assert logits.shape[-1] == math.factorial(n), (logits.shape, n)
    table = torch.nn.functional.one_hot(torch.tensor(permutations(n), device=logits.device), n)  # [n!, n, n]
    mixed = torch.softmax(logits, dim=-1) @ table.to(logits.dtype).flatten(1)
    return mixed.reshape(*logits.shape[:-1], n, n)


def kronecker(logits: Tensor) -> Tensor:
    """The Kronecker product of k factors [[p, 1 - p], [1 - p, p]], p = sigmoid(logit) (KromHC, arXiv 2601.21579).

    Args:
        logits: [..., k], any float dtype; the first factor is the outermost.

    Returns:
        [..., 2^k, 2^k] in the dtype of `logits`; rows and columns sum to 1 to rounding. With k = 0: 1.
    """
    lead = logits.shape[:-1]
    matrix = logits.new_ones(*lead, 1, 1)
    stay, swap = torch.sigmoid(logits), torch.sigmoid(-logits)  # 1 - sigmoid(x) would round small values away
    for k in range(logits.shape[-1]):
        n = matrix.shape[-1]
        rows = torch.stack([stay[..., k], swap[..., k], swap[..., k], stay[..., k]], dim=-1)
        factor = rows.reshape(*lead, 1, 2, 1, 2)
        matrix = (matrix.reshape(*lead, n, 1, n, 1) * factor).reshape(*lead, 2 * n, 2 * n)
    return matrix
