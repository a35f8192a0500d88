"""The batch of a step is a function of (seed, control, step, index); validation is the same for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mhc_lab.config import RunConfig, compose
from mhc_lab.data import sources
from mhc_lab.data.corpus import TokenCorpus, load_corpus
from mhc_lab.data.windows import Batch, train_batch, val_batches

SOURCES = ["stdlib", "synthetic"]


def _config(*overrides: str) -> RunConfig:
    return compose(["model.sequence_length=32", *overrides])


def _same(first: Batch, second: Batch) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def _batch(step: int, *overrides: str, rank: int = 0, world: int = 1) -> Batch:
    config = _config(*overrides)
    return train_batch(load_corpus(config), config, step, rank=rank, world=world)


@pytest.mark.parametrize("source", SOURCES)
def test_train_batch_is_pure(source: str) -> None:
    data = f"data={source}"
    batch = _batch(7, data)
    assert batch[0].shape == batch[1].shape == (8, 32)
    assert batch[0].dtype == batch[1].dtype == np.int64
    assert _same(batch, _batch(7, data))
    assert _same(batch, _batch(7, data, "residual=identity", "model.dim=128", "optim.learning_rate=1", "trainer=gpu"))
    others = [_batch(8, data), _batch(7, data, "seed=1"), _batch(7, data, "control=true")]
    others += [_batch(7, data, f"seed={2**32}"), _batch(7, data, f"seed={2**62 + 1}")]
    everything = np.stack([batch[0], *(other[0] for other in others)]).reshape(-1, 32)
    assert len(np.unique(everything, axis=0)) == len(everything)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_batch_out(source: str, world: int) -> None:
    slices = [_batch(3, f"data={source}", rank=rank, world=world) for rank in range(world)]
    joined = tuple(np.concatenate(parts) for parts in zip(*slices, strict=True))
    assert _same((joined[0], joined[1]), _batch(3, f"data={source}"))


@pytest.mark.parametrize("source", SOURCES)
def test_a_row_does_not_depend_on_the_batch_size(source: str) -> None:
    small, large = _batch(3, f"data={source}"), _batch(3, f"data={source}", "data.batch_size=16")
    assert _same(small, (large[0][:8], large[1][:8]))


def test_targets_are_the_next_bytes_of_the_text() -> None:
    config = _config()
    corpus = load_corpus(config)
    assert isinstance(corpus, TokenCorpus)
    text = corpus.train.tobytes()
    for inputs, targets in zip(*train_batch(corpus, config, 0), strict=True):
        assert np.array_equal(inputs[1:], targets[:-1])
        assert bytes(inputs.tolist()) + bytes(targets[-1:].tolist()) in text


def test_training_reaches_both_ends_and_never_validation(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(range(32, 92)))
    config = _config("data=text", f"data.files=[{tmp_path}/a.txt]", "data.val_fraction=0.4", "model.sequence_length=20")
    corpus = load_corpus(config)
    batches = [train_batch(corpus, config, step) for step in range(30)]
    starts = {int(inputs[0]) for batch in batches for inputs in batch[0]}
    assert starts == set(range(32, 32 + 36 - 20))
    assert max(targets.max() for _, targets in batches) == 32 + 35


@pytest.mark.parametrize("source", SOURCES)
def test_validation_is_the_same_for_all(source: str) -> None:
    configs = [_config(f"data={source}", *o) for o in ([], ["seed=5"], ["control=true"], ["residual=identity"])]
    first, *rest = [val_batches(load_corpus(config), config) for config in configs]
    assert sum(len(inputs) for inputs, _ in first) == 64
    for other in rest:
        assert all(_same(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("source", SOURCES)
def test_validation_shares_nothing_with_training(source: str) -> None:
    config = _config(f"data={source}")
    corpus = load_corpus(config)
    trained = {row.tobytes() for step in range(50) for row in train_batch(corpus, config, step)[0]}
    assert trained.isdisjoint(row.tobytes() for inputs, _ in val_batches(corpus, config) for row in inputs)


@pytest.mark.parametrize(
    ("wanted", "world"), [(1, 1), (5, 1), (12, 1), (40, 1), (5, 2), (11, 2), (40, 2), (3, 3), (11, 3), (40, 3)]
)
@pytest.mark.parametrize("batch_size", [6, 12])
def test_validation_covers_each_window_once(
    tmp_path: Path, wanted: int, world: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_text_of", Path.read_bytes)  # no text has so many bytes that are all different
    (tmp_path / "a.txt").write_bytes(bytes(range(250)))
    config = _config("data=text", f"data.files=[{tmp_path}/a.txt]", "data.val_fraction=0.5", "model.sequence_length=10")
    config.data.val_windows, config.data.batch_size = wanted, batch_size
    corpus = load_corpus(config)
    assert isinstance(corpus, TokenCorpus)
    held = len(corpus.val)  # 125 bytes: 12 windows of 10 targets
    count = min(wanted, 12)
    per_rank = [val_batches(corpus, config, rank=rank, world=world) for rank in range(world)]
    assert len({len(batches) for batches in per_rank}) == 1
    for together in zip(*per_rank, strict=True):
        sizes = [len(inputs) for inputs, _ in together]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
    targets = np.concatenate([t for batches in per_rank for _, t in batches])
    assert len(targets) == count
    assert len(np.unique(targets)) == targets.size  # every byte of this text is another: none is scored twice
    starts = np.sort(targets[:, 0])
    assert starts[0] == corpus.val[1]
    assert np.ptp(np.diff([*starts, starts[0] + held - 1])) <= 1  # evenly spaced, round to the start again
