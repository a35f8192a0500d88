"""From streams to the coefficients of a connection, in plain torch; and the same with a backward by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from mhc_lab.ops.sinkhorn import reference as sinkhorn
from mhc_lab.ops.sinkhorn.reference import V4_EPS, sinkhorn_reference

NORM_EPS = 1e-20  # mHC Table 5


def coefficients_reference(
    streams: Tensor,
    phi: Tensor,
    alpha: Tensor | None = None,
    bias: Tensor | None = None,
    pre: int = 0,
    post: int = 0,
    read_eps: float = 0.0,
    t_max: int = 0,
    convention: str = "eq9",
    norm_eps: float = NORM_EPS,
    hc_eps: float = V4_EPS,
) -> Tensor:
    """[..., n, C] streams, [n C, m] phi -> [..., m]: RMSNorm(vec(x)) phi, one statistic over n C (mHC Eq. 7).

    Then alpha and bias [m]; sigmoid + read_eps of the first `pre` columns, 2 sigmoid of the next `post`, and of
    the rest, where t_max > 0, the doubly stochastic H_res in row-major order (Eq. 8).
    """
    flat = streams.flatten(-2)
    normed = flat * torch.rsqrt(flat.square().mean(-1, keepdim=True) + norm_eps)
    raw = normed @ phi
    if alpha is not None:
        raw = raw * alpha
    if bias is not None:
        raw = raw + bias
    h_pre, h_post, h_res = raw.split([pre, post, raw.shape[-1] - pre - post], dim=-1)
    if t_max:
        n = streams.shape[-2]
        h_res = sinkhorn_reference(h_res.unflatten(-1, (n, n)), t_max, convention, hc_eps).flatten(-2)
    return torch.cat([torch.sigmoid(h_pre) + read_eps, 2 * torch.sigmoid(h_post), h_res], dim=-1)


def forward(
    streams: Tensor,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    pre: int,
    post: int,
    read_eps: float,
    t_max: int,
    convention: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """[T, n, C] -> values [T, m], projected [T, m], inverse_rms [T]; contract of `ops.coefficients`.

    The RMS is divided out behind the matmul (Eq. 14-16).
    """
    flat = streams.flatten(1).to(phi.dtype)
    # A norm reads the streams once; square().mean() would write a second copy of them first.
    mean_square = torch.linalg.vector_norm(flat, dim=-1).square() / flat.shape[1]
    inverse_rms = torch.rsqrt(mean_square + NORM_EPS)
    projected = (flat @ phi) * inverse_rms.unsqueeze(1)
    values = torch.addcmul(bias, projected, alpha)
    values[:, :pre] = torch.sigmoid(values[:, :pre]) + read_eps
    values[:, pre : pre + post] = 2 * torch.sigmoid(values[:, pre : pre + post])
    if t_max:
        n = streams.shape[1]
        h_res = sinkhorn.forward(values[:, pre + post :].unflatten(1, (n, n)), t_max, convention)
        values[:, pre + post :] = h_res.flatten(1)
    return values, projected, inverse_rms


def backward(
    grad: Tensor,
    streams: Tensor,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    projected: Tensor,
    inverse_rms: Tensor,
    pre: int,
    post: int,
    t_max: int,
    convention: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[T, m] -> gradients by streams [T, n, C], phi [n C, m], alpha and bias [m]."""
    gates = torch.sigmoid(torch.addcmul(bias, projected, alpha)[:, : pre + post])
    grad = grad.clone()
    grad[:, : pre + post] *= gates * (1 - gates)
    grad[:, pre : pre + post] *= 2
    if t_max:
        n = streams.shape[1]
        logits = torch.addcmul(bias, projected, alpha)[:, pre + post :].unflatten(1, (n, n))
        through = sinkhorn.backward(grad[:, pre + post :].unflatten(1, (n, n)), logits, t_max, convention)
        grad[:, pre + post :] = through.flatten(1)
    flat = streams.flatten(1).to(phi.dtype)
    grad_projected = grad * alpha
    # d(1/rms)/d flat = -flat / (n C rms^3); projected already holds one factor 1/rms.
    pull = (grad_projected * projected).sum(1) * inverse_rms.square() / flat.shape[1]
    grad_raw = grad_projected * inverse_rms.unsqueeze(1)
    grad_flat = torch.mm(grad_raw, phi.T).addcmul_(flat, pull.unsqueeze(1), value=-1)
    return (
        grad_flat.view_as(streams).to(streams.dtype),
        torch.mm(flat.T, grad_raw),
        (grad * projected).sum(0),
        grad.sum(0),
    )
