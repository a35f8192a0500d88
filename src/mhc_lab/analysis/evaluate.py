"""A model's validation loss window by window, and its probes, as a run records them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mhc_lab.analysis.trained import Trained
from mhc_lab.data.synthetic import NOT_SCORED
from mhc_lab.models.stack import LayerTrace
from mhc_lab.report.stats import Estimate, mean_interval
from mhc_lab.training.callbacks.probes import curves, summary, trace


@dataclass(frozen=True)
class Evaluation:
    """`nll` [W] nats and `tokens` [W] scored targets, by validation window; `probes` on the first window."""

    nll: Tensor
    tokens: Tensor
    probes: dict[str, float]

    @property
    def val_loss(self) -> float:
        """Nats a token, token-weighted: a run's val_loss."""
        return float(self.nll.sum() / self.tokens.sum())


def evaluate(trained: Trained) -> Evaluation:
    """The model as it now is on all validation windows, fp32, with what its first window's probes say."""
    nll, tokens = [], []
    with torch.no_grad(), torch.autocast(trained.batches[0][0].device.type, enabled=False):
        for inputs, targets in trained.batches:
            logits: Tensor = trained.model(inputs)
            losses = F.cross_entropy(
                logits.float().flatten(0, 1), targets.flatten(), ignore_index=NOT_SCORED, reduction="none"
            )
            nll.append(losses.view_as(targets).double().sum(-1).cpu())
            tokens.append((targets != NOT_SCORED).sum(-1).cpu())
    layers = trace(trained.model, trained.batches[0][0][:1])
    return Evaluation(torch.cat(nll), torch.cat(tokens), summary(curves(layers)))


def difference(changed: Evaluation, plain: Evaluation) -> Estimate:
    """The change of val_loss with its paired 95 % interval over validation windows.

    A window counts by its scored tokens, so that the mean is the difference of the two val_losses. NaN, without an
    interval, where a loss is not finite.
    """
    assert torch.equal(changed.tokens, plain.tokens)
    share = len(plain.nll) / float(plain.tokens.sum())
    values = ((changed.nll - plain.nll) * share).numpy()
    if not np.isfinite(values).all():
        return Estimate(float("nan"), None, len(values), None)
    return mean_interval(np.asarray(values, dtype=np.float64).tolist())


def token_means(trained: Trained) -> list[Tensor]:
    """H_res of every layer [n, n], its mean over all tokens of all validation windows (sums in fp64)."""
    totals: list[Tensor] = []
    count = 0
    for inputs, _ in trained.batches:
        for window in inputs.split(4):
            layers: list[LayerTrace] = trace(trained.model, window)
            found = [layer.h_res.double().flatten(0, -3).sum(0) for layer in layers]
            totals = [total + part for total, part in zip(totals, found, strict=True)] if totals else found
            count += window.numel()
    return [(total / count).float() for total in totals]
