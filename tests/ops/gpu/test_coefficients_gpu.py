"""The coefficients in Triton against their fp64 reference: values and every gradient."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from mhc_lab.ops.coefficients import gpu, gpu_backward, gpu_forward
from mhc_lab.ops.coefficients.gpu_columns import Columns
from mhc_lab.ops.coefficients.reference import coefficients_reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")
RESULTS = ("values", "grad_streams", "grad_phi", "grad_alpha", "grad_bias")
# Relative to the largest entry, against fp64 on the same rounded streams. Streams of 16 bits are exact factors:
# bf16 meets phi in 16 bits, fp16 in 11 (tf32, on a GPU), and the gradient of the streams is rounded to them.
TOLERANCE = {
    torch.float32: dict.fromkeys(RESULTS, 2e-6),
    torch.bfloat16: {**dict.fromkeys(RESULTS, 1e-4), "grad_streams": 5e-3},
    torch.float16: {**dict.fromkeys(RESULTS, 2e-3), "grad_streams": 2e-3},
}


@dataclass(frozen=True)
class Case:
    """Sizes and options of one call; `std` is that of the logits."""

    tokens: int = 5
    n: int = 4
    dim: int = 37
    gates: int = 2  # how many of H_pre and H_post there are
    rest: int | None = None  # columns behind the gates; None: n x n
    t_max: int = 3
    convention: str = "eq9"
    dtype: torch.dtype = torch.float32
    std: float = 1.0

    def inputs(self) -> tuple[list[Tensor], Tensor]:
        """streams, phi, alpha and bias, and the gradient by the values."""
        generator = torch.Generator().manual_seed(self.tokens + self.n)
        m = self.gates * self.n + (self.n**2 if self.rest is None else self.rest)
        streams = torch.randn(self.tokens, self.n, self.dim, generator=generator).to(self.dtype)
        phi = torch.randn(self.n * self.dim, m, generator=generator) / (self.n * self.dim) ** 0.5
        alpha = self.std * (0.5 + torch.rand(m, generator=generator))
        bias = self.std * torch.randn(m, generator=generator)
        return [streams, phi, alpha, bias], torch.randn(self.tokens, m, generator=generator)

    @property
    def options(self) -> dict[str, int | str]:
        """What forward and backward both take."""
        pre, post = (self.n if self.gates > 0 else 0), (self.n if self.gates > 1 else 0)
        return {"pre": pre, "post": post, "t_max": self.t_max, "convention": self.convention}


def expected(case: Case, inputs: list[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.double().requires_grad_() for x in inputs]
    values = coefficients_reference(*leaves, read_eps=1e-6, **case.options)
    return (values.detach(), *torch.autograd.grad(values, leaves, grad.double()))


def actual(case: Case, inputs: list[Tensor], grad: Tensor, device: str, **options) -> tuple[Tensor, ...]:
    inputs, grad = [x.to(device) for x in inputs], grad.to(device)
    forward, backward = options.pop("forward", None), options.pop("backward", None)
    values, projected, inverse_rms = gpu.forward(*inputs, read_eps=1e-6, **case.options, config=forward)
    assert torch.isfinite(projected).all() and torch.isfinite(inverse_rms).all()
    found = gpu.backward(grad, *inputs, projected, inverse_rms, **case.options, config=backward, **options)
    return (values, *found)


def check(case: Case, device: str, **options) -> None:
    inputs, grad = case.inputs()
    reference, found = expected(case, inputs, grad), actual(case, inputs, grad, device, **options)
    for name, is_, should in zip(RESULTS, found, reference, strict=True):
        assert is_.dtype == (case.dtype if name == "grad_streams" else torch.float32), name
        scale = max(1.0, should.abs().max().item()) if should.numel() else 1.0
        bound = TOLERANCE[case.dtype][name] * scale
        torch.testing.assert_close(
            is_.cpu().double(), should, rtol=0, atol=bound, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("convention", ["eq9", "v4"])
@pytest.mark.parametrize("t_max", [0, 1, 2, 20])
def test_four_streams(dtype: torch.dtype, convention: str, t_max: int, device: str) -> None:
    check(Case(dtype=dtype, convention=convention, t_max=t_max), device)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 16])
def test_any_number_of_streams(n: int, dtype: torch.dtype, device: str) -> None:
    check(Case(n=n, dim=19, dtype=dtype, t_max=2), device)


@pytest.mark.parametrize("convention", ["eq9", "v4"])
@pytest.mark.parametrize("t_max", [1, 20, 40])
@pytest.mark.parametrize("std", [0.5, 3.0, 8.0])
def test_logits_of_any_size(std: float, t_max: int, convention: str, device: str) -> None:
    check(Case(std=std, t_max=t_max, convention=convention), device)


@pytest.mark.parametrize("convention", ["eq9", "v4"])
def test_logits_of_a_hundred(convention: str, device: str) -> None:
    """Both ends of the sigmoid and of Sinkhorn; some tokens need the fp64 branch, their neighbours do not."""
    case = Case(tokens=3, t_max=20, convention=convention)
    (streams, phi, alpha, bias), grad = case.inputs()
    bias = 100.0 * torch.sign(bias)
    inputs = [streams, phi, alpha, bias]
    for is_, should in zip(actual(case, inputs, grad, device), expected(case, inputs, grad), strict=True):
        torch.testing.assert_close(is_.cpu().double(), should, rtol=0, atol=1e-5 * max(1.0, should.abs().max().item()))


@pytest.mark.parametrize(
    ("gates", "rest", "n"),
    [(2, 0, 4), (1, 0, 4), (0, 6, 1), (2, 6, 4), (2, 24, 4), (0, 5, 3), (2, 4, 2)],
    ids=["no H_res", "H_pre alone", "HC's", "Cayley's logits", "permutations", "rest alone", "two streams"],
)
def test_other_constraints(gates: int, rest: int, n: int, device: str) -> None:
    check(Case(n=n, gates=gates, rest=rest, t_max=0), device)


@pytest.mark.parametrize("gates", [0, 1])
def test_sinkhorn_without_some_gates(gates: int, device: str) -> None:
    check(Case(gates=gates), device)


@pytest.mark.parametrize("tokens", [0, 1, 16, 17, 65])
def test_any_number_of_tokens(tokens: int, device: str) -> None:
    check(Case(tokens=tokens, dim=16), device)


@pytest.mark.parametrize("dim", [1, 33, 64])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_any_number_of_channels(dim: int, dtype: torch.dtype, device: str) -> None:
    check(Case(dim=dim, dtype=dtype), device)


@pytest.mark.parametrize("t_max", [0, 3])
@pytest.mark.parametrize("splits", [1, 2, 5])
def test_any_cut_gives_the_same(splits: int, t_max: int, device: str) -> None:
    """Splits that leave a part of one step, and groups of tokens of which the last is short."""
    case = Case(tokens=40, t_max=t_max)
    forward = gpu_forward.Config(16, 32, splits, fused=False, num_warps=4, num_stages=2)
    backward = gpu_backward.Config(32, 16, splits, num_warps=4, num_stages=2)
    check(case, device, forward=forward, backward=backward)
    check(case, device, backward=backward, atomic=True)


def test_the_fused_kernel_for_many_steps(device: str) -> None:
    config = gpu_forward.Config(16, 16, 1, fused=True, num_warps=4, num_stages=2)
    for n in (3, 4):
        check(Case(tokens=33, n=n), device, forward=config)


def test_two_runs_agree_to_the_bit(device: str) -> None:
    case = Case(tokens=50, t_max=5, dtype=torch.bfloat16)
    inputs, grad = case.inputs()
    config = gpu_backward.Config(32, 16, 3, num_warps=4, num_stages=2)
    once, again = (actual(case, inputs, grad, device, backward=config) for _ in range(2))
    for a, b in zip(once, again, strict=True):
        assert torch.equal(a, b)


def test_streams_of_zeros(device: str) -> None:
    case = Case()
    (streams, *rest), grad = case.inputs()
    found = actual(case, [torch.zeros_like(streams), *rest], grad, device)
    assert all(torch.isfinite(x).all() for x in found)


def test_fp64_streams_are_refused(device: str) -> None:
    (streams, *rest), _ = Case().inputs()
    with pytest.raises(AssertionError):
        gpu.forward(streams.double().to(device), *(x.to(device) for x in rest), read_eps=0.0, **Case().options)


MHC = Columns(m=24, pre=4, post=4, n=4, sinkhorn=True)


@pytest.mark.parametrize("dim", [128, 1280, 2560, 7168])
@pytest.mark.parametrize("tokens", [1, 64, 4096, 8192, 32768])
def test_the_chosen_configurations_suit_the_sizes(tokens: int, dim: int) -> None:
    for columns in (MHC, Columns(m=80, pre=8, post=8, n=8, sinkhorn=True)):
        size = columns.n * dim
        forward = gpu_forward.choose_config(tokens, size, columns, torch.bfloat16)
        assert forward.splits * 4 * forward.channels <= max(size, 4 * forward.channels), "a part of under four steps"
        assert forward.fused == (forward.splits == 1)
        backward = gpu_backward.choose_config(tokens, size, columns, torch.bfloat16)
        workspace = 2 * 4 * backward.groups * size * columns.m  # written and read, fp32
        traffic = 2 * 2 * tokens * size  # streams in, gradient out, bf16
        assert backward.groups == 1 or workspace <= 0.7 * traffic * columns.m / 24
        if tokens >= 4096 and dim >= 1280:
            programs = -(-tokens // forward.tokens) * forward.splits
            assert programs >= 132, "multiprocessors without work"
            assert backward.groups * -(-size // backward.channels) >= 132


def test_a_token_count_is_no_part_of_a_kernels_specialisation() -> None:
    """Any number of tokens, parts or iterations runs the kernel that was compiled for another."""
    assert {"tokens", "t_max"} <= set(unspecialised(gpu_forward._project))
    assert {"tokens", "t_max", "splits"} <= set(unspecialised(gpu_forward._finish))
    assert {"tokens", "t_max"} <= set(unspecialised(gpu_backward._grad_raw))
    assert {"tokens"} <= set(unspecialised(gpu_backward._grad_streams))


def unspecialised(kernel) -> list[str]:
    return list(getattr(kernel, "do_not_specialize", None) or kernel.kwargs.get("do_not_specialize", ()))
