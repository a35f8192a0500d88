"""The analysis of t_max: every algorithm in every precision after every number of iterations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mhc_lab.analysis.logits import Logits
from mhc_lab.analysis.measures import contraction, gains, gradient_error, quantile, spaced, summary, sums
from mhc_lab.analysis.precision import EXACT, inner, leave, limit, projected, sum_error
from mhc_lab.analysis.recommend import recommendation, smallest, upper_bound
from mhc_lab.analysis.timing import implementation, nanoseconds
from mhc_lab.analysis.trajectory import newton_states, trajectory
from mhc_lab.ops.sinkhorn.algorithms import kronecker, mix_of_permutations
from mhc_lab.ops.sinkhorn.implicit import implicit_backward

GRADIENT_MATRICES = 1024
SURE = 1e-6  # of the sums of the limit
TIMED = (1, 2, 3, 5, 8, 13, 20, 40)  # time is linear in t
SHOWN = TIMED

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What to measure; without `timing` where a step makes H_res once for all tokens."""

    algorithms: Sequence[str]
    precisions: Sequence[str]
    t_max: int = 40
    bound: float = 1.05
    seed: int = 0
    timing: bool = True


def analyse(logits: Logits, settings: Settings) -> dict[str, Any]:
    """Rows (one an algorithm, precision and t), and a recommendation for every algorithm and precision."""
    rows: list[Row] = []
    recommendations: list[Row] = []
    for algorithm in settings.algorithms:
        if algorithm in EXACT:
            continue
        values = logits.warm if algorithm == "warm" else logits.values
        assert values is not None
        truth = _Truth.of(values, settings.seed)
        for precision in settings.precisions:
            found, advice = _series(values, truth, algorithm, precision, logits.convention, settings)
            rows += found
            recommendations.append({"algorithm": algorithm, "precision": precision, **advice})
    layers, tokens, n, _ = logits.values.shape
    notes = [*logits.notes]
    if logits.cold is not None and "warm" in settings.algorithms:
        notes.append(f"on warm's own logits plain needs {_plain_need(logits.cold, settings)} (float32)")
    unsure = max((advice["truth_error"] for advice in recommendations), default=0.0)
    if unsure > SURE:
        notes.append(f"the limit that gradients are held against is itself off by up to {unsure:.1g} in its sums")
    return {
        "rows": rows,
        "recommendations": recommendations,
        "layers": logits.layers,
        "streams": n,
        "tokens": tokens,
        "matrices": layers * tokens,
        "convention": logits.convention,
        "bound": settings.bound,
        "notes": notes,
    }


def _plain_need(logits: Tensor, settings: Settings) -> str:
    """The smallest t_max within the bound, in words."""
    matrices = trajectory(logits, "plain", settings.t_max, "eq9", "float32")
    found = smallest(
        {t: quantile(gains(matrix).worst.numpy()) for t, matrix in enumerate(matrices, start=1)}, settings.bound
    )
    return f"more than {settings.t_max}" if found is None else str(found)


def exact_rows(std: float, layers: int, tokens: int, n: int, settings: Settings) -> Iterator[Row]:
    """One row an exact map and precision, on N(0, std^2) logits of its own count; t = 0, nothing iterates."""
    for algorithm in settings.algorithms:
        if algorithm not in EXACT:
            continue
        count = math.factorial(n) if algorithm == "permutations" else n.bit_length() - 1
        generator = torch.Generator().manual_seed(settings.seed)
        values = std * torch.randn(layers, tokens, count, generator=generator)
        few = spaced(values, max(GRADIENT_MATRICES // layers, 1), dim=1).flatten(0, 1)
        cotangent = torch.randn(len(few), n, n, generator=generator)
        true = _exact_gradient(few.double(), cotangent.double(), algorithm, n, "float64")
        for precision in settings.precisions:
            matrix = _exact(values, algorithm, n, precision)
            found = gains(matrix)
            yield {
                "algorithm": algorithm,
                "precision": precision,
                "t": 0,
                **sums(matrix),
                **_prefixed("forward_gain", summary(found.composite_forward)),
                **_prefixed("backward_gain", summary(found.composite_backward)),
                "gain_q999": quantile(found.worst.numpy()),
                **contraction(matrix),
                **gradient_error(
                    _exact_gradient(few, cotangent, algorithm, n, precision).unsqueeze(-1), true.unsqueeze(-1)
                ),
                "ns_per_matrix": nanoseconds(
                    values.flatten(0, 1), partial(_exact, algorithm=algorithm, n=n, precision=precision)
                ),
                "timed": "torch",
            }


@dataclass(frozen=True)
class _Truth:
    """Some matrices [M, n, n], a random cotangent, and the gradient at the converged fp64 projection."""

    logits: Tensor
    cotangent: Tensor
    gradient: Tensor
    error: float

    @classmethod
    def of(cls, values: Tensor, seed: int) -> _Truth:
        few = spaced(values, max(GRADIENT_MATRICES // len(values), 1), dim=1).flatten(0, 1).contiguous()
        cotangent = torch.randn(few.shape, generator=torch.Generator().manual_seed(seed))
        converged = limit(few)
        return cls(few, cotangent, implicit_backward(cotangent.double(), converged), sum_error(converged))


def _series(
    values: Tensor, truth: _Truth, algorithm: str, precision: str, convention: str, settings: Settings
) -> tuple[list[Row], Row]:
    rows: list[Row] = []
    layers: list[dict[int, float]] = [{} for _ in range(len(values))]
    worst: dict[int, float] = {}
    upper: dict[int, float | None] = {}
    last: Tensor | None = None
    measured: Row = {}
    single: list[float] = []
    gradients = _gradients(truth, algorithm, convention, precision, settings.t_max)
    matrices = trajectory(values, algorithm, settings.t_max, convention, precision)
    for t, (matrix, gradient) in enumerate(zip(matrices, gradients, strict=True), start=1):
        if last is None or not torch.equal(last, matrix):  # what no longer changes measures the same
            found = gains(matrix)
            single = [quantile(layer) for layer in found.single.numpy()]
            bound = upper_bound(found.worst.numpy())
            measured = {
                **sums(matrix),
                **_prefixed("forward_gain", summary(found.composite_forward)),
                **_prefixed("backward_gain", summary(found.composite_backward)),
                "gain_q999": quantile(found.worst.numpy()),
                "gain_q999_upper": bound,
                **contraction(matrix),
            }
            last = matrix
        worst[t], upper[t] = measured["gain_q999"], measured["gain_q999_upper"]
        for layer, gain in zip(layers, single, strict=True):
            layer[t] = gain
        row: Row = {"algorithm": algorithm, "precision": precision, "t": t, **measured}
        row |= gradient_error(gradient, truth.gradient)
        if settings.timing and t in TIMED:
            row["ns_per_matrix"] = nanoseconds(
                values.flatten(0, 1),
                partial(projected, algorithm=algorithm, t_max=t, convention=convention, precision=precision),
            )
            row["timed"] = implementation(algorithm, precision)
        rows.append(row)
    advice = recommendation(worst, upper, layers, settings.bound)
    there = rows[(advice["t_max"] or settings.t_max) - 1]
    return rows, advice | {
        "gradient_error_median": there["gradient_error_median"],
        "truth_error": truth.error,
    }


def _gradients(truth: _Truth, algorithm: str, convention: str, precision: str, t_max: int) -> Iterator[Tensor]:
    """[M, n, n] for t = 1 ... t_max: the gradient that training would get."""
    if algorithm == "newton":  # its backward sees the result alone, so that the iteration can go on
        given = leave(truth.cotangent, precision)
        for matrix in newton_states(inner(truth.logits, algorithm, precision), t_max):
            yield leave(implicit_backward(given.to(matrix.dtype), matrix), precision)
        return
    for t in range(1, t_max + 1):
        leaf = truth.logits.clone().requires_grad_()
        out = projected(leaf, algorithm, t, convention, precision)
        (found,) = torch.autograd.grad(out, leaf, truth.cotangent.to(out.dtype))
        yield found


def _exact(values: Tensor, algorithm: str, n: int, precision: str) -> Tensor:
    given = {"float64": values, "float32": values}.get(precision, values.bfloat16())
    if precision == "mixed":
        given = given.float()
    matrix = mix_of_permutations(given, n) if algorithm == "permutations" else kronecker(given)
    return matrix.bfloat16() if precision == "mixed" else matrix


def _exact_gradient(values: Tensor, cotangent: Tensor, algorithm: str, n: int, precision: str) -> Tensor:
    """[M, k], as rows of one matrix each."""
    leaf = values.clone().requires_grad_()
    out = _exact(leaf, algorithm, n, precision)
    (found,) = torch.autograd.grad(out, leaf, cotangent.to(out.dtype))
    return found


def _prefixed(prefix: str, values: dict[str, float]) -> Row:
    return {f"{prefix}_{name}": value for name, value in values.items()}
