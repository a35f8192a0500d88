"""Every kernel is compiled for GPUs that are not there, in processes of its own: this one may be the interpreter's."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mhc_lab.ops.ahead_of_time import TARGETS, Usage, kernel_modules, table

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

KERNELS = '''
import triton
import triton.language as tl
from mhc_lab.ops.ahead_of_time import KernelVariant


@triton.jit
def scale(x, out, n, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place, mask=place < n, other=0.0).to(tl.float32)
    tl.store(out + place, value * 2, mask=place < n)


@triton.jit
def normalise(x, out, BLOCK: tl.constexpr):
    """A tile that the registers of its threads cannot hold."""
    place = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    value = tl.load(x + place)
    value = value / (tl.sum(value, 0)[None, :] + tl.sum(value, 1)[:, None])
    tl.store(out + place, value * tl.sum(value * value, 0)[None, :])


@triton.jit
def product(x, out, BLOCK: tl.constexpr):
    """Operands that shared memory cannot hold."""
    short, long = tl.arange(0, 16), tl.arange(0, BLOCK)
    a = tl.load(x + short[:, None] * BLOCK + long[None, :])
    b = tl.load(x + long[:, None] * 16 + short[None, :])
    tl.store(out + short[:, None] * 16 + short[None, :], tl.dot(a, b))


@triton.jit
def wrong(x, out, BLOCK: tl.constexpr):
    tl.store(out + tl.arange(0, BLOCK), tl.arange(0, 2 * BLOCK))


def variants():
    pointers = {"x": "*fp32", "out": "*fp32"}
    return [
        KernelVariant("good", scale, {**pointers, "n": "i32"}, {"BLOCK": 1024}, ("x", "out")),
        KernelVariant("spilling", normalise, pointers, {"BLOCK": 128}, num_warps=1),
        KernelVariant("greedy", product, {"x": "*bf16", "out": "*fp32"}, {"BLOCK": 4096}, num_warps=16),
        KernelVariant("wrong", wrong, pointers, {"BLOCK": 64}),
        KernelVariant("forgetful", scale, pointers, {"BLOCK": 64}),
    ]
'''


def compile_matrix(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mhc_lab.ops.ahead_of_time", *arguments]
    environment = {**os.environ, "TRITON_INTERPRET": "1", **({"PYTHONPATH": str(path)} if path else {})}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "made_for_test.py").write_text(KERNELS)
    return folder


@pytest.mark.kernels
def test_every_kernel_compiles_for_every_gpu_without_a_spill() -> None:
    assert len(kernel_modules()) >= 5, kernel_modules()
    ended = compile_matrix("--json")
    assert ended.returncode == 0, ended.stderr
    usages = json.loads(ended.stdout)
    assert {usage["target"] for usage in usages} == set(TARGETS)
    assert len(usages) == len(TARGETS) * len({usage["kernel"] for usage in usages})
    assert all(usage["registers"] > 0 for usage in usages)


def faults(path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    ended = compile_matrix("--json", "--modules", "made_for_test", *arguments, path=path)
    found = {usage["kernel"]: usage for usage in json.loads(ended.stdout)}
    return ended.returncode, found


@pytest.mark.kernels
def test_kernels_that_do_not_fit_are_found(kernels: Path) -> None:
    code, found = faults(kernels, "--targets", "sm_90")
    assert code == 1
    assert found["good"]["fault"] == ""
    assert found["good"]["registers"] > 0
    assert found["spilling"]["spilled"] > 0
    assert "spills" in found["spilling"]["fault"]
    assert found["greedy"]["shared"] > TARGETS["sm_90"]
    assert "shared memory" in found["greedy"]["fault"]
    assert "does not compile" in found["wrong"]["fault"]
    assert "without a type ['n']" in found["forgetful"]["fault"]


@pytest.mark.kernels
def test_spills_are_found_on_amd_too(kernels: Path) -> None:
    code, found = faults(kernels, "--targets", "gfx942", "--only", "spilling")
    assert code == 1
    assert "spills" in found["spilling"]["fault"]


@pytest.mark.kernels
def test_one_fit_kernel_is_success(kernels: Path) -> None:
    code, found = faults(kernels, "--only", "good", "--targets", "sm_80,sm_100")
    assert code == 0
    assert list(found) == ["good"]


@pytest.mark.kernels
def test_the_table_is_for_people(kernels: Path) -> None:
    ended = compile_matrix("--modules", "made_for_test", "--targets", "sm_80", "--only", "spill", path=kernels)
    assert ended.returncode == 1
    assert "| kernel | sm_80 |" in ended.stdout
    assert "error: spilling on sm_80: spills" in ended.stderr


def test_wrong_arguments(kernels: Path) -> None:
    unknown = compile_matrix("--targets", "sm_20")
    assert unknown.returncode == 2
    assert "sm_20" in unknown.stderr
    nothing = compile_matrix("--modules", "made_for_test", "--only", "no such kernel", path=kernels)
    assert nothing.returncode == 2


def test_table_marks_what_does_not_fit() -> None:
    told = table(
        [
            Usage("a", "sm_90", 40, 0, 1024),
            Usage("a", "gfx942", 512, 16, 1024),
            Usage("b", "sm_90", error="does not compile: ValueError: no"),
        ]
    )
    assert told.splitlines()[2:] == [
        "| a | 40 / 0 / 1024 | **512 / 16 / 1024** |",
        "| b | does not compile |  |",
    ]
