"""Files of a run or study, read back as data: what is wrong with one is said in a line that names what mends it.

A file is cut short, garbage, of other types, a folder, a link out of its place, or too large; consumers never see that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from mhc_lab.errors import LabError

REPEAT = "remove it and repeat the command that made it"
_LARGEST = 256 * 2**20  # bytes: a record has kilobytes, the study of 100,000 cells 20 MB
_INTEGERS_END = 2**63  # of a table's whole numbers
_LONGEST_LINE = 16 * 2**20  # a probe of large models


@dataclass(frozen=True)
class Maybe:
    """A key that may be missing, and what it holds otherwise."""

    shape: Any


@dataclass(frozen=True)
class MapOf:
    """A mapping of any names to values of one shape."""

    shape: Any


@dataclass(frozen=True)
class OrNull:
    """A value of one shape, or null."""

    shape: Any


@dataclass(frozen=True)
class AtLeast:
    """A whole number."""

    low: int


@dataclass(frozen=True)
class Moment:
    """A time in ISO 8601 with its zone, since 1970."""


Status = Literal["finished", "diverged", "pruned", "failed", "killed"]
MODES = frozenset({"dynamic", "static", "fixed"})
TEXT: Any = (str, type(None))
NUMBER: Any = (int, float)
_MEASURED: Any = (int, float, type(None))
_COUNT: Any = (int, type(None))
_DEGENERATE = {"spread_perturbed": Maybe(_MEASURED), "spread_step10": Maybe(_MEASURED), "degenerate": Maybe(bool)}
_ENVIRONMENT = {
    **dict.fromkeys(
        ("python", "torch", "lightning", "platform", "device", "backend", "strategy", "mhc_lab"), Maybe(TEXT)
    ),
    "threads": Maybe(_COUNT),
}
RECORD = {
    "status": frozenset(get_args(Status)),
    "reason": Maybe(TEXT),
    "metrics": Maybe(MapOf(_MEASURED)),
    "cost": Maybe(MapOf(_COUNT)),
    "degenerate": Maybe(OrNull(_DEGENERATE)),
    "environment": Maybe(_ENVIRONMENT),
    "seed": Maybe(_COUNT),
    "started": Maybe(OrNull(Moment())),
    "ended": Maybe(OrNull(Moment())),
    "seconds": Maybe(_MEASURED),
    "probe_seconds": Maybe(_MEASURED),
    "probe_fraction": Maybe(_MEASURED),
    "variant": Maybe(str),
    "corpus_fingerprint": Maybe(TEXT),
    "code_fingerprint": Maybe(TEXT),
}
_STUDY = {"study": str, "title": str, "command": str, "created": str, "storage": str}
GRID = {
    **_STUDY,
    "grid": str,
    "baseline": str,
    "overrides": [str],
    "rows": [
        {
            "row": str,
            "overrides": Maybe([str]),
            "baseline": Maybe(str),
            "control": Maybe(bool),
            "variant": str,
            "h_res": MODES,
            "h_pre": MODES,
            "h_post": MODES,
            "streams": AtLeast(1),
            "paper_loss_gap": Maybe(_MEASURED),
            "tuned": Maybe(OrNull({"sweep": str, "seeds": [int], "overrides": [str]})),
        }
    ],
    "cells": [{"row": str, "seed": AtLeast(0), "run_id": str}],
    "timing_config": MapOf(str),
}
SWEEP = {**_STUDY, "kind": str, "sweep": str, "config_dir": TEXT, "other_code": str, "spec": dict}
CODE = {
    "executed": {"variant": str, "constraints": [str], "source": str, "backend": str},
    "definitions": MapOf(str),
}
TIMING = {
    "definitions": Maybe(MapOf(str)),
    "device": Maybe(str),
    "threads": Maybe(int),
    "code_fingerprint": Maybe(str),
    "load": Maybe(NUMBER),
    "cores": Maybe(int),
    "rows": MapOf(
        {
            "run_id": Maybe(str),
            "baseline": Maybe(str),
            "ms_per_step": NUMBER,
            "ms_ratio": NUMBER,
            "ms_ratio_spread": Maybe(NUMBER),
        }
    ),
}
BEGUN = {"host": str, "pid": int, "since": Moment()}
MLFLOW = {
    "uri": str,
    "experiment": str,
    "study": Maybe(str),
    "study_key": Maybe(str),
    "tags": Maybe(MapOf(str)),
    "attempt": Maybe(str),
    "servers": MapOf({"run_id": str, "attempt": str, "sent_lines": Maybe(int), "status": Maybe(TEXT)}),
}
METRICS_LINE = MapOf(_MEASURED)
GAINS_LINE = MapOf((int, float, list, type(None)))


def damaged(path: Path, what: str, mend: str = REPEAT) -> LabError:
    """What is said of a file that does not hold what it should."""
    return LabError(f"{path}: is damaged ({what}): {mend}")


def read_json(path: Path, shape: Any = None) -> dict[str, Any] | None:
    """The object in a file, None where there is no file.

    Raises LabError for one that is damaged: no JSON, no object, or, with a `shape`, other keys or types.
    """
    text = _text(path)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, " ".join(str(error).split())[:100]) from error
    if not isinstance(content, dict):
        raise damaged(path, "no object")
    if shape is not None and (wrong := misfit(content, shape)):
        raise damaged(path, wrong)
    return content


def read_lines(path: Path, shape: Any) -> Iterator[dict[str, Any]]:
    """The objects of a log, one a line. A last line that is torn (killed while writing) is left out.

    Raises LabError for any other line that is none, or holds what no log does.
    """
    text = _text(path)
    lines = (text or "").split("\n")
    for number, line in enumerate(lines[:-1], start=1):  # behind the last newline: nothing, or what is torn
        try:
            content = json.loads(line) if len(line) <= _LONGEST_LINE else None
        except (ValueError, RecursionError) as error:
            raise damaged(path, f"line {number} is no JSON") from error
        if not isinstance(content, dict) or misfit(content, shape) or not isinstance(content.get("step", 0), int):
            raise damaged(path, f"line {number} is no line of a log")
        yield content


def own_file(path: Path) -> Path:
    """`path`, if it is a plain file or nothing. LabError for a link, which may lead anywhere, and for a folder."""
    if path.is_symlink():
        raise damaged(path, "a link, which is not followed")
    if path.is_dir():
        raise damaged(path, "a folder in the place of a file")
    return path


def misfit(content: Any, shape: Any, place: str = "") -> str:
    """Where and how `content` differs from its shape, in words; "" where it fits."""
    where = place or "it"
    if isinstance(shape, OrNull):
        return "" if content is None else misfit(content, shape.shape, place)
    if isinstance(shape, dict):
        if not isinstance(content, dict):
            return f"{where} is no object"
        for key, inner in shape.items():
            if key not in content:
                if isinstance(inner, Maybe):
                    continue
                return f"'{_join(place, key)}' is missing"
            if wrong := misfit(content[key], inner.shape if isinstance(inner, Maybe) else inner, _join(place, key)):
                return wrong
        return ""
    if isinstance(shape, MapOf):
        if not isinstance(content, dict):
            return f"{where} is no object"
        return next((w for key, value in content.items() if (w := misfit(value, shape.shape, _join(place, key)))), "")
    if isinstance(shape, list):
        if not isinstance(content, list):
            return f"{where} is no list"
        return next((w for i, value in enumerate(content) if (w := misfit(value, shape[0], _join(place, i)))), "")
    if isinstance(shape, AtLeast):
        fits = isinstance(content, int) and not isinstance(content, bool) and shape.low <= content < _INTEGERS_END
        return "" if fits else f"'{where}' is no whole number, at least {shape.low}"
    if isinstance(shape, Moment):
        return "" if _is_moment(content) else f"'{where}' is no time"
    if isinstance(shape, frozenset):
        return (
            "" if isinstance(content, str) and content in shape else f"'{where}' is none of {', '.join(sorted(shape))}"
        )
    kinds: tuple[type, ...] = shape if isinstance(shape, tuple) else (shape,)
    if isinstance(content, bool) and bool not in kinds:
        return f"'{where}' is of another type"
    if isinstance(content, int) and not -_INTEGERS_END <= content < _INTEGERS_END:
        return f"'{where}' is larger than any such number"
    return "" if isinstance(content, kinds) else f"'{where}' is of another type"


def _is_moment(content: Any) -> bool:
    try:
        moment = datetime.fromisoformat(content)
    except (TypeError, ValueError):
        return False
    return moment.tzinfo is not None and 1970 < moment.year < 9999  # whatever the zone, a time that MLflow takes


def _join(place: str, key: object) -> str:
    return f"{place}.{str(key)[:40]}" if place else str(key)[:40]


def _text(path: Path) -> str | None:
    try:
        if own_file(path).stat().st_size > _LARGEST:
            raise damaged(path, f"larger than {_LARGEST // 2**20} MiB")
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise damaged(path, "no text") from error
    except OSError as error:
        raise LabError(f"{path}: cannot be read: {error.strerror}") from error
