"""Results as JSON, and as Markdown for people: with the machine, the versions and the command that made them."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mhc_lab.bench.options import Options
from mhc_lab.bench.rivals import PACKAGES
from mhc_lab.command import command_line
from mhc_lab.errors import LabError
from mhc_lab.machine import cores, processor
from mhc_lab.ops import backends

Json = dict[str, Any]

LIBRARIES = ("torch", "triton", "numba", *PACKAGES.values(), "hyper-connections", "transformers")


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's model."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else processor()


def folder_of(options: Options) -> Path:
    """Where the results of this device lie: results/bench/<device>."""
    slug = re.sub(r"[^a-z0-9]+", "-", device_name(options.place).lower()).strip("-")
    return options.results / "bench" / (slug if options.on_gpu else f"{slug}-{cores()}-cores")


def circumstances(options: Options) -> Json:
    """All that a number depends on beside the code."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    if options.on_gpu and torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return {
        "command": command_line(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "device": device_name(options.place),
            "processor": processor(),
            "cores": cores(),
            "threads": options.used_threads,
            "system": platform.system(),
        },
        "backend": backends.chosen(options.place),
        "versions": found,
    }


def describe(run: Json) -> str:
    """A run's circumstances in Markdown."""
    machine, versions = run["machine"], dict(run["versions"])
    words = [machine["device"]]
    if machine["processor"] != machine["device"]:
        words.append(machine["processor"])
    words.append(f"{machine['cores']} cores, {machine['threads']} threads")
    libraries = ", ".join(f"{name} {number}" for name, number in versions.items())
    told = f"`{run['command']}`, {run['date']}. {'; '.join(words)}. {libraries}."
    return f"{told} Backend of the operations: {run['backend']}."


def earlier(path: Path) -> Json | None:
    """What an earlier run wrote. Raises LabError for a file that is damaged."""
    try:
        content: Json = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LabError(f"{path}: cannot be read ({error}): remove it and repeat the command that made it") from error
    return content


def write(folder: Path, name: str, content: Json, markdown: str) -> list[Path]:
    """<name>.json and <name>.md, each whole or not at all. Raises LabError where they cannot be written."""
    texts = {f"{name}.json": json.dumps(content, indent=1) + "\n", f"{name}.md": markdown.rstrip() + "\n"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            beside = folder / f".{file}.{os.getpid()}"
            beside.write_text(text, encoding="utf-8")
            beside.replace(folder / file)
    except OSError as error:
        raise LabError(f"{folder}: cannot be written: {error}") from error
    return [folder / file for file in texts]


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [f"| {' | '.join(titles)} |", f"| --- |{' --: |' * (len(titles) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def bullets(title: str, lines: Sequence[str]) -> str:
    """A list under a line, or nothing."""
    return "" if not lines else "\n".join([title, "", *(f"- {line}" for line in lines)])


def number(value: float) -> str:
    """Three digits, and no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 1 else f"{value:.2f}"
