"""Which implementation runs, and what happens where it cannot."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings

import pytest
import torch

from mhc_lab import kernel_cache, ops
from mhc_lab.ops import backends


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_broken", set())
    monkeypatch.delenv(backends.VARIABLE, raising=False)


def test_auto_takes_the_kernels_of_the_device() -> None:
    assert backends.chosen(torch.device("cpu")) == "cpu"
    assert backends.chosen(torch.device("cuda")) == "gpu"
    assert backends.chosen(torch.device("meta")) == "reference"


def test_the_environment_overrides_and_the_context_overrides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.VARIABLE, "reference")
    assert backends.chosen(torch.device("cpu")) == "reference"
    with backends.use("cpu"):
        assert backends.chosen(torch.device("cpu")) == "cpu"
    assert backends.chosen(torch.device("cpu")) == "reference"


def test_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.VARIABLE, "fast")
    with pytest.raises(ValueError, match="MHC_LAB_BACKEND=fast: choose one of auto, reference, gpu, cpu"):
        backends.chosen(torch.device("cpu"))
    with pytest.raises(ValueError, match="choose one of"), backends.use("fast"):
        pass


def test_without_numba_the_reference_runs_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cache, "_has_numba", lambda: False)
    with pytest.warns(RuntimeWarning, match="numba is not installed"):
        ops.sinkhorn(torch.zeros(3, 4, 4))
    with warnings.catch_warnings(action="error"):
        ops.sinkhorn(torch.zeros(3, 4, 4))


def test_a_kernel_that_fails_gives_way_to_the_reference_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such instruction")

    from mhc_lab.ops.read import cpu

    backends._load.cache_clear()
    monkeypatch.setattr(cpu, "forward", broken)
    streams, h_pre = torch.randn(3, 4, 5), torch.rand(3, 4)
    message = r"cpu kernel of 'read' failed .* \(RuntimeError: no such instruction\)"
    with pytest.warns(RuntimeWarning, match=message):
        found = ops.read(streams, h_pre)
    with warnings.catch_warnings(action="error"):
        again = ops.read(streams, h_pre)
    torch.testing.assert_close(found, (h_pre.unsqueeze(-1) * streams).sum(1))
    assert torch.equal(found, again)
    backends._load.cache_clear()


def test_out_of_memory_is_not_answered_with_a_hungrier_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("full")

    from mhc_lab.ops.read import cpu

    backends._load.cache_clear()
    monkeypatch.setattr(cpu, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        ops.read(torch.randn(3, 4, 5), torch.rand(3, 4))
    backends._load.cache_clear()


def test_kernels_survive_a_fork_and_a_home_that_cannot_be_written() -> None:
    """Runs are forked from a server that has used the kernels on one thread."""
    code = """
        import os, sys, torch
        torch.set_num_threads(1)
        from mhc_lab import ops
        value = ops.sinkhorn(torch.zeros(3, 2, 2))
        child = os.fork()
        if child == 0:
            torch.set_num_threads(2)
            os._exit(0 if torch.equal(ops.sinkhorn(torch.zeros(3, 2, 2)), value) else 1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    environment = {"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": "/proc/nowhere", "HOME": "/proc/nowhere"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], env=environment, check=False)
    assert done.returncode == 0
