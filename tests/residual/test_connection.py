"""Connections: what each variant computes, its initial values, overrides and the equation itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mhc_lab import residual
from mhc_lab.errors import LabError
from mhc_lab.residual import registry

WITH_STREAMS = [name for name in registry.variants() if not registry.variant(name).plain]
WITH_MIXING = [name for name in WITH_STREAMS if "h_res" in registry.variant(name).toggles]


def streams_for(n: int, dim: int = 16) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, n, dim)


def shaken(name: str, **settings: object) -> residual.Connection:
    """A connection away from its initial values, so that every parameter matters."""
    torch.manual_seed(1)
    connection = residual.build(name, dim=16, layer_index=1, **settings)
    with torch.no_grad():
        for parameter in connection.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return connection


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("name", WITH_STREAMS)
def test_forward_is_equation_3(name: str, n: int) -> None:
    connection, streams = shaken(name, streams=n), streams_for(n)
    layer = torch.nn.Linear(16, 16)
    mappings = connection.mappings(streams)
    assert mappings.h_pre is not None and mappings.h_post is not None and mappings.h_res is not None
    output = layer((mappings.h_pre.unsqueeze(-1) * streams).sum(-2))
    expected = mappings.h_res @ streams + mappings.h_post.unsqueeze(-1) * output.unsqueeze(-2)
    torch.testing.assert_close(connection(streams, layer), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["dynamic", "static", "fixed"])
@pytest.mark.parametrize("toggle", ["h_pre", "h_post", "h_res"])
@pytest.mark.parametrize("name", WITH_MIXING)
def test_modes(name: str, toggle: str, mode: str) -> None:
    """Dynamic mappings differ from token to token, static ones do not, fixed ones are 1/n, ones and I."""
    connection, streams = shaken(name, **{toggle: mode}), streams_for(4)
    mapping = getattr(connection.mappings(streams), toggle)
    varies = (mapping - mapping[:1, :1]).abs().max() > 1e-6
    assert varies == (mode == "dynamic")
    if mode == "fixed":
        fixed = {"h_pre": torch.full((4,), 0.25), "h_post": torch.ones(4), "h_res": torch.eye(4)}[toggle]
        torch.testing.assert_close(mapping, fixed.expand(mapping.shape))
    names = {name.split("_")[-1] for name, _ in connection.named_parameters()}
    assert (toggle.removeprefix("h_") in names) == (mode != "fixed")


@pytest.mark.parametrize("name", registry.variants())
def test_every_parameter_gets_a_gradient_and_none_is_0d(name: str) -> None:
    connection = residual.build(name, dim=16)
    out = connection(streams_for(connection.streams), torch.nn.Linear(16, 16))
    out.square().sum().backward()
    for label, parameter in connection.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.dim() > 0, label


def test_mhc_is_equations_7_and_8() -> None:
    connection, streams = shaken("mhc", t_max=20), streams_for(4)
    get = {name: parameter.detach() for name, parameter in connection.named_parameters()}
    flat = streams.flatten(-2)
    normed = flat / flat.square().mean(-1, keepdim=True).sqrt()
    raw = {k: get[f"alpha_{k}"] * (normed @ get[f"phi_{k}"]) + get[f"b_{k}"] for k in ("pre", "post", "res")}
    matrix = torch.exp(raw["res"].unflatten(-1, (4, 4)))
    for _ in range(20):
        matrix = matrix / matrix.sum(-2, keepdim=True)
        matrix = matrix / matrix.sum(-1, keepdim=True)
    found = connection.mappings(streams)
    torch.testing.assert_close(found.h_pre, torch.sigmoid(raw["pre"]))
    torch.testing.assert_close(found.h_post, 2 * torch.sigmoid(raw["post"]))
    torch.testing.assert_close(found.h_res, matrix)


def test_hc_is_equation_5() -> None:
    connection, streams = shaken("hc"), streams_for(4)
    get = {name: parameter.detach() for name, parameter in connection.named_parameters()}
    normed = get["norm_weight"] * streams / streams.square().mean(-1, keepdim=True).sqrt()
    raw = {k: torch.tanh(get[f"theta_{k}"] @ normed.transpose(-1, -2)) for k in ("pre", "post", "res")}
    found = connection.mappings(streams)
    for key, mapping in (("pre", found.h_pre), ("post", found.h_post)):
        torch.testing.assert_close(mapping, get[f"alpha_{key}"] * raw[key].squeeze(-2) + get[f"b_{key}"])
    torch.testing.assert_close(found.h_res, get["alpha_res"] * raw["res"] + get["b_res"])


def test_initial_values_of_mhc() -> None:
    connection = residual.build("mhc", dim=512, layer_index=6, alpha_init=0.0)  # biases alone
    found = connection.mappings(torch.randn(1, 4, 512))
    home = 6 % 4
    read = torch.full((4,), 1 / (1 + math.exp(2)))
    read[home] = 1 / (1 + math.exp(-2))
    written = torch.full((4,), 1 - 1 / 4)
    written[home] = 2 - 1 / 4
    assert found.h_pre is not None and found.h_post is not None and found.h_res is not None
    torch.testing.assert_close(found.h_pre[0], read)
    torch.testing.assert_close(found.h_post[0], written)
    torch.testing.assert_close(found.h_res[0].diagonal(), torch.full((4,), 0.95), rtol=0, atol=1e-6)
    phi = connection.get_parameter("phi_res")
    assert phi.shape == (4 * 512, 16)
    assert abs(float(phi.detach().std()) - 0.02) < 1e-3


def test_initial_values_of_hc_are_the_hc_papers() -> None:
    found = residual.build("hc", dim=16, layer_index=5, alpha_init=0.0).mappings(streams_for(4))
    one_hot = torch.zeros(4)
    one_hot[1] = 1.0
    torch.testing.assert_close(found.h_pre, one_hot.expand(2, 3, 4))
    torch.testing.assert_close(found.h_post, torch.ones(2, 3, 4))
    torch.testing.assert_close(found.h_res, torch.eye(4).expand(2, 3, 4, 4))


def test_v4_adds_its_eps_to_the_read() -> None:
    v4, eq9 = (residual.build("mhc", dim=16, alpha_init=0.0, convention=c) for c in ("v4", "eq9"))
    difference = v4.mappings(streams_for(4)).h_pre - eq9.mappings(streams_for(4)).h_pre  # type: ignore[operator]
    torch.testing.assert_close(difference, torch.full((2, 3, 4), 1e-6), rtol=0.1, atol=0)


def test_overrides_replace_and_restore() -> None:
    connection, streams = shaken("mhc"), streams_for(4)
    before = connection.mappings(streams)
    assert before.h_res is not None and before.h_pre is not None
    with connection.override(h_res="fixed"):
        torch.testing.assert_close(connection.mappings(streams).h_res, torch.eye(4).expand(2, 3, 4, 4))
        with connection.override(h_pre="mean"):
            inner = connection.mappings(streams)
            torch.testing.assert_close(inner.h_pre, before.h_pre.flatten(0, 1).mean(0).expand(2, 3, 4))
            torch.testing.assert_close(inner.h_res, torch.eye(4).expand(2, 3, 4, 4))
    with connection.override(h_res="mean"):
        mean = before.h_res.flatten(0, 1).mean(0)
        torch.testing.assert_close(connection.mappings(streams).h_res, mean.expand(2, 3, 4, 4))
    swap = torch.eye(4).flip(0)
    with connection.override(h_res=swap):
        hidden, weights = connection.read(streams)
        written = connection.write(streams, torch.zeros_like(hidden), weights)
        torch.testing.assert_close(written, streams.flip(-2))
    torch.testing.assert_close(connection.mappings(streams).h_res, before.h_res)


def test_the_plain_residual_adds() -> None:
    connection = residual.build("identity", dim=16)
    streams, layer = streams_for(1), torch.nn.Linear(16, 16)
    torch.testing.assert_close(connection(streams, layer), streams + layer(streams))
    assert not list(connection.parameters())


def test_bf16_streams_keep_fp32_mappings() -> None:
    connection, streams = shaken("mhc"), streams_for(4).bfloat16()
    hidden, weights = connection.read(streams)
    assert hidden.dtype == torch.bfloat16
    assert weights.h_res is not None and weights.h_res.dtype == torch.float32
    assert connection.write(streams, hidden, weights).dtype == torch.bfloat16


def test_the_public_face() -> None:
    connection = residual.build(
        "mhc", dim=8, layer_index=3, streams=4, t_max=20, h_pre="dynamic", h_post="dynamic", h_res="dynamic"
    )
    streams = residual.expand(torch.randn(2, 5, 8), streams=4)
    hidden, weights = connection.read(streams)
    streams = connection.write(streams, hidden, weights)
    assert residual.collapse(streams).shape == (2, 5, 8)


@pytest.mark.parametrize("dim", [0, -4, 8.5, "8"])
def test_a_width_that_is_none(dim: object) -> None:
    with pytest.raises(LabError, match="dim"):
        residual.build("mhc", dim=dim)  # type: ignore[arg-type]


def test_an_unknown_override_is_refused() -> None:
    connection = residual.build("mhc", dim=16)
    with pytest.raises(LabError, match="'fixed', 'mean' or a tensor"), connection.override(h_res="identity"):  # type: ignore[arg-type]
        connection.mappings(streams_for(4))


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("mch", {}, "did you mean 'mhc'"),
        ("mhc", {"streams": 0}, "from 1 to 1024"),
        ("mhc", {"stream": 2}, "did you mean 'streams'"),
        ("mhc", {"alpha_init": math.nan}, "finite"),
        ("orthogonal", {"t_max": 3}, "has no t_max"),
        ("identity", {"h_pre": "fixed"}, "has no h_pre"),
        ("mhc", {"h_post_home": 2.5}, "below 2"),
        ("mhc", {"h_res": "off"}, "h_res"),
        ("mhc", {"h_pre": None}, "h_pre"),
        ("mhc", {"streams": 2.5}, "Integer"),
        ("mhc", {"t_max": "many"}, "Integer"),
        ("mhc", {"convention": "v3"}, "convention"),
        ("mhc", {"expand": "bogus"}, "expand"),
    ],
)
def test_mistakes_are_named(name: str, settings: dict[str, object], says: str) -> None:
    with pytest.raises(LabError, match=says):
        residual.build(name, dim=16, **settings)
