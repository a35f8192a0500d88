# ruff: noqa: ARG001, ARG005 -- stand-ins have the signatures of what they stand for
"""The translations to other people's conventions, each against a stand-in written from its documentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mhc_lab.bench import rivals, run
from mhc_lab.bench.adapters import Absent
from mhc_lab.bench.cases import CASES, Shape, pose

SHAPE = Shape(tokens=33, dim=24, streams=4, dtype=torch.bfloat16)


def iterate(matrix: Tensor, iterations: int, eps: float) -> Tensor:
    """Softmax over rows + eps, columns, then (rows, columns): what DeepSeek ships for H_res^T."""
    matrix = torch.softmax(matrix, dim=-1) + eps
    matrix = matrix / (matrix.sum(-2, keepdim=True) + eps)
    for _ in range(iterations - 1):
        matrix = matrix / (matrix.sum(-1, keepdim=True) + eps)
        matrix = matrix / (matrix.sum(-2, keepdim=True) + eps)
    return matrix


def normed(x: Tensor, phi: Tensor, eps: float) -> Tensor:
    """[..., n, C], [n C, m] -> [..., m]."""
    flat = x.flatten(-2).float()
    return flat @ phi.float() * torch.rsqrt(flat.square().mean(-1, keepdim=True) + eps)


def apply(mixing: Tensor, x: Tensor, post: Tensor, f: Tensor) -> Tensor:
    return (mixing @ x.float() + post.unsqueeze(-1) * f.float().unsqueeze(-2)).to(x.dtype)


def liger() -> Any:
    def coefficients(x: Tensor, phi: Tensor, b: Tensor, pre: Tensor, post: Tensor, res: Tensor, **more: Any) -> Any:
        n = x.shape[-2]
        assert x.dtype == phi.dtype == torch.bfloat16
        assert pre.dim() == 0
        mix = normed(x, phi, more["rms_eps"])
        a, b_, c = mix.split([n, n, n * n], dim=-1)
        d, e, f = b.split([n, n, n * n])
        logits = (c * res + f).unflatten(-1, (n, n))
        mixing = iterate(logits, more["tmax"], more["sinkhorn_eps"])
        return torch.sigmoid(a * pre + d) + more["pre_eps"], more["post_mult"] * torch.sigmoid(b_ * post + e), mixing

    return SimpleNamespace(
        liger_mhc_coeffs=coefficients,
        liger_mhc_pre=lambda x, h: (h.unsqueeze(-1) * x.float()).sum(-2).to(x.dtype),
        liger_mhc_post_res=lambda x, f, post, res: apply(res, x, post, f),
    )


def flag_gems() -> Any:
    def pre(x: Tensor, fn: Tensor, scale: Tensor, base: Tensor, *rest: Any) -> Any:
        rms_eps, pre_eps, eps, post_mult, repeat = rest
        a, b, c = _mapped(normed(x, fn.T, rms_eps), scale, base)
        h_pre, comb = torch.sigmoid(a) + pre_eps, iterate(c, repeat, eps)
        hidden = (h_pre.unsqueeze(-1) * x.float()).sum(-2).to(x.dtype)
        return post_mult * torch.sigmoid(b).unsqueeze(-1), comb, hidden

    return SimpleNamespace(mhc_pre=pre, mhc_post=lambda f, x, post, comb: apply(comb.mT, x, post, f))


def _mapped(mix: Tensor, scale: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n = 4
    columns = torch.cat([scale[0].expand(n), scale[1].expand(n), scale[2].expand(n * n)])
    a, b, c = (mix * columns + base).split([n, n, n * n], dim=-1)
    return a, b, c.unflatten(-1, (n, n))


def tile_kernels() -> Any:
    def split(mixes: Tensor, scale: Tensor, base: Tensor, n: int, post_mult: float, pre_eps: float) -> Any:
        assert mixes.dim() == 3
        assert n == 4
        a, b, c = _mapped(mixes, scale, base)
        return (torch.sigmoid(a) + pre_eps).unsqueeze(-1), post_mult * torch.sigmoid(b).unsqueeze(-1), c

    def norm(x: Tensor, fn: Tensor, weight: None, eps: float, fuse_grad_acc: bool = True) -> Tensor:
        assert weight is None
        assert not fuse_grad_acc
        return normed(x, fn.T, eps)

    return SimpleNamespace(
        mhc_pre_norm_fn=norm,
        mhc_pre_split_mixes=split,
        sinkhorn_normalize=lambda x, repeat=10, eps=1e-6: iterate(x, repeat, eps),
        mhc_pre_apply_mix=lambda x, mix: (mix * x.float()).sum(-2).to(x.dtype),
        mhc_post=lambda f, x, post, comb: apply(comb.mT, x, post.squeeze(-1), f),
    )


def transformer_engine() -> Any:
    def projection(x: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        wide = x.float()
        padded = torch.nn.functional.pad(wide @ phi.T, (0, 8))
        return padded.to(x.dtype), wide.square().mean(-1)

    def scale(h: Tensor, alpha: Tensor, beta: Tensor, ms: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
        a, b, c = _mapped(h.float()[:, :24] * torch.rsqrt(ms).unsqueeze(-1), alpha, beta.squeeze(0))
        return torch.sigmoid(a), 2 * torch.sigmoid(b), c.flatten(-2)

    def sinkhorn(x: Tensor, n: int = 4, recompute_hist: bool = True, iters: int = 20) -> Tensor:
        assert x.dim() == 4
        logs = x
        for _ in range(iters):
            logs = logs - logs.logsumexp(-1, keepdim=True)
            logs = logs - logs.logsumexp(-2, keepdim=True)
        return logs.exp()

    def combine(f: Tensor, bias: None, post: Tensor, x: Tensor, res: Tensor, n: int) -> Tensor:
        assert x.shape[-1] == n
        return (f.float().unsqueeze(-1) * post.unsqueeze(-2) + x.float() @ res).to(x.dtype)

    return SimpleNamespace(
        mhc_fused_projection=projection,
        mhc_fused_scale=scale,
        mhc_fused_sinkhorn=sinkhorn,
        mhc_fused_aggregate=lambda x, h, n: (x.float() @ h.unsqueeze(-1)).squeeze(-1).to(x.dtype),
        mhc_fused_expand_combine=combine,
    )


STAND_INS: Mapping[str, Callable[[], Any]] = {
    "liger": liger,
    "flag_gems": flag_gems,
    "tile_kernels": tile_kernels,
    "transformer_engine": transformer_engine,
}


@pytest.mark.parametrize("rival", STAND_INS)
def test_translations_are_right(rival: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "_load", lambda module, package: STAND_INS[rival]())
    adapters = rivals.RIVALS[rival]()
    assert {"write", "write_read"} <= adapters.keys()
    for case, adapter in adapters.items():
        _, error = run.admit(rival, adapter, pose(CASES[case], SHAPE, torch.device("cpu")))
        assert 0 < error < 1e-2, (case, error)


@pytest.mark.parametrize("rival", STAND_INS)
def test_a_rival_that_keeps_the_other_transpose_is_stopped(rival: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = STAND_INS[rival]()
    name = "mhc_fused_expand_combine" if rival == "transformer_engine" else None
    name = name or next(key for key in vars(made) if key.endswith(("post", "post_res")))
    right = getattr(made, name)
    setattr(made, name, lambda *given: right(*(x.mT if _is_mixing(x) else x for x in given)))
    monkeypatch.setattr(rivals, "_load", lambda module, package: made)
    with pytest.raises(Absent, match="wrong: "):
        run.admit(rival, rivals.RIVALS[rival]()["write"], pose(CASES["write"], SHAPE, torch.device("cpu")))


def _is_mixing(value: Any) -> bool:
    return isinstance(value, Tensor) and value.shape[-2:] == (4, 4)


@pytest.mark.parametrize("rival", STAND_INS)
def test_what_a_rival_cannot_do_is_said(rival: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "_load", lambda module, package: STAND_INS[rival]())
    three = Shape(tokens=8, dim=16, streams=3, dtype=torch.float32)
    with pytest.raises(Absent, match="takes"):
        run.admit(rival, rivals.RIVALS[rival]()["write"], pose(CASES["write"], three, torch.device("cpu")))


def test_a_rival_that_is_not_there_is_absent() -> None:
    if torch.cuda.is_available():
        pytest.skip("rivals may be installed beside a GPU")
    for rival in rivals.RIVALS.values():
        with pytest.raises(Absent, match="GPU"):
            rival()


def test_a_rival_that_breaks_on_import_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(Absent, match="not installed"):
        rivals._load("no_such_module_here", "no-such-package")
