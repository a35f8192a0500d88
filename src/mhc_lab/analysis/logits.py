"""Logits of H_res to study: drawn, or those that a trained model makes of its validation windows."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mhc_lab.analysis.trained import Trained, constrained_by
from mhc_lab.ops.sinkhorn.algorithms import warm_shift
from mhc_lab.residual.constrained import ConstrainedConnection
from mhc_lab.residual.constraints.base import Constraint

TOKEN_SHARE = 0.25  # of the drawn warm logits' std: what a token adds to its layer's static bias


@dataclass(frozen=True)
class Logits:
    """`values` [L, T, n, n] fp32 as the iteration gets them; `warm` the same, shifted, of logits with a static bias.

    `cold` are warm's before the shift, where `values` are others. `layers` are the layers' places in the model; `notes`
    say in words what the numbers are.
    """

    values: Tensor
    warm: Tensor | None
    convention: str
    layers: list[int]
    notes: list[str] = field(default_factory=list)
    cold: Tensor | None = None


def drawn(streams: int, std: float, layers: int, tokens: int, seed: int) -> Logits:
    """Independent N(0, std^2) logits; for warm, a bias B a layer plus a token's own part N of the same total variance.

    warm: std (sqrt(1 - s^2) B + s N), s = TOKEN_SHARE: with logits that are all noise there is nothing to start from.
    """
    generator = torch.Generator().manual_seed(seed)
    n = streams
    values = std * torch.randn(n, n, layers, tokens, generator=generator)  # iterating is faster with n, n first
    bias = std * (1 - TOKEN_SHARE**2) ** 0.5 * torch.randn(layers, n, n, generator=generator)
    own = std * TOKEN_SHARE * torch.randn(n, n, layers, tokens, generator=generator)
    shifts = torch.stack([warm_shift(layer) for layer in bias])
    cold = own.permute(2, 3, 0, 1) + bias.unsqueeze(1)
    warm = cold + shifts.unsqueeze(1)
    notes = [
        f"logits are independent N(0, {std:g}^2) draws",
        f"warm alone: logits are a static bias of each layer plus {TOKEN_SHARE:.0%} (of the std) that is the token's "
        f"own, N(0, {std:g}^2) in all; the iteration starts where it has converged for the bias. One draw of "
        f"{layers} biases: another --seed may give another t",
    ]
    first = _matrices_first(warm)
    return Logits(values.permute(2, 3, 0, 1), first, "eq9", list(range(layers)), notes, _matrices_first(cold))


def captured(trained: Trained, windows: int, tokens: int, seed: int) -> Logits:
    """The logits of every layer with Sinkhorn on the first validation windows; `tokens` of them drawn without return.

    A static H_res has the same logits for all tokens: T = 1. Raises LabError where nothing iterates.
    """
    found = trained.require_sinkhorn()
    recordings = {index: _Recording(connection) for index, connection in found.items()}
    inputs = torch.cat([batch[0] for batch in trained.batches])[:windows]
    with torch.no_grad(), constrained_by(dict(recordings), trained):
        for window in inputs.split(4):
            trained.model(window)
    n = trained.config.residual.streams
    raw = [recording.matrices(n) for recording in recordings.values()]  # L times [T, n, n]
    dynamic = trained.config.residual.h_res == "dynamic"
    count = len(raw[0])
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:tokens].sort().values
    values = torch.stack([layer[chosen] for layer in raw])
    biases = [connection.get_parameter("b_res").detach().cpu().view(n, n) for connection in found.values()]
    shifts = torch.stack([warm_shift(bias.float()) for bias in biases])  # [L, n, n]
    notes = [
        f"logits are those of {trained.folder.run_id} on {len(inputs)} validation windows: "
        + (f"{len(chosen)} of {count} tokens" if dynamic else "H_res is static, one matrix a layer"),
        "warm starts where the iteration has converged for b_res",
    ]
    if len(found) < len(trained.connections):
        notes.append(f"only {len(found)} of {len(trained.connections)} layers have Sinkhorn; composites are over these")
    warm = values + shifts.unsqueeze(1)
    convention = trained.config.residual.convention
    if convention == "v4":
        notes.append("log, overrelaxed and newton have no eps: of the v4 convention they take the limit alone (eq9)")
    return Logits(_matrices_first(values), _matrices_first(warm), convention, list(found), notes)


class _Recording(Constraint):
    """Maps logits as the connection's own constraint does; keeps them, on the CPU, before what that adds to b_res."""

    def __init__(self, connection: ConstrainedConnection) -> None:
        own = connection.constraint
        assert own is not None
        super().__init__(own.streams, own.config)
        self.own = own
        bias = connection.get_parameter("b_res").detach()
        self.added = own.rebased(bias) - bias
        self.seen: list[Tensor] = []

    def birth(self) -> Tensor:
        return self.own.birth()

    def __call__(self, logits: Tensor) -> Tensor:
        self.seen.append(logits.detach().float().cpu())
        return self.own(logits + self.added)

    def matrices(self, n: int) -> Tensor:
        """[T, n, n] of all passes; of a static H_res, T = 1."""
        if self.seen[0].dim() == 1:
            return self.seen[0].view(1, n, n)
        return torch.cat([part.reshape(-1, n, n) for part in self.seen])


def _matrices_first(values: Tensor) -> Tensor:
    """The same [L, T, n, n] with n, n outermost in memory."""
    return values.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
