"""The packed columns [pre | post | rest] of the coefficients, and the tiles that kernels hold them in."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# Triton reads the annotations of a device function: there can be none but tl.constexpr.
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhc_lab.ops.tiles import ALL_REGISTERS

DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}  # of streams, and Triton's names


@dataclass(frozen=True)
class Columns:
    """m columns: `pre` + `post` gates, then the rest: n x n logits of Sinkhorn, or any number that stay as they are."""

    m: int
    pre: int
    post: int
    n: int
    sinkhorn: bool

    @property
    def gates(self) -> int:
        """Width of the tile that holds the gates: 0, or a power of two that `tl.dot` takes."""
        return _tile_width(self.pre + self.post)

    @property
    def N(self) -> int:
        """Side of a Sinkhorn tile; at least 4, so that its square is a width that `tl.dot` takes."""
        return max(4, int(triton.next_power_of_2(self.n)))

    @property
    def rest(self) -> int:
        """Width of the tile that holds the rest."""
        return self.N**2 if self.sinkhorn else _tile_width(self.m - self.pre - self.post)

    def constants(self) -> dict[str, int | bool]:
        """The compile-time arguments that every kernel has."""
        return {
            "m": self.m,
            "pre": self.pre,
            "post": self.post,
            "n": self.n if self.sinkhorn else 1,
            "N": self.N if self.sinkhorn else 1,
            "GATES": self.gates,
            "REST": self.rest,
            "SINKHORN": self.sinkhorn,
        }


def _tile_width(columns: int) -> int:
    return max(16, int(triton.next_power_of_2(columns))) if columns else 0


def check_inputs(
    streams: Tensor, phi: Tensor, alpha: Tensor, bias: Tensor, pre: int, post: int, t_max: int, convention: str
) -> Columns:
    """What the kernels rely on: `ops.coefficients` sees to it."""
    _, n, dim = streams.shape
    m = phi.shape[1]
    assert streams.dtype in DTYPES, streams.dtype
    assert phi.shape[0] == n * dim and alpha.shape == bias.shape == (m,), (streams.shape, phi.shape, alpha.shape)
    assert phi.dtype == alpha.dtype == bias.dtype == torch.float32, (phi.dtype, alpha.dtype, bias.dtype)
    assert all(x.is_contiguous() for x in (streams, phi, alpha, bias))
    assert {pre, post} <= {0, n} and n <= 16 and pre + post <= m, (pre, post, n, m)
    assert convention in ("eq9", "v4") and t_max >= 0, (convention, t_max)
    assert t_max == 0 or m - pre - post == n * n, (t_max, m, n)
    return Columns(m, pre, post, n, sinkhorn=t_max > 0)


def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; the interpreter runs one program at a time and takes an H100's."""
    if device.type != "cuda":
        return 132
    found: int = torch.cuda.get_device_properties(device).multi_processor_count
    return found


def register_options(columns: Columns, dtype: torch.dtype) -> dict[str, int]:
    """For bf16 and n = 4 the compiler's own choice of registers fits; other kernels would spill a few bytes."""
    padded = columns.sinkhorn and columns.n != columns.N
    return {} if dtype == torch.bfloat16 and columns.gates + columns.rest <= 32 and not padded else ALL_REGISTERS


def small_tokens(columns: Columns) -> int:
    """Tokens of a program of one warp that works on [T, m] alone: a whole matrix a thread where that fits."""
    if columns.sinkhorn:
        return {4: 32, 8: 4 if columns.n == 8 else 2, 16: 2}[columns.N]
    return int(triton.next_power_of_2(512 // (columns.gates + columns.rest) + 1)) // 2


@triton.jit
def rest_columns(rest, n: tl.constexpr, N: tl.constexpr, REST: tl.constexpr, SINKHORN: tl.constexpr):
    """[REST]: the column, counted from the first behind the gates, at each place of a tile's row; and which exist."""
    place = tl.arange(0, REST)
    if SINKHORN:
        column = (place // N) * n + place % N
        live = (place // N < n) & (place % N < n)
    else:
        column = place
        live = place < rest
    return column, live


def layouts() -> list[tuple[str, Columns, str]]:
    """The columns of mHC by n and convention, and those of other constraints: what ahead-of-time tests compile."""
    found = [
        (f"mhc n={n} {convention}", Columns(n * n + 2 * n, n, n, n, True), convention)
        for n, convention in ((1, "eq9"), (2, "eq9"), (4, "eq9"), (4, "v4"), (5, "eq9"), (8, "eq9"), (16, "eq9"))
    ]
    return [
        *found,
        ("raw n=4", Columns(24, 4, 4, 4, False), "eq9"),
        ("gates n=4", Columns(8, 4, 4, 4, False), "eq9"),
        ("hc", Columns(6, 0, 0, 1, False), "eq9"),
    ]
