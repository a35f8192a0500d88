"""What single constraints do beside the laws that all keep (tests/testing)."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
import torch
from torch import Tensor

from mhc_lab.config.schema import ResidualConfig, Sinkhorn
from mhc_lab.residual import registry
from mhc_lab.residual.constraints.base import Constraint
from mhc_lab.residual.factory import build

FORMS = [name for name in get_args(Sinkhorn) if name != "plain"]


def make(name: str, n: int, form: str = "eq9", t_max: int = 20, diagonal: float = 0.95) -> Constraint:
    """`form`: a convention of plain Sinkhorn-Knopp, or another algorithm."""
    config = ResidualConfig(streams=n, t_max=t_max, res_diagonal=diagonal)
    if form in FORMS:
        config = dataclasses.replace(config, sinkhorn=form)
    else:
        config = dataclasses.replace(config, convention=form)
    cls = registry.resolve(registry.constraint(name).target).under(config)
    if not cls.accepts(n):
        pytest.skip(f"{name} {form} is not defined for n = {n}")
    built = cls(n, config)
    assert isinstance(built, Constraint)
    return built


def draw(constraint: Constraint, std: float, tokens: int = 60) -> Tensor:
    torch.manual_seed(0)
    return (torch.randn(tokens, constraint.logits, dtype=torch.float64) * std).clamp(-100, 100)


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


def test_a_warm_start_is_where_the_bias_has_converged() -> None:
    for std in (0.5, 3.0):
        constraint = make("doubly_stochastic", 4, "warm", t_max=1)
        bias = draw(constraint, std, tokens=1)[0]
        started = constraint(constraint.rebased(bias))
        assert (started.sum(-2) - 1).abs().max() < 1e-6
        limit = make("doubly_stochastic", 4, "newton", t_max=60)(bias)
        torch.testing.assert_close(started, limit, rtol=0, atol=1e-6)


@pytest.mark.parametrize("h_res", ["dynamic", "static"])
def test_a_warm_connection_is_nearer_to_the_limit(h_res: str) -> None:
    """With one iteration, from biases far from birth: the connection starts the iteration where they have converged."""
    errors = {}
    for sinkhorn in ("plain", "warm"):
        connection = build("mhc", 8, sinkhorn=sinkhorn, t_max=1, h_res=h_res)
        torch.manual_seed(0)
        with torch.no_grad():
            connection.get_parameter("b_res").normal_(0.0, 2.0)
            matrix = connection.mappings(torch.randn(6, 4, 8)).h_res
        assert matrix is not None
        errors[sinkhorn] = float((matrix.sum(-2) - 1).abs().max())
    assert errors["warm"] < 0.2 * errors["plain"]


def test_rotations_are_orthogonal_both_ways() -> None:
    constraint = make("orthogonal", 4)
    matrix = constraint(draw(constraint, 3.0))
    torch.testing.assert_close(matrix @ matrix.transpose(-1, -2), torch.eye(4).double().expand(60, 4, 4))
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(60).double())
