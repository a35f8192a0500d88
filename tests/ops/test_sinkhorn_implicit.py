"""The implicit gradient of Sinkhorn's limit against autograd through iterations that have converged."""

from __future__ import annotations

import pytest
import torch

from mhc_lab.ops.sinkhorn.implicit import implicit_backward
from mhc_lab.ops.sinkhorn.reference import sinkhorn_reference


@pytest.mark.parametrize(("n", "std"), [(1, 1.0), (2, 3.0), (4, 0.5), (4, 1.0), (4, 2.0), (7, 1.0)])
def test_it_is_the_gradient_of_two_thousand_iterations(n: int, std: float) -> None:
    torch.manual_seed(n)
    logits = (torch.randn(5, n, n, dtype=torch.float64) * std).requires_grad_()
    cotangent = torch.randn(5, n, n, dtype=torch.float64)
    limit = sinkhorn_reference(logits, 2000)
    (expected,) = torch.autograd.grad(limit, logits, cotangent)
    assert (limit.sum(-2) - 1).abs().max() < 1e-12, "not converged: choose smaller logits"
    torch.testing.assert_close(implicit_backward(cotangent, limit.detach()), expected, rtol=1e-8, atol=1e-10)


def test_fp32_and_leading_dimensions() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    limit, cotangent = sinkhorn_reference(logits, 500), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    narrow = implicit_backward(cotangent.float(), limit.float())
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), implicit_backward(cotangent, limit), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("coupling", [0.0, 1e-12])
def test_blocks_that_fall_apart_have_the_gradient_of_the_blocks(coupling: float) -> None:
    """A singular system: diag(A, B) with A, B doubly stochastic, and a permutation, whose gradient is 0."""
    torch.manual_seed(1)
    blocks = sinkhorn_reference(torch.randn(2, 2, 2, dtype=torch.float64), 500)
    matrix = torch.full((4, 4), coupling, dtype=torch.float64)
    matrix[:2, :2], matrix[2:, 2:] = blocks
    cotangent = torch.randn(4, 4, dtype=torch.float64)
    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[:2, :2] = implicit_backward(cotangent[:2, :2], blocks[0])
    expected[2:, 2:] = implicit_backward(cotangent[2:, 2:], blocks[1])
    torch.testing.assert_close(implicit_backward(cotangent, matrix), expected, rtol=0, atol=1e-9)
    permutation = torch.eye(4, dtype=torch.float64)[[1, 3, 0, 2]]
    assert implicit_backward(cotangent, permutation).abs().max() < 1e-9
