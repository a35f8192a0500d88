"""The search space of a sweep: which settings are varied, over what, and when. Torch-free, Optuna-free.

space:
  residual.t_max: {int: [1, 40], log: true}
  residual.alpha_init: {float: [0.001, 1.0], log: true}
  residual.sinkhorn: {choices: [plain, warm, newton]}
  residual.convention: {choices: [eq9, v4], when: {residual.sinkhorn: [plain]}}   # asked for there only
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mhc_lab.errors import LabError, nearest
from mhc_lab.report.sweep import data

Point = dict[str, Any]

_KINDS = ("int", "float", "choices")
_KEYS = (*_KINDS, "log", "points", "when")
_MOST_VALUES = 16  # of a whole-number range that are all tried when a space is checked
_MOST_CORNERS = 4096
_FAR = 1e250  # beyond, the margin around a figure is no number
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


@dataclass(frozen=True)
class Parameter(data.Parameter):
    """A setting that a sweep varies. `points`: how many values of a range a grid takes."""

    points: int | None = None

    def wanted(self, point: Mapping[str, Any]) -> bool:
        """Whether it is asked for beside what a point has already."""
        return all(key in point and point[key] in values for key, values in self.when.items())

    def grid(self) -> list[Any]:
        """The values that a grid takes; LabError where the file does not say which."""
        if self.kind == "choices":
            return list(self.choices)
        assert self.low is not None and self.high is not None
        if self.points is None:
            if self.kind == "int" and not self.log:
                return list(range(int(self.low), int(self.high) + 1))
            raise LabError(f"space: {self.key}: a grid needs points: how many values of the range, or choices: [...]")
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        steps = [low + (high - low) * i / max(1, self.points - 1) for i in range(self.points)]
        values = [float(f"{math.exp(step) if self.log else step:.6g}") for step in steps]
        return list(dict.fromkeys(round(value) for value in values)) if self.kind == "int" else values

    def edges(self) -> list[Any]:
        """Values that together show whether the whole range can be built."""
        if self.kind == "choices":
            return list(self.choices)
        assert self.low is not None and self.high is not None
        if self.kind == "int":
            few = self.high - self.low < _MOST_VALUES
            return list(range(int(self.low), int(self.high) + 1)) if few else [int(self.low), int(self.high)]
        return [self.low, self.high]

    def holds(self, value: Any) -> bool:
        """Whether a value lies in the parameter's range or among its choices."""
        if self.kind == "choices":
            return value in self.choices
        assert self.low is not None and self.high is not None
        number = isinstance(value, int if self.kind == "int" else int | float) and not isinstance(value, bool)
        return bool(number and self.low <= value <= self.high)


def parse_space(content: Any, where: str) -> tuple[Parameter, ...]:
    """The parameters of a file's `space`, parents before what hangs on them. Raises LabError for what is wrong."""
    if not isinstance(content, dict) or not content:
        raise LabError(f"{where}: must map settings to ranges, for example residual.t_max: {{int: [1, 40]}}")
    parameters = {key: _parameter(str(key), entry, f"{where}: {key}") for key, entry in content.items()}
    for parameter in parameters.values():
        for parent, values in parameter.when.items():
            _check_when(parameter, parent, values, parameters, where)
    return tuple(_parents_first(parameters, where))


def grid(parameters: tuple[Parameter, ...]) -> list[Point]:
    """Every combination of the parameters' values; conditional ones only where they are wanted."""
    points: list[Point] = [{}]
    for parameter in parameters:
        values = parameter.grid()
        points = [
            grown
            for point in points
            for grown in ([{**point, parameter.key: value} for value in values] if parameter.wanted(point) else [point])
        ]
    return points


def corners(parameters: tuple[Parameter, ...]) -> Iterator[Point]:
    """Points that show whether a space can be built: every combination of choices, in each of them every edge of every
    range with the others at their first edge."""
    choices = [parameter for parameter in parameters if parameter.kind == "choices"]
    ranges = [parameter for parameter in parameters if parameter.kind != "choices"]
    for combination in itertools.islice(grid(tuple(choices)), _MOST_CORNERS):
        wanted = [parameter for parameter in ranges if parameter.wanted(combination)]
        first = {parameter.key: parameter.edges()[0] for parameter in wanted}
        yield {**combination, **first}
        for parameter in wanted:
            for value in parameter.edges()[1:]:
                yield {**combination, **first, parameter.key: value}


def check_point(point: Any, parameters: tuple[Parameter, ...], where: str) -> Point:
    """A starting point that lies in the space; LabError for one that does not. The sampler fills in the rest."""
    known = {parameter.key: parameter for parameter in parameters}
    if not isinstance(point, dict) or not point:
        raise LabError(f"{where}: must map settings of the space to values, for example {{residual.t_max: 20}}")
    point = {key: _number(value) for key, value in point.items()}
    for key, value in point.items():
        if key not in known:
            raise LabError(f"{where}: {key} is not in the space; {nearest(str(key), known)}")
        if not known[key].holds(value):
            raise LabError(f"{where}: {key}={value} lies outside the space ({known[key].words})")
    return {str(key): value for key, value in point.items()}


def override(key: str, value: Any) -> str:
    """A parameter's value as the override that a user would type."""
    if value is None or isinstance(value, bool):
        return f"{key}={'null' if value is None else str(value).lower()}"
    return f"{key}={value}"


def _parameter(key: str, entry: Any, where: str) -> Parameter:
    if not isinstance(entry, dict):
        raise LabError(f"{where}: must be a range such as {{int: [1, 40], log: true}} or {{choices: [2, 4]}}")
    for name in entry:
        if name not in _KEYS:
            raise LabError(f"{where}: no key '{name}'; {nearest(str(name), _KEYS)}")
    kinds = [kind for kind in _KINDS if kind in entry]
    if len(kinds) != 1:
        raise LabError(f"{where}: give one of int: [low, high], float: [low, high], choices: [...]")
    when = _when(entry.get("when"), where)
    if kinds == ["choices"]:
        return Parameter(key, "choices", choices=_choices(entry, where), when=when)
    kind: Literal["int", "float"] = "int" if kinds == ["int"] else "float"
    low, high = _range(entry[kind], kind, where)
    log, points = entry.get("log", False), entry.get("points")
    if not isinstance(log, bool):
        raise LabError(f"{where}: log must be true or false")
    if log and low < 1 / _FAR:
        raise LabError(f"{where}: a log range must lie above 0, not start at {low:g}")
    if points is not None and (isinstance(points, bool) or not isinstance(points, int) or points < 1):
        raise LabError(f"{where}: points must be a whole number, at least 1")
    return Parameter(key, kind, low, high, log, when=when, points=points)


def _range(ends: Any, kind: str, where: str) -> tuple[float, float]:
    word = "whole numbers" if kind == "int" else "numbers"
    wanted = int if kind == "int" else int | float
    if isinstance(ends, list):
        ends = [_number(end) if kind == "float" else end for end in ends]
    if (
        not isinstance(ends, list)
        or len(ends) != 2
        or not all(isinstance(end, wanted) and not isinstance(end, bool) and -_FAR <= end <= _FAR for end in ends)
    ):
        raise LabError(f"{where}: {kind} must be [low, high], two {word}")
    low, high = ends
    if low >= high:
        what = "empty" if low == high else "inverted"
        raise LabError(f"{where}: the range [{low:g}, {high:g}] is {what}: give [low, high] with low below high")
    return low, high


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as a string."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _choices(entry: dict[str, Any], where: str) -> tuple[Any, ...]:
    for name in ("log", "points"):
        if name in entry:
            raise LabError(f"{where}: {name} belongs to int and float ranges, not to choices")
    choices = entry["choices"]
    if not isinstance(choices, list) or not choices:
        raise LabError(f"{where}: choices is empty: give at least one value")
    for value in choices:
        if value is not None and not isinstance(value, str | int | float | bool):
            raise LabError(f"{where}: choices must be words or numbers (a list is written as text, '[a, b]')")
    choices = [_number(value) for value in choices]
    if len({(type(value), value) for value in choices}) < len(choices):
        raise LabError(f"{where}: a choice stands twice")
    return tuple(choices)


def _when(content: Any, where: str) -> dict[str, tuple[Any, ...]]:
    if content is None:
        return {}
    if not isinstance(content, dict) or not content or not all(v and isinstance(v, list) for v in content.values()):
        raise LabError(f"{where}: when must map a parameter to the values that it must have, {{residual: [mhc]}}")
    return {str(key): tuple(map(_number, values)) for key, values in content.items()}


def _check_when(
    parameter: Parameter, parent: str, values: tuple[Any, ...], parameters: Mapping[str, Parameter], where: str
) -> None:
    if parent not in parameters:
        raise LabError(f"{where}: {parameter.key}: when names {parent}, which is not in the space")
    if parameters[parent].kind != "choices":
        raise LabError(f"{where}: {parameter.key}: when can only name a parameter with choices, not {parent}")
    for value in values:
        if value not in parameters[parent].choices:
            raise LabError(f"{where}: {parameter.key}: {parent} is never {value} ({parameters[parent].words})")


def _parents_first(parameters: Mapping[str, Parameter], where: str) -> Iterator[Parameter]:
    waiting, placed = dict(parameters), set[str]()
    while waiting:
        ready = [p for p in waiting.values() if all(parent in placed for parent in p.when)]
        if not ready:
            raise LabError(f"{where}: {', '.join(waiting)} wait for each other: mend their `when`")
        for parameter in ready:
            placed.add(parameter.key)
            del waiting[parameter.key]
            yield parameter
