"""The fused operation against the equations in fp64: values, all gradients, every layout and backend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mhc_lab import ops
from mhc_lab.ops.write_read import write_read_reference

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.bfloat16: 3e-2}  # of the largest entry
SHAPES = {  # n, C, tokens
    "the paper's n": (4, 16, (2, 35)),
    "more than a block": (4, 5, (150,)),
    "one stream": (1, 8, (3,)),
    "n not of a tile": (3, 5, (7,)),
    "n and C of no tile": (6, 19, (9,)),
    "two tiles": (8, 16, (5,)),
    "one token": (2, 64, (1,)),
    "no token dimension": (4, 8, ()),
}


def case(n: int, dim: int, tokens: tuple[int, ...], logit_std: float = 1.0) -> dict[str, Tensor]:
    torch.manual_seed(0)
    width = 2 * n + n * n
    return {
        "streams": torch.randn(*tokens, n, dim).double(),
        "output": torch.randn(*tokens, dim).double(),
        "h_post": torch.rand(*tokens, n).double(),
        "h_res": torch.randn(*tokens, n, n).double(),
        "phi": torch.randn(n * dim, width).double() / (n * dim) ** 0.5,
        "alpha": torch.full((width,), logit_std).double(),
        "bias": torch.randn(width).double(),
    }


def run(function, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Outputs, and the gradients by all inputs of a fixed combination of the outputs."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}
    outputs = function(**leaves)
    total = torch.zeros((), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for output in outputs:
        total = total + (output.double() * torch.randn(output.shape, generator=generator)).sum()
    return [*(output.detach() for output in outputs), *torch.autograd.grad(total, list(leaves.values()))]


def assert_agree(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        worst = (one.double() - other).abs().max() if other.numel() else torch.zeros(())
        assert worst <= tolerance * other.abs().max().clamp_min(1e-3), (index, worst, other.abs().max())


def packed(**given: Tensor) -> tuple[Tensor, ...]:
    """H_post and H_res in packed coefficients, as a layer before would have made them."""
    h_post, h_res, n = given.pop("h_post"), given.pop("h_res"), given["streams"].shape[-2]
    weights = torch.cat([torch.full_like(h_post, torch.nan), h_post, h_res.flatten(-2)], dim=-1)
    streams, output = given.pop("streams"), given.pop("output")
    layout = {"post_at": n, "res_at": 2 * n, "post": n, "read_eps": 1e-6, "t_max": 5}
    return ops.write_read(streams, output, weights, None, **given, **layout)


def apart(**given: Tensor) -> tuple[Tensor, ...]:
    n = given["streams"].shape[-2]
    streams, output, h_post, h_res = (given.pop(name) for name in ("streams", "output", "h_post", "h_res"))
    return ops.write_read(streams, output, h_post, h_res, **given, post=n, read_eps=1e-6, t_max=5)


def reference(**given: Tensor) -> tuple[Tensor, ...]:
    return write_read_reference(**given, post=given["streams"].shape[-2], read_eps=1e-6, t_max=5)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", [packed, apart])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.usefixtures("backend")
def test_values_and_gradients_are_the_equations(shape, layout, dtype: torch.dtype) -> None:
    inputs = case(*shape)
    narrow = {
        name: value.to(dtype if name in ("streams", "output") or dtype != torch.bfloat16 else torch.float32)
        for name, value in inputs.items()
    }
    exact = run(reference, {name: value.double() for name, value in narrow.items()})
    assert_agree(run(layout, narrow), exact, TOLERANCE[dtype])


@pytest.mark.parametrize("convention", ["eq9", "v4"])
@pytest.mark.parametrize("t_max", [1, 5, 20, 40])
@pytest.mark.parametrize("logit_std", [0.5, 1.0, 3.0, 8.0])
@pytest.mark.usefixtures("backend")
def test_sinkhorn_behind_the_projection(logit_std: float, t_max: int, convention: str) -> None:
    inputs = case(4, 16, (70,), logit_std)
    rest = {"post": 4, "t_max": t_max, "convention": convention}

    def fused(streams: Tensor, output: Tensor, h_post: Tensor, h_res: Tensor, **given: Tensor) -> tuple[Tensor, ...]:
        return ops.write_read(streams, output, h_post, h_res, **given, **rest)

    exact = run(lambda **given: write_read_reference(**given, **rest), inputs)
    assert_agree(run(fused, {name: value.float() for name, value in inputs.items()}), exact, 1e-3)


@pytest.mark.usefixtures("backend")
def test_without_mixing_and_without_a_constraint() -> None:
    inputs = case(4, 16, (70,))
    inputs.pop("h_res")

    def fused(streams: Tensor, output: Tensor, h_post: Tensor, **given: Tensor) -> tuple[Tensor, ...]:
        return ops.write_read(streams, output, h_post, None, **given, post=4)

    def exact(streams: Tensor, output: Tensor, h_post: Tensor, **given: Tensor) -> tuple[Tensor, ...]:
        eye = torch.eye(4).double().expand(70, 4, 4)
        return write_read_reference(streams, output, h_post, eye, **given, post=4)

    assert_agree(run(fused, inputs), run(exact, inputs), 1e-9)


@pytest.mark.usefixtures("backend")
def test_logits_of_a_hundred_stay_finite_and_right() -> None:
    inputs = case(4, 16, (70,))
    inputs["bias"] = torch.linspace(-100, 100, 24)[torch.randperm(24)].double()
    exact = run(reference, inputs)
    found = run(apart, {name: value.float() for name, value in inputs.items()})
    assert all(value.isfinite().all() for value in found)
    assert_agree(found, exact, 1e-2)  # fp32 logits of 100 are themselves off by 4e-6


@pytest.mark.usefixtures("backend")
def test_no_token() -> None:
    found = run(packed, case(4, 8, (0,)))
    assert [tuple(value.shape) for value in found[:3]] == [(0, 4, 8), (0, 8), (0, 24)]
    assert all((value == 0).all() for value in found[3:])


def test_two_runs_and_any_number_of_threads_are_bit_equal(backend: str) -> None:
    inputs = {name: value.float() for name, value in case(4, 16, (700,)).items()}
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 2) if backend == "cpu" else (1, 1):
            torch.set_num_threads(threads)
            runs.append(run(packed, inputs))
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(one, two) for one, two in zip(runs[0], other, strict=True))


@pytest.mark.usefixtures("backend")
def test_every_element_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that comes filled with NaN shows what a kernel leaves out."""
    inputs = {name: value.float() for name, value in case(4, 16, (70,)).items()}
    expected = run(apart, inputs)
    empty, empty_like, new_empty = torch.empty, torch.empty_like, Tensor.new_empty
    poison = {
        (torch, "empty"): lambda *a, **k: empty(*a, **k).fill_(torch.nan),
        (torch, "empty_like"): lambda *a, **k: empty_like(*a, **k).fill_(torch.nan),
        (Tensor, "new_empty"): lambda *a, **k: new_empty(*a, **k).fill_(torch.nan),
    }
    for (owner, name), poisoned in poison.items():
        monkeypatch.setattr(owner, name, poisoned)
    found = run(apart, inputs)
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


@pytest.mark.usefixtures("backend")
def test_streams_of_any_stride() -> None:
    inputs = case(4, 16, (5, 7))
    strided = dict(inputs, streams=inputs["streams"].transpose(0, 1).contiguous().transpose(0, 1))
    assert not strided["streams"].is_contiguous()
    for one, two in zip(run(apart, strided), run(apart, inputs), strict=True):
        assert torch.equal(one, two)
