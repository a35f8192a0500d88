"""Every scored target can be told from the inputs before it, and what is random is not scored."""

from __future__ import annotations

import numpy as np
import pytest

from mhc_lab.data.synthetic import NOT_SCORED, SHORTEST, Task, Tokens, window

CASES = [(task, length, vocab) for task in SHORTEST for length in (15, 16, 64, 129) for vocab in (8, 9, 64)]


def _told(task: Task, seen: Tokens) -> int:
    """The answer by the task's rule, from the inputs up to here alone."""
    if task == "copy":
        separator = int(np.flatnonzero(seen == 0)[0])
        return int(seen[len(seen) - 1 - separator])
    earlier = int(np.flatnonzero(seen == seen[-1])[0])
    return int(seen[earlier + 1])


@pytest.mark.parametrize(("task", "length", "vocab"), CASES)
def test_targets_are_told_by_the_inputs(task: Task, length: int, vocab: int) -> None:
    for seed in range(5):
        inputs, targets = window(task, np.random.default_rng(seed), length, vocab)
        assert inputs.shape == targets.shape == (length,)
        assert inputs.dtype == targets.dtype == np.int64
        assert inputs.min() >= 0
        assert max(inputs.max(), targets.max()) < vocab
        scored = np.flatnonzero(targets != NOT_SCORED)
        assert len(scored) >= length // 5
        assert [_told(task, inputs[: i + 1]) for i in scored] == list(targets[scored])
        shifted = scored[scored < length - 1]
        assert np.array_equal(targets[shifted], inputs[shifted + 1])


@pytest.mark.parametrize("task", SHORTEST)
def test_the_place_alone_does_not_tell(task: Task) -> None:
    """The same place holds different answers in different sequences, so a model must look back."""
    targets = np.stack([window(task, np.random.default_rng(seed), 64, 16)[1] for seed in range(200)])
    always_scored = targets[:, (targets != NOT_SCORED).all(axis=0)]
    assert always_scored.shape[1] >= 64 // 5
    most_common = [np.bincount(column).max() / len(column) for column in always_scored.T]
    assert max(most_common) < 0.4
