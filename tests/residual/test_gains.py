"""Gains and spread on cases worked by hand."""

from __future__ import annotations

import torch

from mhc_lab.residual.gains import amax_gains, composites, doubly_stochastic_error, stream_spread


def test_amax_is_of_sums_not_of_absolute_values() -> None:
    matrix = torch.tensor([[[2.0, -3.0], [1.0, 0.5]]])  # row sums -1, 1.5; column sums 3, -2.5
    assert amax_gains(matrix) == (1.5, 3.0)


def test_gains_are_averaged_over_tokens_after_the_maximum() -> None:
    tokens = torch.stack([torch.eye(2), torch.tensor([[0.0, 0.0], [0.0, 3.0]])])
    assert amax_gains(tokens) == (2.0, 2.0)


def test_composites_run_to_the_output_with_the_deepest_layer_on_the_left() -> None:
    first, second = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]]), torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    whole, last = composites([first, second])
    assert torch.equal(whole[0].float(), second[0] @ first[0])
    assert torch.equal(last, second.double())
    assert amax_gains(whole) == (4.0, 3.0)


def test_doubly_stochastic_error() -> None:
    assert doubly_stochastic_error(torch.eye(3).expand(5, 3, 3)) == 0.0
    assert doubly_stochastic_error(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])) == 0.5


def test_spread() -> None:
    assert stream_spread(torch.ones(2, 4, 3)) == 0.0
    assert stream_spread(torch.tensor([[[1.0], [-1.0]]])) == 1.0
    torch.testing.assert_close(stream_spread(torch.tensor([[[3.0], [1.0]]])), (2 / 10) ** 0.5)
