"""What a dozen configurations gave when their losses were committed, they give now.

Bits differ between processors, so that losses are compared to 1e-5 after 5 steps here, on both backends;
`nox -s same_numbers -- COMMIT` compares two trees on one machine, bit by bit. To commit others, which is a change of
what every result means: python tests/same_numbers/losses.py tests/same_numbers/losses.json
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from compare import ROOT, differences, losses, main  # noqa: E402
from configurations import CONFIGURATIONS  # noqa: E402

COMPARED = ("step", "train_loss", "val_loss", "lr")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_losses_are_those_that_were_committed(backend: str, tmp_path: Path) -> None:
    committed = {
        name: [{key: line[key] for key in COMPARED if key in line} for line in lines]
        for name, lines in json.loads((HERE / "losses.json").read_text()).items()
    }
    assert set(committed) == set(CONFIGURATIONS)
    now = losses(ROOT, backend, tmp_path / "losses.json")
    rounded = [name for name in now if "bf16" in name]  # a last bit is 4e-3 there, and backends sum in other orders
    assert list(differences(committed, {n: now[n] for n in now if n not in rounded}, 1e-5)) == []
    assert list(differences(committed, {n: now[n] for n in rounded}, 1e-3)) == []


def test_a_difference_is_told() -> None:
    was = {"mhc": [{"step": 1, "train_loss": 2.5}, {"step": 2, "train_loss": None}]}
    assert list(differences(was, was)) == []
    now = {"mhc": [{"step": 1, "train_loss": 2.5000001, "new": 1.0}, {"step": 2, "train_loss": None}]}
    assert list(differences(was, now)) == ["mhc, step 1: train_loss was 2.5, is 2.5000001"]
    assert list(differences(was, now, 1e-5)) == []
    assert list(differences(was, {"mhc": was["mhc"][:1]})) == ["mhc: 2 lines then, 1 now"]
    assert len(list(differences(was, {"mhc": [{"step": 1}, {"step": 2}]}))) == 1  # nothing now, and null then is null


def test_no_such_commit(capfd: pytest.CaptureFixture[str]) -> None:
    if subprocess.run(["git", "-C", ROOT, "rev-parse"], capture_output=True).returncode:
        pytest.skip("not a git repository")
    assert main(["no-such-commit"]) == 2
    assert "git" in capfd.readouterr().err
