"""The Sinkhorn op against its fp64 reference, value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mhc_lab import ops
from mhc_lab.ops.sinkhorn import sinkhorn_reference

CONVENTIONS = ("eq9", "v4")


def value_and_gradient(function, logits: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    out = function(leaf)
    (out * cotangent).sum().backward()
    assert leaf.grad is not None
    return out.detach(), leaf.grad


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("t_max", [1, 2, 20, 40])
@pytest.mark.parametrize("std", [0.5, 1.0, 3.0, 8.0, 30.0])
def test_fp32_agrees_with_the_fp64_reference(convention: str, t_max: int, std: float) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(3, 50, 4, 4, dtype=torch.float64) * std).clamp(-100, 100)
    cotangent = torch.randn_like(logits)
    wide, wide_grad = value_and_gradient(lambda x: sinkhorn_reference(x, t_max, convention), logits, cotangent)
    narrow, narrow_grad = value_and_gradient(
        lambda x: ops.sinkhorn(x, t_max, convention), logits.float(), cotangent.float()
    )
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), wide, rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(narrow_grad.double(), wide_grad, rtol=1e-3, atol=1e-5 * max(1.0, std))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 16])
def test_fp64_is_the_reference_for_any_n(convention: str, n: int) -> None:
    torch.manual_seed(1)
    logits = torch.randn(7, n, n, dtype=torch.float64)
    cotangent = torch.randn_like(logits)
    expected = value_and_gradient(lambda x: sinkhorn_reference(x, 20, convention), logits, cotangent)
    actual = value_and_gradient(lambda x: ops.sinkhorn(x, 20, convention), logits, cotangent)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def test_the_backward_is_that_of_the_truncated_iteration() -> None:
    torch.manual_seed(2)
    logits = (torch.randn(2, 3, 3, dtype=torch.float64) * 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.sinkhorn(x, 3, "eq9"), (logits,))
    assert torch.autograd.gradcheck(lambda x: ops.sinkhorn(x, 3, "v4"), (logits,))


def test_conventions_agree_with_the_published_differences() -> None:
    """eq9 and V4's shipped form differ by about 1e-5 for N(0, 1) logits: same limit, same exact side."""
    torch.manual_seed(3)
    logits = torch.randn(500, 4, 4)
    assert (ops.sinkhorn(logits, 20, "eq9") - ops.sinkhorn(logits, 20, "v4")).abs().max() < 1e-4


def test_v4_is_the_shipped_code_on_the_transpose() -> None:
    torch.manual_seed(4)
    comb = torch.randn(20, 4, 4, dtype=torch.float64)
    c = torch.softmax(comb, -1) + 1e-6
    c = c / (c.sum(-2, keepdim=True) + 1e-6)
    for _ in range(19):
        c = c / (c.sum(-1, keepdim=True) + 1e-6)
        c = c / (c.sum(-2, keepdim=True) + 1e-6)
    torch.testing.assert_close(ops.sinkhorn(comb.transpose(-1, -2), 20, "v4"), c.transpose(-1, -2))


def test_the_exact_side_is_rows() -> None:
    torch.manual_seed(5)
    matrix = ops.sinkhorn(torch.randn(200, 4, 4) * 3, 5)
    assert (matrix.sum(-1) - 1).abs().max() < 1e-6
    assert (matrix.sum(-2) - 1).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(0, 4, 4), (4, 4), (2, 0, 3, 3)])
def test_any_number_of_tokens(shape: tuple[int, ...]) -> None:
    logits = torch.zeros(shape, requires_grad=True)
    out = ops.sinkhorn(logits)
    out.sum().backward()
    assert out.shape == shape


def test_autocast_leaves_it_in_fp32() -> None:
    logits = torch.randn(5, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        out = ops.sinkhorn(logits)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, ops.sinkhorn(logits), rtol=0, atol=0)
