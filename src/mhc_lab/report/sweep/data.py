"""A sweep as the report sees it: what was varied, what was minimised, and what each trial gave."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

State = Literal["complete", "pruned", "failed", "running", "waiting"]

METRIC_TEXTS = {
    "val_loss": "val loss (nats/token)",
    "train_loss": "train loss (nats/token)",
    "ms_per_step": "time (ms/step)",
    "peak_memory_mb": "memory (MiB)",
    "tokens_per_second": "tokens/s",
    "ds_error": "error of the row and column sums",
}
_EDGE = 0.02  # of the range, on its scale


@dataclass(frozen=True)
class Parameter:
    """One key of the search space. `low` and `high` are both in; `when` holds the values that other parameters must
    have for this one to be asked for."""

    key: str
    kind: Literal["int", "float", "choices"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind == "choices":
            assert self.choices, f"{self.key}: no choices"
        else:
            assert self.low is not None and self.high is not None and self.low < self.high, f"{self.key}: no range"

    @property
    def ordered(self) -> bool:
        """Whether its values have an order: a range, or choices that are all numbers."""
        return self.kind != "choices" or all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in self.choices
        )

    def place(self, value: Any) -> float:
        """Where a value lies on the parameter's own scale: 0 at its low end, 1 at its high end, choices evenly."""
        if self.kind == "choices":
            return self.choices.index(value) / max(1, len(self.choices) - 1)
        assert self.low is not None and self.high is not None
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return (at - low) / (high - low)

    def inverse(self, place: float) -> float:
        """Where a place (0 to 1) lies on the axis of a figure: a value of the range, or between the numbers of two
        choices."""
        if self.kind == "choices":
            return place * (len(self.choices) - 1)
        assert self.low is not None and self.high is not None
        if self.log:
            return float(math.exp(math.log(self.low) + place * math.log(self.high / self.low)))
        return self.low + place * (self.high - self.low)

    def at_edge(self, value: Any) -> bool:
        """Whether a better value may lie beyond the range. Choices that are no numbers have no beyond."""
        if not self.ordered or (self.kind == "choices" and len(self.choices) < 3):
            return False
        if self.kind == "choices":
            return bool(value in (min(self.choices), max(self.choices)))
        return value in (self.low, self.high) or not _EDGE < self.place(value) < 1 - _EDGE

    @property
    def words(self) -> str:
        """The space as a reader sees it."""
        if self.kind == "choices":
            return ", ".join(map(value_text, self.choices))
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}"


@dataclass(frozen=True)
class Objective:
    """A metric of `report.frame.METRICS`; always minimised."""

    metric: str

    @property
    def text(self) -> str:
        return METRIC_TEXTS.get(self.metric, self.metric.replace("_", " "))

    @property
    def name(self) -> str:
        """Without its unit."""
        return self.text.split(" (")[0]


@dataclass(frozen=True)
class SweepTrial:
    """One point of the space, trained once a seed.

    `params` lacks those that were not asked for. `values`: one an objective, mean over the seeds, inf if a run
    diverged; None unless complete. `by_seed`: seed -> metric -> value, of finished runs. `intermediate`: step -> what
    the pruner was told. `seconds`: of all its runs.
    """

    number: int
    state: State
    params: Mapping[str, Any]
    values: tuple[float, ...] | None = None
    by_seed: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    intermediate: Mapping[int, float] = field(default_factory=dict)
    reason: str = ""
    enqueued: bool = False
    started: str = ""
    seconds: float = math.nan

    @property
    def finite(self) -> bool:
        """Complete, and every objective a number."""
        return self.state == "complete" and self.values is not None and all(map(math.isfinite, self.values))

    @property
    def diverged(self) -> bool:
        return self.state == "complete" and not self.finite

    def seeds(self, metric: str) -> dict[int, float]:
        """The metric by seed, of the seeds that have a finite one."""
        return {
            seed: float(metrics[metric])
            for seed, metrics in sorted(self.by_seed.items())
            if metric in metrics and metrics[metric] is not None and math.isfinite(metrics[metric])
        }


@dataclass(frozen=True)
class Sweep:
    """A sweep's definition and its trials.

    `by`: the key of a parameter with choices, each of which is tuned for itself ("" for none). `budget`: trials.
    `study`: the optuna.Study it was read from, for a caller's own questions; the report reads the trials alone.
    """

    name: str
    title: str
    command: str
    parameters: tuple[Parameter, ...]
    objectives: tuple[Objective, ...]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any]
    budget: int
    trials: tuple[SweepTrial, ...]
    study: Any = None
    by: str = ""

    def __post_init__(self) -> None:
        assert self.objectives and self.parameters, "a sweep varies something and minimises something"
        assert not self.by or self.parameter(self.by).kind == "choices", "`by` is a parameter with choices"
        for trial in self.trials:
            assert trial.values is None or len(trial.values) == len(self.objectives), "a value an objective"

    def parameter(self, key: str) -> Parameter:
        return next(parameter for parameter in self.parameters if parameter.key == key)

    @cached_property
    def finite(self) -> tuple[SweepTrial, ...]:
        """The trials that can be compared, in order of their numbers."""
        return tuple(sorted((trial for trial in self.trials if trial.finite), key=lambda trial: trial.number))

    @cached_property
    def ranked(self) -> tuple[SweepTrial, ...]:
        """The same, the lowest first objective first."""
        return tuple(sorted(self.finite, key=lambda trial: (value(trial), trial.number)))

    @property
    def start(self) -> SweepTrial | None:
        """The first enqueued trial: where the search was told to begin (the paper's values)."""
        return min((trial for trial in self.trials if trial.enqueued), key=lambda trial: trial.number, default=None)

    @cached_property
    def varied(self) -> tuple[Parameter, ...]:
        """Parameters with more than one value among the comparable trials."""
        return tuple(
            parameter
            for parameter in self.parameters
            if len({value_text(trial.params[parameter.key]) for trial in self.finite if parameter.key in trial.params})
            > 1
        )

    @cached_property
    def names(self) -> dict[str, str]:
        """Every key's short name: without its group, unless two would then be alike."""
        last = [parameter.key.rsplit(".", 1)[-1] for parameter in self.parameters]
        return {
            parameter.key: short if last.count(short) == 1 else parameter.key
            for parameter, short in zip(self.parameters, last, strict=True)
        }

    def state_words(self) -> str:
        """How the trials ended, with their counts: 40 complete (2 diverged), 3 pruned."""
        counts = {state: sum(trial.state == state for trial in self.trials) for state in STATES}
        diverged = sum(trial.diverged for trial in self.trials)
        words = [f"{count} {state}" for state, count in counts.items() if count]
        if diverged:
            words[0] += f" ({diverged} diverged)"
        return ", ".join(words) or "none"


STATES: tuple[State, ...] = ("complete", "pruned", "failed", "running", "waiting")


def value(trial: SweepTrial, objective: int = 0) -> float:
    """An objective of a complete trial."""
    assert trial.values is not None
    return trial.values[objective]


def value_text(value: Any) -> str:
    """A parameter's value, short: three digits of a number that is not whole."""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.3g}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
