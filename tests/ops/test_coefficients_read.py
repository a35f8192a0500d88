"""coefficients_read is coefficients and read: values and all gradients, in every backend and dtype."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mhc_lab import ops
from mhc_lab.ops import backends

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.bfloat16: 3e-2}  # of the largest entry


def case(n: int, dim: int, tokens: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    width = 2 * n + n * n
    shapes = ((*tokens, n, dim), (n * dim, width), (width,), (width,))
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def run(function, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    hidden, values = function(*leaves)
    weights = torch.linspace(-1, 1, values.shape[-1])
    found = torch.autograd.grad(hidden.double().square().sum() + (values * weights).sum(), leaves)
    return [hidden.detach(), values.detach(), *found]


def fused(streams: Tensor, *projection: Tensor) -> tuple[Tensor, Tensor]:
    return ops.coefficients_read(streams, *projection, post=streams.shape[-2], read_eps=1e-6, t_max=5)


def parts(streams: Tensor, *projection: Tensor) -> tuple[Tensor, Tensor]:
    n = streams.shape[-2]
    values = ops.coefficients(streams, *projection, pre=n, post=n, read_eps=1e-6, t_max=5)
    return ops.read(streams, values[..., :n]), values


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [(4, 16, (2, 35)), (3, 5, (150,)), (1, 8, (3,)), (8, 6, ()), (2, 4, (0,))], ids=str)
@pytest.mark.usefixtures("backend")
def test_values_and_gradients_are_those_of_the_parts(shape, dtype: torch.dtype) -> None:
    inputs = case(*shape)
    inputs[0] = inputs[0].to(dtype)
    found = run(fused, inputs if dtype == torch.float64 else [inputs[0], *(x.float() for x in inputs[1:])])
    with backends.use("reference"):
        expected = run(parts, [x.double() for x in inputs])
    for one, other in zip(found, expected, strict=True):
        scale = other.abs().max().clamp_min(1e-3) if other.numel() else 1.0
        torch.testing.assert_close(one.double() / scale, other / scale, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.usefixtures("backend")
def test_one_of_the_outputs_is_enough() -> None:
    streams, *projection = (x.requires_grad_() for x in case(4, 8, (5,)))
    for index in range(2):
        (one,) = torch.autograd.grad(fused(streams, *projection)[index].square().sum(), [streams])
        (other,) = torch.autograd.grad(parts(streams, *projection)[index].square().sum(), [streams])
        torch.testing.assert_close(one, other)
