# ruff: noqa: ARG001, ARG005 -- the functions of one table have one signature, whatever each needs of it
"""Other people's kernels, called in their own layouts; each says why it cannot be had where it cannot.

Ours: streams [T, n, C], H_res[out, in], Sinkhorn columns first and rows last. Liger's Sinkhorn ends with columns: it is
held against the equations on transposed matrices (`Adapter.transposed`), which is the same work. FlagGems, TileKernels
and TransformerEngine keep H_res^T, so that theirs are our matrices transposed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mhc_lab.bench.adapters import Absent, Adapter, transpose_mixing
from mhc_lab.bench.cases import Shape, Tensors

Adapters = Mapping[str, Adapter]
Run = Callable[[Tensors, Shape], Tensors]

NORM_EPS = 1e-20
SINKHORN_EPS = 1e-6  # the constant that all of them ship; ours has none, and at these logits it changes 1e-5


def liger() -> Adapters:
    """liger-kernel: coefficients, pre and post_res, forward and backward."""
    f = _load("liger_kernel.transformers.functional", "liger-kernel")

    def coefficients(x: Tensors, streams: Tensor, s: Shape) -> Tensors:
        pre, post, res = f.liger_mhc_coeffs(
            streams,
            x["phi"],
            x["bias"],
            x["alpha_pre"],
            x["alpha_post"],
            x["alpha_res"],
            allow_fp32=s.dtype == torch.float32,
            tmax=s.t_max,
            rms_eps=NORM_EPS,
            pre_eps=0.0,
            sinkhorn_eps=SINKHORN_EPS,
            post_mult=2.0,
        )
        return {"pre": pre, "post": post, "res": res}

    def write_read(x: Tensors, s: Shape) -> Tensors:
        written = f.liger_mhc_post_res(x["streams"], x["output"], x["h_post"], x["h_res"])
        mappings = coefficients(x, written, s)
        return {"written": written, "hidden": f.liger_mhc_pre(written, mappings["pre"]), **mappings}

    def encode(tensors: Tensors, s: Shape) -> Tensors:
        own = dict(tensors)
        if "phi" in own:
            own["phi"] = own["phi"].to(s.dtype)  # in the dtype of the streams it uses tensor cores
        if "alpha" in own:
            own.update(zip(_ALPHAS, (alpha.clone() for alpha in own.pop("alpha")), strict=True))
        return own

    def decode(tensors: Tensors, s: Shape) -> Tensors:
        ours = {name: value for name, value in tensors.items() if name not in _ALPHAS}
        if _ALPHAS[0] in tensors:
            ours["alpha"] = torch.stack([tensors[name] for name in _ALPHAS])
        return ours

    def whole(run: Run) -> Adapter:
        return Adapter(run, encode, decode, refuses=_not_a_power_of_two, transposed=True)

    return {
        "coefficients": whole(lambda x, s: coefficients(x, x["streams"], s)),
        "read": whole(lambda x, s: {"hidden": f.liger_mhc_pre(x["streams"], x["h_pre"])}),
        "write": whole(
            lambda x, s: {"written": f.liger_mhc_post_res(x["streams"], x["output"], x["h_post"], x["h_res"])}
        ),
        "write_read": whole(write_read),
    }


def flag_gems() -> Adapters:
    """flag-gems: post, and coefficients with the read behind them; forward only."""
    f = _load("flag_gems.fused.mhc", "flag-gems")

    def write(x: Tensors, s: Shape) -> Tensors:
        return {"written": f.mhc_post(x["output"], x["streams"], x["h_post"], x["h_res"])}

    def write_read(x: Tensors, s: Shape) -> Tensors:
        written = write(x, s)["written"]
        eps = (NORM_EPS, 0.0, SINKHORN_EPS)
        post, res, hidden = f.mhc_pre(written, x["phi"], x["alpha"], x["bias"], *eps, 2.0, s.t_max)
        return {"written": written, "hidden": hidden, "post": post.squeeze(-1), "res": res}

    def encode(tensors: Tensors, s: Shape) -> Tensors:
        return _phi_by_rows(transpose_mixing(tensors, s))

    def forward(run: Run) -> Adapter:
        return Adapter(run, encode, transpose_mixing, refuses=_not_bf16, backward=False)

    return {"write": forward(write), "write_read": forward(write_read)}


def tile_kernels() -> Adapters:
    """tile-kernels: every step by itself, forward and backward; n = 4."""
    f = _load("tile_kernels.modeling.mhc.ops", "tile-kernels")

    def coefficients(x: Tensors, streams: Tensor, s: Shape) -> Tensors:
        mixes = f.mhc_pre_norm_fn(streams, x["phi"], None, NORM_EPS, fuse_grad_acc=False)
        pre, post, res = f.mhc_pre_split_mixes(mixes, x["alpha"], x["bias"], s.streams, 2.0, 0.0)
        return {"pre": pre, "post": post, "res": f.sinkhorn_normalize(res, repeat=s.t_max, eps=SINKHORN_EPS)}

    def write(x: Tensors, s: Shape) -> Tensors:
        return {"written": f.mhc_post(x["output"], x["streams"], x["h_post"], x["h_res"])}

    def write_read(x: Tensors, s: Shape) -> Tensors:
        written = write(x, s)["written"]
        mappings = coefficients(x, written, s)
        return {"written": written, "hidden": f.mhc_pre_apply_mix(written, mappings["pre"]), **mappings}

    columns = ("h_pre", "h_post", "pre", "post")  # [T, n] -> [1, T, n, 1]

    def encode(tensors: Tensors, s: Shape) -> Tensors:
        own = _phi_by_rows(transpose_mixing(tensors, s))
        for name in own.keys() - _SHARED:
            own[name] = own[name].unsqueeze(0)
            if name in columns:
                own[name] = own[name].unsqueeze(-1)
        return own

    def decode(tensors: Tensors, s: Shape) -> Tensors:
        ours = dict(tensors)
        for name in ours.keys() - _SHARED:
            ours[name] = ours[name].squeeze(0)
            if name in columns:
                ours[name] = ours[name].squeeze(-1)
        return transpose_mixing(_phi_by_rows(ours), s)

    def whole(run: Run) -> Adapter:
        return Adapter(run, encode, decode, refuses=lambda s: _not_four(s) or _not_bf16(s))

    sinkhorn = whole(lambda x, s: {"h_res": f.sinkhorn_normalize(x["logits"], repeat=s.t_max, eps=SINKHORN_EPS)})
    return {
        "sinkhorn": Adapter(sinkhorn.run, encode, decode, refuses=_not_four),
        "coefficients": whole(lambda x, s: coefficients(x, x["streams"], s)),
        "read": whole(lambda x, s: {"hidden": f.mhc_pre_apply_mix(x["streams"], x["h_pre"])}),
        "write": whole(write),
        "write_read": whole(write_read),
    }


def transformer_engine() -> Adapters:
    """TransformerEngine: every step by itself, forward and backward; n = 4, the streams innermost."""
    f = _load("transformer_engine.pytorch.triton.mhc", "transformer-engine")

    def coefficients(x: Tensors, streams: Tensor, s: Shape) -> Tensors:
        projected, mean_square = f.mhc_fused_projection(streams.flatten(0, 1).flatten(1), x["phi"])
        pre, post, res = f.mhc_fused_scale(projected, x["alpha"], x["bias"], mean_square, s.streams)
        square = res.reshape(-1, 1, s.streams, s.streams)
        mixing = f.mhc_fused_sinkhorn(square, s.streams, iters=s.t_max)
        return {"pre": pre.unsqueeze(1), "post": post.unsqueeze(1), "res": mixing}

    def read(streams: Tensor, h_pre: Tensor, s: Shape) -> Tensor:
        found: Tensor = f.mhc_fused_aggregate(streams, h_pre, s.streams)
        return found

    def write(x: Tensors, s: Shape) -> Tensors:
        given = (x["output"], None, x["h_post"], x["streams"], x["h_res"], s.streams)
        return {"written": f.mhc_fused_expand_combine(*given)}

    def write_read(x: Tensors, s: Shape) -> Tensors:
        written = write(x, s)["written"]
        mappings = coefficients(x, written, s)
        return {"written": written, "hidden": read(written, mappings["pre"], s), **mappings}

    def encode(tensors: Tensors, s: Shape) -> Tensors:
        own = transpose_mixing(tensors, s)
        if "phi" in own:  # [n C, m] -> [m, C n]
            own["phi"] = own["phi"].unflatten(0, (s.streams, s.dim)).permute(2, 1, 0).flatten(1).contiguous()
        if "bias" in own:
            own["bias"] = own["bias"].unsqueeze(0)
        for name in own.keys() - _SHARED:
            own[name] = (own[name].mT.contiguous() if name in _STREAMS else own[name]).unsqueeze(1)  # [T, 1, C, n]
        return own

    def decode(tensors: Tensors, s: Shape) -> Tensors:
        ours = dict(tensors)
        if "phi" in ours:
            ours["phi"] = ours["phi"].unflatten(1, (s.dim, s.streams)).permute(2, 1, 0).flatten(0, 1)
        if "bias" in ours:
            ours["bias"] = ours["bias"].squeeze(0)
        for name in ours.keys() - _SHARED:
            value = ours[name].squeeze(1)
            ours[name] = value.mT if name in _STREAMS else value
        return transpose_mixing(ours, s)

    def whole(run: Run) -> Adapter:
        return Adapter(run, encode, decode, refuses=_not_four)

    return {
        "sinkhorn": whole(lambda x, s: {"h_res": f.mhc_fused_sinkhorn(x["logits"], s.streams, iters=s.t_max)}),
        "coefficients": whole(lambda x, s: coefficients(x, x["streams"], s)),
        "read": whole(lambda x, s: {"hidden": read(x["streams"], x["h_pre"], s)}),
        "write": whole(write),
        "write_read": whole(write_read),
    }


RIVALS: Mapping[str, Callable[[], Adapters]] = {
    "liger": liger,
    "flag_gems": flag_gems,
    "tile_kernels": tile_kernels,
    "transformer_engine": transformer_engine,
}
PACKAGES = {  # whose versions are recorded
    "liger": "liger-kernel",
    "flag_gems": "flag-gems",
    "tile_kernels": "tile-kernels",
    "transformer_engine": "transformer-engine",
}

_ALPHAS = ("alpha_pre", "alpha_post", "alpha_res")
_SHARED = {"phi", "alpha", "bias"}  # without a token dimension
_STREAMS = ("streams", "written")


def _load(module: str, package: str) -> Any:
    if not torch.cuda.is_available():
        raise Absent("runs on a GPU only")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Absent(f"not installed (pip install {package}): {error}") from error
    except Exception as error:  # a package that is there and breaks on import is as absent as one that is not
        raise Absent(f"cannot be imported: {type(error).__name__}: {error}") from error


def _phi_by_rows(tensors: Tensors) -> Tensors:
    """phi [n C, m] <-> [m, n C]."""
    return {name: value.T.contiguous() if name == "phi" else value for name, value in tensors.items()}


def _not_a_power_of_two(shape: Shape) -> str:
    n = shape.streams
    return "" if n >= 2 and n & (n - 1) == 0 else "takes 2, 4, 8 or 16 streams"


def _not_four(shape: Shape) -> str:
    return "" if shape.streams == 4 else "takes 4 streams"


def _not_bf16(shape: Shape) -> str:
    return "" if shape.dtype == torch.bfloat16 else "takes bf16 streams"
