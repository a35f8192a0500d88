"""The bytes that operations have to move, and that random problems are what they say."""

from __future__ import annotations

import pytest
import torch

from mhc_lab.bench.cases import CASES, Shape, pose

BF16 = Shape(4096, 2560, 4, torch.bfloat16)
PER_TOKEN = BF16.tokens * BF16.dim * 2  # bytes of one bf16 channel vector for every token

# Elements a token over C, at n = 4: the paper's traffic (mHC Table 2, fused) and that of the issue.
ELEMENTS = {
    ("coefficients", "forward"): 4,
    ("coefficients", "backward"): 8,
    ("read", "forward"): 5,
    ("read", "backward"): 9,
    ("write", "forward"): 9,
    ("write", "backward"): 14,
    ("write_identity", "forward"): 9,
    ("write_identity", "backward"): 10,
    ("write_read", "forward"): 10,
    ("write_read", "backward"): 15,
}


@pytest.mark.parametrize(("case", "direction"), ELEMENTS)
def test_streams_dominate_the_bytes(case: str, direction: str) -> None:
    moved = CASES[case].bytes_moved(direction, BF16)
    streams = ELEMENTS[case, direction] * PER_TOKEN
    assert streams < moved < 1.03 * streams  # coefficients and phi are the rest


def test_streams_leave_l2_above_2560_channels() -> None:
    wide = Shape(4096, 2564, 4, torch.bfloat16)
    moved = CASES["write_read"].bytes_moved("forward", wide)
    assert moved > 14 * wide.tokens * wide.dim * 2
    assert CASES["write_read"].bytes_moved("forward", BF16) < 10.3 * PER_TOKEN


def test_sinkhorn_moves_its_matrices_alone() -> None:
    assert CASES["sinkhorn"].bytes_moved("forward", BF16) == 2 * 4096 * 16 * 4
    assert CASES["sinkhorn"].bytes_moved("backward", BF16) == 3 * 4096 * 16 * 4
    assert CASES["sinkhorn"].bytes_moved("both", BF16) == 5 * 4096 * 16 * 4


def test_fp32_streams_are_twice_as_many_bytes() -> None:
    wide = Shape(4096, 2560, 4, torch.float32)
    extra = CASES["write"].bytes_moved("forward", wide) - CASES["write"].bytes_moved("forward", BF16)
    assert extra == 9 * PER_TOKEN


@pytest.mark.parametrize("case", CASES)
def test_problems_repeat_and_logits_are_not_small(case: str) -> None:
    shape = Shape(64, 32, 4, torch.float32)
    first, again = (pose(CASES[case], shape, torch.device("cpu")) for _ in range(2))
    for name, value in {**first.inputs, **first.cotangents}.items():
        assert torch.equal(value, {**again.inputs, **again.cotangents}[name])
    raw = CASES["coefficients_unconstrained"]
    values = raw.equations(pose(raw, shape, torch.device("cpu")).inputs, shape, torch.float32, False)
    assert 0.7 < float(values["res"].std()) < 2.0
