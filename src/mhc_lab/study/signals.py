"""Signal handlers for the time of a block."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def handlers(handlers: dict[signal.Signals, signal._HANDLER]) -> Iterator[None]:
    """Set handlers and set the former ones again; nothing outside the main thread, which alone may set them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def interruptible() -> AbstractContextManager[None]:
    """SIGTERM ends the block as Ctrl-C does, and so does a terminal that is closed, unless nohup keeps it away."""

    def told(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    return handlers(dict.fromkeys([signal.SIGTERM, *closed()], told))


def undisturbed() -> AbstractContextManager[None]:
    """Neither SIGTERM, Ctrl-C nor a closed terminal cuts the block short."""
    return handlers(dict.fromkeys([signal.SIGTERM, signal.SIGINT, *closed()], signal.SIG_IGN))


def closed() -> list[signal.Signals]:
    """The signal of a terminal that is closed, unless nohup keeps it away."""
    return [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
