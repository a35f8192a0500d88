"""What a definition says, and what is no part of it."""

from __future__ import annotations

import pytest

from mhc_lab.identity.definitions import STATEMENTS, parsed

SOURCE = '''
"""A module."""
from __future__ import annotations
import torch
from mhc_lab import ops

SIZE: int = 4
LOW, HIGH = 0, 1.5


class Layer(torch.nn.Module):
    """A layer."""

    width: int
    scale: float = 0.5

    def forward(self, x: torch.Tensor, *, deep: bool = False) -> torch.Tensor:
        """Its forward."""
        assert x.dim() == 3, f"not {x.dim()}"
        if (n := x.shape[-1]) > SIZE:
            raise ValueError(f"too wide: {n!r:>4}")
        # why
        return ops.read(x, f"{'a'} {n:>{SIZE}} " "b", [i for i in range(n)])


register(Layer)
'''


def digests(text: str) -> dict[str, str]:
    return {name: found.digest for name, found in parsed("mhc_lab.sample", text).definitions.items()}


def test_hashes_are_the_same_on_every_python() -> None:
    """Pinned: a Python that gives others would call every result one of other code."""
    assert digests(SOURCE) == PINNED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# why", "# another reason"),
        ('"""A layer."""', '"""A layer, in more words."""'),
        ('        """Its forward."""\n', ""),
        ("x: torch.Tensor, *", "x, *"),
        (") -> torch.Tensor:", ") -> Tensor:"),
        ("SIZE: int = 4", "SIZE = 4"),
        ("import torch\n", "import torch\nimport math\n"),
        ("too wide: {n!r:>4}", "wider than {SIZE}"),
        ('f"not {x.dim()}"', '"three dimensions"'),
        ("LOW, HIGH", "\n\n\nLOW, HIGH"),
    ],
)
def test_what_changes_nothing(old: str, new: str) -> None:
    assert old in SOURCE
    assert digests(SOURCE.replace(old, new)) == digests(SOURCE)


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("SIZE: int = 4", "SIZE: int = 5", "SIZE"),
        ("0, 1.5", "0, 2.5", "HIGH"),
        ("scale: float = 0.5", "scale: float = 1", "Layer"),
        ("    width: int\n", "", "Layer"),
        ("deep: bool = False", "deep: bool = True", "Layer"),
        ("range(n)", "range(SIZE)", "Layer"),
        (" > SIZE", " >= SIZE", "Layer"),
        ("raise ValueError", "raise TypeError", "Layer"),
        ("x.dim() == 3", "x.dim() == 2", "Layer"),
        ('{SIZE}} " "b"', '{SIZE}} " "c"', "Layer"),
        ("register(Layer)", "register(Layer, 1)", STATEMENTS),
    ],
)
def test_what_is_another_definition(old: str, new: str, name: str) -> None:
    assert old in SOURCE
    before, after = digests(SOURCE), digests(SOURCE.replace(old, new))
    assert name in {key for key in before if before[key] != after[key]} <= {name, "LOW"}


def test_true_is_not_one() -> None:
    assert len({digests(f"x = {value}")["x"] for value in ("1", "1.0", "True", "'1'", "b'1'")}) == 5


PINNED = {"SIZE": "ab32d8af", "LOW": "7ea23bf1", "HIGH": "7ea23bf1", "Layer": "0c40628b", "<import>": "f95aee70"}
