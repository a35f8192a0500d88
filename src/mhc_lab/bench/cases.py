# ruff: noqa: ARG001, ARG005 -- the functions of one table have one signature, whatever each needs of it
"""What is measured: each operation's inputs, its equations in plain torch, and the bytes that it has to move."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mhc_lab.ops.sinkhorn.reference import sinkhorn_reference

Tensors = dict[str, Tensor]

SHARED = ("phi", "alpha", "bias")  # inputs that all tokens share; their gradients are sums over tokens
STREAM_LIKE = ("written", "hidden")  # outputs in the stream dtype; the others are fp32
COEFFICIENT = 4  # bytes: coefficients are fp32
NORM_EPS = 1e-20  # mHC Table 5
L2_REACH = 10240  # n C up to which a block's streams are still in L2 when they are looked at again


@dataclass(frozen=True)
class Shape:
    """T tokens of n streams of C channels."""

    tokens: int
    dim: int
    streams: int = 4
    dtype: torch.dtype = torch.bfloat16
    t_max: int = 20

    @property
    def packed(self) -> int:
        """m = n^2 + 2 n: packed columns of the coefficients, in the order pre, post, res."""
        return self.streams * (self.streams + 2)


@dataclass(frozen=True)
class Case:
    """One operation.

    `equations` takes and gives tensors by name, in whatever float dtype they are; `rounded` is the dtype that the
    streams have between two operations, and `transposed` says that Sinkhorn runs on the transposed matrices (rows
    first, columns last, as Liger has it). `forward_bytes` and `backward_bytes` count each input read once and each
    output written once, in the dtypes of the shape: what no implementation can go below.
    """

    name: str
    inputs: Callable[[Shape, Draw], Tensors]
    equations: Callable[[Mapping[str, Tensor], Shape, torch.dtype, bool], Tensors]
    forward_bytes: Callable[[Shape], int]
    backward_bytes: Callable[[Shape], int]
    depends_on_dim: bool = True
    iterates: bool = False  # it has a Sinkhorn iteration

    def bytes_moved(self, direction: str, shape: Shape) -> int:
        """Bytes of "forward", "backward" or "both"."""
        forward = 0 if direction == "backward" else self.forward_bytes(shape)
        return forward + (0 if direction == "forward" else self.backward_bytes(shape))


@dataclass(frozen=True)
class Problem:
    """A case at a shape, with inputs and with gradients of its outputs to start a backward pass from."""

    case: Case
    shape: Shape
    inputs: Tensors
    cotangents: Tensors

    @property
    def device(self) -> torch.device:
        return next(iter(self.inputs.values())).device


class Draw:
    """Random inputs of one shape, the same for every implementation."""

    def __init__(self, shape: Shape, device: torch.device, seed: int = 0) -> None:
        self.shape = shape
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *size: int) -> Tensor:
        """Coefficient-like: fp32."""
        return torch.randn(size, generator=self.generator, device=self.device)

    def wide(self, *size: int) -> Tensor:
        """Stream-like: in the stream dtype."""
        return torch.randn(size, generator=self.generator, device=self.device, dtype=self.shape.dtype)

    def streams(self) -> Tensor:
        return self.wide(self.shape.tokens, self.shape.streams, self.shape.dim)

    def projection(self) -> Tensors:
        """phi, alpha (of pre, post, res) and bias that give logits of standard deviation 1.1."""
        width = self.shape.streams * self.shape.dim
        # Representable in the stream dtype: implementations that keep phi in it then compute the same function.
        phi = (self.normal(width, self.shape.packed) * width**-0.5).to(self.shape.dtype).float()
        return {
            "phi": phi,
            "alpha": torch.tensor([1.0, 0.8, 1.2], device=self.device),
            "bias": 0.5 * self.normal(self.shape.packed),
        }

    def h_pre(self) -> Tensor:
        return torch.sigmoid(self.normal(self.shape.tokens, self.shape.streams))

    def mixing(self) -> Tensors:
        n = self.shape.streams
        return {
            "h_post": 2 * torch.sigmoid(self.normal(self.shape.tokens, n)),
            "h_res": sinkhorn_reference(self.normal(self.shape.tokens, n, n), self.shape.t_max),
        }


def sinkhorn_of(logits: Tensor, shape: Shape, transposed: bool) -> Tensor:
    """[T, n, n] logits -> H_res (mHC Eq. 9); transposed: rows first and columns last."""
    if transposed:
        return sinkhorn_reference(logits.mT, shape.t_max).mT
    return sinkhorn_reference(logits, shape.t_max)


def columns_of(alpha: Tensor, shape: Shape) -> Tensor:
    """One alpha a mapping [3] -> one a packed column [m]."""
    n = shape.streams
    pre, post, res = alpha.unbind()
    return torch.cat([pre.expand(n), post.expand(n), res.expand(n * n)])


def project(given: Mapping[str, Tensor], streams: Tensor, shape: Shape) -> Tensor:
    """Raw mappings [T, m]: alpha RMSNorm(vec(x)) phi + bias (mHC Eq. 14-16)."""
    flat = streams.flatten(-2)  # [T, n, C] -> [T, n C]
    inverse_rms = torch.rsqrt(flat.square().mean(-1, keepdim=True) + NORM_EPS)
    return columns_of(given["alpha"], shape) * ((flat @ given["phi"]) * inverse_rms) + given["bias"]


def mappings_of(raw: Tensor, shape: Shape, transposed: bool, constrained: bool = True) -> Tensors:
    """Raw [T, m] -> pre [T, n], post [T, n], res [T, n, n]: sigmoid, 2 sigmoid, Sinkhorn (mHC Eq. 17-19) or nothing."""
    pre, post, res = split_packed(raw, shape)
    if constrained:
        res = sinkhorn_of(res, shape, transposed)
    return {"pre": torch.sigmoid(pre), "post": 2 * torch.sigmoid(post), "res": res}


def split_packed(packed: Tensor, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """[..., m] -> [..., n], [..., n], [..., n, n]."""
    n = shape.streams
    pre, post, res = packed.split([n, n, n * n], dim=-1)
    return pre, post, res.unflatten(-1, (n, n))


def read_of(streams: Tensor, h_pre: Tensor) -> Tensor:
    return (h_pre.unsqueeze(-1) * streams).sum(-2)


def write_of(given: Mapping[str, Tensor]) -> Tensor:
    """H_res x + H_post^T F (mHC Eq. 3); H_res = I where there is none."""
    streams = given["streams"]
    mixed = given["h_res"] @ streams if "h_res" in given else streams
    return mixed + given["h_post"].unsqueeze(-1) * given["output"].unsqueeze(-2)


def _sinkhorn(given: Mapping[str, Tensor], shape: Shape, rounded: torch.dtype, transposed: bool) -> Tensors:
    return {"h_res": sinkhorn_of(given["logits"], shape, transposed)}


def _coefficients(given: Mapping[str, Tensor], shape: Shape, rounded: torch.dtype, transposed: bool) -> Tensors:
    return mappings_of(project(given, given["streams"], shape), shape, transposed)


def _unconstrained(given: Mapping[str, Tensor], shape: Shape, rounded: torch.dtype, transposed: bool) -> Tensors:
    return mappings_of(project(given, given["streams"], shape), shape, transposed, constrained=False)


def _read(given: Mapping[str, Tensor], shape: Shape, rounded: torch.dtype, transposed: bool) -> Tensors:
    return {"hidden": read_of(given["streams"], given["h_pre"])}


def _write(given: Mapping[str, Tensor], shape: Shape, rounded: torch.dtype, transposed: bool) -> Tensors:
    return {"written": write_of(given)}


def _write_read(given: Mapping[str, Tensor], shape: Shape, rounded: torch.dtype, transposed: bool) -> Tensors:
    written = write_of(given)
    # The next layer sees the streams as they were stored.
    stored = written.to(rounded).to(written.dtype)
    # A cast rounds the gradient too: the truth lets it through as it is.
    written = written + (stored - written).detach() if written.dtype == torch.float64 else stored
    mappings = mappings_of(project(given, written, shape), shape, transposed)
    return {"written": written, "hidden": read_of(written, mappings["pre"]), **mappings}


def _for_coefficients(shape: Shape, draw: Draw) -> Tensors:
    return {"streams": draw.streams(), **draw.projection()}


def _for_write(shape: Shape, draw: Draw) -> Tensors:
    return {"streams": draw.streams(), "output": draw.wide(shape.tokens, shape.dim), **draw.mixing()}


def _elements(shape: Shape, per_channel: int, per_token: int) -> int:
    """Bytes of so many stream elements a token and channel, and so many coefficients a token."""
    return shape.tokens * (per_channel * shape.dim * shape.dtype.itemsize + per_token * COEFFICIENT)


def _phi(shape: Shape) -> int:
    return shape.streams * shape.dim * shape.packed * COEFFICIENT


def _second_look(shape: Shape) -> int:
    """Elements a channel for the second look at streams that have just been written, where they have left L2."""
    return shape.streams if shape.streams * shape.dim > L2_REACH else 0


# What a token's coefficients take beside the streams: values, projection and 1 / rms.
_COEFFICIENTS_BYTES = (
    lambda s: _elements(s, s.streams, 2 * s.packed + 1) + _phi(s),
    lambda s: _elements(s, 2 * s.streams, 2 * s.packed + 1) + 2 * _phi(s),
)

CASES = {
    case.name: case
    for case in (
        Case(
            "sinkhorn",
            lambda s, draw: {"logits": draw.normal(s.tokens, s.streams, s.streams)},
            _sinkhorn,
            lambda s: _elements(s, 0, 2 * s.streams**2),
            lambda s: _elements(s, 0, 3 * s.streams**2),
            depends_on_dim=False,
            iterates=True,
        ),
        Case(
            "coefficients",
            _for_coefficients,
            _coefficients,
            *_COEFFICIENTS_BYTES,
            iterates=True,
        ),
        Case(
            "coefficients_unconstrained",
            _for_coefficients,
            _unconstrained,
            *_COEFFICIENTS_BYTES,
        ),
        Case(
            "read",
            lambda s, draw: {"streams": draw.streams(), "h_pre": draw.h_pre()},
            _read,
            lambda s: _elements(s, s.streams + 1, s.streams),
            lambda s: _elements(s, 2 * s.streams + 1, 2 * s.streams),
        ),
        Case(
            "write",
            _for_write,
            _write,
            lambda s: _elements(s, 2 * s.streams + 1, s.streams + s.streams**2),
            lambda s: _elements(s, 3 * s.streams + 2, 2 * (s.streams + s.streams**2)),
        ),
        Case(
            "write_identity",
            lambda s, draw: {name: value for name, value in _for_write(s, draw).items() if name != "h_res"},
            _write,
            lambda s: _elements(s, 2 * s.streams + 1, s.streams),
            lambda s: _elements(s, 2 * s.streams + 2, 2 * s.streams),  # the streams themselves are not looked at
        ),
        Case(
            "write_read",
            lambda s, draw: {**_for_write(s, draw), **draw.projection()},
            _write_read,
            lambda s: (
                _elements(s, 2 * s.streams + 2 + _second_look(s), s.streams + s.streams**2 + 2 * s.packed + 1) + _phi(s)
            ),
            lambda s: _elements(s, 3 * s.streams + 3, 2 * (s.streams + s.streams**2) + 3 * s.packed + 1) + 2 * _phi(s),
            iterates=True,
        ),
    )
}


def pose(case: Case, shape: Shape, device: torch.device) -> Problem:
    """A problem with random inputs, the same whenever it is asked for."""
    draw = Draw(shape, device)
    inputs = case.inputs(shape, draw)
    few = {name: value if name in SHARED else value[:1] for name, value in inputs.items()}
    wide = {name: value.float() for name, value in few.items()}
    outputs = case.equations(wide, dataclasses.replace(shape, tokens=1), torch.float32, False)
    cotangents = {}
    for name, value in outputs.items():
        make = draw.wide if name in STREAM_LIKE else draw.normal
        cotangents[name] = make(shape.tokens, *value.shape[1:])
    return Problem(case, shape, inputs, cotangents)
