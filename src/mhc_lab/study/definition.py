"""What makes two sweeps one study, and the refusal to mix: its trials share space, settings, corpus and code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import optuna

from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.errors import LabError
from mhc_lab.identity.code import Code, Executed, code_of, fingerprint, together
from mhc_lab.identity.ledger import changed, named
from mhc_lab.study.folder import lasting
from mhc_lab.study.space import Parameter
from mhc_lab.study.storage import trials
from mhc_lab.study.sweep_file import SweepSpec

_DEFINITION, _CODE = "mhc_lab:sweep", "mhc_lab:code"  # user attributes of the study


def definition(spec: SweepSpec) -> dict[str, Any]:
    """What makes two sweeps one study; the budget and the starting points may grow.

    `configuration` stands for what the space's corners resolve to: a file of conf or a plugin may have changed.
    """
    on_grid = spec.sampler["name"] == "grid"
    ids = " ".join(run_id for _, run_id in spec.corners)
    content = {
        "space": {parameter.key: _exactly(parameter, on_grid) for parameter in spec.parameters},
        "objectives": list(spec.objectives),
        "overrides": lasting(spec.overrides),
        "sampler": dict(spec.sampler),
        "pruner": dict(spec.pruner),
        "seeds": list(spec.seeds),
        "corpus": corpus_fingerprint(spec.base),  # that of another machine may be another one
        "configuration": hashlib.sha256(ids.encode()).hexdigest()[:12],
    }
    normal: dict[str, Any] = json.loads(json.dumps(content))  # as the database gives it back
    return normal


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What tells two definitions apart, in words, key by key and for the space parameter by parameter."""
    for key in dict.fromkeys([*stored, *now]):
        was, has = stored.get(key), now.get(key)
        if was == has:
            continue
        if isinstance(was, dict) and isinstance(has, dict):
            yield from (f"{key}: {line}" for line in differences(was, has))
        else:
            yield f"{key}: {was if was is not None else 'nothing'} then, {has if has is not None else 'nothing'} now"


def check(study: optuna.Study, spec: SweepSpec, *, keep: bool, mend: str, mend_code: str) -> None:
    """LabError where a study's trials are of another sweep, or of other code and not to be kept.

    `mend` and `mend_code` say what the user can do then.
    """
    attributes = study.user_attrs
    if _DEFINITION in attributes:
        told = list(differences(attributes[_DEFINITION], definition(spec)))
        if told:
            raise LabError(f"study '{study.study_name}' was made with another sweep ({'; '.join(told[:3])}); {mend}")
    elif trials(study):
        raise LabError(f"study '{study.study_name}' in the storage is no sweep: choose another name with --study NAME")
    if names := [] if keep else _other_code(attributes.get(_CODE), code(spec)):
        raise LabError(
            f"the trials of '{study.study_name}' were made with other code than now ({named(names)}): {mend_code}"
        )


def sign(study: optuna.Study, spec: SweepSpec) -> None:
    """Write into the study what `check` compares."""
    study.set_metric_names(list(spec.objectives))
    study.set_user_attr(_DEFINITION, definition(spec))
    now = code(spec)
    study.set_user_attr(_CODE, {"fingerprint": fingerprint(now), "definitions": dict(now)})


def code(spec: SweepSpec) -> Code:
    """What the runs of a sweep execute, of every variant that its space may choose."""
    base = spec.base
    searched = [p.choices for p in spec.parameters if p.key in ("residual", "residual.variant")]
    variants = [str(name) for choices in searched for name in choices] or [base.residual.variant]
    residuals = [dataclasses.replace(base.residual, variant=variant) for variant in variants]
    return together(code_of(Executed.by(dataclasses.replace(base, residual=residual))) for residual in residuals)


def _other_code(stored: Any, now: Code) -> list[str]:
    """What differs from the stored code; a study may have the hash of a whole package, or nothing."""
    if stored is None:
        return []
    if not isinstance(stored, dict):
        return changed(str(stored), None, now)
    return changed(str(stored.get("fingerprint")), stored.get("definitions"), now)


def _exactly(parameter: Parameter, on_grid: bool) -> str:
    """Its values to the last digit: `words` rounds them."""
    if parameter.kind == "choices":
        values = ", ".join(map(repr, parameter.choices))
    else:
        values = f"{parameter.low!r} to {parameter.high!r}{' (log)' if parameter.log else ''}"
    points = f", {parameter.points} points" if on_grid and parameter.points is not None else ""
    when = "".join(f", when {key} is {' or '.join(map(repr, values))}" for key, values in parameter.when.items())
    return f"{parameter.kind} {values}{points}{when}"
