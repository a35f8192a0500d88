import os
from pathlib import Path

import pytest
import torch

from mhc_lab.disk import DiskFull
from mhc_lab.errors import LabError
from mhc_lab.training.checkpoint import load_checkpoint, read_checkpoint
from mhc_lab.training.run import run


@pytest.mark.parametrize("overrides", [("residual=mhc",), ("residual=identity", "model.tie_embeddings=true")])
def test_final_weights_come_back(overrides, folder):
    here = folder(*overrides)
    record = run(here)
    content = torch.load(here.checkpoint_file, weights_only=True)
    assert content["run_id"] == here.run_id
    model = load_checkpoint(here.checkpoint_file, here.config())
    assert all(torch.equal(value, content["model"][name]) for name, value in model.state_dict().items())
    assert sum(p.numel() for p in model.parameters()) == record["cost"]["parameters"]


def test_none_is_kept_where_none_is_wanted(folder):
    here = folder("trainer.keep_checkpoint=none")
    run(here)
    with pytest.raises(LabError, match="no such checkpoint"):
        load_checkpoint(here.checkpoint_file, here.config())


def test_a_checkpoint_of_another_model_names_what_differs(folder, tiny):
    here = folder("residual=mhc")
    run(here)
    with pytest.raises(LabError, match=r"model\.dim=32 \(asked for: 64\)"):
        load_checkpoint(here.checkpoint_file, tiny("residual=mhc", "model.dim=64"))
    with pytest.raises(LabError, match=r"residual\.variant=mhc \(asked for: hc\)"):
        load_checkpoint(here.checkpoint_file, tiny("residual=hc"))
    # What only sets initial values is no part of the model.
    load_checkpoint(here.checkpoint_file, tiny("residual=mhc", "residual.alpha_init=0.5"))


@pytest.mark.parametrize("content", [b"", b"not a zip file", None])
def test_another_file_is_not_a_checkpoint(content, tmp_path):
    file = tmp_path / "checkpoint.pt"
    if content is None:
        torch.save({"model": {}}, file)
    else:
        file.write_bytes(content)
    with pytest.raises(LabError, match="not a checkpoint of mhc-lab"):
        read_checkpoint(file)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_no_half_of_a_checkpoint_is_left(folder):
    here = folder()
    scratch = here.path / f"checkpoint.{os.getpid()}"
    scratch.symlink_to("/dev/full")
    with pytest.raises(DiskFull, match=f"{here.path}: no space left on the disk: make room"):
        run(here)
    assert here.record() is None
    assert not scratch.is_symlink()
    assert not here.checkpoint_file.exists()
    assert run(here)["status"] == "finished"
