"""How long exports take: a generated study of 1,000 runs with 500 logged points each.

python tests/report/speed.py [folder for export.md]; exit code 1 if a limit is passed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mhc_lab.config import compose
from mhc_lab.config.compose import to_dict
from mhc_lab.machine import cores, processor

ROWS, SEEDS, POINTS, PROBES, LAYERS, STREAMS = 100, 10, 500, 5, 8, 4
VARIANTS = ("identity", "hc", "mhc", "identity_hc", "orthogonal", "row_stochastic")
LIMITS = {  # seconds, on two cores
    "mhc-lab export --help": 0.5,
    "mhc-lab export big --format md,latex,csv": 20.0,
    "mhc-lab export big": 60.0,
}


def generate(results: Path, rows: int = ROWS, seeds: int = SEEDS, points: int = POINTS) -> None:
    """Write the study `big`: study.json, timing.json and whole run folders, as runs write them. The last row is a
    control arm."""
    draw = np.random.default_rng(0)
    entries: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    noise = draw.normal(0, 0.02, seeds)
    for place in range(rows):
        control = place == rows - 1
        variant = "identity" if control else VARIANTS[place % len(VARIANTS)]
        overrides = [f"residual={variant}", *(["control=true"] if control else [])]
        config = to_dict(compose(overrides))
        row = "control" if control else f"{variant}_{place}" if place else "identity"
        entries.append(
            {
                "row": row,
                "overrides": overrides,
                "baseline": "identity",
                "control": control,
                "variant": variant,
                **dict.fromkeys(("h_res", "h_pre", "h_post"), "fixed" if variant == "identity" else "dynamic"),
                "streams": 1 if variant == "identity" else STREAMS,
                "paper_loss_gap": None,
            }
        )
        for seed in range(seeds):
            run_id = f"{variant}-{place:06x}{seed:06x}"
            cells.append({"row": row, "seed": seed, "run_id": run_id})
            folder = results / "runs" / run_id
            folder.mkdir(parents=True)
            (folder / "config.yaml").write_text(yaml.safe_dump({**config, "seed": seed}, sort_keys=False))
            loss = 2.5 + noise[seed] - 0.001 * (place % 7) + draw.normal(0, 0.01)
            _write_run(folder, variant, seed, float(loss), points, draw)
    rows_timed = {
        e["row"]: {"baseline": "identity", "ms_per_step": 30.0, "ms_ratio": 1.0 + i / rows}
        for i, e in enumerate(entries)
    }
    study = {
        "study": "big",
        "title": "A generated study",
        "grid": "generated",
        "baseline": "identity",
        "command": "generated",
        "created": "2026-01-01T00:00:00+00:00",
        "storage": "sqlite:///studies.db",
        "overrides": [],
        "rows": entries,
        "cells": cells,
        "timing_config": {cell["row"]: cell["run_id"] for cell in reversed(cells)},
    }
    (results / "big").mkdir()
    (results / "big" / "study.json").write_text(json.dumps(study))
    (results / "big" / "timing.json").write_text(json.dumps({"device": "none", "threads": 1, "rows": rows_timed}))


def _write_run(folder: Path, variant: str, seed: int, loss: float, points: int, draw: np.random.Generator) -> None:
    steps = 10 * np.arange(1, points + 1)
    curve = loss + 3 * np.exp(-steps / 500) + draw.normal(0, 0.02, points)
    with (folder / "metrics.jsonl").open("w") as file:
        for step, value in zip(steps.tolist(), curve.tolist(), strict=True):
            line = {"step": step, "train_loss": value, "grad_norm": 0.5 + value / 10, "learning_rate": 1e-3, "ms": 30.0}
            file.write(json.dumps(line) + "\n")
    n = 1 if variant == "identity" else STREAMS
    matrices = np.broadcast_to(np.eye(n), (LAYERS, n, n)) + draw.uniform(0, 0.1, (LAYERS, n, n))
    ones = (1 + draw.uniform(0, 0.5, LAYERS)).tolist()
    names = ("gain_forward", "gain_backward", "composite_gain_forward", "composite_gain_backward", "ds_error", "spread")
    probe = dict.fromkeys(names, ones) | {"h_res": matrices.tolist(), "h_res_composite": matrices.tolist()}
    lines = (json.dumps({"step": int(step), **probe}) for step in np.linspace(100, steps[-1], PROBES))
    (folder / "gains.jsonl").write_text("\n".join(lines) + "\n")
    metrics = dict.fromkeys(names[:4], 1.5) | {"ds_error": 0.1, "stream_spread": 0.2, "max_grad_norm": 3.0}
    metrics |= {
        "val_loss": loss,
        "train_loss": loss,
        "bits_per_byte": loss / 0.6931,
        "grad_norm": 0.5,
        "loss_spikes": 0,
    }
    metrics |= {"tokens_per_second": 1e4, "ms_per_step": 30.0, "peak_memory_mb": 80.0, "steps": int(steps[-1])}
    record = {
        "run_id": folder.name,
        "status": "finished",
        "reason": None,
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:01:00+00:00",
        "seconds": 60.0,
        "variant": variant,
        "seed": seed,
        "corpus_fingerprint": "c0ffee",
        "code_fingerprint": "abc123",
        "metrics": metrics,
        "degenerate": {"spread_perturbed": 0.4, "spread_step10": 0.2, "degenerate": False},
        "cost": {"parameters": 234567, "flops_per_token": 1234567},
        "environment": {"python": "3.11", "torch": "2.13.0", "device": "none", "threads": 1},
    }
    (folder / "record.json").write_text(json.dumps(record))


def measure(folder: Path) -> dict[str, float]:
    """Seconds of each command of LIMITS, run in `folder` as a user runs it."""
    seconds = {}
    for command in LIMITS:
        program, *arguments = command.split()
        start = time.perf_counter()
        done = subprocess.run([str(Path(sys.executable).parent / program), *arguments], cwd=folder, capture_output=True)
        seconds[command] = time.perf_counter() - start
        assert done.returncode == 0, done.stderr.decode()
    return seconds


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        generate(Path(place) / "results")
        measure(Path(place))  # once unmeasured: compiled Python files, font cache
        seconds = measure(Path(place))
    lines = [
        f"# Exporting {ROWS * SEEDS:,} runs ({ROWS} rows x {SEEDS} seeds) of {POINTS} logged points",
        "",
        f"`nox -s export_speed`, {processor()}, {cores()} cores, the second of two times; generated run folders.",
        "",
        "| command | seconds | at most |",
        "| --- | --: | --: |",
        *(f"| `{command}` | {seconds[command]:.2f} | {limit:g} |" for command, limit in LIMITS.items()),
    ]
    print("\n".join(lines))
    if len(sys.argv) > 1:
        out = Path(sys.argv[1])
        out.mkdir(parents=True, exist_ok=True)
        (out / "export.md").write_text("\n".join(lines) + "\n")
    return int(any(seconds[command] > limit for command, limit in LIMITS.items()))


if __name__ == "__main__":
    raise SystemExit(main())
