from __future__ import annotations

import sys

import pytest

from mhc_lab.command import command_line


def test_passwords_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["/venv/bin/mhc-lab", "ablate", "demo", "--storage", "postgresql+psycopg://me:s3c:r@t@host:5432/db"]
    monkeypatch.setattr(sys, "argv", [*typed, "--tracking-uri=http://me:pw@host", "data.files=[a b]"])
    assert command_line() == (
        "mhc-lab ablate demo --storage postgresql+psycopg://me:***@host:5432/db "
        "--tracking-uri=http://me:***@host 'data.files=[a b]'"
    )


def test_nor_those_in_the_parameters_of_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["mhc-lab", "worker", "demo", "--storage", "postgresql://h/db?user=me&password=s3c"]
    )
    assert command_line() == "mhc-lab worker demo --storage 'postgresql://h/db?user=me&password=***'"
