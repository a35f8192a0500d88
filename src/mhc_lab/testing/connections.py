"""The laws of a variant's connections: read, write, and the mappings behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mhc_lab.config.compose import residual_config
from mhc_lab.config.schema import ResidualConfig
from mhc_lab.models.stack import ResidualStack
from mhc_lab.residual import registry
from mhc_lab.residual.connection import Connection, Mappings
from mhc_lab.residual.factory import connection, layer_constraint
from mhc_lab.testing.law import DoesNotApply, Law, require, require_close

DIM = 16
LAYERS = 5
Module = TypeVar("Module", bound=nn.Module)

SHAKEN = 0.3  # standard deviation that is added to every parameter, so that each matters


@dataclass(frozen=True)
class ConnectionCase:
    """A variant for n streams, under some settings of `residual`."""

    variant: str
    streams: int
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join([f"n = {self.streams}", *(f"{name}={value}" for name, value in self.settings.items())])

    def config(self, **settings: Any) -> ResidualConfig:
        entry = registry.variant(self.variant)
        streams = {} if entry.plain else {"streams": self.streams}
        return residual_config(self.variant, {**streams, **self.settings, **settings})

    def built(self, layer_index: int = 1, **settings: Any) -> Connection:
        """A connection at its birth."""
        torch.manual_seed(layer_index)
        return connection(self.config(**settings), DIM, layer_index)

    def shaken(self, layer_index: int = 1, **settings: Any) -> Connection:
        """A connection away from its birth."""
        return shake(self.built(layer_index, **settings))

    def hidden(self) -> Tensor:
        return torch.randn(2, 3, self.streams, DIM, generator=torch.Generator().manual_seed(0))

    def stack(self, **settings: Any) -> ResidualStack:
        """A shaken stack of layers that differ."""
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Linear(DIM, DIM), nn.Tanh()) for _ in range(LAYERS)]
        return shake(ResidualStack(layers, DIM, self.config(**settings)))


def shake(module: Module) -> Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * SHAKEN)
    return module


def _equation(case: ConnectionCase) -> None:
    one, streams, layer = case.shaken(), case.hidden(), nn.Linear(DIM, DIM)
    h_pre, h_post, h_res = _three(one.mappings(streams))
    output = layer((h_pre.unsqueeze(-1) * streams).sum(-2))
    wanted = h_res @ streams + h_post.unsqueeze(-1) * output.unsqueeze(-2)
    require_close(one(streams, layer), wanted, "streams behind the layer", rtol=1e-4, atol=1e-5)


def _fused(case: ConnectionCase) -> None:
    first, second = case.shaken(0), case.shaken(1)

    def run(apart: bool) -> tuple[Tensor, ...]:
        streams = case.hidden().requires_grad_()
        hidden, weights = first.read(streams)
        output = torch.sin(hidden)
        if apart:
            written = first.write(streams, output, weights)
            read, _ = second.read(written)
        else:
            written, read, _ = first.write_read(second, streams, output, weights)
        parameters = [*first.parameters(), *second.parameters()]
        loss = (written * torch.cos(torch.arange(DIM))).sum() + (read * torch.sin(torch.arange(DIM))).sum()
        gradients = torch.autograd.grad(loss, [streams, *parameters], allow_unused=True, materialize_grads=True)
        return (written, read, *gradients)

    for together, wanted in zip(run(apart=False), run(apart=True), strict=True):
        require_close(together, wanted, "write_read against write, then read", rtol=1e-3, atol=1e-4)


def _gradients(case: ConnectionCase) -> None:
    one, layer = case.built(), nn.Linear(DIM, DIM)
    one(case.hidden(), layer).square().sum().backward()
    without = [name for name, parameter in one.named_parameters() if parameter.grad is None]
    require(not without, f"no gradient for {', '.join(without)}")
    scalars = [name for name, parameter in one.named_parameters() if not parameter.dim()]
    require(not scalars, f"no dimension: {', '.join(scalars)}")


def _counted(case: ConnectionCase) -> None:
    config = case.config()
    for layer in (0, LAYERS - 1):
        said = type(case.built(layer)).cost(DIM, config, layer_constraint(config, layer)).parameters
        counted = sum(parameter.numel() for parameter in case.built(layer).parameters())
        require(said == counted, f"cost() says {said} parameters, there are {counted}")


def _birth(case: ConnectionCase) -> None:
    drawn: list[dict[str, Tensor]] = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)  # of the default generator, which is not to be asked
        one = case.built()
        torch.manual_seed(len(drawn))
        generator = torch.Generator().manual_seed(3)
        for name, parameter in one.named_parameters():
            one.init_parameter(name, parameter, generator)
        drawn.append({name: parameter.detach().clone() for name, parameter in one.named_parameters()})
    for name, value in drawn[0].items():
        for other in drawn[1:]:
            require_close(other[name], value, f"init_parameter({name!r}) drawn again", rtol=0, atol=0)


def _precisions(case: ConnectionCase) -> None:
    one, streams = case.shaken(), case.hidden()
    hidden, weights = one.read(streams)
    written = one.write(streams, torch.sin(hidden), weights)
    wide = case.shaken().double()
    wide_hidden, wide_weights = wide.read(streams.double())
    wide_written = wide.write(streams.double(), torch.sin(wide_hidden), wide_weights)
    require(wide_written.dtype == torch.float64, f"{wide_written.dtype} for streams in fp64")
    require_close(hidden, wide_hidden, "what is read, in fp32 against fp64", rtol=1e-4, atol=1e-4)
    require_close(written, wide_written, "streams in fp32 against fp64", rtol=1e-4, atol=1e-4)
    half = streams.bfloat16()
    half_hidden, half_weights = one.read(half)
    half_written = one.write(half, half_hidden, half_weights)
    dtypes = {half_hidden.dtype, half_written.dtype}
    require(dtypes == {torch.bfloat16}, f"streams in bf16 give {' and '.join(map(str, dtypes))}")


def _tokens(case: ConnectionCase) -> None:
    one, streams = case.shaken(), case.hidden()
    together = one(streams, torch.sin)
    apart = torch.stack([torch.stack([one(token[None], torch.sin)[0] for token in window]) for window in streams])
    require_close(apart, together, "a token by itself", rtol=1e-4, atol=1e-5)


def _recomputed(case: ConnectionCase) -> None:
    if registry.variant(case.variant).plain:
        raise DoesNotApply("a plain residual keeps nothing that could be made again")

    def gradients(recompute: str) -> tuple[Tensor, ...]:
        stack = case.stack(recompute=recompute)
        hidden = torch.randn(2, 3, DIM, generator=torch.Generator().manual_seed(0)).requires_grad_()
        out = stack(hidden)
        return (out, *torch.autograd.grad(out.square().sum(), [hidden, *stack.parameters()], allow_unused=False))

    for again, wanted in zip(gradients("2"), gradients("off"), strict=True):
        require_close(again, wanted, "residual.recompute=2 against off", rtol=1e-5, atol=1e-5)


def _overridden(case: ConnectionCase) -> None:
    one, streams = case.shaken(), case.hidden()
    before = _three(one.mappings(streams))
    fixed = (torch.full((case.streams,), 1 / case.streams), torch.ones(case.streams), torch.eye(case.streams))
    whole = (
        one.override(h_pre="fixed"),
        one.override(h_post="fixed"),
        one.override(h_res="fixed"),
    )
    for index, (override, wanted) in enumerate(zip(whole, fixed, strict=True)):
        with override:
            found = _three(one.mappings(streams))[index]
        name = registry.TOGGLES[index]
        require_close(found, wanted.expand(found.shape), f"{name} overridden by 'fixed'", rtol=0, atol=1e-7)
    for after, wanted in zip(_three(one.mappings(streams)), before, strict=True):
        require_close(after, wanted, "mappings after an override", rtol=0, atol=0)


def _gauge(case: ConnectionCase) -> None:
    """H_l, c_l, b_l against I, G_l^T c_l, G_{l+1}^-1 b_l with G_{l+1} = H_l G_l: x_l = G_l x~_l."""
    if not {"h_pre", "h_post", "h_res"} <= set(registry.variant(case.variant).toggles):
        raise DoesNotApply("one of its mappings is fixed")
    connections = [case.shaken(layer, h_pre="static", h_post="static", h_res="static").double() for layer in range(3)]
    streams = mixed = case.hidden().double()
    gauge = torch.eye(case.streams, dtype=torch.float64)
    with torch.no_grad():
        for one in connections:
            h_pre, h_post, h_res = (mapping[0, 0].double() for mapping in _three(one.mappings(streams)))
            if torch.linalg.cond(h_res @ gauge) > 1e4:
                raise DoesNotApply("this H_res has no inverse that fp64 knows to 1e-10")
            following = h_res @ gauge
            replaced = {"h_pre": gauge.T @ h_pre, "h_post": torch.linalg.solve(following, h_post)}
            streams = one(streams, torch.tanh)
            with one.override(**replaced, h_res="fixed"):
                mixed = one(mixed, torch.tanh)
            gauge = following
            require_close(gauge @ mixed, streams, "the network without mixing", rtol=0, atol=1e-10)


def _plain(case: ConnectionCase) -> None:
    if not registry.variant(case.variant).plain_at_birth:
        raise DoesNotApply("plain_at_birth is not claimed")
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(DIM, DIM), nn.Tanh()) for _ in range(LAYERS)]
    stack = ResidualStack(layers, DIM, case.config())
    hidden = torch.randn(2, 3, DIM, generator=torch.Generator().manual_seed(0))
    wanted = hidden
    for layer in layers:
        wanted = wanted + layer(wanted)
    require_close(stack(hidden), wanted, "the stack at birth against x + F(x)", rtol=1e-5, atol=1e-6)


def _three(mappings: Mappings) -> tuple[Tensor, Tensor, Tensor]:
    found = (mappings.h_pre, mappings.h_post, mappings.h_res)
    require(all(mapping is not None for mapping in found), "mappings() leaves one out")
    return found  # type: ignore[return-value]


LAWS: tuple[Law[ConnectionCase], ...] = (
    Law("equation", "read, layer and write are x' = H_res x + H_post^T F(H_pre x) of `mappings()` (Eq. 3)", _equation),
    Law("write_read", "`write_read` is `write`, then the next one's `read`, with the same gradients", _fused),
    Law("gradients", "each parameter has a gradient (DDP) and at least one dimension (FSDP2)", _gradients),
    Law("counted", "`cost` says how many parameters there are", _counted),
    Law("initial values", "`init_parameter` draws from the generator that it is given, and from nothing else", _birth),
    Law("precisions", "fp64 streams stay fp64 and agree with fp32; bf16 streams stay bf16", _precisions),
    Law("tokens", "a token's streams depend on that token alone", _tokens),
    Law("recomputed", "the same streams give the same again: residual.recompute changes no gradient", _recomputed),
    Law("overridden", "`override` replaces a mapping while it lasts, and nothing after", _overridden),
    Law(
        "gauge",
        "static mixing that has an inverse is no more than reads and writes: H_res = I with c~ = G^T c, b~ = G^-1 b, "
        "G_{l+1} = H_l G_l, is the same network, to 1e-10 in fp64",
        _gauge,
    ),
    Law("plain at birth", "a variant with `plain_at_birth` starts as the plain residual x + F(x)", _plain),
)
