"""A trained model with another Sinkhorn, or without some of its mixers: exact evaluation, no retraining."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from mhc_lab.analysis.evaluate import Evaluation, difference, evaluate, token_means
from mhc_lab.analysis.precision import ITERATED, projected
from mhc_lab.analysis.trained import Trained, constrained_by
from mhc_lab.errors import LabError
from mhc_lab.ops.sinkhorn.algorithms import warm_shift
from mhc_lab.residual import registry
from mhc_lab.residual.constraints.base import Constraint

Row = dict[str, Any]


class Retargeted(Constraint):
    """Sinkhorn by any algorithm, t_max and precision, in the place of a trained constraint."""

    def __init__(self, own: Constraint, algorithm: str, t_max: int, precision: str) -> None:
        super().__init__(own.streams, dataclasses.replace(own.config, t_max=t_max))
        assert algorithm in ITERATED, algorithm
        self.own = own
        self.algorithm = algorithm
        self.t_max = t_max
        self.precision = precision

    def birth(self) -> Tensor:
        return self.own.birth()

    def rebased(self, bias: Tensor) -> Tensor:
        if self.algorithm != "warm":
            return bias
        return bias + warm_shift(self.as_matrix(bias)).flatten()

    def __call__(self, logits: Tensor) -> Tensor:
        matrices = self.as_matrix(logits.float())
        return projected(matrices, self.algorithm, self.t_max, self.config.convention, self.precision).float()


def retarget(
    trained: Trained,
    t_maxes: Sequence[int],
    algorithms: Sequence[str],
    precisions: Sequence[str],
    say: Callable[[str], None],
) -> list[Row]:
    """One row an evaluation: kind (model, t_max, precision, layer), what was changed, val_loss, the difference with its
    paired interval, composite gains, ds_error. The first row is the model as it is.

    t_maxes x algorithms in float32, precisions at the run's own t_max and algorithm; then H_res of one layer at a
    time, and of all, replaced by I and by its mean over all validation tokens. An empty list leaves its part out.
    """
    residual = trained.config.residual
    if registry.mode(residual, "h_res") == "fixed":
        raise LabError(
            f"{trained.folder.path}: nothing to retarget: H_res of residual={residual.variant} is not learned; "
            "choose a run with h_res dynamic or static"
        )
    plain = evaluate(trained)
    rows = [_row(plain, plain, kind="model", change="as trained")]

    def add(context: Any, **what: Any) -> None:
        with context:
            rows.append(_row(evaluate(trained), plain, **what))
        say(f"{what['change']}: {rows[-1]['val_loss']:.5f}")

    if trained.iterated:
        for algorithm in algorithms:
            for t in t_maxes:
                what: Row = {"algorithm": algorithm, "precision": "float32", "t_max": t}
                add(_sinkhorn(trained, **what), kind="t_max", change=f"{algorithm}, t_max = {t}", **what)
        for precision in precisions:
            what = {"algorithm": residual.sinkhorn, "precision": precision, "t_max": residual.t_max}
            add(_sinkhorn(trained, **what), kind="precision", change=f"Sinkhorn in {precision}", **what)
    means = token_means(trained) if residual.h_res == "dynamic" else []
    count = len(trained.connections)
    places: list[tuple[str, list[int]]] = [(f"layer {index}", [index]) for index in range(count)]
    for name, layers in [*places, ("all layers", list(range(count)))]:
        own = {"layer": layers[0]} if len(layers) == 1 and count > 1 else {}
        add(_replaced(trained, layers, None), kind="layer", change=f"{name}: H_res = I", by="identity", **own)
        if means:  # a static H_res is its own mean
            add(_replaced(trained, layers, means), kind="layer", change=f"{name}: H_res = mean", by="mean", **own)
    return rows


@contextmanager
def _sinkhorn(trained: Trained, algorithm: str, t_max: int, precision: str) -> Iterator[None]:
    constraints: dict[int, Constraint] = {}
    for index, connection in trained.iterated.items():
        assert connection.constraint is not None
        constraints[index] = Retargeted(connection.constraint, algorithm, t_max, precision)
    with constrained_by(constraints, trained):
        yield


@contextmanager
def _replaced(trained: Trained, layers: Sequence[int], means: Sequence[Tensor] | None) -> Iterator[None]:
    with ExitStack() as stack:
        for index in layers:
            replacement: Any = "fixed" if means is None else means[index]
            stack.enter_context(trained.connections[index].override(h_res=replacement))
        yield


def _row(found: Evaluation, plain: Evaluation, **what: Any) -> Row:
    gap = difference(found, plain)
    return {
        **what,
        "val_loss": found.val_loss,
        "difference": gap.mean,
        "half_width": gap.half_width,
        "windows": gap.n,
        "composite_gain_forward": found.probes["composite_gain_forward"],
        "composite_gain_backward": found.probes["composite_gain_backward"],
        "ds_error": found.probes["ds_error"],
    }
