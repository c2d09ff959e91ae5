"""Telemetry: one typed stream of events from everything that takes time.

The CLI's progress bars, the JSONL log, the page's charts and the recorded runs that the site replays are
readers of the same events. A reader is a function that takes an event; `Stream` calls them in order.

    stream = Stream(print)
    stream(Step(step=1, loss=6.9, ...))
    to_json(event)  ->  {"event": "step", "step": 1, "loss": 6.9, ...}
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from trainer.errors import ConfigError


@dataclass(frozen=True)
class Event:
    """Base of all events; `kind` is its name in JSON."""

    kind: ClassVar[str] = ""


@dataclass(frozen=True)
class Progress(Event):
    """How far a stage is. `stage` is fetch, train-tokenizer, tokenize, evaluate, ..."""

    kind: ClassVar[str] = "progress"
    stage: str
    done: float
    total: float
    unit: str
    detail: str = ""


@dataclass(frozen=True)
class RunStarted(Event):
    """A run begins or, when `step` is above 0, continues."""

    kind: ClassVar[str] = "run_started"
    step: int
    steps: int
    parameters: int
    tokens_per_step: int
    flops_per_step: float
    model: dict[str, Any]
    train: dict[str, Any]
    device: dict[str, Any]
    train_tokens: int
    validation_tokens: int
    version: str
    time: float  # seconds since 1970


@dataclass(frozen=True)
class Step(Event):
    """One optimiser step, read from the GPU's ring buffer. Loss in nats a token, before the update."""

    kind: ClassVar[str] = "step"
    step: int  # 1 is the first
    loss: float | None  # None where it is not finite
    learning_rate: float
    gradient_norm: float | None
    skipped: bool  # the step was not finite, and changed nothing
    tokens: int  # seen so far in this run
    seconds: float  # of training so far in this run, pauses left out


@dataclass(frozen=True)
class Validation(Event):
    """Mean loss on fixed validation windows, in nats a token."""

    kind: ClassVar[str] = "validation"
    step: int
    loss: float | None  # None where it is not finite
    bits_per_byte: float | None


@dataclass(frozen=True)
class Sample(Event):
    """Text that the model wrote at this step."""

    kind: ClassVar[str] = "sample"
    step: int
    prompt: str
    text: str


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint was written."""

    kind: ClassVar[str] = "saved"
    step: int
    path: str


@dataclass(frozen=True)
class Notice(Event):
    """Something the user should know, in one line."""

    kind: ClassVar[str] = "notice"
    message: str


@dataclass(frozen=True)
class RunEnded(Event):
    """The run is over: `reason` is finished, stopped or failed."""

    kind: ClassVar[str] = "run_ended"
    step: int
    reason: str
    seconds: float
    detail: str = ""


EVENTS: dict[str, type[Event]] = {
    cls.kind: cls for cls in (Progress, RunStarted, Step, Validation, Sample, Saved, Notice, RunEnded)
}

Reader = Callable[[Event], None]


def json_lines(text: str) -> list[str]:
    """The lines of a log, or of another file of JSON lines. `str.splitlines` splits at U+2028, too, which may
    stand within JSON.
    """
    return [line for line in text.split("\n") if line]


class Stream:
    """Hands each event to every reader, in the order in which they subscribed."""

    def __init__(self, *readers: Reader) -> None:
        self.readers = list(readers)

    def __call__(self, event: Event) -> None:
        for reader in self.readers:
            reader(event)


class Pacer:
    """Hands Progress events of a stage to a reader, if there is one, a few times a second."""

    INTERVAL = 0.2  # seconds

    def __init__(self, reader: Reader | None, stage: str, unit: str, total: float = 0) -> None:
        self._reader = reader
        self._stage = stage
        self._unit = unit
        self._total = total
        self._due = 0.0

    def __call__(self, done: float, detail: str = "") -> None:
        """`done` units are: said if the last time is long enough ago, and there are more to come."""
        if 0 < self._total <= done:
            return  # `last` says it
        if self._reader and (now := time.monotonic()) >= self._due:
            self._due = now + self.INTERVAL
            self._reader(Progress(self._stage, done, self._total, self._unit, detail))

    def last(self, done: float, detail: str = "") -> None:
        """The stage's last event, which is never left out."""
        if self._reader:
            self._reader(Progress(self._stage, done, self._total, self._unit, detail))


def to_json(event: Event) -> dict[str, Any]:
    """`event` as plain JSON data, with its kind under `event`."""
    return {"event": event.kind, **asdict(event)}


def finite(value: float) -> float | None:
    """`value`, or None where it is infinite or not a number: JSON has no word for these."""
    return value if math.isfinite(value) else None


def from_json(data: dict[str, Any]) -> Event:
    """The event that `to_json` made `data` of. Raises ConfigError for an unknown kind or field."""
    cls = EVENTS.get(data.get("event", ""))
    if cls is None:
        raise ConfigError(f"unknown event {data.get('event')!r}", f"one of {', '.join(EVENTS)} was expected")
    names = {f.name for f in fields(cls)}
    values = {name: value for name, value in data.items() if name != "event"}
    if set(values) - names:
        raise ConfigError(
            f"event {cls.kind} has no field {min(set(values) - names)!r}",
            "was it written by another version?",
        )
    return cls(**values)
