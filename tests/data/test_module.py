"""Lightning gets every step's batch once, in order, also after a resume in the middle."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor

from mhc_lab.config import compose
from mhc_lab.data.module import LabData
from mhc_lab.data.windows import train_batch, val_batches

CONFIG = compose(["model.sequence_length=16", "data.batch_size=4", "data.val_windows=6"])


class Recorder(L.LightningModule):
    """One weight that depends on every batch it saw, and those batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(256))
        self.seen: list[Tensor] = []
        self.validated = 0

    def training_step(self, batch: Any, _: int) -> Tensor:
        inputs, targets = batch
        self.seen.append(inputs)
        return torch.nn.functional.mse_loss(self.weight[inputs], targets / 256)

    def validation_step(self, batch: Any, _: int) -> None:
        self.validated += len(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.1)


class SaveAt(L.Callback):
    """A checkpoint at the end of a step, from the hook where callbacks save."""

    def __init__(self, step: int, hook: str, path: Path) -> None:
        def save(trainer: L.Trainer, *_: Any) -> None:
            if trainer.global_step == step and not path.exists():  # not again amid the next accumulation
                trainer.save_checkpoint(path)

        setattr(self, hook, save)


def _fit(folder: Path, steps: int, accumulate: int, *callbacks: L.Callback, resume: Path | None = None) -> Recorder:
    module = Recorder()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        val_check_interval=accumulate,
        accumulate_grad_batches=accumulate,
        max_steps=steps,
        default_root_dir=folder,
        callbacks=list(callbacks),
    )
    trainer.fit(module, datamodule=LabData(CONFIG), ckpt_path=resume)
    return module


def _expected(steps: range) -> Tensor:
    data = LabData(CONFIG)
    return torch.stack([torch.from_numpy(train_batch(data.corpus, CONFIG, step)[0]) for step in steps])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_end"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_goes_on_at_the_next_step(tmp_path: Path, hook: str, accumulate: int) -> None:
    checkpoint = tmp_path / "middle.ckpt"
    whole = _fit(tmp_path, 6, accumulate, SaveAt(3, hook, checkpoint))
    assert torch.equal(torch.stack(whole.seen), _expected(range(6 * accumulate)))
    again = tmp_path / "later.ckpt"
    rest = _fit(tmp_path, 5, accumulate, SaveAt(5, hook, again), resume=checkpoint)
    assert torch.equal(torch.stack(rest.seen), _expected(range(3 * accumulate, 5 * accumulate)))
    last = _fit(tmp_path, 6, accumulate, resume=again)
    assert torch.equal(torch.stack(last.seen), _expected(range(5 * accumulate, 6 * accumulate)))
    assert torch.equal(last.weight, whole.weight)


@pytest.mark.filterwarnings("ignore")
def test_validation_sees_each_window_once_a_time(tmp_path: Path) -> None:
    assert _fit(tmp_path, 3, 1).validated == 3 * 6


def test_without_a_trainer_it_is_rank_0_of_1() -> None:
    data = LabData(CONFIG)
    assert data.vocab_size == 256
    inputs, targets = next(iter(data.train_dataloader()))
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs, _expected(range(1))[0])
    assert sum(len(inputs) for inputs, _ in data.val_dataloader()) == 6
    assert data.state_dict() == {"step": 0}
    data.load_state_dict({"step": 4})
    assert torch.equal(next(iter(data.train_dataloader()))[0], _expected(range(4, 5))[0])


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_and_world_are_the_trainers(rank: int) -> None:
    data = LabData(CONFIG)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=2)  # type: ignore[assignment]
    for step, batch in enumerate(islice(data.train_dataloader(), 3)):
        assert np.array_equal(batch[0], train_batch(data.corpus, CONFIG, step, rank=rank, world=2)[0])
    loader = data.val_dataloader()
    wanted = val_batches(data.corpus, CONFIG, rank=rank, world=2)
    assert len(loader) == len(wanted)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(loader, wanted, strict=True))
