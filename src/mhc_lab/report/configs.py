"""What runs were configured with, as their folders keep it: a row's settings, and what parts them from a baseline's."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from mhc_lab.config.run_id import canonical
from mhc_lab.config.schema import GROUPS, RunConfig
from mhc_lab.errors import LabError
from mhc_lab.report.frame import Study
from mhc_lab.run_folder import ENDED, RunFolder

ABSENT = "–"
_APART = ("seed", "corpus")  # of a cell, not of its row
_HASH = 64  # digits of a plugin's sha256; a dozen tell two of them apart
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where libyaml is there
_IN_ID = {
    f"{group.name}.{field.name}"
    for group in dataclasses.fields(RunConfig)
    if group.name in GROUPS
    for field in dataclasses.fields(group.default_factory)  # type: ignore[arg-type]
    if field.metadata.get("in_id", True)
}


def settings(study: Study, row: str) -> dict[str, str]:
    """Key (`residual.t_max`) -> value as text, of the settings of a row that can change its result and are used by it.

    They are read from the config.yaml of its first run that ended, or else of the first that has one; a variant that
    is not registered here (a plugin's) keeps all of them. Raises LabError if no run has a config.yaml, or if that one
    cannot be read.
    """
    own = study.cells["row"] == row
    cells = zip(study.cells["status"][own], study.cells["run_id"][own], strict=True)
    files = (RunFolder(study.runs / run).config_file for _, run in sorted(cells, key=lambda cell: cell[0] not in ENDED))
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise LabError(f"{row}: no run has a config.yaml yet; run the study first")
    return {key: value for key, value in _used(_read(file)).items() if key not in _APART}


def compare(ours: dict[str, str], theirs: dict[str, str]) -> list[tuple[str, str, str]]:
    """Key, our value, their value, where `settings` differ: in our order, then what is theirs alone."""
    pairs = [(key, ours.get(key, ABSENT), theirs.get(key, ABSENT)) for key in dict.fromkeys([*ours, *theirs])]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LabError(f"{file.parent.name}/config.yaml cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise LabError(f"{file.parent.name}/config.yaml cannot be read: it is not a mapping")
    return content


def _used(content: dict[str, Any]) -> dict[str, str]:
    try:
        return _flat(canonical(_config(content), ""))
    except (LabError, TypeError):  # no such variant here; a key that this version does not know
        flat = _flat(content)
        return {key: value for key, value in flat.items() if key in _IN_ID or "." not in key}


def _config(content: dict[str, Any]) -> RunConfig:
    """`compose.from_dict` without its checks, at a hundredth of its cost: a page opens a run of every row."""
    types = {f.name: f.default_factory for f in dataclasses.fields(RunConfig) if f.name in GROUPS}
    return RunConfig(**{key: types[key](**value) if key in types else value for key, value in content.items()})  # type: ignore[operator]


def _flat(form: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in form.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": _text(value)}
    return flat


def _text(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return value[:12] if isinstance(value, str) and len(value) == _HASH else str(value)
