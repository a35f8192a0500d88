"""`mhc-lab doctor`: is this installation sound, and what can this machine do?"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mhc_lab import tries
from mhc_lab.config import compose
from mhc_lab.config.compose import options
from mhc_lab.config.schema import GROUPS
from mhc_lab.errors import LabError
from mhc_lab.machine import can_be_written, cores, existing
from mhc_lab.residual.registry import ENTRY_POINT_GROUP

MALICIOUS = {"lightning": ("2.6.2", "2.6.3"), "pytorch-lightning": ("2.6.2", "2.6.3")}  # GHSA-w37p-236h-pfx3
LITTLE_DISK = 2e9  # bytes
LITTLE_MEMORY = 2e9


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, and how to mend it where that is needed."""

    level: Literal["ok", "warning", "problem"]
    text: str

    @property
    def line(self) -> str:
        return f"{self.level:8} {self.text}"


def examine(
    results: Path,
    config_dir: Path | None = None,
    tracking_uri: str | None = None,
    *,
    say: Callable[[Finding], None] | None = None,
) -> list[Finding]:
    """Make every check; `say` hears of each finding at once. A check that breaks is a problem, not an exception."""
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("packages", packages),
        ("devices", devices),
        ("machine", lambda: machine(results)),
        ("results", lambda: writable(results)),
        ("plugins", plugins),
        ("configuration", lambda: configuration(config_dir)),
        ("corpus", lambda: corpus(config_dir)),
        ("tracking", lambda: tracking(results, config_dir, tracking_uri)),
        ("kernels", lambda: _tried(tries.kernels())),
    )
    in_folder: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("database", lambda: _tried(tries.database(results))),
        ("worker", lambda: _tried(tries.worker(results))),
    )
    findings: list[Finding] = []
    for name, check in checks + (in_folder if can_be_written(results) else ()):
        for finding in _unbroken(name, check):
            findings.append(finding)
            if say is not None:
                say(finding)
    return findings


def _unbroken(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:
        reason = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        yield Finding("problem", f"{name}: {' '.join(reason.split())}")


def packages() -> Iterator[Finding]:
    """Python and what mhc-lab requires, from their metadata alone."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    about = importlib.metadata.metadata("mhc-lab")
    wanted = SpecifierSet(about["Requires-Python"])
    found = ".".join(map(str, sys.version_info[:3]))
    if found in wanted:
        yield Finding("ok", f"python {found}")
    else:
        yield Finding("problem", f"python {found}: mhc-lab needs {wanted}; make an environment with such a Python")
    good = []
    for text in importlib.metadata.requires("mhc-lab") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = requirement.name
        install = f'pip install "{name}{requirement.specifier}"'
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("problem", f"{name} is not installed: {install}")
            continue
        if version.split("+")[0] in MALICIOUS.get(name, ()):
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield Finding("problem", f"{name} {version}: mhc-lab needs {requirement.specifier}; {install}")
            continue
        good.append(f"{name} {version}")
    yield from malicious()
    yield Finding("ok", ", ".join(good))


def malicious() -> Iterator[Finding]:
    """Releases that steal credentials, whoever required them."""
    for name, versions in MALICIOUS.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if version.split("+")[0] in versions:
            yield Finding(
                "problem",
                f"{name} {version} is a malicious release (GHSA-w37p-236h-pfx3): uninstall it, renew this machine's "
                f'credentials, then pip install "{name}>=2.6.6,<2.7"',
            )


def devices() -> Iterator[Finding]:
    """What torch sees."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            yield Finding("ok", f"device cuda:{index} {about.name}, {about.total_memory / 1e9:.0f} GB")
    elif torch.version.cuda or torch.version.hip:
        yield Finding("warning", "device cpu: torch is built for a GPU but sees none; is the driver there?")
    else:
        yield Finding("ok", f"device cpu: torch {torch.__version__}, {torch.get_num_threads()} threads")


def machine(results: Path) -> Iterator[Finding]:
    """Cores, memory and disk."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    disk = shutil.disk_usage(existing(results)).free
    yield Finding("ok", f"{cores()} cores")
    if memory < LITTLE_MEMORY:
        yield Finding("warning", f"{memory / 1e9:.1f} GB of memory: one worker at a time (--workers 1)")
    else:
        yield Finding("ok", f"{memory / 1e9:.1f} GB of memory")
    if disk < LITTLE_DISK:
        yield Finding("warning", f"{disk / 1e9:.1f} GB free for {results}: trainer.keep_checkpoint=none saves some")
    else:
        yield Finding("ok", f"{disk / 1e9:.1f} GB free for {results}")


def writable(results: Path) -> Iterator[Finding]:
    """Whether `results` can be written; it is not made."""
    if can_be_written(results):
        yield Finding("ok", f"{results} can be written")
    else:
        yield Finding("problem", f"{results} cannot be written (in {existing(results)}): choose another --results")


def _tried(found: Iterator[tuple[bool, str]]) -> Iterator[Finding]:
    for works, text in found:
        yield Finding("ok" if works else "problem", text)


def plugins() -> Iterator[Finding]:
    """Entry points of other packages that bring variants."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            point.load()
        except Exception as error:
            place = point.dist.name if point.dist else point.value
            yield Finding(
                "problem", f"plugin {point.name} of {place}: {type(error).__name__}: {error}; mend or uninstall it"
            )
        else:
            yield Finding("ok", f"plugin {point.name}")


def configuration(config_dir: Path | None) -> Iterator[Finding]:
    """Every option of every group composes."""
    compose([], config_dir=config_dir)
    count = 0
    for group in GROUPS:
        for name in options(group, config_dir):
            overrides = [f"{group}={name}"]
            if overrides == ["data=text"]:
                overrides.append("data.files=[any.txt]")
            if group == "trainer":
                overrides.append("data.batch_size=64")
            try:
                compose(overrides, config_dir=config_dir)
            except LabError as error:
                yield Finding("problem", f"configuration {group}={name}: {error}")
            count += 1
    yield Finding("ok", f"configuration: {count} options in {len(GROUPS)} groups")


def corpus(config_dir: Path | None) -> Iterator[Finding]:
    """The default corpus loads."""
    from mhc_lab.data.corpus import load_corpus

    found = load_corpus(compose([], config_dir=config_dir))
    yield Finding("ok", f"corpus {found.fingerprint}: {found.description}")


def tracking(results: Path, config_dir: Path | None, uri: str | None) -> Iterator[Finding]:
    """The tracking store answers, or will be made with the first run."""
    settings = compose([], config_dir=config_dir).tracking
    if settings.backend == "none" and uri is None:
        yield Finding("ok", "tracking: none")
        return
    from mhc_lab.addresses import sqlite_file
    from mhc_lab.tracking.store import errors, prepare_store, resolve_uri

    store = resolve_uri(uri or settings.uri, results)
    file = sqlite_file(store)
    made = file is None or file.is_file()
    try:
        if made:
            prepare_store(store, settings.experiment, results)
        elif can_be_written(results):
            tries.store(results)
    except errors() as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        yield Finding(
            "problem", f"tracking {store}: {first}; start the server, or give another --tracking-uri or tracking=none"
        )
    else:
        yield Finding("ok", f"tracking {store}{'' if made else ': made with the first run'}")
