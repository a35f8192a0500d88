"""Train the configurations with the mhc_lab that this Python finds: python losses.py OUT.json

It uses what every commit since d12d148 has: `compose`, `load_corpus`, `RunFolder.create` and `run`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from configurations import CONFIGURATIONS, NOT_COMPARED, SHARED

from mhc_lab.config import compose
from mhc_lab.data.corpus import load_corpus
from mhc_lab.run_folder import RunFolder
from mhc_lab.training.run import run


def trained(name: str, results: Path) -> list[dict[str, Any]]:
    """The logged lines of one configuration."""
    config = compose([*SHARED, *CONFIGURATIONS[name]])
    folder = RunFolder.create(results, config, load_corpus(config).fingerprint)
    record = run(folder)
    if record["status"] != "finished":
        raise SystemExit(f"{name}: {record['status']}: {record['reason']}")
    lines = [json.loads(line) for line in folder.metrics_file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in NOT_COMPARED} for line in lines]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        found = {name: trained(name, Path(scratch)) for name in CONFIGURATIONS}
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")
