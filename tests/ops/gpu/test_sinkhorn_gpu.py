"""Sinkhorn in Triton against its fp64 reference: value and exact gradient of the truncated iteration."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mhc_lab.ops.sinkhorn import gpu
from mhc_lab.ops.sinkhorn.reference import sinkhorn_reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")
CONVENTIONS = ("eq9", "v4")
# Absolute, on values up to 1 and gradients of a cotangent of std 1.
VALUE_ERROR = {torch.float32: 2e-6, torch.float64: 1e-12}
GRADIENT_ERROR = {torch.float32: 5e-6, torch.float64: 1e-11}


def draw(tokens: int, n: int, std: float, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    logits = torch.randn(tokens, n, n, generator=generator, dtype=torch.float64) * std
    return logits.clamp(-100, 100).to(dtype), torch.randn(tokens, n, n, generator=generator, dtype=dtype)


def expected(logits: Tensor, cotangent: Tensor, t_max: int, convention: str) -> tuple[Tensor, Tensor]:
    leaf = logits.double().requires_grad_()
    out = sinkhorn_reference(leaf, t_max, convention)
    (gradient,) = torch.autograd.grad(out, leaf, cotangent.double())
    return out.detach(), gradient


def check(logits: Tensor, cotangent: Tensor, t_max: int, convention: str, device: str) -> None:
    value, gradient = expected(logits, cotangent, t_max, convention)
    logits, cotangent = logits.to(device), cotangent.to(device)
    actual = gpu.forward(logits, t_max, convention)
    pulled = gpu.backward(cotangent, logits, t_max, convention)
    assert actual.dtype == pulled.dtype == logits.dtype
    torch.testing.assert_close(actual.cpu().double(), value, rtol=0, atol=VALUE_ERROR[logits.dtype])
    torch.testing.assert_close(pulled.cpu().double(), gradient, rtol=0, atol=GRADIENT_ERROR[logits.dtype])


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("t_max", [1, 2, 5, 20, 40])
@pytest.mark.parametrize("std", [0.5, 1.0, 3.0, 8.0, 60.0])
def test_four_streams(convention: str, t_max: int, std: float, device: str) -> None:
    check(*draw(5, 4, std), t_max, convention, device)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("std", [1.0, 60.0])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 11, 16])
def test_any_number_of_streams(convention: str, std: float, n: int, device: str) -> None:
    check(*draw(3, n, std), 7, convention, device)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("n", [3, 4])
def test_fp64(convention: str, n: int, device: str) -> None:
    check(*draw(3, n, 30.0, torch.float64), 5, convention, device)


@pytest.mark.parametrize("tokens", [0, 1, 33, 64])
def test_any_number_of_matrices(tokens: int, device: str) -> None:
    """0: no launch. 33: one more than a program takes."""
    check(*draw(tokens, 4, 1.0), 3, "eq9", device)


@pytest.mark.parametrize("n", [2, 4, 5])
def test_logits_of_a_hundred(n: int, device: str) -> None:
    """Only the fp64 branch can hold exp(-200); a matrix beside them in the program is small and must not suffer."""
    logits, cotangent = draw(3, n, 1.0)
    logits[0] = 100.0 * torch.sign(logits[0])
    logits[1] = -100.0
    logits[1].fill_diagonal_(100.0)
    for t_max in (1, 20):
        check(logits, cotangent, t_max, "eq9", device)
        check(logits, cotangent, t_max, "v4", device)


def test_entries_that_underflow_in_fp32_and_grow_back(device: str) -> None:
    """Two rows compete for one column: the entries exp(-100) double each iteration until they are needed."""
    logits = torch.tensor([[[0.0, -100, -100], [0, -100, -100], [-100, 0, 0]]])
    actual = gpu.forward(logits.to(device), 160, "eq9").cpu()
    torch.testing.assert_close(actual.double(), sinkhorn_reference(logits.double(), 160), rtol=0, atol=2e-6)
    assert actual[0, 0, 1] > 0.2


def test_many_iterations(device: str) -> None:
    check(*draw(1, 4, 1.0), 101, "eq9", device)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_two_runs_agree_to_the_bit(convention: str, device: str) -> None:
    logits, cotangent = (x.to(device) for x in draw(40, 4, 3.0))
    assert torch.equal(gpu.forward(logits, 5, convention), gpu.forward(logits, 5, convention))
    once, again = (gpu.backward(cotangent, logits, 5, convention) for _ in range(2))
    assert torch.equal(once, again)


REFUSED = {
    "not square": torch.zeros(2, 4, 3),
    "too many streams": torch.zeros(2, 17, 17),
    "not contiguous": torch.zeros(4, 4, 2).permute(2, 0, 1),
    "half precision": torch.zeros(2, 4, 4).half(),
}


@pytest.mark.parametrize("logits", REFUSED.values(), ids=REFUSED)
def test_what_the_kernel_does_not_take_is_refused(logits: Tensor, device: str) -> None:
    with pytest.raises(AssertionError):
        gpu.forward(logits.to(device), 3, "eq9")
