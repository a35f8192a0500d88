"""Connections in somebody else's model: loops, replaced parameters, dtypes, all kinds of layers, words for mistakes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from mhc_lab import residual
from mhc_lab.config.schema import ResidualConfig
from mhc_lab.errors import LabError
from mhc_lab.models.stack import ResidualStack
from mhc_lab.residual import registry
from mhc_lab.residual.constraints.base import Constraint

VARIANTS = [name for name in registry.variants() if name != "identity_wide"]
N, DIM = 4, 12


def build(variant: str, **settings: Any) -> residual.Connection:
    torch.manual_seed(0)
    return residual.build(variant, dim=DIM, layer_index=1, streams=N, **settings)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loop_of_the_readme_runs_with_every_variant(variant: str) -> None:
    hidden = torch.randn(2, 5, DIM)
    streams = residual.expand(hidden, streams=N)
    for index in range(3):
        connection = residual.build(variant, dim=DIM, layer_index=index, streams=N)
        read, weights = connection.read(streams)
        streams = connection.write(streams, torch.tanh(read), weights)
    assert residual.collapse(streams).shape == hidden.shape
    if variant == "identity":
        for _ in range(3):
            hidden = hidden + torch.tanh(hidden)
        torch.testing.assert_close(residual.collapse(streams), hidden)


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_may_be_replaced(variant: str) -> None:
    connection, streams = build(variant), torch.randn(3, N, DIM)
    wanted = connection(streams, torch.tanh)
    plain = {name: parameter.detach().clone() for name, parameter in connection.named_parameters()}
    torch.testing.assert_close(torch.func.functional_call(connection, plain, (streams, torch.tanh)), wanted)
    if not plain:
        return

    def loss(values: dict[str, Tensor]) -> Tensor:
        found: Tensor = torch.func.functional_call(connection, values, (streams, torch.tanh))
        return found.square().sum()

    values = {name: value.requires_grad_() for name, value in plain.items()}
    by_hand = torch.autograd.grad(loss(values), list(values.values()))
    by_module = torch.autograd.grad(wanted.square().sum(), list(connection.parameters()))
    torch.testing.assert_close(by_hand, by_module)
    for name in list(dict(connection.named_parameters(recurse=False))):
        nn.utils.parametrize.register_parametrization(connection, name, nn.Identity())
    torch.testing.assert_close(connection(streams, torch.tanh), wanted)


def test_pruned_and_normalised_weights_are_read() -> None:
    connection, streams = build("mhc", alpha_init=1.0), torch.randn(3, N, DIM)
    prune.l1_unstructured(connection, "phi_pre", amount=0.5)
    nn.utils.parametrizations.weight_norm(connection, "phi_post")
    assert connection(streams, torch.tanh).shape == streams.shape


@pytest.mark.parametrize("variant", registry.variants())
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stream_dtype", ["fp32", "bf16"])
def test_whole_stacks_of_any_dtype(variant: str, dtype: torch.dtype, stream_dtype: Any) -> None:
    config = ResidualConfig(variant=variant, stream_dtype=stream_dtype)
    stack = ResidualStack([nn.Linear(DIM, DIM) for _ in range(3)], DIM, config).to(dtype)
    hidden = torch.randn(2, 5, DIM, dtype=dtype, requires_grad=True)
    out = stack(hidden)
    assert out.dtype == dtype
    out.float().square().sum().backward()
    assert hidden.grad is not None and hidden.grad.isfinite().all()
    assert all(parameter.grad is not None for parameter in stack.layers.parameters())


def test_a_stack_in_fp64_keeps_its_precision() -> None:
    torch.manual_seed(0)
    stack = ResidualStack([nn.Linear(DIM, DIM) for _ in range(3)], DIM, ResidualConfig()).double()
    hidden = torch.randn(2, 5, DIM, dtype=torch.float64)
    exact, rounded = stack(hidden), stack.float()(hidden.float())
    assert 1e-9 < (exact - rounded).abs().max() < 1e-4


def test_streams_in_bf16_need_no_autocast() -> None:
    stack = ResidualStack([nn.Linear(DIM, DIM)], DIM, ResidualConfig(stream_dtype="bf16"))
    assert stack(torch.randn(2, 5, DIM)).dtype == torch.float32


def test_what_else_a_layer_returns_is_handed_on() -> None:
    connection, streams = build("mhc"), torch.randn(3, N, DIM)
    out, weights, nothing = connection(streams, lambda x: (torch.tanh(x), "weights", None))
    torch.testing.assert_close(out, connection(streams, torch.tanh))
    assert (weights, nothing) == ("weights", None)


def streams(*shape: int) -> Tensor:
    return torch.zeros(*shape)


MISTAKES: dict[str, tuple[Callable[[residual.Connection], Any], str]] = {
    "expand forgotten": (
        lambda c: c.read(streams(2, 5, DIM)),
        r"shape \[2, 5, 12\], wanted .*residual.expand",
    ),
    "other n": (lambda c: c(streams(2, 3, DIM), torch.tanh), r"streams: shape \[2, 3, 12\], wanted \[..., 4, 12\]"),
    "other width": (lambda c: c(streams(2, N, 2 * DIM), torch.tanh), r"streams: shape \[2, 4, 24\]"),
    "half width": (lambda c: c.mappings(streams(2, N, DIM // 2)), r"streams: shape \[2, 4, 6\]"),
    "pooled": (
        lambda c: c(streams(2, 5, N, DIM), lambda h: h.mean(1, keepdim=True)),
        r"> returned shape \[2, 1,",
    ),
    "nothing": (lambda c: c(streams(2, N, DIM), lambda _: None), r"returned NoneType, wanted a tensor"),
    "a list": (lambda c: c(streams(2, N, DIM), lambda h: [h]), r"returned list"),
    "an empty tuple": (lambda c: c(streams(2, N, DIM), lambda _: ()), r"empty tuple"),
    "a dict first": (lambda c: c(streams(2, N, DIM), lambda h: ({"h": h},)), r"returned dict"),
    "whole numbers": (lambda c: c(streams(2, N, DIM).long(), torch.tanh), r"streams: torch.int64"),
    "write": (lambda c: c.write(streams(2, N, DIM), streams(1, DIM), c.read(streams(2, N, DIM))[1]), r"output: shape"),
}


@pytest.mark.parametrize("variant", ["mhc", "hc", "identity_hc"])
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(variant: str, name: str) -> None:
    call, says = MISTAKES[name]
    with pytest.raises((ValueError, TypeError), match=says):
        call(build(variant))


def test_mistakes_are_named_without_assertions_too() -> None:
    code = (
        "import torch; from mhc_lab import residual\n"
        "c = residual.build('mhc', dim=64, layer_index=1, streams=4)\n"
        "for shape in ((5, 64, 4), (5, 4, 128), (5, 4, 32), (4, 63)):\n"
        "    try: c(torch.randn(shape), torch.tanh)\n"
        "    except ValueError: continue\n"
        "    raise SystemExit(str(shape))\n"
    )
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_overrides_have_a_shape() -> None:
    connection = build("mhc")
    with (
        pytest.raises(ValueError, match=r"override of h_res: shape \[3, 3\], wanted \[..., 4, 4\]"),
        connection.override(h_res=torch.eye(3)),
    ):
        pass
    with pytest.raises(ValueError, match=r"h_pre: shape \[7, 4\]"), connection.override(h_pre=torch.ones(7, 4)):
        connection(torch.zeros(2, N, DIM), torch.tanh)


def test_a_constraint_of_ones_own_is_named_where_its_shape_is_wrong() -> None:
    class Wrong(Constraint):
        def birth(self) -> Tensor:
            return torch.zeros(self.logits)

        def __call__(self, logits: Tensor) -> Tensor:
            return logits

    connection = build("mhc")
    connection.constraint = Wrong(N, connection.config)
    connection._behind = lambda: {"post": N, "read_eps": 0.0, "t_max": 0, "convention": "eq9"}  # type: ignore[attr-defined, method-assign]
    with pytest.raises(LabError, match=r"constraint Wrong: gave shape \[2, 16\] for H_res, wanted \[2, 4, 4\]"):
        connection(torch.zeros(2, N, DIM), torch.tanh)


@pytest.mark.parametrize("name", ["expand", "collapse", "recompute", "expand_base", "collapse_eps"])
def test_what_a_single_connection_does_not_read_is_refused(name: str) -> None:
    values = {"expand": "scaled", "collapse": "sum", "recompute": "auto", "expand_base": 0.5, "collapse_eps": 1e-6}
    with pytest.raises(LabError, match=f"{name}: has no effect in a single connection"):
        build("mhc", **{name: values[name]})


@pytest.mark.parametrize(
    ("arguments", "says"), [({"dim": 0}, "dim=0"), ({"dim": 8, "layer_index": -1}, "layer_index=-1")]
)
def test_places_and_widths_are_whole_numbers(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(LabError, match=says):
        residual.build("mhc", **arguments)


def test_the_lists_of_names_outlive_a_build() -> None:
    code = (
        "from mhc_lab import residual; before = residual.constraints(); residual.build('mhc', dim=8)\n"
        "import mhc_lab.residual.constraints.base as base\n"
        "assert residual.constraints() == before and residual.variants() and base.Constraint"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_connection_says_what_it_is() -> None:
    assert "mhc, dim=12, streams=4, layer_index=1, h_pre=dynamic" in repr(build("mhc"))
    assert "identity, dim=12, streams=any" in repr(build("identity"))
