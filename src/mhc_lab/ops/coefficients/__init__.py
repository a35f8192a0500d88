"""From streams to a connection's coefficients: projection, RMS, alpha, bias, activations, Sinkhorn (mHC Eq. 14-19)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mhc_lab.ops import backends, check
from mhc_lab.ops.coefficients.reference import NORM_EPS, coefficients_reference
from mhc_lab.ops.operation import operation
from mhc_lab.ops.sinkhorn import V4_EPS, sinkhorn

__all__ = ["NORM_EPS", "coefficients", "coefficients_reference"]

Found = tuple[Tensor, Tensor, Tensor]


def coefficients(
    streams: Tensor,
    phi: Tensor,
    alpha: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    pre: int = 0,
    post: int = 0,
    read_eps: float = 0.0,
    t_max: int = 0,
    convention: str = "eq9",
    norm_eps: float = NORM_EPS,
    hc_eps: float = V4_EPS,
) -> Tensor:
    """alpha RMSNorm(vec(x)) phi + bias in fp32, and what the first columns and the rest become of it.

    Args:
        streams: [..., n, C], any float dtype.
        phi: [n C, m].
        alpha, bias: [m]; ones and zeros where they are None.
        pre: the first columns, 0 or n, become H_pre = sigmoid + read_eps.
        post: the next ones, 0 or n, become H_post = 2 sigmoid.
        t_max: above 0, the other n^2 columns become H_res by that many Sinkhorn iterations (see `ops.sinkhorn`);
            0 leaves them to another constraint.
        norm_eps: of the RMSNorm, inside the root; hc_eps: of convention v4, see `ops.sinkhorn`. Others than the
            defaults, which the kernels are made for, run in plain torch.

    Returns:
        [..., m], fp32 (fp64 for fp64 streams).
    """
    tokens, n, dim = check.streams_of(streams)
    check.projection(streams, n, dim, phi, alpha, bias, pre, post, t_max, convention)
    width = phi.shape[1]
    dtype = torch.promote_types(streams.dtype, torch.float32)
    alpha = streams.new_ones(width, dtype=dtype) if alpha is None else alpha.to(dtype)
    bias = streams.new_zeros(width, dtype=dtype) if bias is None else bias.to(dtype)
    if norm_eps != NORM_EPS or (convention == "v4" and hc_eps != V4_EPS):
        check.at_least_zero("norm_eps", norm_eps)
        check.at_least_zero("hc_eps", hc_eps)
        with torch.autocast(streams.device.type, enabled=False):
            return _in_plain_torch(
                streams.to(dtype), phi.to(dtype), alpha, bias, pre, post, read_eps, t_max, convention, norm_eps, hc_eps
            )
    flat = streams.reshape(-1, n, dim)
    out: Tensor = _coefficients(flat, phi.to(dtype), alpha, bias, pre, post, read_eps, t_max, convention)[0]
    return out.reshape(*tokens, width)


def _in_plain_torch(
    streams: Tensor,
    phi: Tensor,
    alpha: Tensor,
    bias: Tensor,
    pre: int,
    post: int,
    read_eps: float,
    t_max: int,
    convention: str,
    norm_eps: float,
    hc_eps: float,
) -> Tensor:
    """As the reference has it, but with `ops.sinkhorn`, which is safe for any spread of logits."""
    found = coefficients_reference(streams, phi, alpha, bias, pre, post, read_eps, norm_eps=norm_eps)
    if not t_max:
        return found
    n = streams.shape[-2]
    logits = found[..., pre + post :].unflatten(-1, (n, n))
    h_res = sinkhorn(logits, t_max, convention, hc_eps=hc_eps)
    return torch.cat([found[..., : pre + post], h_res.flatten(-2)], dim=-1)


@operation(check.coefficients)
def _coefficients(
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
    found: Found = backends.run(
        "coefficients", "forward", streams, streams, phi, alpha, bias, pre, post, read_eps, t_max, convention
    )
    return found


@operation(check.coefficients_backward)
def _coefficients_backward(
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
    arguments = (grad, streams, phi, alpha, bias, projected, inverse_rms, pre, post, t_max, convention)
    found: tuple[Tensor, Tensor, Tensor, Tensor] = backends.run("coefficients", "backward", streams, *arguments)
    return found


@_coefficients.register_fake
def _(
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
    tokens, width = streams.shape[0], phi.shape[1]
    return phi.new_empty(tokens, width), phi.new_empty(tokens, width), phi.new_empty(tokens)


@_coefficients_backward.register_fake
def _(
    grad: Tensor, streams: Tensor, phi: Tensor, alpha: Tensor, bias: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    by_streams, by_phi, by_alpha, by_bias = (x.new_empty(x.shape) for x in (streams, phi, alpha, bias))
    return by_streams, by_phi, by_alpha, by_bias


def _save(ctx: Any, inputs: tuple[Any, ...], output: Found) -> None:
    ctx.set_materialize_grads(False)
    streams, phi, alpha, bias, ctx.pre, ctx.post, _, ctx.t_max, ctx.convention = inputs
    ctx.save_for_backward(streams, phi, alpha, bias, *output[1:])


def _gradients(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 9
    found = _coefficients_backward(grad, *ctx.saved_tensors, ctx.pre, ctx.post, ctx.t_max, ctx.convention)
    return (*found, None, None, None, None, None)


_coefficients.register_autograd(_gradients, setup_context=_save)
