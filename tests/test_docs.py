"""The documents say what is there: coverage answers each line, links lead somewhere, the README stays short."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from typer.main import get_command

from mhc_lab import cli

ROOT = Path(__file__).parents[1]
COVERAGE: list[dict[str, str]] = yaml.safe_load((ROOT / "docs" / "coverage.yaml").read_text())
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("entry", COVERAGE, ids=lambda entry: entry["what"])
def test_each_line_of_the_coverage_has_one_answer(entry: dict[str, str]) -> None:
    (kind,) = {"command", "study", "reason"} & entry.keys()
    assert set(entry) <= {"what", kind, "note"}
    assert all(value.strip() for value in entry.values())
    if kind == "study":
        assert (ROOT / "results" / entry["study"]).is_dir()
    elif kind == "command":
        assert _exists(entry["command"])


def _exists(line: str) -> bool:
    """Whether a command has such a verb, and takes such options."""
    program, *words = shlex.split(line)
    if program == "nox":
        return f"\ndef {words[1]}(session" in (ROOT / "noxfile.py").read_text()
    command: Any = get_command(cli.app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words, resilient_parsing=False)
    return True


def test_a_command_that_is_not_there_is_found() -> None:
    assert _exists("mhc-lab export table1")
    assert not _exists("nox -s demmo")
    for wrong, word in (("mhc-lab exprot table1", "exprot"), ("mhc-lab export --formt md", "formt")):
        with pytest.raises(Exception, match=word):
            _exists(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target and not target.startswith("generated/"):
            assert (page.parent / target).exists(), target


def test_what_a_page_shows_of_a_file_is_asked_for_in_the_right_words() -> None:
    """A formatter takes `--8<-- "FILE"` in a Python block for code."""
    asked = [line for line in (ROOT / "docs" / "extending.md").read_text().splitlines() if line.startswith("--8")]
    files = [re.fullmatch(r'--8<-- "(.+)"', line) for line in asked]
    assert len(files) == 2
    assert all(file is not None and (ROOT / file.group(1)).is_file() for file in files)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1150


def test_generated_pages(generate: ModuleType) -> None:
    settings, commands, coverage = generate.settings(), generate.commands(), generate.coverage()
    assert "| `residual.t_max` | `20` | at least 1 | Sinkhorn iterations (Eq. 9) |" in settings
    verbs = {f"## mhc-lab {verb}" for verb in ("train", "ablate", "sweep", "check", "bench")}
    assert verbs <= set(commands.splitlines())
    assert all(entry["what"] in coverage for entry in COVERAGE)
