"""A sweep narrowed from the command line: `mhc-lab sweep learning_rate residual=mhc,identity`. Torch-free.

An override of a setting that the space varies says which of its values are tried: `a,b` of its choices, `low..high`
of a range, or one value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mhc_lab.errors import LabError, nearest
from mhc_lab.study.space import Parameter, parse_space

_BETWEEN = ".."


def narrowed(content: Mapping[str, Any], overrides: Sequence[str], where: str) -> tuple[dict[str, Any], list[str]]:
    """The content of a sweep file with its space narrowed, and the overrides that do not speak of the space.

    Starting points outside the narrowed space are left out. Raises LabError for values that the space does not hold.
    """
    parameters = {parameter.key: parameter for parameter in parse_space(content.get("space"), f"{where}: space")}
    space = dict(content["space"])
    rest = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or key not in parameters:
            rest.append(text)
            continue
        space[key] = {**_kept(space[key]), **_part(parameters[key], value, text)}
    if len(rest) == len(overrides):
        return dict(content), rest
    held = {parameter.key: parameter for parameter in parse_space(space, f"{where}: space")}
    points = [point for point in content.get("enqueue") or [] if _lies_in(point, held)]
    return {**content, "space": space, "enqueue": points}, rest


def _kept(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What stays of a setting's entry whatever its values are."""
    return {key: value for key, value in entry.items() if key == "when"}


def _part(parameter: Parameter, value: str, text: str) -> dict[str, Any]:
    if parameter.kind == "choices":
        known = {str(choice): choice for choice in parameter.choices}
        words = [word.strip() for word in value.split(",")]
        for word in words:
            if word not in known:
                raise LabError(f"{text}: the sweep tries {parameter.words}; {nearest(word, known)}")
        return {"choices": [known[word] for word in dict.fromkeys(words)]}
    low, between, high = value.partition(_BETWEEN)
    ends = [_number(end, parameter, text) for end in ((low, high) if between else value.split(","))]
    if not all(map(parameter.holds, ends)) or (between and ends[0] >= ends[1]):
        raise LabError(f"{text}: the sweep tries {parameter.words}: give part of that as low{_BETWEEN}high, or values")
    if not between:
        return {"choices": ends}
    points = {} if parameter.points is None else {"points": parameter.points}
    return {parameter.kind: ends, **({"log": True} if parameter.log else {}), **points}


def _number(text: str, parameter: Parameter, override: str) -> float:
    try:
        return int(text) if parameter.kind == "int" else float(text)
    except ValueError as error:
        raise LabError(f"{override}: '{text}' is no number; the sweep tries {parameter.words}") from error


def _lies_in(point: Any, parameters: Mapping[str, Parameter]) -> bool:
    if not isinstance(point, dict):
        return True  # refused in words where points are checked
    return all(key not in parameters or parameters[key].holds(value) for key, value in point.items())
