"""The folder of one run: all there is to know about it, written as the run goes.

- config.yaml: the resolved RunConfig
- plugin.py: a copy of residual.plugin, where there is one
- metrics.jsonl: one object a logged step, {"step": 10, "train_loss": ..., ...}
- gains.jsonl: one object a probe, the curves over layers
- code.json: what was executed, definition by definition
- record.json: how it ended, written last and whole
- checkpoint.pt: final weights, loadable with weights_only
- mlflow.json: what the tracking server has of it
- log.txt: what the process printed
- begun.json: while a process works on it, which and since when
- question.json, verdict.json: at a validation, between a run that may be pruned and its worker
"""

from __future__ import annotations

import datetime
import json
import math
import os
import re
import socket
import uuid
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from mhc_lab.config.compose import from_dict, read_yaml, to_dict
from mhc_lab.config.run_id import run_id
from mhc_lab.config.schema import RunConfig
from mhc_lab.errors import LabError
from mhc_lab.files import BEGUN, CODE, GAINS_LINE, METRICS_LINE, RECORD, Status, own_file, read_json, read_lines
from mhc_lab.identity.code import Code, Executed, code_of, stamp
from mhc_lab.identity.ledger import changed
from mhc_lab.residual import registry

FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")  # of a study or an analysis, fit for every file system
ENDED: tuple[Status, ...] = ("finished", "diverged")  # results; the others are run again where one is asked for


__all__ = [
    "ENDED",
    "FOLDER_NAME",
    "RunFolder",
    "Status",
    "read_json",
    "runs_dir",
    "write_bytes",
    "write_json",
    "write_whole",
]


class RunFolder:
    """Paths and whole-file reads and writes of one run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.plugin_file = self.path / "plugin.py"
        self.metrics_file = self.path / "metrics.jsonl"
        self.gains_file = self.path / "gains.jsonl"
        self.code_file = self.path / "code.json"
        self.record_file = self.path / "record.json"
        self.checkpoint_file = self.path / "checkpoint.pt"
        self.mlflow_file = self.path / "mlflow.json"
        self.log_file = self.path / "log.txt"
        self.question_file = self.path / "question.json"
        self.verdict_file = self.path / "verdict.json"
        self.begun_file = self.path / "begun.json"

    @property
    def run_id(self) -> str:
        return self.path.name

    @classmethod
    def create(cls, results: Path, config: RunConfig, corpus_fingerprint: str) -> RunFolder:
        """The folder of this config under `results`/runs: made with its config.yaml, or found again."""
        folder = cls(runs_dir(results) / run_id(config, corpus_fingerprint))
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            with folder.lock():
                write_whole(folder.config_file, yaml.safe_dump(to_dict(config), sort_keys=False))
                if not config.residual.plugin:
                    folder.plugin_file.unlink(missing_ok=True)  # nobody named it
                elif Path(config.residual.plugin) != folder.plugin_file:
                    write_bytes(folder.plugin_file, Path(config.residual.plugin).read_bytes())
        except Timeout:
            return folder  # a process works on it, by the config that stands there
        except OSError as error:
            raise LabError(f"{folder.path}: cannot be written: {error.strerror}; choose another --results") from error
        return folder

    def config(self) -> RunConfig:
        """The run's resolved configuration; its plugin, if it has one, is the copy in this folder (not run here)."""
        if not self.config_file.is_file():
            raise LabError(f"{self.path}: not a run folder (no config.yaml)")
        config = from_dict(read_yaml(own_file(self.config_file)), str(self.config_file))
        if config.residual.plugin:
            config.residual.plugin = str(self.plugin_file)
        return config

    def record(self) -> dict[str, Any] | None:
        """How the run ended, or None while it has not. One that says finished and has no loss failed."""
        content = read_json(self.record_file, RECORD)
        if content is None:
            return None
        record = {"reason": None, "metrics": {}, "cost": {}, **content, "seconds": content.get("seconds") or 0.0}
        loss = record["metrics"].get("val_loss")
        if record["status"] == "finished" and (loss is None or not math.isfinite(loss)):
            record |= {"status": "failed", "reason": "its record.json has no finite validation loss: run it again"}
        return record

    def ended(self) -> bool:
        """Whether there is a result that need not be computed again (finished or diverged)."""
        record = self.record()
        return record is not None and record["status"] in ENDED

    def other_code(self) -> list[str]:
        """Where there is a result: the definitions in which the code that made it differs from that of now.

        Compared is the code for the variant and the backend that made it, wherever this is asked.
        """
        record = self.record()
        if record is None or record["status"] not in ENDED:
            return []
        made = self.code()
        if made is not None:
            executed = made[0]
        else:  # a record from before there were definitions
            executed = Executed.by(self.config(), record.get("environment", {}).get("backend") or "")
        gone = [f"constraint.{name}" for name in executed.constraints if name not in registry.constraints()]
        gone += [f"variant.{executed.variant}"] if executed.variant not in registry.variants() else []
        if gone:
            return gone
        return changed(str(record.get("code_fingerprint")), made and made[1], code_of(executed))

    def code(self) -> tuple[Executed, Code] | None:
        """What made the result, and its definitions; None for one from before these were recorded, or damaged ones."""
        try:
            content = read_json(self.code_file, CODE)
        except LabError:  # the record has their fingerprint
            return None
        return None if content is None else (Executed.said(content["executed"]), content["definitions"])

    def write_code(self, executed: Executed) -> None:
        """Before the record, which says that all is there."""
        write_json(self.code_file, stamp(executed))

    def clear(self) -> None:
        """Forget a former attempt; config and plugin stay, and where the run is mirrored."""
        for file in (self.metrics_file, self.gains_file, self.code_file, self.record_file, self.checkpoint_file):
            file.unlink(missing_ok=True)
        self.end_questions()
        with FileLock(self.path / "mlflow.lock"):
            mirrored = read_json(self.mlflow_file)
            if mirrored is not None:  # another attempt is another MLflow run
                write_json(self.mlflow_file, {**mirrored, "attempt": uuid.uuid4().hex})

    def begin(self) -> None:
        """Note who works on this run, for `status`; to be called under the lock."""
        since = datetime.datetime.now(datetime.UTC).isoformat()
        write_json(self.begun_file, {"host": socket.gethostname(), "pid": os.getpid(), "since": since})

    def begun(self) -> dict[str, Any] | None:
        """What `begin` noted; None where nobody did, or the note is damaged, which matters to nobody."""
        try:
            return read_json(self.begun_file, BEGUN)
        except LabError:
            return None

    def ask(self, step: int, val_loss: float) -> None:
        """Of a run that may be pruned: this is where it stands, shall it go on?"""
        write_json(self.question_file, {"step": step, "val_loss": val_loss})

    def question(self) -> tuple[int, float] | None:
        """The step and validation loss of the last question."""
        asked = read_json(self.question_file, {"step": int, "val_loss": (int, float)})
        return None if asked is None else (int(asked["step"]), float(asked["val_loss"]))

    def answer(self, step: int, stop: bool) -> None:
        write_json(self.verdict_file, {"step": step, "stop": stop})

    def verdict(self, step: int) -> bool | None:
        """Whether the run is to stop at `step`; None while nobody has said so."""
        given = read_json(self.verdict_file, {"step": int, "stop": bool})
        return bool(given["stop"]) if given is not None and given["step"] == step else None

    def end_questions(self) -> None:
        self.question_file.unlink(missing_ok=True)
        self.verdict_file.unlink(missing_ok=True)

    def write_record(self, record: dict[str, Any]) -> None:
        write_json(self.record_file, record)

    def lock(self, timeout: float = 0) -> FileLock:
        """Held while a process works on this run; taking a held one raises filelock.Timeout."""
        return FileLock(self.path / "run.lock", timeout=timeout)

    def metrics(self) -> list[dict[str, Any]]:
        """The logged steps, in order; a torn last line (killed while writing) is left out."""
        return list(read_lines(self.metrics_file, METRICS_LINE))

    def logged_steps(self) -> int:
        """How far the run has come by its own log; 0 where there is none."""
        return max((line.get("step", 0) for line in self.metrics()), default=0)

    def gains(self) -> list[dict[str, Any]]:
        """The probes, in order."""
        return list(read_lines(self.gains_file, GAINS_LINE))


def runs_dir(results: Path) -> Path:
    return results / "runs"


def write_whole(path: Path, text: str) -> None:
    """Write then rename, so that a reader never sees half a file."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_whole` does."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(content)
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=1) + "\n")
