"""Steps beside plain steps, and memory beside its prediction."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mhc_lab.bench import memory, step, step_rivals
from mhc_lab.bench.adapters import Absent
from mhc_lab.bench.options import Options
from mhc_lab.errors import LabError
from mhc_lab.models.stack import ResidualStack


def test_the_gpu_runs_stand_ins_for_the_papers_layers() -> None:
    small, large = step.settings(Options("step", device="cuda"))
    assert (small.model.dim, small.model.heads, small.model.ffn_width, small.model.ffn) == (1280, 16, 7168, "swiglu")
    assert (large.model.dim, large.model.heads, large.model.ffn_width) == (2560, 32, 12288)
    assert large.model.sequence_length == 4096
    assert large.optimizer and large.mixed_precision
    assert "27B stand-in" in large.words
    residual = step.residual("identity", Options("step", device="cuda"))
    assert residual.stream_dtype == step.residual("mhc", Options("step", device="cuda")).stream_dtype == "bf16"


def test_the_cpu_case() -> None:
    small, large = step.settings(Options("step", device="cpu"))
    assert [(s.model.dim, s.model.heads, s.model.ffn_width) for s in (small, large)] == [(128, 4, 512), (256, 8, 1024)]
    assert {(s.batch, s.model.sequence_length, s.model.blocks, s.model.ffn) for s in (small, large)} == {
        (16, 128, 4, "gelu")
    }
    assert not small.optimizer
    with pytest.raises(LabError, match="multiples of 32"):
        step.settings(Options("step", device="cpu", dims=[100]))


def test_the_interval_holds_the_median_and_grows_with_the_spread() -> None:
    narrow = step.interval([1.1, 1.11, 1.12, 1.1, 1.09, 1.1])
    wide = step.interval([1.1, 1.9, 0.6, 1.1, 0.5, 2.0])
    assert narrow[0] <= 1.1 <= narrow[1]
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


def test_plain_and_other_take_turns() -> None:
    order: list[str] = []

    class Fake:
        def __init__(self, name: str, ms: float) -> None:
            self.name, self.ms = name, ms

        def step(self) -> float:
            order.append(self.name)
            return self.ms

    found = list(step.pairs(Fake("plain", 2.0), Fake("mhc", 3.0), 4))  # type: ignore[arg-type]
    assert found == [(2.0, 3.0)] * 4
    timed = order[2 * step.WARM_UP :]
    assert timed == ["plain", "mhc", "mhc", "plain"] * 2


def test_a_step_runs_forward_and_backward_and_leaves_no_gradient() -> None:
    setting = step.settings(Options("step", device="cpu", dims=[32], quick=True))[0]
    stepper = step._stepper("mhc", setting, Options("step", device="cpu", t_max=3), compiled=False)
    assert stepper.step() > 0
    assert stepper.hidden.grad is None
    assert all(parameter.grad is None for parameter in stepper.stack.parameters())
    assert isinstance(stepper.stack, ResidualStack)


def test_the_transformers_rival_is_mhc_as_its_decoder_has_it() -> None:
    """With comb = I, post = 1 and a mean read, streams that start alike are the plain residual."""

    class Identity(torch.nn.Module):
        hc_mult = 4

        def forward(self, streams: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            eye = torch.eye(4).expand(*streams.shape[:2], 4, 4)
            return torch.ones(streams.shape[:3]), eye, streams.mean(2)

    layers = [torch.nn.Linear(8, 8) for _ in range(3)]
    hidden = torch.randn(2, 5, 8)
    plain = hidden
    for layer in layers:
        plain = plain + layer(plain)
    built = step_rivals._TransformersV4(layers, [Identity() for _ in layers])
    torch.testing.assert_close(built(hidden), plain)


def test_a_rival_that_is_not_installed_is_absent() -> None:
    with pytest.raises(Absent, match="pip install"):
        step_rivals._load("no_such_module_here", "no-such-package")


def test_predicted_memory_is_what_is_saved(tmp_path: Path) -> None:
    said: list[str] = []
    options = Options("memory", device="cpu", dims=[32], quick=True, t_max=3, results=tmp_path)
    paths = memory.run_memory(options, said.append)
    assert {path.name for path in paths} == {"memory.json", "memory.md"}
    page = paths[1].read_text()
    assert "| mhc | 32 | auto |" in page
    differences = [abs(float(line.split(" | ")[6].rstrip("%"))) for line in page.splitlines() if "| 32 |" in line]
    assert len(differences) == len(memory.ROWS)
    assert max(differences) <= 10
