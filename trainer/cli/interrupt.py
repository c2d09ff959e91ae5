"""Ctrl-C, SIGTERM and a terminal that hangs up: the first ends the work in good order, the second ends the
process.

Handlers of the signal module also reach the stages that never return to the event loop, such as training a
tokenizer; what they ask of the loop goes through `call_soon_threadsafe`, which wakes it.

The second is the system's own: it also ends a process that is stuck in a driver, where no Python runs. So the
first already shows the cursor that a live display hides.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
HANG_UP = getattr(signal, "SIGHUP", None)  # Windows has none
SHOW_CURSOR = b"\x1b[?25h"


class Interrupt:
    """What an interrupt does: `stop` when there is one, else KeyboardInterrupt."""

    def __init__(self) -> None:
        self.stop: Callable[[], object] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        _show_cursor()
        for name in SIGNALS:
            signal.signal(name, signal.SIG_DFL)
        if HANG_UP:  # the system and the shell both send it: the second is nobody's wish to quit
            signal.signal(HANG_UP, signal.SIG_IGN)
        if self.stop is None:
            raise KeyboardInterrupt
        asyncio.get_running_loop().call_soon_threadsafe(self.stop)


def _show_cursor() -> None:
    """Past sys.stdout, in whose midst the signal may have come."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            os.write(sys.stdout.fileno(), SHOW_CURSOR)


@contextlib.contextmanager
def handled() -> Iterator[Interrupt]:
    """A block in which interrupts are handled so."""
    interrupt = Interrupt()
    names = [*SIGNALS]
    if HANG_UP and signal.getsignal(HANG_UP) != signal.SIG_IGN:  # which nohup asks for
        names.append(HANG_UP)
    before = [signal.signal(name, interrupt) for name in names]
    try:
        yield interrupt
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)
