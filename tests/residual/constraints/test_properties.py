"""One property suite over every registered constraint, forward and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mhc_lab.config.schema import ResidualConfig
from mhc_lab.residual import registry
from mhc_lab.residual.constraints.base import Constraint

STREAMS = [1, 2, 3, 4, 8]
CASES = [
    pytest.param(name, convention, id=f"{name}-{convention}")
    for name in registry.constraints()
    for convention in (("eq9", "v4") if "convention" in registry.constraint(name).fields else ("eq9",))
]


def make(name: str, n: int, convention: str = "eq9", t_max: int = 20, diagonal: float = 0.95) -> Constraint:
    cls = registry.resolve(registry.constraint(name).target)
    if not cls.accepts(n):
        pytest.skip(f"{name} is not defined for n = {n}")
    return cls(n, ResidualConfig(t_max=t_max, convention=convention, res_diagonal=diagonal))


def draw(constraint: Constraint, std: float, tokens: int = 60) -> Tensor:
    torch.manual_seed(0)
    return (torch.randn(tokens, constraint.logits, dtype=torch.float64) * std).clamp(-100, 100)


def value_and_gradient(constraint: Constraint, logits: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    out = constraint(leaf)
    weights = torch.sin(torch.arange(out.numel(), dtype=torch.float64)).reshape(out.shape)
    (out * weights.to(out.dtype)).sum().backward()
    assert leaf.grad is not None
    return out.detach(), leaf.grad


@pytest.mark.parametrize("n", STREAMS)
@pytest.mark.parametrize("std", [0.5, 3.0, 100.0])
@pytest.mark.parametrize(("name", "convention"), CASES)
def test_fp32_is_finite_and_equal_to_fp64(name: str, convention: str, std: float, n: int) -> None:
    for t_max in (1, 5, 40):
        constraint = make(name, n, convention, t_max)
        logits = draw(constraint, std)
        wide, wide_grad = value_and_gradient(constraint, logits)
        narrow, narrow_grad = value_and_gradient(constraint, logits.float())
        assert narrow.dtype == torch.float32
        assert torch.isfinite(narrow).all() and torch.isfinite(narrow_grad).all()
        torch.testing.assert_close(narrow.double(), wide, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(narrow_grad.double(), wide_grad, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("n", STREAMS)
@pytest.mark.parametrize("std", [0.5, 3.0, 100.0])
@pytest.mark.parametrize(("name", "convention"), CASES)
def test_promises_hold(name: str, convention: str, std: float, n: int) -> None:
    for t_max in (1, 20, 40):
        constraint = make(name, n, convention, t_max)
        matrix = constraint(draw(constraint, std).float()).double()
        if "rows" in constraint.promises and convention == "eq9":
            assert (matrix.sum(-1) - 1).abs().max() <= 1e-6
        if "columns" in constraint.promises:
            assert (matrix.sum(-2) - 1).abs().max() <= 1e-6
        if "non_negative" in constraint.promises:
            assert matrix.min() >= 0
        if "contraction" in constraint.promises:
            assert torch.linalg.matrix_norm(matrix, 2).max() <= 1 + 2e-5


@pytest.mark.parametrize(("std", "slack"), [(0.5, 3e-6), (3.0, 1e-3)])
def test_v4_rows_fall_short_by_its_eps(std: float, slack: float) -> None:
    """V4 divides by (sum + 1e-6): a row of sum s ends at s / (s + 1e-6), never above 1."""
    constraint = make("doubly_stochastic", 4, "v4")
    rows = constraint(draw(constraint, std)).sum(-1)
    assert rows.max() < 1
    assert 1 - rows.min() < slack


@pytest.mark.parametrize("n", [2, 4, 8])
@pytest.mark.parametrize("std", [0.5, 3.0, 8.0])
def test_column_error_never_grows_with_t_max(n: int, std: float) -> None:
    logits = draw(make("doubly_stochastic", n), std)
    errors = torch.stack(
        [(make("doubly_stochastic", n, t_max=t)(logits).sum(-2) - 1).abs().sum(-1) for t in (1, 2, 3, 5, 8, 13, 20, 40)]
    )
    assert (errors[1:] <= errors[:-1] + 1e-12).all()
    assert errors[-1].max() < errors[0].max()


@pytest.mark.parametrize("diagonal", [0.5, 0.95])
@pytest.mark.parametrize("n", [2, 4, 16])
@pytest.mark.parametrize(("name", "convention"), CASES)
def test_birth_gives_the_wanted_diagonal(name: str, convention: str, n: int, diagonal: float) -> None:
    constraint = make(name, n, convention, diagonal=diagonal)
    matrix = constraint(constraint.birth())
    wanted = diagonal if "res_diagonal" in registry.constraint(name).fields else 1.0
    torch.testing.assert_close(matrix.diagonal(), torch.full((n,), wanted), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("name", "convention"), CASES)
def test_one_stream_is_left_alone_at_birth(name: str, convention: str) -> None:
    constraint = make(name, 1, convention)
    if constraint.logits:
        torch.testing.assert_close(constraint(constraint.birth()), torch.ones(1, 1), rtol=0, atol=3e-6)


def test_rotations_are_orthogonal_both_ways() -> None:
    constraint = make("orthogonal", 4)
    matrix = constraint(draw(constraint, 3.0))
    torch.testing.assert_close(matrix @ matrix.transpose(-1, -2), torch.eye(4).double().expand(60, 4, 4))
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(60).double())
