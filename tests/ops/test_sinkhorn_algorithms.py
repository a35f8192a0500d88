"""The algorithms reach one limit, at their own pace; the exact maps need none."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from mhc_lab.ops.sinkhorn import algorithms
from mhc_lab.ops.sinkhorn.algorithms import ALGORITHMS, kronecker, mix_of_permutations, project, warm_shift


def draw(n: int, std: float, matrices: int = 200) -> Tensor:
    torch.manual_seed(n)
    return torch.randn(matrices, n, n, dtype=torch.float64) * std


def column_error(matrix: Tensor) -> Tensor:
    return (matrix.double().sum(-2) - 1).abs().amax(-1)


def assert_doubly_stochastic(matrix: Tensor, atol: float) -> None:
    assert matrix.min() >= 0
    for axis in (-1, -2):
        assert (matrix.sum(axis) - 1).abs().max() <= atol


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_all_reach_the_limit(algorithm: str, n: int) -> None:
    logits = draw(n, 1.0)
    limit = project(logits, "plain", 3000)
    torch.testing.assert_close(project(logits, algorithm, 300), limit, rtol=0, atol=1e-9)
    torch.testing.assert_close(project(logits.float(), algorithm, 300).double(), limit, rtol=0, atol=2e-6)


@pytest.mark.parametrize("std", [1.0, 3.0])
def test_log_is_plain_on_logarithms(std: float) -> None:
    for t_max in (1, 2, 20):
        torch.testing.assert_close(
            project(draw(4, std), "log", t_max), project(draw(4, std), "plain", t_max), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_is_that_of_the_input(algorithm: str, dtype: torch.dtype) -> None:
    matrix = project(draw(4, 1.0).to(dtype), algorithm, 20)
    assert matrix.dtype == dtype
    assert_doubly_stochastic(matrix.double(), 40 * torch.finfo(dtype).eps + 1e-3)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_gradient_is_that_of_finite_differences(algorithm: str) -> None:
    """Newton's is that of the limit: t_max = 12 is there, whatever the matrix."""
    logits = draw(3, 1.0, matrices=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: project(x, algorithm, 12), logits)


def test_the_gradients_of_the_exact_maps() -> None:
    torch.manual_seed(0)
    mixed = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: mix_of_permutations(x, 3), mixed)
    assert torch.autograd.gradcheck(kronecker, factors)


@pytest.mark.parametrize(("std", "t_max"), [(1.0, 5), (3.0, 20), (5.0, 40)])
def test_newton_converges(std: float, t_max: int) -> None:
    for logits in (draw(4, std, 2000), draw(8, std, 500)):
        assert column_error(project(logits.float(), "newton", t_max)).max() < 2e-6
        assert column_error(project(logits, "newton", t_max)).quantile(0.99) < 1e-10


@pytest.mark.parametrize("std", [2.0, 3.0])
def test_overrelaxed_is_nearer_than_plain(std: float) -> None:
    """At N(0, 1) it is not, in the median: both are below fp32's rounding there."""
    logits = draw(4, std, 4000)
    plain, relaxed = (column_error(project(logits, name, 20)) for name in ("plain", "overrelaxed"))
    assert relaxed.median() < 1e-2 * plain.median()
    assert relaxed.quantile(0.999) < plain.quantile(0.999)


@pytest.mark.parametrize("std", [1.0, 5.0, 8.0])
def test_overrelaxed_does_not_diverge(std: float) -> None:
    logits = draw(4, std, 2000)
    errors = [column_error(project(logits, "overrelaxed", t)).mean() for t in (5, 20, 80, 320)]
    assert all(late <= early + 1e-12 for early, late in itertools.pairwise(errors))
    assert column_error(project(logits, "overrelaxed", 320)).max() < 0.05


def test_relaxing_never_leads_away_from_the_limit() -> None:
    """The dual objective gains x - x' - (log of the divisor) by a division that leaves the sum x' of x."""
    total = torch.logspace(-40, 10, 5001, dtype=torch.float64)
    divisor = algorithms._relaxed(total.log(), algorithms.OMEGA)
    gain = total - total / divisor.exp() - divisor
    assert gain.min() >= -1e-12


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_a_mix_of_permutations_is_exact(n: int) -> None:
    torch.manual_seed(n)
    logits = 5 * torch.randn(300, math.factorial(n))
    assert_doubly_stochastic(mix_of_permutations(logits, n), 1e-6)
    first = torch.full((math.factorial(n),), -200.0)
    first[0] = 0.0
    torch.testing.assert_close(mix_of_permutations(first, n), torch.eye(n))


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4])
def test_a_kronecker_product_is_exact(k: int) -> None:
    torch.manual_seed(k)
    logits = 5 * torch.randn(300, k)
    found = kronecker(logits)
    assert_doubly_stochastic(found, 1e-6)
    wanted = torch.ones(1, 1)
    for p in torch.sigmoid(logits[0]):
        wanted = torch.kron(wanted, torch.stack([torch.stack([p, 1 - p]), torch.stack([1 - p, p])]))
    torch.testing.assert_close(found[0], wanted)


@pytest.mark.parametrize("std", [1.0, 3.0, 5.0])
def test_from_the_shift_of_a_bias_one_iteration_has_converged(std: float) -> None:
    for bias in draw(4, std, 20).float():
        shift = warm_shift(bias)
        assert shift.dtype == bias.dtype
        assert column_error(project(bias + shift, "plain", 1)) < 1e-6


def test_the_shift_leaves_the_limit() -> None:
    bias, moved = draw(4, 2.0, 1)[0], draw(4, 0.3)
    shifted = project(moved + bias + warm_shift(bias), "newton", 60)
    torch.testing.assert_close(shifted, project(moved + bias, "newton", 60), rtol=0, atol=1e-9)
