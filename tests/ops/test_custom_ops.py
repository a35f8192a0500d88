"""The operations as torch sees them: registration, torch.compile, activation checkpointing, no second derivative."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import mhc_lab.ops.sinkhorn.newton  # noqa: F401  # registers its operation
from mhc_lab import ops
from mhc_lab.config import compose
from mhc_lab.models.gpt import GPT

N, C, T = 4, 8, 6
WIDTH = 2 * N + N * N


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {
        "streams": (T, N, C),
        "output": (T, C),
        "h_pre": (T, N),
        "h_res": (T, N, N),
        "phi": (N * C, WIDTH),
        "alpha": (WIDTH,),
        "bias": (WIDTH,),
        "weights": (T, WIDTH),
    }
    return {name: torch.randn(shape).requires_grad_() for name, shape in shapes.items()}


def calls() -> dict[str, tuple[object, tuple[object, ...]]]:
    t = tensors()
    layer = (t["streams"], t["output"], t["weights"], N, 2 * N, None)
    return {
        "sinkhorn": (torch.ops.mhc_lab.sinkhorn, (t["h_res"], 5, "eq9", False)),
        "sinkhorn, implicit": (torch.ops.mhc_lab.sinkhorn, (t["h_res"], 5, "eq9", True)),
        "warm_shift": (torch.ops.mhc_lab.warm_shift, (t["h_res"][0].detach(),)),
        "coefficients": (
            torch.ops.mhc_lab.coefficients,
            (t["streams"], t["phi"], t["alpha"], t["bias"], N, N, 0.0, 5, "eq9"),
        ),
        "coefficients_read": (
            torch.ops.mhc_lab.coefficients_read,
            (t["streams"], t["phi"], t["alpha"], t["bias"], N, 0.0, 5, "eq9"),
        ),
        "read": (torch.ops.mhc_lab.read, (t["streams"], t["h_pre"])),
        "write": (torch.ops.mhc_lab.write, (t["streams"], t["output"], t["h_pre"], t["h_res"])),
        "write, H_res = I": (torch.ops.mhc_lab.write, (t["streams"], t["output"], t["h_pre"], None)),
        "write_read": (
            torch.ops.mhc_lab.write_read,
            (*layer, t["phi"], t["alpha"], t["bias"], N, 0.0, 5, "eq9"),
        ),
        "write_read, H_res apart": (
            torch.ops.mhc_lab.write_read,
            (*layer[:4], -1, t["h_res"], t["phi"], t["alpha"], t["bias"], N, 0.0, 5, "eq9"),
        ),
    }


@pytest.mark.parametrize("name", calls())
def test_opcheck(name: str) -> None:
    operation, arguments = calls()[name]
    torch.library.opcheck(operation.default, arguments)


def layer(t: dict[str, Tensor]) -> Tensor:
    """Every operation once, as a stack would call them."""
    values = ops.coefficients(t["streams"], t["phi"], t["alpha"], t["bias"], pre=N, post=N, t_max=5)
    hidden = ops.read(t["streams"], values[..., :N])
    following = (t["phi"], t["alpha"], t["bias"])
    hidden = hidden + ops.coefficients_read(t["streams"], *following, post=N, t_max=5)[0]
    streams, hidden, values = ops.write_read(
        t["streams"], hidden, values, None, *following, post_at=N, res_at=2 * N, post=N, t_max=5
    )
    h_res = ops.sinkhorn(values[..., 2 * N :].unflatten(-1, (N, N)), 3)
    return ops.write(streams, hidden.tanh(), values[..., N : 2 * N], h_res)


def gradients(function, t: dict[str, Tensor]) -> list[Tensor]:
    out = function(t)
    used = [t[name] for name in ("streams", "phi", "alpha", "bias")]
    return [out.detach(), *torch.autograd.grad(out.square().sum(), used)]


@pytest.mark.slow
def test_compiled_whole_and_for_any_number_of_tokens() -> None:
    compiled = torch.compile(layer, fullgraph=True)  # a new token count makes that size symbolic, once
    for tokens in (T, T - 1, T - 2):
        t = {
            name: value[:tokens].detach().requires_grad_() if len(value) == T else value
            for name, value in tensors().items()
        }
        torch.testing.assert_close(gradients(compiled, t), gradients(layer, t), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["log", "newton", "warm", "permutations", "kronecker"])
def test_every_algorithm_compiles_whole(algorithm: str) -> None:
    torch._dynamo.reset()
    own = ["residual=mhc", f"residual.sinkhorn={algorithm}", "model.blocks=1"]
    config = compose(own, shared=["residual.t_max=3"])
    model = GPT(config.model, config.residual, 64)
    model.init_weights("0")
    tokens = torch.randint(0, 64, (2, 16))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    found, wanted = (torch.autograd.grad(f(tokens).sum(), list(model.parameters())) for f in (compiled, model))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_under_activation_checkpointing() -> None:
    t = tensors()
    again = gradients(lambda given: checkpoint(layer, given, use_reentrant=False), t)
    assert all(torch.equal(one, two) for one, two in zip(again, gradients(layer, t), strict=True))


def test_a_second_derivative_is_refused() -> None:
    t = tensors()
    (grad,) = torch.autograd.grad(layer(t).square().sum(), [t["bias"]], create_graph=True)
    with pytest.raises(RuntimeError, match="mhc_lab"):
        torch.autograd.grad(grad.sum(), [t["bias"]])
