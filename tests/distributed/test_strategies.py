"""ddp and fsdp2 on 2 CPU processes against one process: same losses, same validation, same weights."""

import os
import subprocess
import sys

import pytest
import torch

from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.run_folder import RunFolder
from mhc_lab.training.run import run

pytestmark = pytest.mark.slow

# 7 windows of validation: the ranks' slices are ragged.
RUN = ("residual=mhc", "trainer.max_steps=5", "trainer.log_every=1", "data.val_windows=7", "trainer.probe_every=2")
TWO_PROCESSES = {"ddp": "trainer=ddp", "fsdp2": "trainer=fsdp2"}


def in_two_processes(folder):
    command = [sys.executable, "-m", "mhc_lab.training.run", str(folder.path)]
    environment = {**os.environ, "MHC_LAB_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def create(results, config):
    return RunFolder.create(results, config, corpus_fingerprint(config))


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory):
    folder = create(tmp_path_factory.mktemp("alone"), tiny(*RUN))
    assert run(folder)["status"] == "finished"
    return folder


@pytest.mark.parametrize("strategy", TWO_PROCESSES)
def test_two_processes_train_as_one(strategy, alone, tiny, tmp_path):
    folder = create(tmp_path, tiny(*RUN, TWO_PROCESSES[strategy], "trainer.accelerator=cpu"))
    assert folder.run_id == alone.run_id  # devices cannot change a result
    done = in_two_processes(folder)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr

    for key in ("train_loss", "grad_norm", "val_loss", "stream_spread", "composite_gain_backward"):
        ours = [(line["step"], line[key]) for line in folder.metrics() if key in line]
        theirs = [(line["step"], line[key]) for line in alone.metrics() if key in line]
        assert [step for step, _ in ours] == [step for step, _ in theirs]
        assert [value for _, value in ours] == pytest.approx([value for _, value in theirs], abs=1e-5), key
    weights, expected = (torch.load(f.checkpoint_file, weights_only=True)["model"] for f in (folder, alone))
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-4)  # AdamW magnifies rounding near 0
    assert folder.record()["metrics"]["steps"] == 5


def test_all_ranks_agree_on_divergence(tiny, tmp_path):
    wild = ("optim.learning_rate=1e18", "optim.clip_norm=0", "optim.warmup_steps=0", "trainer.max_steps=40")
    folder = create(tmp_path, tiny("residual=hc", *wild, "trainer=ddp", "trainer.accelerator=cpu"))
    done = in_two_processes(folder)
    assert done.returncode == 0, done.stderr
    assert folder.record()["status"] == "diverged"


BROKEN = """
import os
from mhc_lab.residual.constraints.unconstrained import Unconstrained
from mhc_lab.residual.registry import register_constraint

class Broken(Unconstrained):
    calls = 0

    def __call__(self, logits):
        Broken.calls += 1
        if os.environ.get("LOCAL_RANK") == "1" and Broken.calls > 20:
            raise MemoryError
        return super().__call__(logits)

register_constraint("broken", Broken)
"""


def test_the_rank_that_fails_first_says_why(tiny, tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text(BROKEN)
    long = ("trainer.max_steps=1000", "trainer=ddp", "trainer.accelerator=cpu")
    folder = create(tmp_path, tiny(f"residual.plugin={plugin}", "residual=broken", *long))
    assert in_two_processes(folder).returncode != 0
    record = folder.record()
    assert (record["status"], record["reason"]) == ("failed", "out of memory")
