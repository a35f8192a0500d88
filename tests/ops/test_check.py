"""What operations refuse, in words, in every backend and under `python -O`: nothing reads beyond a tensor."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mhc_lab import ops
from mhc_lab.ops import backends

T, N, C, M = 6, 4, 8, 24


def f(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(*shape, dtype=dtype)


def write_read(**changed: Any) -> Any:
    given: dict[str, Any] = {
        "streams": f(T, N, C), "output": f(T, C), "weights": f(T, M), "h_res": None, "phi": f(N * C, M), "alpha": f(M),
        "bias": f(M), "post_at": N, "res_at": 2 * N, "post": N, "t_max": 2,
    }  # fmt: skip
    return ops.write_read(**{**given, **changed})


raw = torch.ops.mhc_lab
CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "pooled output": (lambda: ops.write(f(T, N, C), f(2, C), f(N), f(N, N)), r"output: shape .2, 8., wanted .6, 8."),
    "fixed pooled": (lambda: ops.write(f(T, N, C), f(1, C), None, None), r"output: shape \[1, 8\]"),
    "wide output": (lambda: ops.write(f(T, N, C), f(T, C + 1), f(N), None), r"output: shape \[6, 9\]"),
    "h_post": (lambda: ops.write(f(T, N, C), f(T, C), f(N + 1), None), r"h_post: shape \[5\], wanted \[4\] for all"),
    "h_res": (lambda: ops.write(f(T, N, C), f(T, C), f(N), f(T, N, N - 1)), r"h_res: shape \[6, 4, 3\]"),
    "h_res tokens": (lambda: ops.write(f(T, N, C), f(T, C), f(N), f(2, N, N)), r"h_res: shape \[2, 4, 4\]"),
    "h_pre": (lambda: ops.read(f(T, N, C), f(3, N)), r"h_pre: shape \[3, 4\]"),
    "no streams": (lambda: ops.read(f(C), None), r"streams: shape \[8\], wanted \[..., n, C\]"),
    "no width": (lambda: ops.read(f(T, N, 0), f(N)), r"streams: shape \[6, 4, 0\]"),
    "whole numbers": (lambda: ops.read(f(T, N, C, dtype=torch.int64), f(N)), r"streams: torch.int64"),
    "complex": (lambda: ops.write(f(T, N, C), f(T, C, dtype=torch.complex64), f(N), None), r"output: torch.complex64"),
    "a list": (lambda: ops.read([[1.0]], None), r"streams: list, wanted a tensor"),  # type: ignore[arg-type]
    "not square": (lambda: ops.sinkhorn(f(4, 3)), r"logits: shape \[4, 3\], wanted \[..., n, n\]"),
    "no iteration": (lambda: ops.sinkhorn(f(4, 4), t_max=0), r"t_max: 0, wanted at least 1"),
    "half an iteration": (lambda: ops.sinkhorn(f(4, 4), t_max=1.5), r"t_max: 1.5"),  # type: ignore[arg-type]
    "convention": (lambda: ops.sinkhorn(f(4, 4), 2, "eq8"), r"convention: 'eq8', wanted one of eq9, v4"),
    "gradient": (lambda: ops.sinkhorn(f(4, 4), 2, "eq9", "wrong"), r"gradient: 'wrong'"),
    "phi rows": (lambda: ops.coefficients(f(T, N, C), f(N * C + 1, M)), r"phi: shape \[33, 24\], wanted \[n C, m\]"),
    "phi vector": (lambda: ops.coefficients(f(T, N, C), f(N * C)), r"phi: shape \[32\]"),
    "alpha": (lambda: ops.coefficients(f(T, N, C), f(N * C, M), f(M - 1)), r"alpha: shape \[23\], wanted \[24\]"),
    "pre": (lambda: ops.coefficients(f(T, N, C), f(N * C, M), pre=3), r"pre: 3 columns, wanted 0 or n = 4"),
    "columns": (lambda: ops.coefficients(f(T, N, C), f(N * C, M), pre=N, t_max=1), r"phi: 24 columns, wanted .* = 20"),
    "negative": (lambda: ops.coefficients(f(T, N, C), f(N * C, M), t_max=-1), r"t_max: -1, wanted at least 0"),
    "norm eps": (lambda: ops.coefficients(f(T, N, C), f(N * C, M), norm_eps=-1.0), r"norm_eps: -1.0"),
    "first read": (
        lambda: ops.coefficients_read(f(T, N, C), f(N * C, 3), f(3), f(3)), r"phi: 3 columns, wanted at least 4"
    ),
    "fused output": (lambda: write_read(output=f(T - 1, C)), r"output: shape \[5, 8\]"),
    "fused weights": (lambda: write_read(weights=f(T - 1, M)), r"weights: shape \[5, 24\], wanted \[6, k\]"),
    "post_at": (lambda: write_read(post_at=M - 1), r"post_at: 23, but H_post takes 4 of the 24 columns"),
    "res_at": (lambda: write_read(res_at=M - 1), r"res_at: 23, but H_res takes 16"),
    "below 0": (lambda: write_read(post_at=-3), r"post_at: -3, wanted at least 0"),
    "twice": (lambda: write_read(h_res=f(T, N, N)), r"h_res: given twice"),
    "fused h_res": (lambda: write_read(res_at=None, h_res=f(T * 2, N, N)), r"h_res: shape \[12, 4, 4\]"),
    "raw read": (lambda: raw.read(f(T, N, C), f(T - 1, N)), r"h_pre: shape \[5, 4\], wanted \[6, 4\]"),
    "raw dtype": (lambda: raw.read(f(T, N, C), f(T, N, dtype=torch.float64)), r"h_pre: torch.float64, wanted .*32"),
    "raw write": (lambda: raw.write(f(T, N, C), f(1, C), f(T, N), f(T, N, N)), r"output: shape \[1, 8\]"),
    "raw sinkhorn": (lambda: raw.sinkhorn(f(2, 4, 3), 3, "eq9", False), r"logits: shape \[2, 4, 3\]"),
    "raw backward": (lambda: raw.read_backward(f(1, C), f(T, N, C), f(T, N)), r"grad: shape \[1, 8\], wanted \[6, 8\]"),
    "raw backward of write": (
        lambda: raw.write_backward(f(T, 1, C), f(T, N, C), f(T, C), f(T, N), f(T, N, N)), r"grad: shape \[6, 1, 8\]"
    ),
    "raw saved": (
        lambda: raw.coefficients_backward(
            f(T, M), f(T, N, C), f(N * C, M), f(M), f(M), f(1, M), f(T), N, N, 1, "eq9"
        ),
        r"projected: shape \[1, 24\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", CASES)
def test_wrong_arguments_are_named(name: str, backend: str) -> None:
    call, says = CASES[name]
    with backends.use(backend), pytest.raises((ValueError, TypeError), match=says):
        call()


def test_nothing_of_this_hangs_on_assertions() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import re, test_check as t\n"
        "for name, (call, says) in t.CASES.items():\n"
        "    try: call()\n"
        "    except (ValueError, TypeError) as error:\n"
        "        if re.search(says, str(error)): continue\n"
        "    raise SystemExit(name)\n"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-O", "-c", code, folder], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_tensors_elsewhere_are_named_not_read() -> None:
    streams = f(T, N, C)
    with pytest.raises(ValueError, match="h_pre: on meta, but the streams are on cpu"):
        ops.read(streams, torch.zeros(N, device="meta"))


@pytest.mark.parametrize("backend", ["auto", "reference", "cpu"])
def test_shapes_alone_run_on_the_meta_device(backend: str) -> None:
    with backends.use(backend), torch.device("meta"):
        written, hidden, values = write_read()
        assert (written.shape, hidden.shape, values.shape) == ((T, N, C), (T, C), (T, M))
        assert ops.sinkhorn(torch.zeros(2, N, N)).device.type == "meta"
        assert ops.read(f(T, N, C), f(N)).shape == (T, C)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_forward_mode_derivatives_are_refused_not_zero(backend: str) -> None:
    logits, tangent = torch.randn(2, N, N), torch.randn(2, N, N)
    x = torch.randn(T, N, C)
    calls: list[Callable[[], Any]] = [
        lambda: torch.func.jvp(ops.sinkhorn, (logits,), (tangent,)),
        lambda: torch.func.jacfwd(ops.sinkhorn)(logits),
        lambda: torch.func.jvp(lambda s: ops.read(s, torch.ones(N)), (x,), (x,)),
        lambda: torch.func.jvp(lambda s: ops.write(s, x[:, 0], torch.ones(N), None), (x,), (x,)),
        lambda: torch.func.jvp(lambda s: ops.coefficients(s, f(N * C, M)), (x,), (x,)),
        lambda: torch.func.jvp(lambda s: write_read(streams=s)[0], (x,), (x,)),
        lambda: torch.func.jvp(torch.func.vmap(ops.sinkhorn), (logits,), (tangent,)),
        lambda: torch.func.hessian(lambda m: ops.sinkhorn(m).sum())(logits),
    ]
    with backends.use(backend):
        for call in calls:
            with pytest.raises((NotImplementedError, RuntimeError)):
                call()
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(logits, tangent)
            with pytest.raises(NotImplementedError, match="forward-mode"):
                ops.sinkhorn(dual)
            assert torch.equal(ops.sinkhorn(logits), ops.sinkhorn(logits))  # no tangent, no refusal
        assert torch.func.vmap(ops.sinkhorn)(logits).shape == logits.shape


@pytest.mark.parametrize("name", ["coefficients", "coefficients_read", "read", "sinkhorn", "write", "write_read"])
@pytest.mark.parametrize("module", ["reference", "cpu"])
def test_an_operations_modules_are_found_by_their_path(name: str, module: str) -> None:
    code = f"import mhc_lab.ops.{name}.{module} as found; from mhc_lab import ops; assert callable(ops.{name})"
    exec(code)
