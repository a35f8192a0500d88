"""What is wrong or fails is a row, never an end; what was judged is not judged again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mhc_lab.bench import correctness
from mhc_lab.bench.adapters import Adapter
from mhc_lab.bench.correctness import run_correctness
from mhc_lab.bench.options import Options
from mhc_lab.bench.own import OURS
from mhc_lab.ops import backends

CASES = ["read", "write"]


def judged(results: Path, **more: Any) -> tuple[list[dict[str, Any]], str, list[str]]:
    said: list[str] = []
    options = Options("correctness", device="cpu", quick=True, threads=1, cases=CASES, results=results, **more)
    options.check()
    run_correctness(options, said.append)
    (file,) = results.glob("bench/*/correctness.json")
    return json.loads(file.read_text())["rows"], file.with_suffix(".md").read_text(), said


def test_what_is_right(tmp_path: Path) -> None:
    rows, page, said = judged(tmp_path)
    assert [(row["case"], row["dtype"], row["outcome"]) for row in rows] == [
        (case, dtype, "right") for dtype in ("float32", "bfloat16") for case in CASES
    ]
    assert all(row["error"] <= row["allowed"] for row in rows)
    assert "| read | float32 | 1 | 0 | 0 |" in page
    assert "Not right" not in page
    assert said[0].startswith("[1/4] read float32 n=4 C=20 tokens=5: right, off by ")


def test_an_earlier_run_is_gone_on_with(tmp_path: Path) -> None:
    before, _, _ = judged(tmp_path, dtype="fp32")
    after, page, said = judged(tmp_path, append=True)
    assert after[:2] == before
    assert [row["run"] for row in after] == [0, 0, 1, 1]
    assert len(said) == 2
    assert page.count("Backend of the operations") == 2


def test_what_is_wrong_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def double(x: dict[str, torch.Tensor], shape: Any) -> dict[str, torch.Tensor]:
        return {"hidden": 2 * OURS["read"].run(x, shape)["hidden"]}

    wrong: dict[str, Adapter] = {**OURS, "read": dataclasses.replace(OURS["read"], run=double)}
    monkeypatch.setattr(correctness, "OURS", wrong)
    rows, page, said = judged(tmp_path, dtype="fp32")
    assert [row["outcome"] for row in rows] == ["wrong", "right"]
    assert "- read float32 n=4 C=20 tokens=5: wrong: hidden is off by 1, allowed 0.001" in page
    assert "WRONG" in said[0]


def test_a_kernel_that_fails_says_why_and_speaks_for_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = backends._load
    tries = []

    def broken(operation: str, backend: str, function: str) -> Any:
        if operation == "read" and backend == "cpu":
            tries.append(function)
            raise RuntimeError("out of shared memory")
        return load(operation, backend, function)

    monkeypatch.setattr(backends, "_load", broken)
    rows, page, _ = judged(tmp_path)
    assert [row["outcome"] for row in rows] == ["failed", "right", "failed", "right"]
    assert "the cpu kernel of 'read' failed" in rows[0]["reason"]
    assert page.count("RuntimeError: out of shared memory") == 2
    assert len(tries) >= 2
    backends.try_again()


def test_a_broken_device_ends_the_process_after_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def illegal(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(correctness, "pose", illegal)
    rows, _, said = judged(tmp_path)
    assert [row["outcome"] for row in rows] == ["failed"]
    assert said[-1].startswith("the device takes nothing more")
    rows, _, _ = judged(tmp_path, append=True)
    assert len(rows) == 2
