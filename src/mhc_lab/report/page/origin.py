"""provenance.json as lines to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# Runs stand in their rows, mixtures above the table, environments in a table of their own; the title names the study.
_ELSEWHERE = ("runs", "mixtures", "environments", "study")
_LABELS = {"command": "trained by", "export_command": "exported by", "created": "exported at", "git": "code"}
_AS_TYPED = ("command", "export_command", "overrides")


def facts(origin: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Label, text, and whether it is to be read as typed (a command), of what `provenance` found, in its order."""
    lines = []
    for key, value in origin.items():
        if key in _ELSEWHERE or value in (None, "", [], {}):
            continue
        text = _code(value) if key == "git" else _text(value, " " if key in _AS_TYPED else ", ")
        lines.append((_LABELS.get(key, key.replace("_", " ")), text, key in _AS_TYPED))
    if "git" in origin and origin["git"] is None:
        lines.append((_LABELS["git"], "not in a git repository", False))
    return lines


def _code(git: Mapping[str, Any]) -> str:
    return f"commit {git['commit']}" + (", with uncommitted changes" if git["dirty"] else "")


def _text(value: Any, between: str) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_text(part, ' and ')}" for key, part in value.items() if part)
    if isinstance(value, list):
        return between.join(_text(part, ", ") for part in value)
    return value if isinstance(value, str) else json.dumps(value)
