"""How a session listens: commands and replies, and the tasks that are under way."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from demo import protocol, trouble
from demo.material import Material
from demo.shelf import Shelf
from demo.shipped import Download
from demo.store import Locks, RunStore
from demo.training import Training
from demo.writing import Model
from trainer.benchmarks import Paradigm
from trainer.cache import Cache
from trainer.devices import Device
from trainer.errors import ConfigError
from trainer.events import Event, to_json
from trainer.gutenberg import Fetch, Retry

AUTOSAVE = 30.0  # seconds between two saves of a run under way
FIRST_SAVE = 2.0  # seconds before the first one: a reload has something to offer from then on

Message = dict[str, Any]


async def nothing() -> None:
    """What a host does that has nothing to prepare."""


class SessionBase:
    """One page's worker. `receive` takes its messages."""

    def __init__(
        self,
        *,
        open_device: Callable[[], Awaitable[Device]],
        store: RunStore,
        locks: Locks,
        post: Callable[[Message], None],
        fetch: Fetch | None = None,
        cache: Cache | None = None,
        download: Download | None = None,
        models: Cache | None = None,
        measured: Cache | None = None,
        base: str | None = None,
        retry: Retry | None = None,
        prepare_books: Callable[[], Awaitable[None]] = nothing,
        read_pairs: Callable[[], Awaitable[Sequence[Paradigm]]] | None = None,
        autosave: float = AUTOSAVE,
    ) -> None:
        self.open_device = open_device
        self.store = store
        self.locks = locks
        self.shelf = Shelf(store, locks)
        self.post = post
        self.fetching: dict[str, Any] = {"fetch": fetch, "cache": cache, "base": base, "retry": retry}
        self.download, self.models = download, models
        self.measured = measured  # kernels: see trainer/answers.py
        self.prepare_books = prepare_books
        self.read_pairs = read_pairs
        self.autosave = autosave
        self.material: Material | None = None
        self.training: Training | None = None
        self.model: Model | None = None  # a run that was opened and is not being trained
        self.losses = 0  # of the device
        self._owned = ""  # the run that this tab may train
        self._device: Device | None = None
        self._opening = asyncio.Lock()
        self._tuning: asyncio.Task[Any] | None = None
        self._job: asyncio.Task[Any] | None = None
        self._beginning: asyncio.Task[Any] | None = None  # of a run, up to its first step
        self._writing: asyncio.Task[Any] | None = None
        self._stop_writing = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def receive(self, message: Message) -> None:
        """Obey a command and post its reply."""
        name = message.get("command", "")
        try:
            if name not in protocol.COMMANDS:
                raise ConfigError(f"unknown command {name!r}", "reload the page")
            fields = {field: message.get(field) for field in protocol.COMMANDS[name]}
            result = await getattr(self, f"do_{name}")(**fields)
            self.post({"reply": message.get("id"), "result": result or {}})
        except asyncio.CancelledError:
            self.post({"reply": message.get("id"), "error": trouble.stopped().fields()})
        except Exception as error:
            told = trouble.of(error, traceback.format_exc())
            self.post({"reply": message.get("id"), "error": told.fields()})

    def hear(self, event: Event) -> None:
        """Passes an event of the trainer on to the page."""
        self.post(to_json(event))

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin a task, and keep it from being forgotten while it runs."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _alone(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do a stage's work; the stage before, if it is still at it, is ended first."""
        await self._end_job()
        task = self._job = self._start(work)
        return await task

    async def _end_job(self) -> None:
        await _end(lambda: self._job)

    async def _end_beginning(self) -> None:
        await _end(lambda: self._beginning)

    async def close(self) -> None:
        """End everything; what was not saved is lost."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def do_stop_generating(self) -> Message:
        while self._writing and not self._writing.done():
            self._stop_writing.set()
            await asyncio.wait([self._writing])
        return {}


async def _end(latest: Callable[[], asyncio.Task[Any] | None]) -> None:
    """Cancel a task, and whatever has taken its place when it is over."""
    while (task := latest()) and not task.done():
        task.cancel()
        await asyncio.wait([task])
