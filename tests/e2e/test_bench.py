"""`mhc-lab bench` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TINY = ["--device", "cpu", "--threads", "1", "--rounds", "2"]
HEAVY = ("lightning", "omegaconf", "typer", "yaml", "optuna", "mlflow", "pandas", "scipy", "numba", "filelock", "rich")
# Before each sample the last cache is flushed: hundreds of MiB on a server, and nothing here is about speed.
SMALL_CACHE = """
import mhc_lab.bench.timing
mhc_lab.bench.timing.last_cache = lambda: 2**20
"""
WHOLE = f"""
import sys
from mhc_lab.cli import main
{SMALL_CACHE}
sys.argv[0] = "mhc-lab"
sys.exit(main())
"""
BARE = f"""
import runpy, sys
for name in {HEAVY}:
    sys.modules[name] = None
sys.argv = ["bench", *sys.argv[1:]]
{SMALL_CACHE}
runpy.run_module("mhc_lab.bench", run_name="__main__")
"""


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)


def as_a_user(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-c", WHOLE, "bench", *arguments], cwd)


def found(cwd: Path, name: str) -> dict[str, Any]:
    (path,) = (cwd / "results" / "bench").glob(f"*/{name}.json")
    content: dict[str, Any] = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text().startswith("# ")
    return content


def test_ops(tmp_path: Path) -> None:
    ended = as_a_user("ops", "--quick", "--dims", "32", "--tokens", "48", *TINY, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    content = found(tmp_path, "ops")
    ours = {(row["case"], row["direction"]) for row in content["rows"] if row["contender"] == "ours"}
    assert len(ours) == 21  # 7 cases, each forward, backward, both
    assert {row["contender"] for row in content["rows"]} == {"ours", "ours_unfused", "eager"}
    assert all(row["us"] > 0 and row["gate_error"] < 1e-3 for row in content["rows"])
    assert "[7/7] write_read" in ended.stdout
    assert any(line.startswith("not measured: liger") for line in ended.stdout.splitlines())
    assert content["runs"][0]["command"].startswith("mhc-lab bench ops --quick")

    again = as_a_user(
        "ops", "--dims", "64", "--tokens", "48", "--cases", "read", "--rivals", "", "--append", *TINY, cwd=tmp_path
    )
    assert again.returncode == 0, again.stderr
    rows = found(tmp_path, "ops")["rows"]
    assert {row["dim"] for row in rows if row["case"] == "read"} == {32, 64}
    assert {row["run"] for row in rows} == {0, 1}


def test_step(tmp_path: Path) -> None:
    ended = as_a_user("step", "--quick", "--dims", "32", "--t-max", "3", "--rivals", "", *TINY, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    rows = found(tmp_path, "step")["rows"]
    assert [row["name"] for row in rows][:2] == ["identity", "mhc"]
    assert all(row["pairs"] == 2 and row["ratio"] > 0 for row in rows)


def test_memory(tmp_path: Path) -> None:
    ended = as_a_user("memory", "--quick", "--dims", "32", *TINY, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    rows = {(row["name"], row["recompute"]): row for row in found(tmp_path, "memory")["rows"]}
    assert rows["mhc", "auto"]["measured"] < rows["mhc", "off"]["measured"]
    assert all(abs(row["predicted"] / row["measured"] - 1) <= 0.1 for row in rows.values())


def test_ops_need_torch_and_triton_alone(tmp_path: Path) -> None:
    shape = ["--dims", "16", "--tokens", "8", "--cases", "read,write_read", "--rivals", "eager"]
    ended = run([sys.executable, "-c", BARE, "ops", *shape, *TINY], tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert found(tmp_path, "ops")["runs"][0]["backend"] == "reference"  # without numba
    whole = run([sys.executable, "-c", BARE, "step", "--quick", *TINY], tmp_path)
    assert whole.returncode == 2
    assert "needs the whole package" in whole.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["speed"], "there is no 'speed'"),
        (["ops", "--dims", "wide"], "whole numbers"),
        (["step", "--dims", "100", "--device", "cpu"], "multiples of 32"),
        (["ops", "--results", "file/inside", "--quick"], "file/inside: cannot be written"),  # before it is measured
    ],
)
def test_mistakes_exit_with_2(
    tmp_path: Path,
    arguments: list[str],
    words: str,
    mhc_lab: Any,
) -> None:
    (tmp_path / "file").write_text("")
    ended = mhc_lab("bench", *arguments, cwd=tmp_path)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
