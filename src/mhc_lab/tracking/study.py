"""A study's parent run in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from filelock import FileLock

from mhc_lab.run_folder import read_json, runs_dir
from mhc_lab.tracking.store import client

StudyStatus = Literal["FINISHED", "FAILED", "KILLED"]


def study_run(uri: str, experiment: str, results: Path, study: str, key: str) -> str:
    """The parent run of a study: found by its key, or made.

    A child whose study began while the server was down makes it too, hence the lock.
    """
    with FileLock(runs_dir(results) / "mlflow-study.lock"):
        found = client(uri).search_runs([experiment], f"tags.study_key = '{key}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        about = read_json(results / study / "study.json") or {}
        told = {name: str(about[name]) for name in ("title", "command", "baseline") if about.get(name)}
        tags = {"study": study, "study_key": key, **told}
        return str(client(uri).create_run(experiment, run_name=study, tags=tags).info.run_id)


def close_study(uri: str, run_id: str, status: StudyStatus, artifacts: Sequence[Path]) -> None:
    """Attach the tables to a parent run and give it its status."""
    for file in artifacts:
        client(uri).log_artifact(run_id, str(file))
    client(uri).set_terminated(run_id, status)
