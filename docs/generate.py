"""Pages that are made of the package itself, as mkdocs builds: settings, commands, coverage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).parent
GENERATED = DOCS / "generated"


def on_pre_build(**_: Any) -> None:
    """mkdocs calls this before it looks for pages."""
    GENERATED.mkdir(exist_ok=True)
    for name, text in {"settings": settings(), "commands": commands(), "coverage": coverage()}.items():
        file = GENERATED / f"{name}.md"
        if not file.is_file() or file.read_text() != text:  # or serving would build for ever
            file.write_text(text)


def settings() -> str:
    from mhc_lab.config import listing
    from mhc_lab.config.schema import GROUPS

    lines = ["# Settings", "", "Typed as `group.name=value`; `mhc-lab list GROUP` prints the same."]
    groups: dict[str, list[dict[str, str]]] = {"": []} | {group: [] for group in GROUPS}
    for entry in listing.settings():
        group, dot, _ = entry["name"].partition(".")
        groups[group if dot else ""].append(entry)
    for group, found in groups.items():
        lines += ["", f"## {group or 'Of a run'}", "", "| setting | default | values | meaning |", "|---|---|---|---|"]
        for entry in found:
            default = f"`{entry['default']}`" if entry["default"] else ""
            cells = [f"`{entry['name']}`", default, entry["values"], entry["words"]]
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    from typer.main import get_command

    from mhc_lab.cli import app

    lines = ["# Commands", ""]
    found: Any = get_command(app)
    for name, command in found.commands.items():
        lines += _command(f"mhc-lab {name}", command)
        for inner, under in getattr(command, "commands", {}).items():
            lines += _command(f"mhc-lab {name} {inner}", under)
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any) -> list[str]:
    lines = [f"## {name}", "", (command.help or "").strip(), "", "| argument or option | meaning |", "|---|---|"]
    for parameter in command.params:
        words = (getattr(parameter, "help", None) or "").replace("|", "\\|")
        names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
        lines.append(f"| {names} | {words} |")
    return [*lines, ""]


def coverage() -> str:
    lines = ["# Coverage", "", "What the paper and what was written about it name, and what answers it.", ""]
    lines += ["| what | answer |", "|---|---|"]
    for entry in yaml.safe_load((DOCS / "coverage.yaml").read_text()):
        note = f" ({entry['note']})" if "note" in entry else ""
        answers = {"command": "`{}`", "study": "study `results/{}/`", "reason": "{}"}
        (answer,) = [text.format(entry[kind]) for kind, text in answers.items() if kind in entry]
        lines.append(f"| {entry['what']} | {answer}{note} |")
    return "\n".join(lines) + "\n"
