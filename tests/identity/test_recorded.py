"""What a run folder says of the code that made it is data: damaged or strange, it costs a question, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mhc_lab.config import compose
from mhc_lab.identity.code import Executed, code_fingerprint, code_of, stamp
from mhc_lab.identity.ledger import OF_AN_UNKNOWN_PACKAGE
from mhc_lab.run_folder import RunFolder, write_json

MHC = Executed("mhc", ("doubly_stochastic",), "synthetic", "cpu")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run of the code of now."""
    folder = RunFolder.create(tmp_path, compose(["residual=mhc", "data=synthetic", "tracking=none"]), "c0ffee")
    folder.write_code(MHC)
    record: dict[str, Any] = {"run_id": folder.run_id, "status": "finished", "metrics": {"val_loss": 2.5}}
    folder.write_record(record | {"code_fingerprint": code_fingerprint(MHC), "environment": {"backend": "cpu"}})
    return folder


def test_of_now(run: RunFolder) -> None:
    assert run.other_code() == []
    assert run.code() == (MHC, code_of(MHC))
    run.clear()
    assert not run.code_file.exists()
    assert run.other_code() == []


def test_a_run_of_a_gpu_is_asked_about_its_own_code(run: RunFolder) -> None:
    gpu = Executed("mhc", ("doubly_stochastic",), "synthetic", "gpu")
    run.write_code(gpu)
    write_json(run.record_file, (run.record() or {}) | {"code_fingerprint": code_fingerprint(gpu)})
    assert run.other_code() == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"executed": 3}', '{"executed": {}, "definitions": {"a": 1}}'])
def test_damaged(run: RunFolder, content: str) -> None:
    run.code_file.write_text(content)
    assert run.other_code() == []  # the fingerprint in the record is that of now
    write_json(run.record_file, (run.record() or {}) | {"code_fingerprint": "older"})
    assert run.other_code() == [OF_AN_UNKNOWN_PACKAGE]


def test_of_a_variant_that_is_not_here(run: RunFolder) -> None:
    write_json(run.code_file, stamp(MHC) | {"executed": {**vars(MHC), "constraints": [], "variant": "gone"}})
    assert run.other_code() == ["variant.gone"]
    write_json(run.code_file, stamp(MHC) | {"executed": {**vars(MHC), "constraints": ["left"]}})
    assert run.other_code() == ["constraint.left"]


def test_a_backend_is_no_path() -> None:
    strange = Executed("mhc", ("doubly_stochastic",), "synthetic", "../../../../etc/x")
    assert code_of(strange) == code_of(Executed("mhc", ("doubly_stochastic",), "synthetic", "reference"))
