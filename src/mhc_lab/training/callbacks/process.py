"""What a process keeps to itself: its threads, and how it is interrupted."""

from __future__ import annotations

import signal

import torch
from lightning import Callback, LightningModule, Trainer

from mhc_lab.training.interrupts import Stop


class ProcessSettings(Callback):
    """Takes back what Lightning sets as a fit starts.

    Its SIGTERM handler talks to the other ranks from inside the signal and waits for the end of the step; its
    launcher divides the threads by its own rule.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.set_num_threads(self.threads)
        if isinstance(self._handler, Stop):
            signal.signal(signal.SIGTERM, self._handler)
