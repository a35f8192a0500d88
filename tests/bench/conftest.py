"""Shared by the tests of benchmarks."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each sample the last cache is flushed: hundreds of MiB on a server, and nothing here is about speed."""
    monkeypatch.setattr("mhc_lab.bench.timing.last_cache", lambda: 2**20)
