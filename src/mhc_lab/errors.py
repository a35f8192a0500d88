"""What a user may see when something is wrong, and the exit codes of every command."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_BUG = 1
EXIT_INPUT = 2
EXIT_RUNS_FAILED = 3
EXIT_INTERRUPTED = 130  # as shells have it
_SHOWN = 60  # characters of a wrong value that a message repeats


class LabError(Exception):
    """A mistake that the user can mend: one clear line that says how.

    The command line prints the message without a traceback and exits with code 2.
    """

    exit_code = EXIT_INPUT


class RunsFailed(LabError):
    """The study is done, but some of its runs failed: exit code 3."""

    exit_code = EXIT_RUNS_FAILED


class Interrupted(LabError):
    """The user stopped the command (Ctrl-C, SIGTERM): it says what is lost; exit code 130."""

    exit_code = EXIT_INTERRUPTED


def nearest(name: str, choices: Iterable[str]) -> str:
    """A hint for a name that was not found: the closest choice, or all of them."""
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"choose one of: {', '.join(known)}" if known else "there are none"


def shown(text: str) -> str:
    """As much of what a user gave as a line can hold, safe for any terminal."""
    safe = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
    return safe if len(safe) <= _SHOWN else f"{safe[:_SHOWN]}…"
