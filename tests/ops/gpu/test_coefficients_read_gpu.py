"""coefficients_read with the two Triton kernels against the reference in fp64."""

from __future__ import annotations

import pytest
import torch

from mhc_lab.ops.coefficients_read import gpu, reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.mark.parametrize("n", [1, 4])
def test_values_and_gradients(n: int, device: str) -> None:
    torch.manual_seed(0)
    tokens, dim, width = 5, 37, 2 * n + n * n
    streams, phi = torch.randn(tokens, n, dim), torch.randn(n * dim, width) / (n * dim) ** 0.5
    alpha, bias = torch.rand(width), torch.randn(width)
    grads = torch.randn(tokens, dim), torch.randn(tokens, width)

    def run(backend, dtype: torch.dtype, where: str) -> list[torch.Tensor]:
        x, p, a, b, by_hidden, by_values = (t.to(where, dtype) for t in (streams, phi, alpha, bias, *grads))
        hidden, *saved = backend.forward(x, p, a, b, n, 0.0, 3, "eq9")
        found = backend.backward(by_hidden, by_values, x, p, a, b, *saved, n, 3, "eq9")
        return [hidden, saved[0], *found]

    for one, other in zip(run(gpu, torch.float32, device), run(reference, torch.float64, "cpu"), strict=True):
        scale = other.abs().max()
        torch.testing.assert_close(one.double().cpu() / scale, other / scale, rtol=0, atol=5e-6)
