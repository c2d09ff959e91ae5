"""Readers of the event stream that a person looks at: a live display on a terminal, lines elsewhere.

    with open_display() as display:
        display(event)

Everything goes to stdout: stderr has nothing but the line that says what went wrong. Work that outlives its
reader, as a run outlives `head` or a terminal, says in `display.lost` how it ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from trainer.events import (
    Event,
    Notice,
    Progress,
    RunEnded,
    RunStarted,
    Sample,
    Saved,
    Step,
    Validation,
)

LINE_SECONDS = 5.0  # between two lines of progress where there is no terminal


def open_display() -> Display:
    """The display that suits stdout."""
    return LiveDisplay() if sys.stdout.isatty() else Display()


def discard_output() -> None:
    """Let stdout, whose reader is gone, go nowhere: else each flush fails anew, that of the exit included."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Speed:
    """How fast a run trains, over its last steps."""

    def __init__(self, started: RunStarted) -> None:
        self.started = started
        self.recent: deque[Step] = deque(maxlen=50)

    def add(self, step: Step) -> None:
        self.recent.append(step)

    def line(self) -> str:
        """The last step's figures, the rates of the last ones and the time left."""
        last, first = self.recent[-1], self.recent[0]
        parts = [f"loss {_number(last.loss, 4)}", f"lr {last.learning_rate:.2e}"]
        steps, seconds = last.step - first.step, last.seconds - first.seconds
        if steps and seconds > 0:
            flops = self.started.flops_per_step * steps / seconds
            left = timedelta(seconds=round((self.started.steps - last.step) * seconds / steps))
            parts += [
                f"{(last.tokens - first.tokens) / seconds:,.0f} tokens/s",
                f"{flops / 1e9:,.1f} GFLOP/s",
                f"{left} left",
            ]
        return "  ".join(parts)


def _number(value: float | None, digits: int) -> str:
    return "not finite" if value is None else f"{value:.{digits}f}"


def describe(event: Event) -> str:
    """What a line says of an event that is worth one; empty for the others."""
    match event:
        case RunStarted():
            begins = "training" if event.step == 0 else f"going on from step {event.step:,}"
            return f"{begins}: {event.parameters:,} parameters on {event.device['name']}"
        case Validation():
            return (
                f"step {event.step:,}: validation loss {_number(event.loss, 4)}, "
                f"{_number(event.bits_per_byte, 3)} bits per byte"
            )
        case Sample():
            return f"step {event.step:,} writes: {event.prompt}{event.text}"
        case Saved():
            return f"step {event.step:,}: saved {event.path}"
        case Notice():
            return f"note: {event.message}"
        case RunEnded(detail=""):
            return f"{event.reason} at step {event.step:,} after {timedelta(seconds=round(event.seconds))}"
        case Progress():
            of = f" of {event.total:,.0f}" if event.total else ""
            detail = f" ({event.detail})" if event.detail else ""
            return f"{event.stage}: {event.done:,.0f}{of} {event.unit}{detail}"
    return ""


class Display:
    """One line for what matters, and one every few seconds for what goes on.

    `lost`: what is done when nothing can be shown any more, instead of raising the OSError that says so; the
    display is silent from then on.
    """

    def __init__(self) -> None:
        self.lost: Callable[[], object] | None = None
        self._speed: Speed | None = None
        self._due = time.monotonic() + LINE_SECONDS

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was. May be called twice."""

    def say(self, line: str) -> None:
        """Show a line of text. Raises OSError where nobody reads it, unless `lost` says what to do then."""
        with self._reaching():
            self.print(line)

    def print(self, line: str) -> None:
        """Write a line of text to stdout."""
        print(line, flush=True)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        """A block that shows something."""
        try:
            yield
        except OSError as error:  # a pipe is broken, a terminal hung up, a disk full
            if self.lost is None:
                raise
            discard_output()
            lost, self.lost = self.lost, None
            with contextlib.suppress(OSError):
                reason = error.strerror or error
                print(f"trainer: nobody reads the output any more ({reason}): stopping", file=sys.stderr)
            lost()

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._speed = Speed(event)
        if isinstance(event, Step) and self._speed:
            self._speed.add(event)
            self.step(event, self._speed)
        elif isinstance(event, Progress):
            self.progress(event)
        elif line := describe(event):
            self.say(line)

    def step(self, event: Step, speed: Speed) -> None:
        """Show how training goes."""
        if self._is_due() or event.step == speed.started.steps:
            self.say(f"step {event.step:,}/{speed.started.steps:,}  {speed.line()}")

    def progress(self, event: Progress) -> None:
        """Show how a stage goes."""
        if self._is_due() or 0 < event.total <= event.done:
            self.say(describe(event))

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + LINE_SECONDS
        return True


class LiveDisplay(Display):
    """One bar for the stage under way, through rich; lines scroll by above it."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        super().__init__()
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        self._task: Any = None
        self._stage = ""
        self._bars.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a terminal that is gone needs nothing
            self._bars.stop()

    def print(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def step(self, event: Step, speed: Speed) -> None:
        self._show("train", event.step, speed.started.steps, f"{event.step:,}  {speed.line()}")

    def progress(self, event: Progress) -> None:
        self._show(event.stage, event.done, event.total, f"{event.done:,.0f} {event.unit}  {event.detail}")

    def _show(self, stage: str, done: float, total: float, note: str) -> None:
        with self._reaching():
            if stage != self._stage:
                if self._task is not None:
                    self._bars.remove_task(self._task)
                self._stage = stage
                self._task = self._bars.add_task(stage, note=note)
            self._bars.update(self._task, completed=done, total=total or None, note=note)
