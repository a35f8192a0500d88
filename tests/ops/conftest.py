"""Every test of an operation may ask for `backend`: the reference and the CPU kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mhc_lab.ops import backends


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Forced, with an error instead of the reference where a kernel fails."""

    def fail(_key: object, message: str) -> None:
        raise AssertionError(message)

    monkeypatch.setattr(backends, "_warn_once", fail)
    with backends.use(request.param):
        yield request.param
