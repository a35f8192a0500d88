"""A corpus: what the windows of training and validation are cut from. Needs no torch."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mhc_lab.config.schema import RunConfig
from mhc_lab.data import synthetic
from mhc_lab.data.installed import read_installed
from mhc_lab.data.sources import Split, read_stdlib, read_text
from mhc_lab.data.synthetic import Task, Tokens
from mhc_lab.errors import LabError

Key = tuple[int, int, int, int]  # stream, step, index, seed

_VAL_STREAM = 2  # 0 and 1 are training and the control arm's training


@dataclass(frozen=True, eq=False)
class Corpus(ABC):
    """Windows of `length` tokens: (inputs, targets), both int64 [length], target -100 where not scored.

    `fingerprint` stands for all windows that can be drawn, training and validation; results compare within one.
    """

    source: str
    description: str
    vocab_size: int
    fingerprint: str

    @abstractmethod
    def train_window(self, key: Key, length: int) -> tuple[Tokens, Tokens]:
        """The window that the key decides."""

    @abstractmethod
    def val_window(self, index: int, count: int, length: int) -> tuple[Tokens, Tokens]:
        """Window `index` of `count`: the same for every seed."""

    @abstractmethod
    def val_count(self, wanted: int, length: int) -> int:
        """How many of the wanted validation windows there are; LabError where no window of this length can be cut."""


@dataclass(frozen=True, eq=False)
class TokenCorpus(Corpus):
    """Tokens that were read: `train` and `val` are one-dimensional arrays of unsigned integers."""

    train: NDArray[np.uint8]
    val: NDArray[np.uint8]

    def train_window(self, key: Key, length: int) -> tuple[Tokens, Tokens]:
        return _cut(self.train, int(_generator(key).integers(len(self.train) - length)), length)

    def val_window(self, index: int, count: int, length: int) -> tuple[Tokens, Tokens]:
        # Evenly spaced over all that can be a target: with count <= val_count no target is scored twice.
        return _cut(self.val, index * (len(self.val) - 1) // count, length)

    def val_count(self, wanted: int, length: int) -> int:
        for words, tokens in (("training", self.train), ("validation", self.val)):
            if len(tokens) <= length:
                raise LabError(
                    f"data={self.source}: {len(tokens)} bytes for {words}, but one window takes {length + 1} "
                    "(model.sequence_length + 1): give more text, change data.val_fraction or shorten the window"
                )
        return min(wanted, (len(self.val) - 1) // length)


@dataclass(frozen=True, eq=False)
class SyntheticCorpus(Corpus):
    """Sequences made when asked for."""

    task: Task

    def train_window(self, key: Key, length: int) -> tuple[Tokens, Tokens]:
        return synthetic.window(self.task, _generator(key), length, self.vocab_size)

    def val_window(self, index: int, count: int, length: int) -> tuple[Tokens, Tokens]:
        assert index < count
        return self.train_window((_VAL_STREAM, 0, index, 0), length)

    def val_count(self, wanted: int, length: int) -> int:
        shortest = synthetic.SHORTEST[self.task]
        if length < shortest:
            raise LabError(f"model.sequence_length={length}: data.task={self.task} needs at least {shortest}")
        return wanted


def load_corpus(config: RunConfig) -> Corpus:
    """The corpus of a run, checked against what the run asks of it.

    Read once a process and kept, so a file that changes meanwhile is not seen. Raises LabError for files that are
    missing, empty or closed to the reader, and for text shorter than one window of model.sequence_length + 1 bytes.
    """
    data = config.data
    corpus: Corpus
    if data.source == "synthetic":
        corpus = _synthetic(data.task, data.synthetic_vocab)
    elif data.source == "stdlib":
        corpus = _stdlib(data.val_fraction)
    elif data.source == "installed":
        corpus = _installed(data.val_fraction)
    else:
        corpus = _text(tuple(sorted(set(data.files))), data.val_fraction)
    _check(config, corpus)
    return corpus


def corpus_fingerprint(config: RunConfig) -> str:
    """16 hex digits of a sha256 over content and split, not over names, places or times of files. See load_corpus."""
    return load_corpus(config).fingerprint


@lru_cache(maxsize=2)
def _stdlib(val_fraction: float) -> TokenCorpus:
    return _bytes_corpus("stdlib", read_stdlib(val_fraction))


@lru_cache(maxsize=1)
def _installed(val_fraction: float) -> TokenCorpus:
    return _bytes_corpus("installed", read_installed(val_fraction))


@lru_cache(maxsize=2)
def _text(patterns: tuple[str, ...], val_fraction: float) -> TokenCorpus:
    return _bytes_corpus("text", read_text(patterns, val_fraction))


def _synthetic(task: Task, vocab: int) -> SyntheticCorpus:
    description = f"synthetic task {task}, {vocab} tokens"
    digest = hashlib.sha256(f"{description}, generator {synthetic.GENERATOR}".encode()).hexdigest()
    return SyntheticCorpus("synthetic", description, vocab, digest[:16], task)


def _bytes_corpus(source: str, split: Split) -> TokenCorpus:
    digest = hashlib.sha256(f"{len(split.train)} {len(split.val)} ".encode())
    digest.update(split.train)
    digest.update(split.val)
    description = f"{split.description}, {len(split.train)} bytes for training, {len(split.val)} for validation"
    train, val = (np.frombuffer(part, dtype=np.uint8) for part in (split.train, split.val))
    return TokenCorpus(source, description, 256, digest.hexdigest()[:16], train, val)


def _check(config: RunConfig, corpus: Corpus) -> None:
    model, data, trainer = config.model, config.data, config.trainer
    count = corpus.val_count(data.val_windows, model.sequence_length)
    if model.vocab_size is not None and model.vocab_size < corpus.vocab_size:
        raise LabError(
            f"model.vocab_size={model.vocab_size}: data={corpus.source} has {corpus.vocab_size} tokens; "
            "give at least that many, or null"
        )
    ranks = trainer.devices * trainer.num_nodes
    if count < ranks:
        raise LabError(f"{count} validation windows for {ranks} devices: raise data.val_windows or data.val_fraction")


def _generator(key: Key) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(key))


def _cut(tokens: NDArray[np.uint8], start: int, length: int) -> tuple[Tokens, Tokens]:
    window = tokens[start : start + length + 1].astype(np.int64)
    assert len(window) == length + 1
    return window[:-1], window[1:]
