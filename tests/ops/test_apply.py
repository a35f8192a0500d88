"""coefficients, read and write against their references: values, all gradients, dtypes and layouts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mhc_lab import ops
from mhc_lab.ops import backends
from mhc_lab.ops.coefficients import coefficients_reference
from mhc_lab.ops.read import read_reference
from mhc_lab.ops.write import write_reference

SHAPES = {"one token": (1,), "a batch": (2, 3), "no token": (0,), "no token dimension": ()}


def leaves(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


def gradients(function, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    out = function(*inputs)
    return (out, *torch.autograd.grad((out * torch.linspace(-1, 1, out.shape[-1])).sum(), inputs))


@pytest.mark.parametrize("tokens", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_values_and_gradients_are_the_references(tokens: tuple[int, ...], n: int) -> None:
    dim, width = 6, n * n + 2 * n
    streams, phi, h_pre, h_post, h_res, output = leaves(
        (*tokens, n, dim), (n * dim, width), (*tokens, n), (*tokens, n), (*tokens, n, n), (*tokens, dim)
    )
    for function, reference, inputs in (
        (ops.coefficients, coefficients_reference, [streams, phi]),
        (ops.read, read_reference, [streams, h_pre]),
        (ops.write, write_reference, [streams, output, h_post, h_res]),
    ):
        torch.testing.assert_close(gradients(function, inputs), gradients(reference, inputs), rtol=1e-9, atol=1e-11)


def test_gradcheck() -> None:
    streams, phi, h_pre, h_post, h_res, output = leaves((3, 2, 4), (8, 8), (3, 2), (3, 2), (3, 2, 2), (3, 4))
    assert torch.autograd.gradcheck(ops.coefficients, (streams, phi))
    assert torch.autograd.gradcheck(ops.read, (streams, h_pre))
    assert torch.autograd.gradcheck(ops.write, (streams, output, h_post, h_res))
    assert torch.autograd.gradcheck(lambda x, y, p: ops.write(x, y, p, None), (streams, output, h_post))


def test_fixed_mappings_are_table_1s_off() -> None:
    streams, output = leaves((3, 4, 5), (3, 5))
    n = streams.shape[-2]
    uniform, ones, eye = (torch.full((3, n), 1 / n), torch.ones(3, n), torch.eye(n).expand(3, n, n))
    torch.testing.assert_close(ops.read(streams, None), read_reference(streams, uniform.double()))
    expected = write_reference(streams, output, ones.double(), eye.double())
    torch.testing.assert_close(ops.write(streams, output, None, None), expected)
    torch.testing.assert_close(ops.write(streams, output, None, eye.double()), expected)
    torch.testing.assert_close(ops.write(streams, output, ones.double(), None), expected)


def test_a_static_mapping_is_the_same_for_all_tokens() -> None:
    streams, output, h_pre, h_post, h_res = leaves((2, 3, 4, 5), (2, 3, 5), (4,), (4,), (4, 4))
    torch.testing.assert_close(
        gradients(ops.read, [streams, h_pre]), gradients(read_reference, [streams, h_pre]), rtol=1e-9, atol=1e-11
    )
    inputs = [streams, output, h_post, h_res]
    torch.testing.assert_close(gradients(ops.write, inputs), gradients(write_reference, inputs), rtol=1e-9, atol=1e-11)


def test_strides_are_free() -> None:
    streams, h_pre, h_post, h_res, output = leaves((4, 7, 5), (7, 4), (7, 4), (4, 4, 7), (5, 7))
    strided = streams.transpose(0, 1)
    torch.testing.assert_close(ops.read(strided, h_pre), read_reference(strided, h_pre))
    mixing = h_res.permute(2, 0, 1)
    torch.testing.assert_close(
        ops.write(strided, output.T, h_post, mixing), write_reference(strided, output.T, h_post, mixing)
    )


def test_bf16_streams_are_computed_in_fp32() -> None:
    torch.manual_seed(0)
    streams = torch.randn(64, 4, 32).bfloat16()
    h_pre, h_post, h_res = torch.rand(64, 4), torch.rand(64, 4), torch.rand(64, 4, 4)
    output, phi = torch.randn(64, 32), torch.randn(128, 24)
    read, written = ops.read(streams, h_pre), ops.write(streams, output, h_post, h_res)
    assert read.dtype == written.dtype == torch.bfloat16
    torch.testing.assert_close(read, read_reference(streams.float(), h_pre).bfloat16())
    torch.testing.assert_close(written, write_reference(streams.float(), output, h_post, h_res).bfloat16())
    assert ops.coefficients(streams, phi).dtype == torch.float32


def test_coefficients_do_not_depend_on_the_scale_of_the_streams() -> None:
    streams, phi = leaves((3, 4, 8), (32, 5))
    torch.testing.assert_close(ops.coefficients(streams * 1e3, phi), ops.coefficients(streams, phi))
    assert torch.equal(ops.coefficients(torch.zeros(1, 4, 8).double(), phi), torch.zeros(1, 5).double())


def test_autocast_leaves_coefficients_in_fp32() -> None:
    torch.manual_seed(0)
    streams, phi = torch.randn(10, 4, 8), torch.randn(32, 5)
    with torch.autocast("cpu", torch.bfloat16):
        out = ops.coefficients(streams, phi)
    torch.testing.assert_close(out, ops.coefficients(streams, phi), rtol=0, atol=0)


@pytest.mark.parametrize("streams_dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("output_dtype", [torch.float16, torch.float32, torch.float64])
def test_a_layer_may_give_its_output_in_any_dtype(streams_dtype: torch.dtype, output_dtype: torch.dtype) -> None:
    wide = torch.promote_types(streams_dtype, torch.float32)
    (streams,) = leaves((3, 4, 5), dtype=streams_dtype)
    (output,) = leaves((3, 5), dtype=output_dtype)
    h_post, h_res = leaves((3, 4), (3, 4, 4), dtype=wide)
    found = gradients(ops.write, [streams, output, h_post, h_res])
    with backends.use("reference"):
        wanted = gradients(ops.write, [streams, output, h_post, h_res])
    assert [value.dtype for value in found] == [value.dtype for value in wanted]
    rough = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 1e-5, torch.float64: 1e-5}
    for value, right in zip(found, wanted, strict=True):
        bound = max(rough[streams_dtype], rough[output_dtype])
        torch.testing.assert_close(value.double(), right.double(), rtol=bound, atol=bound)
