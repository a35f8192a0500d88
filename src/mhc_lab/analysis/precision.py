"""The number formats in which Sinkhorn may run, and projecting in one of them."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_lab.ops.sinkhorn.algorithms import project

PRECISIONS: tuple[str, ...] = ("float32", "bfloat16", "mixed")
ITERATED: tuple[str, ...] = ("plain", "log", "overrelaxed", "newton", "warm")
EXACT: tuple[str, ...] = ("permutations", "kronecker")


def enter(logits: Tensor, precision: str) -> Tensor:
    """fp32 logits as the iteration gets them: mixed rounds them to bf16 and goes on in fp32."""
    assert precision in PRECISIONS, precision
    if precision == "float32":
        return logits
    rounded = logits.bfloat16()
    return rounded if precision == "bfloat16" else rounded.float()


def leave(matrix: Tensor, precision: str) -> Tensor:
    """The iteration's result as the streams get it: rounded to bf16 unless the precision is float32."""
    return matrix if precision == "float32" else matrix.bfloat16()


def convention_of(algorithm: str, convention: str) -> str:
    """The convention an algorithm runs under: v4's eps has a meaning for Sinkhorn's divisions alone."""
    return convention if algorithm in ("plain", "warm") else "eq9"


def projected(logits: Tensor, algorithm: str, t_max: int, convention: str, precision: str) -> Tensor:
    """[..., n, n] logits -> [..., n, n] after t_max iterations in a precision; differentiable.

    `algorithm` is one of ITERATED; warm iterates as plain does, the caller has shifted the logits (`warm_shift`).
    """
    own = "plain" if algorithm == "warm" else algorithm
    matrix = project(enter(logits, precision), own, t_max, convention_of(algorithm, convention))
    return leave(matrix, precision)


def limit(logits: Tensor) -> Tensor:
    """[..., n, n] -> [..., n, n] fp64: where all algorithms go, by Newton's method to about 1e-12."""
    return project(logits.detach().double(), "newton", 60)


def sum_error(matrix: Tensor) -> float:
    """[..., n, n] -> the largest |row or column sum - 1|: how well `limit` has converged."""
    rows, columns = (matrix.sum(-1) - 1).abs(), (matrix.sum(-2) - 1).abs()
    return float(torch.maximum(rows, columns).max())
