"""The two CPU loops called on tensors, with stand-ins for what an operation has not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mhc_lab.ops import token_gradients, token_loops
from mhc_lab.ops.loops import TOKENS, array
from mhc_lab.ops.sinkhorn.cpu import eps_of

CHUNKS, CHUNK = 16, 256  # parts that gradients by parameters are summed in at most, and a part's tokens at least


@dataclass(frozen=True)
class Write:
    """streams [T, n, C] and output [T, C]; H_post in the columns of weights [T, k] from `post_at` on, H_res in those
    of res [T, k'] from `res_at` on; None is I."""

    streams: Tensor
    output: Tensor
    weights: Tensor
    post_at: int
    res: Tensor | None
    res_at: int


@dataclass(frozen=True)
class Projection:
    """phi [n C, m], alpha and bias [m], and what becomes of the columns: see `ops.coefficients`."""

    phi: Tensor
    alpha: Tensor
    bias: Tensor
    pre: int
    post: int
    t_max: int
    convention: str
    read_eps: float = 0.0


class Found(NamedTuple):
    """values [T, m], projected [T, m], inverse_rms [T]."""

    values: Tensor
    projected: Tensor
    inverse_rms: Tensor


class Gradients(NamedTuple):
    """By streams [T, n, C]; by output, weights and res; by h_pre or values [T, m]; by phi, alpha and bias."""

    streams: Tensor
    output: Tensor
    weights: Tensor
    res: Tensor
    values: Tensor
    phi: Tensor
    alpha: Tensor
    bias: Tensor


def run_forward(
    write: Write | None, written: Tensor | None, projection: Projection | None, *, h_pre: Tensor | None, reads: bool
) -> tuple[Tensor, Found, Tensor]:
    """Written streams (those given, without `write`), coefficients, and the read by h_pre or by the coefficients."""
    streams = write.streams if write is not None else written
    assert streams is not None
    tokens, n, dim = streams.shape
    if written is None:
        written = torch.empty_like(streams)
    none = streams.new_empty(0, 0)
    layer = write or Write(written, none, none, 0, None, 0)
    behind = projection or Projection(none, none.view(-1), none.view(-1), 0, 0, 0, "eq9")
    width = behind.phi.shape[1]
    found = Found(streams.new_empty(tokens, width), streams.new_empty(tokens, width), streams.new_empty(tokens))
    hidden = streams.new_empty(tokens if reads else 0, dim)
    token_loops.forward(
        write is not None,
        array(layer.streams.view(-1, dim)),
        *_weights(layer),
        array(written.view(-1, dim)),
        projection is not None,
        *_columns(behind),
        behind.read_eps,
        n,
        behind.t_max,
        eps_of(behind.convention),
        array(found.projected),
        array(found.inverse_rms),
        array(found.values),
        reads,
        array(found.values if h_pre is None else h_pre),
        array(hidden),
    )
    return written, found, hidden


def run_backward(
    write: Write | None,
    written: Tensor,
    grad_written: Tensor | None,
    projection: Projection | None,
    found: Found | None,
    *,
    h_pre: Tensor | None,
    grad_hidden: Tensor | None,
    grad: Tensor | None = None,
) -> Gradients:
    """From the gradients by written [T, n, C] (None: 0), values or h_pre (`grad` [T, m], used up), hidden [T, C]."""
    tokens, n, dim = written.shape
    none = written.new_empty(0, 0)
    layer = write or Write(written, none, none, 0, None, 0)
    behind = projection or Projection(none, none.view(-1), none.view(-1), 0, 0, 0, "eq9")
    width = behind.phi.shape[1]
    _, projected, inverse_rms = found or Found(none, none, none.view(-1))
    if grad is None:
        grad = written.new_zeros(tokens, n)
    chunk = max(CHUNK, -(-tokens // (CHUNKS * TOKENS)) * TOKENS)
    chunks = -(-tokens // chunk)
    parts, phi_parts = written.new_empty(chunks, 2, width), written.new_empty(chunks, width, n * dim if width else 0)
    grad_streams, grad_output = torch.empty_like(written), torch.empty_like(layer.output)
    grad_weights = torch.zeros_like(layer.weights)
    grad_res = grad_weights if layer.res is None or layer.res is layer.weights else torch.empty_like(layer.res)
    token_gradients.backward(
        write is not None,
        array(layer.streams.view(-1, dim)),
        *_weights(layer),
        array(written.view(-1, dim)),
        grad_written is not None,
        array((written if grad_written is None else grad_written).view(-1, dim)),
        projection is not None,
        *_columns(behind),
        n,
        behind.t_max,
        eps_of(behind.convention),
        array(projected),
        array(inverse_rms),
        array(grad),
        grad_hidden is not None,
        array(grad if h_pre is None else h_pre),
        array(written.view(-1, dim) if grad_hidden is None else grad_hidden),
        array(grad_streams.view(-1, dim)),
        array(grad_output),
        array(grad_weights),
        array(grad_res),
        array(parts),
        array(phi_parts),
        chunk,
    )
    by_phi = phi_parts.sum(0).T.contiguous()
    sums = parts[:, 0].sum(0), parts[:, 1].sum(0)
    return Gradients(grad_streams, grad_output, grad_weights, grad_res, grad, by_phi, *sums)


def _weights(layer: Write) -> tuple[object, ...]:
    res, res_at = (layer.weights, -1) if layer.res is None else (layer.res, layer.res_at)
    return array(layer.output), array(layer.weights), layer.post_at, array(res), res_at


def _columns(behind: Projection) -> tuple[object, ...]:
    phi = array(behind.phi.T.contiguous())
    return phi, array(behind.alpha), array(behind.bias), behind.pre, behind.pre + behind.post
