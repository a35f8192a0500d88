"""Where a table comes from: command, commit, versions, machine, corpus, code and the runs behind every row."""

from __future__ import annotations

import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

import mhc_lab
from mhc_lab.machine import cores, processor
from mhc_lab.report.code_states import code_states
from mhc_lab.report.frame import ENVIRONMENT, Study
from mhc_lab.run_folder import ENDED

PACKAGES = ("mhc-lab", "torch", "triton", "lightning", "torchmetrics", "omegaconf", "optuna", "mlflow", "numpy")
FAIR = ("corpus_fingerprint", "code")  # where these differ, so do the losses
COMPARABLE = ("corpus_fingerprint", "torch", "device", "backend", "strategy")  # alike in all runs of a fair table


def provenance(study: Study, export_command: str = "") -> dict[str, Any]:
    """The content of provenance.json.

    git, versions and machine are those of the exporting process; `environments` are those that the runs
    recorded, with the number of runs in each. `mixtures` lists what differs between the runs and should not.
    """
    ended = study.cells[study.cells["status"].isin(ENDED)]
    return {
        "study": study.name,
        "baseline": study.baseline,
        "command": study.spec["command"],
        "export_command": export_command or None,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "overrides": study.spec["overrides"],
        "git": git_state(Path(mhc_lab.__file__).parent),
        "versions": versions(),
        "machine": machine() | {"devices": sorted(ended["device"].dropna().unique())},
        "environments": _environments(ended),
        "corpus_fingerprints": sorted(ended["corpus_fingerprint"].dropna().unique()),
        "code_fingerprints": sorted(ended["code_fingerprint"].dropna().unique()),
        "mixtures": mixtures(study),
        "runs": {
            row["row"]: {
                str(seed): run_id
                for seed, run_id in study.row_cells(row["row"])[["seed", "run_id"]].itertuples(index=False)
            }
            for row in study.spec["rows"]
        },
    }


def origin(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where runs come from that are no grid's: as in `provenance`, from their records."""
    environments = Counter(
        tuple((record.get("environment") or {}).get(key) for key in ENVIRONMENT) for record in records
    )
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": git_state(Path(mhc_lab.__file__).parent),
        "versions": versions(),
        "machine": machine(),
        "environments": [
            dict(zip(ENVIRONMENT, values, strict=True)) | {"runs": runs} for values, runs in environments.items()
        ],
        **{
            f"{key}s": sorted({str(record[key]) for record in records if record.get(key)})
            for key in ("corpus_fingerprint", "code_fingerprint")
        },
    }


def mixtures(study: Study) -> dict[str, dict[str, list[str]]]:
    """What should be alike in all runs of a table and is not: field -> value -> run ids. Empty when all is well."""
    ended = study.cells[study.cells["status"].isin(ENDED)]
    mixed = {}
    for key in COMPARABLE:
        groups = ended.groupby(key)["run_id"]
        if groups.ngroups > 1:
            mixed[key] = {str(value): sorted(run_ids.unique()) for value, run_ids in groups}
    states = code_states(study)
    if len(states) > 1:
        mixed["code"] = states
    return mixed


def unfair(study: Study) -> dict[str, dict[str, list[str]]]:
    """The mixtures that make gaps meaningless: runs of different corpora or code."""
    return {key: values for key, values in mixtures(study).items() if key in FAIR}


def mixture_lines(mixed: dict[str, dict[str, list[str]]]) -> list[str]:
    """A warning for each entry of `mixtures`."""
    lines = []
    for key, values in mixed.items():
        counts = [f"{value} ({len(ids)} run{'' if len(ids) == 1 else 's'})" for value, ids in values.items()]
        what = "times and memory" if key in ("backend", "strategy") else "gaps"
        lines.append(f"the runs differ in {key}: {', '.join(counts)}; {what} across them are not fair comparisons")
    return lines


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository that `folder` belongs to, and whether anything but results/ differs from it.

    None outside git, and for a folder that the repository around it does not track: an installed package.
    """
    try:
        _git(folder, "ls-files", "--error-unmatch", ".")
        commit = _git(folder, "rev-parse", "HEAD")
        changes = _git(folder, "status", "--porcelain", "--", ":/", ":(top,exclude)results")
    except (OSError, subprocess.CalledProcessError):  # git is not installed; not a repository, or one without commits
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def machine() -> dict[str, Any]:
    """Platform, processor, cores and memory (MB) of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": cores(),
        "memory_mb": memory and memory // 2**20,
    }


def _environments(cells: pd.DataFrame) -> list[dict[str, Any]]:
    frame = cells[list(ENVIRONMENT)].astype(object)
    counts = Counter(frame.where(frame.notna(), None).itertuples(index=False, name=None))
    return [dict(zip(ENVIRONMENT, values, strict=True)) | {"runs": runs} for values, runs in counts.items()]


def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True).stdout
