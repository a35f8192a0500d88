"""Coefficients in Triton: `gpu_forward.py` and `gpu_backward.py`, and the forms of their kernels."""

from __future__ import annotations

import torch

from mhc_lab.ops.ahead_of_time import KernelVariant
from mhc_lab.ops.coefficients import gpu_backward, gpu_forward
from mhc_lab.ops.coefficients.gpu_backward import backward
from mhc_lab.ops.coefficients.gpu_columns import DTYPES, Columns, layouts, small_tokens
from mhc_lab.ops.coefficients.gpu_forward import forward
from mhc_lab.ops.tiles import ALL_REGISTERS, precision_for

__all__ = ["backward", "forward", "variants"]

_DIM = 2560
_SAVED = {"projected": "*fp32", "inverse_rms": "*fp32"}
_LEARNT = {"alpha": "*fp32", "bias": "*fp32"}
_SIZES = {"tokens": "i32", "size": "i32"}


def variants() -> list[KernelVariant]:
    """Every kernel in every form that a launch picks, for the columns of `layouts`."""
    found = []
    for name, columns, convention in layouts():
        v4 = convention == "v4"
        found += [_finish(name, columns, v4), _grad_raw(name, columns, v4)]
        for dtype, spelled in DTYPES.items():
            # fp16 differs from bf16 in how it is multiplied, V4 from Eq. 9 behind the products: one layout will do.
            if dtype == torch.float16 and name != "mhc n=4 eq9":
                continue
            found.append(_project(f"{spelled} {name}", columns, dtype, v4, tokens=65536))
            if v4:
                continue
            found.append(_project(f"{spelled} {name} split", columns, dtype, v4, tokens=1024))
            found.append(_grad_streams(f"{spelled} {name}", columns, dtype, atomic=False))
    found.append(_grad_streams("bf16 mhc n=4 eq9 atomic", Columns(24, 4, 4, 4, True), torch.bfloat16, atomic=True))
    return [*found, _reduce()]


def _project(name: str, columns: Columns, dtype: torch.dtype, v4: bool, tokens: int) -> KernelVariant:
    config = gpu_forward.choose_config(tokens, columns.n * _DIM, columns, dtype)
    results = {"partial": "*fp32", "squares": "*fp32", **_LEARNT, "values": "*fp32", **_SAVED}
    pointers = {"streams": f"*{DTYPES[dtype]}", "phi": "*fp32", **results}
    cut = {"BT": config.tokens, "BC": config.channels, "FUSED": config.fused, "PRECISION": precision_for(dtype)}
    return KernelVariant(
        name=f"coefficients project {name}",
        kernel=gpu_forward._project,
        signature={**pointers, **_SIZES, "span": "i32", "read_eps": "fp32", "t_max": "i32"},
        constants={**columns.constants(), "V4": v4, **cut},
        aligned=(*pointers, "size", "span"),
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        options=config.options,
    )


def _finish(name: str, columns: Columns, v4: bool) -> KernelVariant:
    pointers = {"partial": "*fp32", "squares": "*fp32", **_LEARNT, "values": "*fp32", **_SAVED}
    return KernelVariant(
        name=f"coefficients finish {name}",
        kernel=gpu_forward._finish,
        signature={**pointers, **_SIZES, "splits": "i32", "read_eps": "fp32", "t_max": "i32"},
        constants={**columns.constants(), "V4": v4, "BT": small_tokens(columns)},
        aligned=(*pointers, "size"),
        num_warps=1,
        options=ALL_REGISTERS,
    )


def _grad_raw(name: str, columns: Columns, v4: bool) -> KernelVariant:
    pointers = {"grad_values": "*fp32", **_SAVED, **_LEARNT, "grad_raw": "*fp32", "pull": "*fp32"}
    cut = {"BT": small_tokens(columns), "CHUNK": gpu_backward.chunk(columns)}
    return KernelVariant(
        name=f"coefficients grad_raw {name}",
        kernel=gpu_backward._grad_raw,
        signature={**pointers, **_SIZES, "t_max": "i32"},
        constants={**columns.constants(), "V4": v4, **cut},
        aligned=(*pointers, "size"),
        num_warps=1,
        options=ALL_REGISTERS,
    )


def _grad_streams(name: str, columns: Columns, dtype: torch.dtype, atomic: bool) -> KernelVariant:
    config = gpu_backward.choose_config(4096, columns.n * _DIM, columns, dtype)
    spelled = f"*{DTYPES[dtype]}"
    pointers = {"streams": spelled, "phi": "*fp32", "alpha": "*fp32", **_SAVED, "grad_raw": "*fp32", "pull": "*fp32"}
    pointers |= {"grad_streams": spelled, "partial": "*fp32"}
    widths = {"GATED": columns.pre + columns.post, "GATES": columns.gates, "REST": gpu_backward.dense_rest(columns)}
    cut = {"BT": config.tokens, "BC": config.channels, "PRECISION": gpu_backward.precision(columns, dtype)}
    return KernelVariant(
        name=f"coefficients grad_streams {name}",
        kernel=gpu_backward._grad_streams,
        signature={**pointers, **_SIZES, "span": "i32"},
        constants={"m": columns.m, **widths, **cut, "ATOMIC": atomic},
        aligned=(*pointers, "size", "span"),
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        options=config.options,
    )


def _reduce() -> KernelVariant:
    pointers = {"partial": "*fp32", "grad_phi": "*fp32", "grad_alpha": "*fp32", "grad_bias": "*fp32"}
    return KernelVariant(
        name="coefficients reduce",
        kernel=gpu_backward._reduce,
        signature={**pointers, "parts": "i32", "size": "i32"},
        constants={"m": 24, "BLOCK": gpu_backward.REDUCED},
        aligned=(*pointers, "size"),
    )
