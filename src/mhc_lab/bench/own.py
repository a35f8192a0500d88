# ruff: noqa: ARG001, ARG005 -- the functions of one table have one signature, whatever each needs of it
"""Our operations, and their equations in plain torch, eager and compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch

from mhc_lab import ops
from mhc_lab.bench.adapters import Adapter, pack, unpack
from mhc_lab.bench.cases import CASES, STREAM_LIKE, Case, Shape, Tensors, columns_of, split_packed


def _sinkhorn(x: Tensors, s: Shape) -> Tensors:
    return {"h_res": ops.sinkhorn(x["logits"], s.t_max)}


def _coefficients(t_max: Callable[[Shape], int]) -> Callable[[Tensors, Shape], Tensors]:
    def run(x: Tensors, s: Shape) -> Tensors:
        n = s.streams
        values = ops.coefficients(x["streams"], x["phi"], x["alpha"], x["bias"], pre=n, post=n, t_max=t_max(s))
        return {"values": values}

    return run


def _read(x: Tensors, s: Shape) -> Tensors:
    return {"hidden": ops.read(x["streams"], x["h_pre"])}


def _write(x: Tensors, s: Shape) -> Tensors:
    return {"written": ops.write(x["streams"], x["output"], x["h_post"], x.get("h_res"))}


def _write_read(x: Tensors, s: Shape) -> Tensors:
    n = s.streams
    written, hidden, values = ops.write_read(
        x["streams"],
        x["output"],
        x["weights"],
        None,
        x["phi"],
        x["alpha"],
        x["bias"],
        post_at=n,
        res_at=2 * n,
        post=n,
        t_max=s.t_max,
    )
    return {"written": written, "hidden": hidden, "values": values}


def _unfused(x: Tensors, s: Shape) -> Tensors:
    written = ops.write(x["streams"], x["output"], x["h_post"], x["h_res"])
    n = s.streams
    values = ops.coefficients(written, x["phi"], x["alpha"], x["bias"], pre=n, post=n, t_max=s.t_max)
    return {"written": written, "hidden": ops.read(written, values[:, :n]), "values": values}


def _encode(tensors: Tensors, shape: Shape) -> Tensors:
    """One alpha a mapping -> one a column; mappings packed."""
    own = dict(pack(tensors, shape))
    if "alpha" in own:
        own["alpha"] = columns_of(own["alpha"], shape)
    return own


def _decode(tensors: Tensors, shape: Shape) -> Tensors:
    """The gradient of one alpha a column -> that of one a mapping; mappings apart."""
    ours = unpack(tensors, shape)
    if "alpha" not in ours:
        return ours
    return {**ours, "alpha": torch.stack([part.sum() for part in split_packed(ours["alpha"], shape)])}


def _encode_layer(tensors: Tensors, shape: Shape) -> Tensors:
    """As a stack has them: H_post and H_res are columns of the layer's packed coefficients."""
    own = _encode(tensors, shape)
    if "h_res" in own:
        unused = torch.zeros_like(own["h_post"])
        own["weights"] = torch.cat([unused, own.pop("h_post"), own.pop("h_res").flatten(-2)], dim=-1)
    return own


def _decode_layer(tensors: Tensors, shape: Shape) -> Tensors:
    ours = dict(_decode(tensors, shape))
    if "weights" in ours:
        _, ours["h_post"], ours["h_res"] = split_packed(ours.pop("weights"), shape)
    return ours


OURS: Mapping[str, Adapter] = {
    "sinkhorn": Adapter(_sinkhorn),
    "coefficients": Adapter(_coefficients(lambda shape: shape.t_max), _encode, _decode),
    "coefficients_unconstrained": Adapter(_coefficients(lambda shape: 0), _encode, _decode),
    "read": Adapter(_read),
    "write": Adapter(_write),
    "write_identity": Adapter(_write),
    "write_read": Adapter(_write_read, _encode_layer, _decode_layer),
}
UNFUSED: Mapping[str, Adapter] = {"write_read": Adapter(_unfused, _encode, _decode)}


def eager(case: Case) -> Adapter:
    """The equations in fp32 on streams of their own dtype."""

    def run(x: Tensors, s: Shape) -> Tensors:
        wide = {name: value.float() for name, value in x.items()}
        found = case.equations(wide, s, s.dtype, False)
        return {name: value.to(s.dtype) if name in STREAM_LIKE else value for name, value in found.items()}

    return Adapter(run)


def compiled(case: Case) -> Adapter:
    """The same through torch.compile, for each shape anew."""
    plain = eager(case)
    return dataclasses.replace(plain, run=torch.compile(plain.run, dynamic=False, fullgraph=True))


EAGER: Mapping[str, Adapter] = {name: eager(case) for name, case in CASES.items()}
