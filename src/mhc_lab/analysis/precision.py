"""The number formats in which Sinkhorn may run, and projecting in one of them."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_lab import ops
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
    """The iteration's result as the streams get it: fp32, or rounded to bf16 in the other precisions."""
    return matrix.float() if precision == "float32" else matrix.bfloat16()


def inner(logits: Tensor, algorithm: str, precision: str) -> Tensor:
    """`enter`, in the dtype that training iterates in: newton's is fp64 (`constraints.doubly_stochastic.Newton`)."""
    given = enter(logits, precision)
    return given.double() if algorithm == "newton" and precision != "bfloat16" else given


def convention_of(algorithm: str, convention: str) -> str:
    """The convention an algorithm runs under: v4's eps has a meaning for Sinkhorn's divisions alone."""
    return convention if algorithm in ("plain", "warm") else "eq9"


def projected(logits: Tensor, algorithm: str, t_max: int, convention: str, precision: str) -> Tensor:
    """[..., n, n] logits -> [..., n, n] after t_max iterations in a precision; differentiable.

    `algorithm` is one of ITERATED; warm iterates as plain does, the caller has shifted the logits (`warm_shift`).
    """
    convention = convention_of(algorithm, convention)
    given = inner(logits, algorithm, precision)
    if algorithm not in ("plain", "warm"):
        return leave(project(given, algorithm, t_max, convention), precision)
    if precision == "bfloat16":
        return leave(project(given, "plain", t_max, convention), precision)
    # As in training; divisions in fp32 alone would overflow on logits that are far apart.
    return leave(ops.sinkhorn(given, t_max, convention), precision)


def limit(logits: Tensor) -> Tensor:
    """[..., n, n] -> [..., n, n] fp64: where all algorithms go, by Newton's method to about 1e-12."""
    return project(logits.detach().double(), "newton", 60)


def sum_error(matrix: Tensor) -> float:
    """[..., n, n] -> the largest |row or column sum - 1|: how well `limit` has converged."""
    rows, columns = (matrix.sum(-1) - 1).abs(), (matrix.sum(-2) - 1).abs()
    return float(torch.maximum(rows, columns).max())
