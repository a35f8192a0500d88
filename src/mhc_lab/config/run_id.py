"""One run id: a hash of the canonical form of every field that can change the result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from mhc_lab.config.reading import unread
from mhc_lab.config.schema import GROUPS, NEVER, RunConfig, default_of
from mhc_lab.residual import registry


def canonical(config: RunConfig, corpus_fingerprint: str) -> dict[str, Any]:
    """The fields that can change the result, and nothing else.

    Fields that nothing reads are dropped, so that identity is one run across t_max and n; paths,
    devices and logging are not in; the corpus is in by its fingerprint, a plugin that is used by its source.
    """
    form = fields_in_id(config)
    variant = registry.variant(config.residual.variant)
    used = variant.used_fields(config.residual)
    form["residual"] = {key: value for key, value in form["residual"].items() if key in used}
    for name, field in variant.own_fields(config.residual).items():
        value = config.residual.own.get(name, default_of(field))
        if name in used and field.metadata["in_id"] and value != field.metadata["added"]:
            form["residual"][name] = value
    plugins = registry.plugin_sources(config.residual)
    if plugins:
        form["residual"]["plugins"] = plugins
    for group in GROUPS:
        for key in [key for key in form.get(group, ()) if unread(config, f"{group}.{key}")]:
            del form[group][key]
    form["corpus"] = corpus_fingerprint
    return form


def run_id(config: RunConfig, corpus_fingerprint: str) -> str:
    """The 12 hex digits that name the run folder: `<variant>-<digits>`."""
    text = json.dumps(canonical(config, corpus_fingerprint), sort_keys=True)
    return f"{config.residual.variant}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def fields_in_id(config: Any) -> dict[str, Any]:
    """The settings of a dataclass that can change the result, read or not, but where they say nothing new."""
    form: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            inner = fields_in_id(value)
            if inner:
                form[f.name] = inner
        elif f.metadata.get("in_id", True) and value != f.metadata.get("added", NEVER):
            form[f.name] = value
    return form
