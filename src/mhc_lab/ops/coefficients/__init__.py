"""Projection of the flattened streams with the RMS divide behind the matmul (mHC Eq. 14-16)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhc_lab.ops.coefficients.reference import NORM_EPS, coefficients_reference

__all__ = ["NORM_EPS", "coefficients", "coefficients_reference"]


def coefficients(streams: Tensor, phi: Tensor) -> Tensor:
    """RMSNorm(vec(x)) phi in fp32.

    Args:
        streams: [..., n, C], any float dtype.
        phi: [n C, m].

    Returns:
        [..., m], fp32 (fp64 for fp64 streams); alpha, bias and activation are the caller's (Eq. 16-18).
    """
    assert streams.shape[-2] * streams.shape[-1] == phi.shape[0], (streams.shape, phi.shape)
    dtype = torch.promote_types(streams.dtype, torch.float32)
    with torch.autocast(streams.device.type, enabled=False):
        flat = streams.reshape(-1, phi.shape[0]).to(dtype)  # [..., n, C] -> [tokens, n C]
        out: Tensor = _Project.apply(flat, phi.to(dtype))  # type: ignore[no-untyped-call]
    return out.reshape(*streams.shape[:-2], phi.shape[1])


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flat: Tensor, phi: Tensor) -> Tensor:
        # A norm reads the streams once; square().mean() would write a second copy of them first.
        mean_square = torch.linalg.vector_norm(flat, dim=-1, keepdim=True).square() / flat.shape[-1]
        inverse_rms = torch.rsqrt(mean_square + NORM_EPS)
        out = (flat @ phi) * inverse_rms
        ctx.save_for_backward(flat, phi, out, inverse_rms)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        flat, phi, out, inverse_rms = ctx.saved_tensors
        grad_raw = grad * inverse_rms
        # d(1/rms)/d flat = -flat / (n C rms^3); out already holds one factor 1/rms.
        pull = (grad * out).sum(-1, keepdim=True) * inverse_rms.square() / flat.shape[-1]
        grad_flat = torch.mm(grad_raw, phi.T).addcmul_(flat, pull, value=-1)
        return grad_flat, torch.mm(flat.T, grad_raw)
