"""What each value of a parameter seems worth: the trials' objective by bins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mhc_lab.report.stats import Estimate, mean_interval
from mhc_lab.report.sweep.data import Parameter, Sweep, SweepTrial, value, value_text

_MOST_VALUES = 8  # of a range that are shown one by one
_BINS = 5


@dataclass(frozen=True)
class Bin:
    """Trials whose value of `parameter` is `text`: the mean of an objective over them, its interval over trials, and
    the lowest."""

    parameter: Parameter
    text: str
    estimate: Estimate
    lowest: float


def marginal(sweep: Sweep, objective: int = 0) -> list[Bin]:
    """Every parameter of the space by its values, or by 5 bins of equal width on its scale; empty bins are left out."""
    bins = []
    for parameter in sweep.parameters:
        for text, trials in groups(parameter, sweep.finite):
            values = [value(trial, objective) for trial in trials]
            bins.append(Bin(parameter, text, mean_interval(values), min(values)))
    return bins


def groups(parameter: Parameter, trials: Sequence[SweepTrial]) -> list[tuple[str, list[SweepTrial]]]:
    """The trials by what they have of a parameter, in its order; those that were not asked for it come last."""
    having = [trial for trial in trials if parameter.key in trial.params]
    values = {trial.params[parameter.key] for trial in having}
    found: list[tuple[str, list[SweepTrial]]]
    if parameter.kind == "choices" or len(values) <= _MOST_VALUES:
        order: Sequence[Any] = parameter.choices if parameter.kind == "choices" else sorted(values)
        found = [
            (value_text(choice), [trial for trial in having if trial.params[parameter.key] == choice])
            for choice in order
        ]
    else:
        binned: list[list[SweepTrial]] = [[] for _ in range(_BINS)]
        for trial in having:
            place = parameter.place(trial.params[parameter.key])
            binned[min(max(int(place * _BINS + 1e-9), 0), _BINS - 1)].append(trial)
        found = [(_bin_text(parameter, number), members) for number, members in enumerate(binned)]
    found.append(("not asked for", [trial for trial in trials if parameter.key not in trial.params]))
    return [(text, members) for text, members in found if members]


def _bin_text(parameter: Parameter, number: int) -> str:
    low, high = (parameter.inverse(end / _BINS) for end in (number, number + 1))
    if parameter.kind == "int":
        # The whole numbers in [low, high): the last bin has its upper end too.
        first, last = (
            math.ceil(low - 1e-9),
            math.floor(high + 1e-9) if number == _BINS - 1 else math.ceil(high - 1e-9) - 1,
        )
        return str(first) if first >= last else f"{first} to {last}"
    return f"{low:.3g} to {high:.3g}"
