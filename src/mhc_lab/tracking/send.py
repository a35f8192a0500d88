"""One run folder to one MLflow server: what it lacks, in the order that survives being cut off anywhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from mhc_lab.config.compose import to_dict
from mhc_lab.run_folder import RunFolder
from mhc_lab.tracking.state import Sent, State, write_state
from mhc_lab.tracking.store import check_reachable, client, place_name, prepare_store
from mhc_lab.tracking.study import study_run

METRICS_A_BATCH = 900  # the server takes 1000 metrics, params and tags at once
PARAMS_A_BATCH = 100
PARAM_LENGTH = 250  # what is longer stands in config.yaml alone
TAG_LENGTH = 500
NAME_LENGTH = 250

# Diverged is a result (tag `diverged`), not a failure; a pruned run (tag `pruned`) was stopped on purpose.
MLFLOW_STATUS = {
    "finished": "FINISHED",
    "diverged": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
    "killed": "KILLED",
}
CUT_OFF = {"status": "killed", "reason": "its process ended without a record"}


def send(folder: RunFolder, state: State, uri: str, results: Path, *, cut_off: bool = False) -> bool:
    """Send what the server at `uri` lacks of this folder; True when there was something.

    `results` is where a study's key and locks are kept: the run folder may lie elsewhere.
    `cut_off`: nobody works on the run, so without a record it counts as killed. `state` is written after every step
    that the server took. Raises OSError or MLflow's errors where the server does not answer.
    """
    check_reachable(uri)
    place = place_name(uri, results)
    sent = state.servers.get(place)
    # A former end that was sent stands until the run is taken up again.
    ended_before = sent is not None and sent.status is not None
    record = folder.record() or (CUT_OFF if cut_off and not ended_before else None)
    fresh = sent is None or sent.attempt != state.attempt
    if fresh:
        if sent is not None:
            _close_former(uri, sent)
        experiment = prepare_store(uri, state.experiment, results)
        sent = _find(uri, experiment, state.attempt) or _create(folder, state, uri, results, experiment)
        _describe(folder, sent, uri)
        state.servers[place] = sent
        write_state(folder, state)
    assert sent is not None
    more = _send_lines(folder, state, sent, uri, record)
    if record is None or record["status"] == sent.status:
        return fresh or more
    _send_end(folder, sent, uri, record)
    sent.status = record["status"]
    write_state(folder, state)
    return True


def params(folder: RunFolder) -> dict[str, str]:
    """The resolved config, flattened: "residual.t_max" -> "20"."""
    flat: dict[str, str] = {}
    for key, value in to_dict(folder.config()).items():
        if isinstance(value, dict):
            own = value.pop("own", {})  # settings that the variant brings are settings of the group
            flat |= {f"{key}.{name}": str(inner) for name, inner in {**value, **own}.items()}
        else:
            flat[key] = str(value)
    return {key: value for key, value in flat.items() if len(value) < PARAM_LENGTH}


def _find(uri: str, experiment: str, attempt: str) -> Sent | None:
    """The MLflow run of this attempt, if the server has one that this folder forgot (copied, or cut off)."""
    from mlflow.entities import RunStatus

    found = client(uri).search_runs([experiment], f"tags.attempt = '{attempt}'", max_results=1)
    if not found:
        return None
    info, tags = found[0].info, found[0].data.tags
    over = RunStatus.is_terminated(RunStatus.from_string(info.status))
    return Sent(info.run_id, attempt, int(tags.get("sent_lines", 0)), tags.get("status") if over else None)


def _create(folder: RunFolder, state: State, uri: str, results: Path, experiment: str) -> Sent:
    config = folder.config()
    record = folder.record() or {}
    tags = {
        "run_id": folder.run_id,
        "variant": config.residual.variant,
        "seed": str(config.seed),
        "attempt": state.attempt,
        **state.tags,
    }
    if state.study:
        tags["study"] = state.study
        tags["mlflow.parentRunId"] = study_run(uri, experiment, results, state.study, state.study_key)
    made = client(uri).create_run(
        experiment,
        start_time=_milliseconds(record.get("started")),
        tags=tags,
        run_name=_name(folder, state.tags),
    )
    return Sent(made.info.run_id, state.attempt)


def _describe(folder: RunFolder, sent: Sent, uri: str) -> None:
    """Params and config; sending them again changes nothing."""
    from mlflow.entities import Param

    pairs = [Param(key, value) for key, value in params(folder).items()]
    for start in range(0, len(pairs), PARAMS_A_BATCH):
        client(uri).log_batch(sent.run_id, params=pairs[start : start + PARAMS_A_BATCH])
    if folder.config().tracking.artifacts != "none":
        _attach(uri, sent, folder.config_file)


def _attach(uri: str, sent: Sent, file: Path) -> None:
    """Send a file of the folder; not what a link leads to, which may be anybody's, and no pipe."""
    if not file.is_symlink() and file.is_file():
        client(uri).log_artifact(sent.run_id, str(file))


def _files(folder: RunFolder) -> list[Path]:
    """What is attached when a run has ended."""
    small = [folder.gains_file, folder.record_file]
    return {"none": [], "small": small, "all": [*small, folder.checkpoint_file]}[folder.config().tracking.artifacts]


def _name(folder: RunFolder, tags: dict[str, str]) -> str:
    """ "mhc seed 0" of a grid, "trial 3 seed 0: learning_rate=0.003" of a sweep, else the run id with its seed."""
    point = f": {tags['point']}" if tags.get("point") else ""
    return f"{tags.get('row') or folder.run_id} seed {folder.config().seed}{point}"[:NAME_LENGTH]


def _send_lines(folder: RunFolder, state: State, sent: Sent, uri: str, record: dict[str, Any] | None) -> bool:
    from mlflow.entities import Metric, RunTag

    stamp = _milliseconds((record or {}).get("ended"))
    lines = folder.metrics()[sent.sent_lines :]
    for batch in _batches(lines):
        metrics = [
            Metric(key, float(value), stamp, line["step"])
            for line in batch
            for key, value in line.items()
            if key != "step" and value is not None
        ]
        count = sent.sent_lines + len(batch)
        # The count travels with the metrics: whoever finds this run again knows what it has.
        client(uri).log_batch(sent.run_id, metrics=metrics, tags=[RunTag("sent_lines", str(count))])
        sent.sent_lines = count
        write_state(folder, state)
    return bool(lines)


def _send_end(folder: RunFolder, sent: Sent, uri: str, record: dict[str, Any]) -> None:
    from mlflow.entities import Metric, RunTag

    stamp = _milliseconds(record.get("ended"))
    for file in _files(folder):
        _attach(uri, sent, file)
    curves: dict[str, Any] = {}
    for line in folder.metrics():
        curves |= line
    measured = record.get("metrics", {})
    summary = {
        name: value
        for name, value in {**measured, **record.get("cost", {})}.items()
        if value is not None and curves.get(name) != value  # what the last step said already
    }
    step = int(measured.get("steps") or curves.get("step", 0))
    tags = {
        "status": record["status"],
        "diverged": "true" if record["status"] == "diverged" else "false",
        "pruned": "true" if record["status"] == "pruned" else "",
        "reason": record.get("reason") or "",
        "corpus_fingerprint": record.get("corpus_fingerprint"),
        "code_fingerprint": record.get("code_fingerprint") or "",
    }
    client(uri).log_batch(
        sent.run_id,
        metrics=[Metric(name, float(value), stamp, step) for name, value in summary.items()],
        tags=[RunTag(name, str(value)[:TAG_LENGTH]) for name, value in tags.items() if value],
    )
    client(uri).set_terminated(sent.run_id, MLFLOW_STATUS[record["status"]], stamp)


def _close_former(uri: str, sent: Sent) -> None:
    """The MLflow run of an earlier attempt: not left RUNNING for ever, and not taken for the result."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    try:
        client(uri).set_tag(sent.run_id, "superseded", "true")
        if sent.status is None:
            client(uri).set_terminated(sent.run_id, "KILLED")
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):  # deleted by its owner: nothing to close
            raise


def _batches(lines: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for line in lines:
        if batch and size + len(line) > METRICS_A_BATCH:
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield batch


def _milliseconds(moment: str | None) -> int:
    """Unix time of an ISO moment; now without one."""
    return int(1000 * (datetime.fromisoformat(moment).timestamp() if moment else time.time()))
