import pytest


@pytest.fixture(autouse=True)
def few_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a forest; what they are for has a test of its own."""
    monkeypatch.setattr("mhc_lab.report.sweep.importance.SHUFFLES", 2)
