"""Sinkhorn in Triton: a few matrices a warp, all iterations in registers."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# Triton reads the annotations of a device function: there can be none but tl.constexpr.
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhc_lab.ops.ahead_of_time import KernelVariant
from mhc_lab.ops.sinkhorn.implicit import implicit_backward
from mhc_lab.ops.tiles import ALL_REGISTERS, inside, launchable, load_matrices, sinkhorn_tile, sinkhorn_tile_backward

__all__ = ["Config", "backward", "choose_config", "forward", "implicit_backward", "variants"]


@dataclass(frozen=True)
class Config:
    """How a launch is cut: matrices and warps a program, and iterations whose sums the backward keeps."""

    matrices: int
    num_warps: int
    chunk: int


def choose_config(n: int, dtype: torch.dtype = torch.float32) -> Config:
    """One warp a program, a whole 4 x 4 matrix a thread: 16 numbers in registers, no exchange between threads."""
    matrices = {1: 32, 2: 32, 4: 32, 8: 8, 16: 2}[triton.next_power_of_2(n)]
    if dtype == torch.float64:
        return Config(matrices, num_warps=1, chunk=2)
    chunk = {1: 10, 2: 10, 4: 10, 8: 4, 16: 4}.get(n, 2)  # as many as fit into the registers with their masks
    return Config(matrices, num_warps=1, chunk=chunk)


def forward(logits: Tensor, t_max: int, convention: str, config: Config | None = None) -> Tensor:
    """[T, n, n] logits, contiguous, fp32 or fp64, n <= 16 -> [T, n, n] after t_max iterations."""
    tokens, n = _check(logits, t_max, convention)
    out = torch.empty_like(logits)
    if tokens == 0:
        return out
    config = config or choose_config(n, logits.dtype)
    with torch.cuda.device_of(logits):
        _forward[(triton.cdiv(tokens, config.matrices),)](
            logits,
            out,
            tokens,
            t_max,
            **_constants(n, convention, config),
            num_warps=config.num_warps,
            **launchable(ALL_REGISTERS),
        )
    return out


def backward(grad: Tensor, logits: Tensor, t_max: int, convention: str, config: Config | None = None) -> Tensor:
    """The gradient of `forward` at `logits` [T, n, n], exact for t_max iterations; nothing else was saved."""
    tokens, n = _check(logits, t_max, convention)
    assert grad.shape == logits.shape and grad.is_contiguous(), (grad.shape, grad.stride())
    out = torch.empty_like(logits)
    if tokens == 0:
        return out
    config = config or choose_config(n, logits.dtype)
    with torch.cuda.device_of(logits):
        _backward[(triton.cdiv(tokens, config.matrices),)](
            grad,
            logits,
            out,
            tokens,
            t_max,
            **_constants(n, convention, config),
            CHUNK=config.chunk,
            num_warps=config.num_warps,
            **launchable(ALL_REGISTERS),
        )
    return out


def _check(logits: Tensor, t_max: int, convention: str) -> tuple[int, int]:
    tokens, n, columns = logits.shape
    assert n == columns and 1 <= n <= 16, logits.shape
    assert logits.is_contiguous() and logits.dtype in (torch.float32, torch.float64), (logits.stride(), logits.dtype)
    assert t_max >= 1 and convention in ("eq9", "v4"), (t_max, convention)
    return tokens, n


def _constants(n: int, convention: str, config: Config) -> dict[str, int | bool]:
    return {"n": n, "N": triton.next_power_of_2(n), "V4": convention == "v4", "BT": config.matrices}


@triton.jit
def _store(matrices, tile, token, tokens, n: tl.constexpr, N: tl.constexpr):
    index = tl.arange(0, N)
    entry = index[None, :, None] * n + index[None, None, :]
    mask = (token < tokens)[:, None, None] & inside(n, N)
    tl.store(matrices + token[:, None, None].to(tl.int64) * (n * n) + entry, tile, mask=mask)


@triton.jit(do_not_specialize=["tokens", "t_max"])
def _forward(logits, out, tokens, t_max, n: tl.constexpr, N: tl.constexpr, V4: tl.constexpr, BT: tl.constexpr):
    token = tl.program_id(0) * BT + tl.arange(0, BT)
    tile = sinkhorn_tile(load_matrices(logits, n * n, token, tokens, n, N), n, N, t_max, V4)
    _store(out, tile, token, tokens, n, N)


@triton.jit(do_not_specialize=["tokens", "t_max"])
def _backward(
    grad,
    logits,
    out,
    tokens,
    t_max,
    n: tl.constexpr,
    N: tl.constexpr,
    V4: tl.constexpr,
    BT: tl.constexpr,
    CHUNK: tl.constexpr,
):
    token = tl.program_id(0) * BT + tl.arange(0, BT)
    cotangent = load_matrices(grad, n * n, token, tokens, n, N)
    tile = sinkhorn_tile_backward(load_matrices(logits, n * n, token, tokens, n, N), cotangent, n, N, t_max, V4, CHUNK)
    _store(out, tile, token, tokens, n, N)


def variants() -> list[KernelVariant]:
    """Every n at full speed, one that is no power of two, and fp64 at n = 4."""
    found = []
    for n in (1, 2, 3, 4, 5, 8, 11, 16):
        for convention in ("eq9", "v4"):
            for dtype in ("fp32", "fp64") if n in (4, 5) else ("fp32",):
                config = choose_config(n, torch.float64 if dtype == "fp64" else torch.float32)
                sizes = {"tokens": "i32", "t_max": "i32"}
                name = f"{dtype} n={n} {convention}"
                found.append(
                    KernelVariant(
                        name=f"sinkhorn forward {name}",
                        kernel=_forward,
                        signature={"logits": f"*{dtype}", "out": f"*{dtype}", **sizes},
                        constants=_constants(n, convention, config),
                        aligned=("logits", "out"),
                        num_warps=config.num_warps,
                        options=ALL_REGISTERS,
                    )
                )
                found.append(
                    KernelVariant(
                        name=f"sinkhorn backward {name}",
                        kernel=_backward,
                        signature={"grad": f"*{dtype}", "logits": f"*{dtype}", "out": f"*{dtype}", **sizes},
                        constants={**_constants(n, convention, config), "CHUNK": config.chunk},
                        aligned=("grad", "logits", "out"),
                        num_warps=config.num_warps,
                        options=ALL_REGISTERS,
                    )
                )
    return found
