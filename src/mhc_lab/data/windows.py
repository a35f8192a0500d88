"""Which windows a batch is made of: pure functions, so that any two runs can be compared batch by batch."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mhc_lab.config.schema import RunConfig
from mhc_lab.data.corpus import Corpus
from mhc_lab.data.synthetic import Tokens

Batch = tuple[Tokens, Tokens]  # inputs, targets


def train_batch(corpus: Corpus, config: RunConfig, step: int, *, rank: int = 0, world: int = 1) -> Batch:
    """Rank's slice of the batch at `step`: inputs and targets, int64 [data.batch_size / world, T].

    A row depends on (seed, control, step, index in the global batch) alone: the same for every variant, on any
    number of ranks. Windows are drawn with replacement.
    """
    share, left = divmod(config.data.batch_size, world)
    assert left == 0
    # The seed comes last: it alone may exceed 32 bits, and a key must not run into that of another stream.
    return _stack(
        corpus.train_window((int(config.control), step, index, config.seed), config.model.sequence_length)
        for index in range(rank * share, (rank + 1) * share)
    )


def val_batches(corpus: Corpus, config: RunConfig, *, rank: int = 0, world: int = 1) -> list[Batch]:
    """Rank's part of the validation windows, in batches of about data.batch_size / world rows.

    The windows are the same for every seed, variant and number of ranks, each is on one rank once. There are
    data.val_windows of them, or as many as fit in the text without scoring a byte twice. Every rank gets the same
    number of batches, none of them empty (sharded models talk in each forward pass); their rows differ by one at most.
    """
    length = config.model.sequence_length
    count = corpus.val_count(config.data.val_windows, length)
    assert count >= world
    batches = min(-(-count // config.data.batch_size), count // world)
    parts = np.array_split(np.arange(count), batches * world)[rank::world]
    return [_stack(corpus.val_window(int(index), count, length) for index in part) for part in parts]


def _stack(windows: Iterable[tuple[Tokens, Tokens]]) -> Batch:
    inputs, targets = zip(*windows, strict=True)
    return np.stack(inputs), np.stack(targets)
