"""What can go wrong in the worker's session: it is told in words, and the run goes on from what is safe."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Awaitable
from typing import Any

import pytest
from page_session import STEPS, TEXT, Page, Refused, losses_of, uninterrupted

from demo.device import DeviceLost
from demo.store import MemoryFiles, MemoryLocks
from trainer.corpus import bundled
from trainer.devices import Device
from trainer.gutenberg import Response, Retry, manifest


class Losable:
    """A device that can be lost, as the browser's can."""

    def __init__(self, device: Device) -> None:
        self.device, self.info = device, device.info
        self.gone = False
        self._lost = asyncio.Event()

    def lose(self) -> None:
        self.gone = True
        self._lost.set()

    async def lost(self) -> DeviceLost:
        await self._lost.wait()
        return DeviceLost("the GPU was lost", "it was reset")

    async def compile(self, plan: Any, on_event: Any = None, programs: Any = None) -> Any:
        return LosableExecutable(self, await self.device.compile(plan, on_event, programs))


class LosableExecutable:
    def __init__(self, device: Losable, executable: Any) -> None:
        self.device, self.executable, self.plan = device, executable, executable.plan

    def __getattr__(self, name: str) -> Any:
        if self.device.gone and name != "close":
            raise DeviceLost("the GPU was lost", "it was reset")
        return getattr(self.executable, name)


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("saved", [False, True])
def test_lost_device_is_told_and_the_run_goes_on_to_the_bit(
    native: Device, paused: bool, saved: bool
) -> None:
    async def lose() -> tuple[list[float], list[float], list[dict[str, Any]]]:
        devices: list[Losable] = []

        def open_device() -> Any:
            devices.append(Losable(native))
            return devices[-1]

        page = Page(open_device)
        await page.prepare()
        run = await page.train()
        for step in (4, 8):
            await page.until("step", step=step)
            if paused:
                await page.send("pause")
            elif saved:
                await page.send("save")
            devices[-1].lose()
            await page.until("trouble", kind="lost" if step == 4 else "lost_again")
            await page.train(run)
        await page.until("run_ended", reason="finished")
        await page.close()
        return losses_of(page), await uninterrupted(native), page.heard("trouble")

    parts, whole, troubles = asyncio.run(lose())
    assert parts == whole
    first, second = troubles
    assert first["title"].startswith("The GPU stopped at step ")
    assert "The run is safe up to step" in first["note"]
    assert (second["title"], second["note"]) == (
        "The GPU stopped again",
        "A smaller batch is easier on it.",
    )


def test_full_storage_is_told_once_and_training_goes_on(native: Device) -> None:
    async def full() -> Page:
        page = Page(native, MemoryFiles(quota=50_000), autosave=0.02)
        await page.prepare()
        run = await page.train()
        await page.until("run_ended", reason="finished")
        await page.send("save")
        assert (await page.send("runs"))["runs"] == []
        exported = await page.send("export_run", run=run)
        assert zipfile.ZipFile(io.BytesIO(exported["zip"])).testzip() is None
        page.files.quota = 10_000_000
        await page.send("save")
        assert (await page.send("runs"))["runs"][0]["step"] == STEPS
        await page.close()
        return page

    (told,) = asyncio.run(full()).heard("trouble")
    assert told["title"] == "Storage is full: not saving"
    assert told["note"].startswith("Training goes on. A save needs ")


class Moody(MemoryFiles):
    """Files whose first answer about room is an error that nobody foresaw."""

    asked = 0

    async def room(self) -> tuple[int, int]:
        self.asked += 1
        if self.asked == 1:
            raise RuntimeError("not now")
        return await super().room()


def test_a_save_that_fails_is_told_and_the_next_one_is_made(native: Device) -> None:
    async def fail() -> Page:
        page = Page(native, Moody(), autosave=0.02)
        await page.prepare()
        await page.train(steps=400)
        await page.until("saved")
        await page.send("stop")
        await page.close()
        return page

    (told,) = asyncio.run(fail()).heard("trouble")
    assert "RuntimeError: not now" in told["note"] + told["details"]


def test_loss_that_stops_being_a_number_stops_the_run(native: Device) -> None:
    async def diverge() -> Page:
        page = Page(native)
        await page.prepare()
        run = await page.train(steps=60, learning_rate=1e30, clip=1e30, eval_every=0, sample_every=0)
        told = await page.until("trouble")
        assert told["kind"] == "not_finite"
        assert told["note"] == "10 steps in a row were skipped. Try half the learning rate."
        assert all(event["loss"] is None or event["loss"] < 1e30 for event in page.heard("step"))
        assert run
        await page.close()
        return page

    assert asyncio.run(diverge()).heard("run_ended")[-1]["reason"] == "stopped"


def test_another_tab_owns_the_run_until_it_is_taken_over(native: Device) -> None:
    async def two() -> None:
        files, locks = MemoryFiles(), MemoryLocks()
        first, second = Page(native, files, locks), Page(native, files, locks)
        await first.prepare()
        run = await first.train(steps=400)
        await first.until("step", step=2)
        await first.send("save")
        await second.send("open_run", run=run)
        with pytest.raises(Refused, match="This run is open in another tab"):
            await second.train(run)
        with pytest.raises(Refused, match="another tab"):
            await second.send("delete_run", run=run)
        await first.until("step", step=8)
        saved = (await first.send("pause"))["step"]
        seen = [e for e in (await second.send("look_on", run=run))["events"] if e["event"] == "step"]
        assert {event["step"]: event["loss"] for event in seen}.items() <= first.losses.items()
        assert [event["step"] for event in seen] == list(range(1, saved + 1))
        await second.send("take_over", run=run)
        await first.until("trouble", kind="other_tab")
        last = saved + 3
        assert await second.send("train", model=None, train={"steps": last}, run=run) == {
            "run": run,
            "step": saved,
        }
        await second.until("saved", step=last)
        await first.send("save")
        assert (await second.send("runs"))["runs"][0]["step"] == last
        await first.close()
        await second.close()

    asyncio.run(two())


def test_too_little_text_and_other_bad_input_are_refused_in_words(native: Device) -> None:
    async def refused(work: Awaitable[Any]) -> str:
        with pytest.raises(Refused) as error:
            await work
        fields = error.value.fields
        return f"{fields['title']} / {fields['note']}"

    async def bad() -> None:
        page = Page(native)
        short = {**TEXT, "text": "x" * 3000}
        assert await refused(page.send("load", sources=[short])) == (
            "Too little text to train on / 3 KB given; 20 KB are needed."
        )
        assert "unknown kind" in await refused(page.send("load", sources=[{"kind": "moon"}]))
        assert "no text yet" in await refused(page.send("train_tokenizer", vocab=300))
        assert "no model yet" in await refused(page.send("generate", prompt="x", config=None))
        assert "unknown command" in await refused(page.send("dance"))
        await page.prepare({**TEXT, "title": "<img src=x onerror=alert(1)>"})
        assert "preset" in await refused(page.send("train", model={"preset": "vast"}, train=None, run=None))
        assert "give a whole number" in await refused(page.train(steps=2.5))
        assert "no run" in await refused(page.train("nowhere"))
        assert "no whole zip" in await refused(page.send("import_run", zip=b"PK\x03\x04"))

    asyncio.run(bad())


def test_books_that_do_not_arrive_are_told_and_the_rest_is_used(native: Device) -> None:
    oz, alice, treasure = manifest()[55], manifest()[11], manifest()[120]

    async def fetch(url: str) -> Response:
        name = url.rpartition("/")[2]
        if oz.repo in url:
            path = bundled() / oz.repo / name
            return Response(200, {}, path.read_bytes()) if path.is_file() else Response(404, {}, b"")
        if alice.repo in url:
            return Response(429, {"retry-after": "12"}, b"")
        size = next(file.bytes for file in treasure.files if file.name == name)
        return Response(200, {}, b"x" * (size or 1))

    class Nothing:
        async def get(self, key: str) -> None: ...
        async def put(self, key: str, entry: bytes) -> None: ...

    async def load() -> Page:
        async def no_sleep(seconds: float) -> None: ...

        page = Page(native, fetch=fetch, cache=Nothing(), retry=Retry(attempts=2, sleep=no_sleep))
        assert len((await page.send("library"))["books"]) >= 40
        sources = [{"kind": "gutenberg", "name": str(book.id)} for book in (oz, alice, treasure)]
        loaded = await page.send("load", sources=sources)
        assert [d["title"] for d in loaded["documents"]] == [oz.title]
        assert [entry["name"] for entry in loaded["failed"]] == ["11", "120"]
        return page

    told = {event["kind"]: event for event in asyncio.run(load()).heard("trouble")}
    assert told["network"]["title"] == "1 of 3 books did not arrive"
    assert told["network"]["note"] == "GitHub asks us to slow down (429)."
    assert told["network"]["retry"] == 12
    assert told["hash"]["title"] == f"“{treasure.title}” is not what it should be"
    assert told["hash"]["retry"] is None
