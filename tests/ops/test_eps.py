"""The eps of released models: settings of the operations and of a connection, equal to the published equations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mhc_lab import ops, residual
from mhc_lab.config.schema import ResidualConfig
from mhc_lab.ops import backends
from mhc_lab.residual.ends import Collapse

N, DIM = 4, 16


def shipped(
    x: Tensor, phi: Tensor, alpha: Tensor, bias: Tensor, norm_eps: float, hc_eps: float, t_max: int
) -> tuple[Tensor, Tensor, Tensor]:
    """H_pre, H_post, H_res of one token's streams [n, C], loop by loop, as DeepSeek-V4 ships them (comb = H_res^T)."""
    flat = x.flatten()
    normed = flat / torch.sqrt((flat * flat).sum() / flat.numel() + norm_eps)
    raw = torch.stack([(normed * phi[:, column]).sum() for column in range(phi.shape[1])]) * alpha + bias
    pre = 1 / (1 + torch.exp(-raw[:N])) + hc_eps
    post = 2 / (1 + torch.exp(-raw[N : 2 * N]))
    comb = torch.softmax(raw[2 * N :].reshape(N, N).T, dim=-1) + hc_eps  # comb[j, i] of logits[i, j]
    comb = comb / (comb.sum(0, keepdim=True) + hc_eps)
    for _ in range(t_max - 1):
        comb = comb / (comb.sum(1, keepdim=True) + hc_eps)
        comb = comb / (comb.sum(0, keepdim=True) + hc_eps)
    return pre, post, comb.T


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(("norm_eps", "hc_eps"), [(1e-20, 1e-6), (1e-6, 1e-6), (1e-5, 1e-6), (1e-6, 1e-5), (1e-6, 0.0)])
def test_coefficients_are_those_of_the_shipped_form(backend: str, norm_eps: float, hc_eps: float) -> None:
    torch.manual_seed(0)
    x = (0.02 * torch.randn(3, N, DIM, dtype=torch.float64)).requires_grad_()
    phi = torch.randn(N * DIM, 2 * N + N * N, dtype=torch.float64, requires_grad=True)
    alpha = torch.rand(2 * N + N * N, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2 * N + N * N, dtype=torch.float64, requires_grad=True)
    inputs = (x, phi, alpha, bias)
    with backends.use(backend):
        found = ops.coefficients(
            *inputs, pre=N, post=N, read_eps=hc_eps, t_max=5, convention="v4", norm_eps=norm_eps, hc_eps=hc_eps
        )
        weights = torch.randn_like(found)
        got = torch.autograd.grad((found * weights).sum(), inputs)
    by_token = [shipped(token, phi, alpha, bias, norm_eps, hc_eps, 5) for token in x]
    wanted = torch.stack([torch.cat([pre, post, res.flatten()]) for pre, post, res in by_token])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    for own, right in zip(got, torch.autograd.grad((wanted * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(own, right, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", ["mhc", "hc", "identity_hc", "row_stochastic"])
def test_a_connection_takes_the_norms_eps(variant: str) -> None:
    torch.manual_seed(0)
    plain = residual.build(variant, dim=DIM, layer_index=1, streams=N, alpha_init=1.0)
    other = residual.build(variant, dim=DIM, layer_index=1, streams=N, alpha_init=1.0, norm_eps=1e-5)
    other.load_state_dict(plain.state_dict())
    small, large = (scale * torch.randn(2, 3, N, DIM) for scale in (1e-3, 1e3))
    assert not torch.allclose(other(small, torch.tanh), plain(small, torch.tanh), rtol=1e-4, atol=0)
    torch.testing.assert_close(other(large, torch.tanh), plain(large, torch.tanh), rtol=1e-5, atol=1e-3)


def test_the_default_eps_is_the_fused_path_bit_for_bit() -> None:
    torch.manual_seed(0)
    plain = residual.build("mhc", dim=DIM, layer_index=1, streams=N, convention="v4")
    named = residual.build("mhc", dim=DIM, layer_index=1, streams=N, convention="v4", norm_eps=1e-20, hc_eps=1e-6)
    named.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, N, DIM)
    assert torch.equal(plain(x, torch.tanh), named(x, torch.tanh))


def test_the_head_of_deepseek_v4() -> None:
    torch.manual_seed(0)
    head = Collapse(ResidualConfig(collapse="read", collapse_eps=1e-6, norm_eps=1e-6), N, DIM).double()
    x = 0.02 * torch.randn(5, N, DIM, dtype=torch.float64)
    flat = x.flatten(1)
    mixes = flat * torch.rsqrt(flat.square().mean(-1, keepdim=True) + 1e-6) @ head.phi_head
    gates = torch.sigmoid(mixes * head.alpha_head + head.b_head) + 1e-6
    torch.testing.assert_close(head(x), (gates.unsqueeze(-1) * x).sum(1), rtol=0, atol=1e-14)
