"""A page for the tests of its session: sends commands, and collects what comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from demo.device import DeviceLost
from demo.session import Session
from demo.store import MemoryFiles, MemoryLocks, RunStore
from trainer.corpus import read_bundled
from trainer.devices import Device

STORY = next(book.text for book in read_bundled() if "Alice" in book.title)
TEXT = {"kind": "text", "title": "A story", "text": STORY[:40_000]}
VOCAB = 300
SMALL = {"preset": "nano", "layers": 1, "width": 16, "heads": 2, "context": 16}
STEPS = 60
QUICK = {
    "steps": STEPS,
    "batch": 4,
    "warmup": 2,
    "eval_every": 10,
    "eval_batches": 2,
    "sample_every": 10,
    "sample_tokens": 4,
    "log_every": 3,
}


class Refused(Exception):
    """A command was answered with an error."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(f"{fields['title']}: {fields['note']}\n{fields['details']}")
        self.fields = fields


class Page:
    """One tab, with a session of its own."""

    def __init__(
        self,
        device: Device | Callable[[], Device],
        files: MemoryFiles | None = None,
        locks: MemoryLocks | None = None,
        **options: Any,
    ) -> None:
        async def open_device() -> Device:
            return device() if callable(device) else device

        self.events: list[dict[str, Any]] = []
        self.files = files or MemoryFiles()
        self.replies: dict[int, Any] = {}
        self.number = 0
        self.watch: Callable[[dict[str, Any]], None] = lambda event: None
        self.session = Session(
            open_device=open_device,
            store=RunStore(self.files),
            locks=locks or MemoryLocks(),
            post=self.hear,
            **options,
        )

    def hear(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self.events.append(message)
            self.watch(message)
        else:
            self.replies[message["reply"]] = message

    async def send(self, command: str, **fields: Any) -> dict[str, Any]:
        """The result of a command. Raises Refused."""
        self.number += 1
        number = self.number
        await self.session.receive({"id": number, "command": command, **fields})
        reply = self.replies.pop(number)
        if "error" in reply:
            raise Refused(reply["error"])
        return reply["result"]

    def sending(self, command: str, **fields: Any) -> asyncio.Task[dict[str, Any]]:
        """The same, begun and not waited for."""
        return asyncio.create_task(self.send(command, **fields))

    async def until(self, kind: str, /, **fields: Any) -> dict[str, Any]:
        """The first event of a kind with these fields that is there, or that comes within a minute."""
        async with asyncio.timeout(60):
            while True:
                for event in self.events:
                    if event["event"] == kind and all(
                        event.get(name) == value for name, value in fields.items()
                    ):
                        return event
                await asyncio.sleep(0.01)

    def heard(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    async def close(self) -> None:
        """As when the tab is closed; what the device still has to do ends before the event loop does."""
        await self.session.close()
        run = self.session.training
        if run and not run.lost:
            with contextlib.suppress(DeviceLost):
                await run.trainer.runtime.executable.finish()

    @property
    def losses(self) -> dict[int, float]:
        """By step; a step that was repeated must have had the same loss."""
        found: dict[int, float] = {}
        for event in self.heard("step"):
            assert found.setdefault(event["step"], event["loss"]) == event["loss"], event
        return found

    async def prepare(self, source: dict[str, Any] = TEXT, vocab: int = VOCAB) -> None:
        """From text to tokens."""
        await self.send("load", sources=[source])
        await self.send("train_tokenizer", vocab=vocab)
        await self.send("tokenize")

    async def train(self, run: str | None = None, **changes: Any) -> str:
        """Begin or continue a run; its name."""
        train = changes if run else {**QUICK, **changes}
        return (await self.send("train", model=None if run else SMALL, train=train, run=run))["run"]


def losses_of(page: Page) -> list[float]:
    return [page.losses[step] for step in sorted(page.losses)]


async def uninterrupted(device: Device, **changes: Any) -> list[float]:
    """The losses of the run that the others are held against."""
    page = Page(device)
    await page.prepare()
    await page.train(**changes)
    await page.until("run_ended", reason="finished")
    await page.close()
    return losses_of(page)
