"""A worker: `python -m mhc_lab.study.worker --results results --study table1`.

Light to import: each forked run imports its worker's main module again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from mhc_lab.disk import EXIT_DISK_FULL, DiskFull, is_disk_full
from mhc_lab.errors import LabError
from mhc_lab.identity.definitions import remember
from mhc_lab.machine import speak_anyway
from mhc_lab.residual import registry
from mhc_lab.secrets import STORAGE_VARIABLE, redact  # not an argument: arguments are public
from mhc_lab.study.child import DEFAULT_TARGET
from mhc_lab.study.signals import closed, handlers


def work(
    results: Path,
    study: str,
    *,
    storage: str | None = None,
    interval: int | None = None,
    grace: int | None = None,
    target: str = DEFAULT_TARGET,
    trust_plugin: bool = False,
) -> None:
    """Run cells or trials of a study that `ablate` or `sweep` has begun, here or elsewhere, until none is left.

    `storage` is the Optuna URL, by default that of the study; `interval` and `grace` are the heartbeat's, in seconds,
    by default the study's. A study's plugin is run where the command that started this process was named it, or
    `trust_plugin`. SIGTERM and Ctrl-C end it: the run it has in hand is recorded as killed, and queued again.
    Raises LabError for an unknown study.
    """
    from mhc_lab.study.folder import StudyFolder
    from mhc_lab.study.storage import resolve

    registry.restrict_plugins()
    if trust_plugin:
        registry.trust_plugin(registry.TRUST_ALL)
    remember()  # the code as it is now: runs are forked from it, whatever is edited meanwhile
    folder = StudyFolder(results, study)
    content = folder.content()
    spec = folder.sweep() if folder.is_sweep() else None
    url = resolve(storage or content["storage"], results)
    if interval is None or grace is None:
        launcher = (spec.base if spec else folder.run(content["cells"][0]["run_id"]).config()).launcher
        interval, grace = interval or launcher.heartbeat_interval, grace or launcher.heartbeat_grace
    stop = threading.Event()

    def told(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    with handlers(dict.fromkeys([signal.SIGTERM, signal.SIGINT, *closed()], told)):
        if spec is not None:
            from mhc_lab.study.trial import pull_trials

            pull_trials(
                spec,
                results,
                study,
                url,
                interval=interval,
                grace=grace,
                target=target,
                other_code=content["other_code"],
                stopping=stop.is_set,
            )
            return
        from mhc_lab.study.pull import pull

        pull(results, study, url, interval=interval, grace=grace, target=target, stopping=stop.is_set)


def stop_with_launcher() -> None:
    """Stop as for SIGTERM once the launcher, which holds the other end of stdin, is gone."""

    def watch() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="launcher watch", daemon=True).start()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mhc_lab.study.worker", description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--study", required=True)
    parser.add_argument("--interval", type=int)
    parser.add_argument("--grace", type=int)
    parser.add_argument("--target", default=DEFAULT_TARGET)
    parser.add_argument("--launched", action="store_true", help="stop when stdin closes")
    options = parser.parse_args(argv)
    speak_anyway()
    if options.launched:
        stop_with_launcher()
    try:
        work(
            options.results,
            options.study,
            storage=os.environ.get(STORAGE_VARIABLE),
            interval=options.interval,
            grace=options.grace,
            target=options.target,
        )
    except LabError as error:
        print(redact(str(error)), file=sys.stderr)
        return EXIT_DISK_FULL if isinstance(error, DiskFull) else error.exit_code
    except Exception as error:
        if is_disk_full(error):
            return EXIT_DISK_FULL
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
