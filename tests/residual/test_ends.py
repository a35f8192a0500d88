"""Expand and collapse."""

from __future__ import annotations

import pytest
import torch

from mhc_lab.config.schema import ResidualConfig
from mhc_lab.residual.ends import Collapse, Expand


@pytest.mark.parametrize("n", [1, 2, 4])
def test_repeat_then_mean_is_nothing(n: int) -> None:
    hidden, config = torch.randn(2, 3, 8), ResidualConfig()
    torch.testing.assert_close(Collapse(config, n, 8)(Expand(config, n)(hidden)), hidden)


def test_sum_is_n_times_the_mean() -> None:
    streams = torch.randn(2, 3, 4, 8)
    torch.testing.assert_close(Collapse(ResidualConfig(collapse="sum"), 4, 8)(streams), 4 * streams.mean(-2))


def test_scaled_expansion_breaks_the_symmetry() -> None:
    streams = Expand(ResidualConfig(expand="scaled", expand_base=0.5), 3)(torch.ones(1, 2))
    torch.testing.assert_close(streams[0], torch.tensor([[1.0, 1.0], [0.5, 0.5], [0.25, 0.25]]))


@pytest.mark.parametrize("n", [2, 4])
def test_a_learned_read_starts_near_the_mean(n: int) -> None:
    streams = torch.randn(5, n, 64)
    read = Collapse(ResidualConfig(collapse="read", alpha_init=0.0), n, 64)
    torch.testing.assert_close(read(streams), streams.mean(-2))
    assert {name for name, _ in read.named_parameters()} == {"phi_head", "alpha_head", "b_head"}


def test_stream_dtype() -> None:
    assert Expand(ResidualConfig(stream_dtype="bf16"), 2)(torch.ones(1, 2)).dtype == torch.bfloat16
