"""Three tasks whose answers stand in the sequence itself: what attention can do, without any text.

    copy        x1 x2 .. xm | x1 x2 ..          repeat what came before the separator (token 0)
    recall      k1 v1 .. kp vp k3 v3 k1 v1 ..   give the value of a key (distinct keys below vocab / 2, values above)
    induction   a b c d e f .. c d e f b c d e  after a token comes what came after it before; fragments start anywhere

Only tokens that are decided by what stands before them are scored; the others are drawn at random.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
Task = Literal["copy", "recall", "induction"]

GENERATOR = 1  # part of the corpus fingerprint: to be raised with any change of what is generated
NOT_SCORED = -100  # cross_entropy's own ignore_index
SHORTEST: dict[Task, int] = {"copy": 2, "recall": 7, "induction": 15}  # model.sequence_length that leaves a task
FRAGMENT = 4


def window(task: Task, rng: np.random.Generator, length: int, vocab: int) -> tuple[Tokens, Tokens]:
    """Inputs and targets, both [length]; targets are -100 where the next token cannot be known."""
    assert length >= SHORTEST[task]
    assert vocab >= 2 * FRAGMENT
    make = {"copy": _copy, "recall": _recall, "induction": _induction}[task]
    tokens, scored = make(rng, length + 1, vocab)
    return tokens[:-1], np.where(scored[1:], tokens[1:], NOT_SCORED)


def _copy(rng: np.random.Generator, size: int, vocab: int) -> tuple[Tokens, NDArray[np.bool_]]:
    given = rng.integers(1, vocab, size=size // 2)
    tokens = np.concatenate([given, [0], given])[:size]
    return tokens, np.arange(size) > len(given)


def _recall(rng: np.random.Generator, size: int, vocab: int) -> tuple[Tokens, NDArray[np.bool_]]:
    half = vocab // 2
    pairs = min(half, size // 4)
    keys = rng.permutation(half)[:pairs]
    values = half + rng.integers(vocab - half, size=pairs)
    asked = rng.integers(pairs, size=(size + 1) // 2 - pairs)
    order = np.concatenate([np.arange(pairs), asked])
    tokens = np.stack([keys[order], values[order]], axis=1).ravel()[:size]
    position = np.arange(size)
    return tokens, (position >= 2 * pairs) & (position % 2 == 1)


def _induction(rng: np.random.Generator, size: int, vocab: int) -> tuple[Tokens, NDArray[np.bool_]]:
    base = rng.permutation(vocab)[: size // 2]  # distinct, so that a token has one follower only
    rest = size - len(base)
    starts = rng.integers(len(base) - FRAGMENT + 1, size=-(-rest // FRAGMENT))
    fragments = base[starts[:, None] + np.arange(FRAGMENT)].ravel()[:rest]
    inside_fragment = np.arange(rest) % FRAGMENT > 0
    return np.concatenate([base, fragments]), np.concatenate([np.zeros(len(base), bool), inside_fragment])
