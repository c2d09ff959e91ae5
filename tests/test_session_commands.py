"""Commands of the page that come while the worker is still at another: the last one wins."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from page_session import QUICK, SMALL, TEXT, Page, Refused

from trainer.devices import Device

BOOKS = {"kind": "books"}
TRAIN = {"model": SMALL, "train": QUICK, "run": None}


class Hesitant:
    """A device that compiles nothing until `go` is set, as a browser may for seconds."""

    def __init__(self, device: Device) -> None:
        self.device, self.info = device, device.info
        self.compiling, self.go = asyncio.Event(), asyncio.Event()

    async def compile(self, plan: Any, on_event: Any = None, programs: Any = None) -> Any:
        self.compiling.set()
        await self.go.wait()
        return await self.device.compile(plan, on_event, programs)


async def compiling(native: Device) -> tuple[Page, Hesitant, asyncio.Task[Any]]:
    """A page, its device, and a run whose kernels are still compiled."""
    device = Hesitant(native)
    page = Page(device)
    await page.prepare()
    beginning = page.sending("train", **TRAIN)
    await device.compiling.wait()
    return page, device, beginning


async def stopped(command: asyncio.Task[Any]) -> None:
    with pytest.raises(Refused) as refused:
        await command
    assert refused.value.fields["kind"] == "stopped"


def test_stop_ends_a_run_whose_kernels_are_still_compiled(native: Device) -> None:
    async def stop() -> Page:
        page, device, beginning = await compiling(native)
        assert await page.send("stop") == {"step": None}
        await stopped(beginning)
        device.go.set()
        await page.train()
        await page.until("run_ended", reason="finished")
        await page.close()
        return page

    page = asyncio.run(stop())
    assert len(page.heard("run_started")) == 1
    assert [event["step"] for event in page.heard("step")] == list(range(1, QUICK["steps"] + 1))


def test_a_run_that_is_begun_while_another_is_takes_its_place(native: Device) -> None:
    async def begin() -> Page:
        page, device, first = await compiling(native)
        second = page.sending("train", **TRAIN)
        await stopped(first)
        device.go.set()
        await second
        await page.until("run_ended", reason="finished")
        await page.close()
        return page

    assert len(asyncio.run(begin()).heard("run_started")) == 1


def test_the_last_of_several_texts_is_loaded(native: Device) -> None:
    async def load() -> list[str]:
        gate = asyncio.Event()
        page = Page(native, prepare_books=gate.wait)
        books = [page.sending("load", sources=[BOOKS]) for _ in range(2)]
        await page.sending("load", sources=[TEXT])
        gate.set()
        for loading in books:
            await stopped(loading)
        assert page.session.material
        return [document.title for document in page.session.material.documents]

    assert asyncio.run(load()) == [TEXT["title"]]


def test_one_writer_writes_at_a_time(native: Device) -> None:
    async def write() -> tuple[list[dict[str, Any]], int]:
        page = Page(native)
        await page.prepare()
        await page.train(steps=1, warmup=0)
        await page.until("run_ended", reason="finished")
        page.events.clear()
        config = {"tokens": 40, "temperature": 0}
        writing = [page.sending("generate", prompt="One", config=config) for _ in range(3)]
        written = await asyncio.gather(*writing)
        await page.close()
        return written, len(page.heard("token"))

    written, tokens = asyncio.run(write())
    assert [reply["stopped"] for reply in written] == [True, True, False]
    assert written[-1]["count"] == 40
    assert tokens == sum(reply["count"] for reply in written)
