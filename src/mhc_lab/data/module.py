"""The batches of a run, as Lightning takes them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import lightning as L
import torch
from torch import Tensor

from mhc_lab.config.schema import RunConfig
from mhc_lab.data.corpus import load_corpus
from mhc_lab.data.windows import Batch, train_batch, val_batches


class LabData(L.LightningDataModule):
    """Batches (inputs, targets), int64 [rows of this rank, T]; target -100 is not scored.

    Rank and world size are the trainer's; without a trainer it is rank 0 of 1. The loaders are plain iterables:
    a batch is a slice of an array, for which a DataLoader's workers and collation only cost time and warnings.
    Raises LabError as load_corpus does.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config = config
        self.corpus = load_corpus(config)
        self.vocab_size = self.corpus.vocab_size
        self._first_step = 0

    def train_dataloader(self) -> TrainBatches:
        """One item a step, without end: trainer.max_steps ends it. After a resume it starts at the next step."""
        return TrainBatches(self, self._first_step)

    def val_dataloader(self) -> ValBatches:
        return ValBatches(self)

    def ranks(self) -> dict[str, int]:
        """`rank` and `world` for the functions of data.windows."""
        if self.trainer is None:
            return {"rank": 0, "world": 1}
        return {"rank": self.trainer.global_rank, "world": self.trainer.world_size}

    def state_dict(self) -> dict[str, Any]:
        """The number of batches that were trained on: what the loader handed out runs one ahead of that."""
        if self.trainer is None:
            return {"step": self._first_step}
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.total.state_dict()
        return {"step": progress["processed"]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._first_step = state_dict["step"]


class TrainBatches:
    """The training batches from step `first` on."""

    def __init__(self, data: LabData, first: int) -> None:
        self.data = data
        self.first = first

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        ranks = self.data.ranks()
        for step in count(self.first):
            yield _tensors(train_batch(self.data.corpus, self.data.config, step, **ranks))


class ValBatches:
    """The validation batches of this rank."""

    def __init__(self, data: LabData) -> None:
        self.batches = val_batches(data.corpus, data.config, **data.ranks())

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (_tensors(batch) for batch in self.batches)


def _tensors(batch: Batch) -> tuple[Tensor, Tensor]:
    inputs, targets = batch
    return torch.from_numpy(inputs), torch.from_numpy(targets)
