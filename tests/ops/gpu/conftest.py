"""Triton kernels on a GPU where there is one, else in Triton's interpreter; outputs start as NaN.

tests/conftest.py sets TRITON_INTERPRET, because it counts at the moment when a kernel is decorated, and a test
module of any folder may import a kernel first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session", autouse=True)
def kernels_can_run() -> None:
    """Fails every test of the folder, rather than skipping it, where kernels would be compiled for no device."""
    from mhc_lab.ops import tiles

    assert torch.cuda.is_available() != tiles.INTERPRETED, (
        f"interpreted: {tiles.INTERPRETED}, GPU: {torch.cuda.is_available()}; "
        "without a GPU TRITON_INTERPRET=1 must be set before any kernel is imported (tests/conftest.py), with one unset"
    )


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN: an output element that no kernel writes shows."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocate_poisoned(*arguments: Any, **options: Any) -> Tensor:
            memory = allocate(*arguments, **options)
            return memory.fill_(float("nan")) if memory.is_floating_point() else memory

        return allocate_poisoned

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
