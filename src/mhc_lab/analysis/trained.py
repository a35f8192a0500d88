"""A finished run taken up again: its model, its validation windows, and doubts about them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mhc_lab.config.schema import RunConfig
from mhc_lab.data.module import LabData
from mhc_lab.errors import LabError
from mhc_lab.models.gpt import GPT
from mhc_lab.residual import registry
from mhc_lab.residual.connection import Connection
from mhc_lab.residual.constrained import ConstrainedConnection
from mhc_lab.residual.constraints.base import Constraint
from mhc_lab.residual.constraints.doubly_stochastic import DoublyStochastic
from mhc_lab.run_folder import RunFolder
from mhc_lab.training.checkpoint import load_checkpoint


@dataclass(frozen=True)
class Trained:
    """`batches` are the run's validation windows (inputs, targets), on the model's device; `record` may be empty."""

    folder: RunFolder
    config: RunConfig
    model: GPT
    batches: list[tuple[Tensor, Tensor]]
    record: dict[str, Any]
    warnings: list[str]

    @property
    def connections(self) -> list[Connection]:
        return [c for c in self.model.stack.connections if isinstance(c, Connection)]

    @property
    def iterated(self) -> dict[int, ConstrainedConnection]:
        """The layers whose H_res Sinkhorn iterates towards."""
        return {
            index: connection
            for index, connection in enumerate(self.connections)
            if isinstance(connection, ConstrainedConnection) and isinstance(connection.constraint, DoublyStochastic)
        }

    def require_sinkhorn(self) -> dict[int, ConstrainedConnection]:
        """`iterated`, or LabError where nothing is."""
        found = self.iterated
        if found:
            return found
        residual = self.config.residual
        mode = registry.mode(residual, "h_res")
        if registry.variant(residual.variant).constraint == "doubly_stochastic" and mode != "fixed":
            said = f"residual.sinkhorn={residual.sinkhorn}, an exact map"
        else:
            said = f"residual={residual.variant} with h_res {mode}"
        raise LabError(f"{self.folder.path}: has no Sinkhorn iteration ({said}): choose a run of residual=mhc")


def open_run(path: Path) -> Trained:
    """The run in a folder, on the GPU where there is one.

    Raises LabError for a folder that is no run, holds no checkpoint or one that its config.yaml does not describe,
    and for a corpus of another vocabulary; a corpus that has merely changed is a warning.
    """
    folder = RunFolder(path.resolve())  # its name is the run's, also where the path is "."
    if not folder.path.is_dir():
        raise LabError(f"{path}: no such folder: give that of a run, as results/runs/<run id>")
    config = folder.config()
    if config.residual.plugin:
        registry.load_plugin(config.residual.plugin, named=False)
    try:
        model = load_checkpoint(folder.checkpoint_file, config)
    except RuntimeError as error:  # of load_state_dict: a plugin that has changed since
        raise LabError(f"{folder.checkpoint_file}: its weights fit another model than the code builds now") from error
    data = LabData(config)
    if data.vocab_size != model.head.out_features:
        raise LabError(
            f"{path}: was trained on {model.head.out_features} kinds of token, its corpus now has {data.vocab_size}: "
            "put the corpus back"
        )
    record = folder.record() or {}
    warnings = []
    then, now = record.get("corpus_fingerprint"), data.corpus.fingerprint
    if then != now:
        warnings.append(f"the corpus is not the one this run was trained on (fingerprint {then} then, {now} now)")
    if record.get("status") != "finished":
        warnings.append(f"the run has not finished (status {record.get('status')})")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).eval()
    batches = [(inputs.to(device), targets.to(device)) for inputs, targets in data.val_dataloader()]
    return Trained(folder, config, model, batches, record, warnings)


@contextmanager
def constrained_by(constraints: dict[int, Constraint], trained: Trained) -> Iterator[None]:
    """Put other constraints into layers while the context lasts; they take as many logits as those they replace."""
    connections = trained.connections
    before: dict[int, Constraint | None] = {}
    for index, constraint in constraints.items():
        connection = connections[index]
        assert isinstance(connection, ConstrainedConnection)
        assert connection.constraint is not None and connection.constraint.logits == constraint.logits
        before[index] = connection.constraint
        connection.constraint = constraint
    try:
        yield
    finally:
        for index, own in before.items():
            connection = connections[index]
            assert isinstance(connection, ConstrainedConnection)
            connection.constraint = own
