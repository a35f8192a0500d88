"""The Triton kernels of read and write against fp64 autograd: values and every gradient, by dtype and by shape."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mhc_lab.ops.read import gpu as read
from mhc_lab.ops.write import gpu as write

pytestmark = pytest.mark.usefixtures("poisoned_memory")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Relative to the largest entry of the reference: one rounding of the stream dtype, and fp32 sums.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 6e-3, torch.float16: 8e-4}
STREAMS = [1, 2, 3, 4, 5, 8, 16]
SMALL = read.Rows(lanes=4, vector=4, steps=2)  # several blocks at few channels: the interpreter is slow


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    assert torch.isfinite(actual).all()
    bound = tolerance * max(1.0, expected.abs().max().item()) if expected.numel() else 0.0
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=bound)


def written_by(streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor | None) -> Tensor:
    mixed = streams if h_res is None else torch.einsum("tij,tjc->tic", h_res, streams)
    return mixed + h_post[:, :, None] * output[:, None]


def reference(function, inputs: list[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.double().requires_grad_() for x in inputs]
    out = function(*leaves)
    return (out.detach(), *torch.autograd.grad(out, leaves, grad.double()))


def check_read(tokens: int, n: int, dim: int, dtype: torch.dtype, config: read.Rows | None) -> None:
    streams, h_pre, grad = draw(tokens, n, dim, dtype=dtype), draw(tokens, n), draw(tokens, dim, dtype=dtype)
    value = read.forward(streams, h_pre, config)
    grad_streams, grad_h_pre = read.backward(grad, streams, h_pre, config)
    assert value.dtype == grad_streams.dtype == dtype and grad_h_pre.dtype == torch.float32
    expected = reference(lambda x, h: (h[:, :, None] * x).sum(1), [streams, h_pre], grad)
    for actual, wanted in zip((value, grad_streams), expected, strict=False):
        close(actual, wanted, TOLERANCE[dtype])
    close(grad_h_pre, expected[2], TOLERANCE[torch.float32] * dim**0.5)


def check_write(
    tokens: int, n: int, dim: int, dtype: torch.dtype, mixed: bool, config: read.Rows | None, output_dtype=None
) -> None:
    output_dtype = output_dtype or dtype
    streams, output = draw(tokens, n, dim, dtype=dtype), draw(tokens, dim, dtype=output_dtype)
    h_post, h_res = draw(tokens, n), draw(tokens, n, n) if mixed else None
    grad = draw(tokens, n, dim, dtype=dtype, seed=1)
    value = write.forward(streams, output, h_post, h_res, config)
    grads = write.backward(grad, streams, output, h_post, h_res, config)
    assert value.dtype == grads[0].dtype == dtype and grads[1].dtype == output_dtype
    inputs = [streams, output, h_post] + ([h_res] if mixed else [])
    expected = reference(written_by if mixed else lambda x, y, h: written_by(x, y, h, None), inputs, grad)
    close(value, expected[0], TOLERANCE[dtype])
    close(grads[0], expected[1], TOLERANCE[dtype])
    close(grads[1], expected[2], TOLERANCE[output_dtype])
    close(grads[2], expected[3], TOLERANCE[torch.float32] * dim**0.5)
    if mixed:
        assert grads[3] is not None
        close(grads[3], expected[4], TOLERANCE[torch.float32] * dim**0.5)
    else:
        assert grads[3] is None


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("n", STREAMS)
def test_read(n: int, dtype: torch.dtype) -> None:
    check_read(3, n, 37, dtype, SMALL)


@pytest.mark.parametrize("mixed", [True, False], ids=["mixed", "identity"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("n", STREAMS)
def test_write(n: int, dtype: torch.dtype, mixed: bool) -> None:
    check_write(2, n, 37, dtype, mixed, SMALL)


@pytest.mark.parametrize("dim", [1, 8, 127, 300, 1100], ids=lambda dim: f"C={dim}")
def test_the_chosen_blocks_cover_any_width(dim: int) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        check_read(1, 4, dim, dtype, None)
        check_write(1, 4, dim, dtype, True, None)
    check_write(1, 6, dim, torch.float32, True, None)
    check_write(1, 11, dim, torch.bfloat16, True, None)


@pytest.mark.parametrize("tokens", [0, 1])
def test_few_tokens(tokens: int) -> None:
    for n in (4, 16):
        check_read(tokens, n, 24, torch.float32, None)
        check_write(tokens, n, 24, torch.float32, True, None)


@pytest.mark.parametrize("n", [4, 12])
def test_the_output_may_have_another_dtype_than_the_streams(n: int) -> None:
    check_write(2, n, 24, torch.float32, True, None, output_dtype=torch.bfloat16)
    check_write(2, n, 24, torch.bfloat16, True, None, output_dtype=torch.float32)


def test_two_runs_are_bit_equal() -> None:
    streams, output, grad = draw(3, 4, 100), draw(3, 100), draw(3, 4, 100, seed=1)
    h_post, h_res = draw(3, 4), draw(3, 4, 4)
    for _ in range(2):
        first, second = (write.backward(grad, streams, output, h_post, h_res) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        first, second = (read.backward(output, streams, h_post) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_too_many_streams_are_refused() -> None:
    with pytest.raises(ValueError, match="16 streams"):
        read.forward(draw(1, 17, 4), draw(1, 17))
    with pytest.raises(ValueError, match="16 streams"):
        write.forward(draw(1, 17, 4), draw(1, 4), draw(1, 17), None)


def test_fp64_is_refused_rather_than_rounded() -> None:
    streams, output, weights = draw(1, 4, 8).double(), draw(1, 8).double(), draw(1, 4).double()
    with pytest.raises(TypeError, match="float64"):
        read.forward(streams, weights)
    with pytest.raises(TypeError, match="float64"):
        write.forward(streams, output, weights, None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("dim", [64, 1280, 1920, 2560, 4096, 7168])
def test_rows_waste_few_lanes(dim: int, dtype: torch.dtype) -> None:
    rows = read.choose_rows(dim, dtype)
    steps = -(-dim // rows.block)
    assert rows.vector * dtype.itemsize == 16
    assert rows.lanes == 32 or dim / (steps * rows.block) >= 0.875
    assert rows.programs(5, dim) == (5 * -(-steps // rows.steps),)
