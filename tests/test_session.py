"""The worker's session, natively: the whole life of a run, and what the reader may do at any moment of it."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from page_session import QUICK, SMALL, STEPS, STORY, TEXT, VOCAB, Page, Refused

from demo.device import DeviceLost
from demo.store import MemoryFiles, MemoryLocks
from trainer.cli import main
from trainer.corpus import bundled
from trainer.devices import Device
from trainer.gutenberg import Response, Retry, manifest
from trainer.report import validate
from trainer.tokenizer import Tokenizer


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


def test_whole_life_of_a_session(native: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> tuple[Page, list[float], bytes]:
        page = Page(native)
        booted = await page.send("boot", base="", manifest="")
        assert booted["device"]["name"]
        assert not booted["problem"]
        loaded = await page.send("load", sources=[TEXT])
        assert [d["split"] for d in loaded["documents"]] == ["both"]
        assert loaded["preview"].startswith(STORY[:100])
        assert (await page.send("preview", index=0))["text"] == loaded["preview"]
        assert (await page.send("train_tokenizer", vocab=VOCAB))["vocab"] == VOCAB
        merges = page.heard("merge")
        assert merges[-1]["count"] == merges[-1]["total"] == VOCAB - 257
        assert 1 < merges[-1]["bytes_per_token"] < 3
        tried = await page.send("try_tokenizer", text="the café")
        assert "".join(token["text"] for token in tried["tokens"]).startswith("the caf")
        tokens = await page.send("tokenize")
        assert tokens["bytes_per_token"] == pytest.approx(merges[-1]["bytes_per_token"], rel=0.1)
        assert 3 < tokens["unigram_entropy"] < 6
        budget = await page.send("estimate", model=SMALL, train=QUICK)
        assert budget["total_tokens"] == STEPS * 4 * 16
        refused = await page.send("estimate", model={**SMALL, "width": 17}, train=QUICK)
        assert "multiple" in refused["error"]
        assert (await page.send("measure"))["gflops"] > 0

        run = await page.train()
        await page.until("step", step=3)
        paused = await page.send("pause")
        steps = len(page.heard("step"))
        assert paused["step"] == steps < STEPS
        assert page.heard("saved")[-1]["step"] == steps
        written = await page.send("generate", prompt="Alice", config={"tokens": 8, "temperature": 0})
        assert written == {"count": 8, "stopped": False}
        assert len(page.heard("step")) == steps, "it was paused, and stays so"
        await page.send("resume")
        await page.until("step", step=steps + 1)
        stopped = await page.send("stop")
        assert page.heard("run_ended")[-1]["reason"] == "stopped"
        result = await page.send("evaluate")
        assert validate(result).text is not None
        exported = await page.send("export_run", run=run)
        assert exported["name"].endswith(".zip")

        other = Page(native)
        imported = await other.send("import_run", zip=exported["zip"])
        opened = await other.send("open_run", run=imported["run"])
        assert (opened["step"], opened["steps"]) == (stopped["step"], STEPS)
        assert opened["report"] == result
        assert [e for e in opened["events"] if e["event"] == "step"][-1]["step"] == stopped["step"]
        again = await other.send("generate", prompt="Alice", config={"tokens": 8, "temperature": 0})
        assert again == written
        other.events[:0] = [e for e in opened["events"] if e["event"] == "step"]
        await other.train(imported["run"])
        await other.until("run_ended", reason="finished")
        await page.close()
        await other.close()
        return other, await uninterrupted(native), exported["zip"]

    other, whole, packed = asyncio.run(life())
    assert losses_of(other) == whole
    zipfile.ZipFile(io.BytesIO(packed)).extractall(tmp_path)
    (folder,) = tmp_path.iterdir()
    monkeypatch.chdir(folder)  # where the export's documents.jsonl is
    assert main(["eval", ".", "--out", "native.json"]) == 0
    report, native_report = (json.loads(Path(n).read_text()) for n in ("report.json", "native.json"))
    assert native_report["text"]["bits_per_byte"] == pytest.approx(report["text"]["bits_per_byte"], rel=1e-6)
    assert main(["train", "--resume", "."]) == 0
    log = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert [event["loss"] for event in log if event["event"] == "step"] == whole


def test_pause_resume_and_generate_while_training_change_nothing(native: Device) -> None:
    async def restless() -> list[float]:
        page = Page(native, autosave=0.05)
        await page.prepare()
        await page.train()
        for step in (2, 6, 10):
            await page.until("step", step=step)
            await page.send("generate", prompt="She", config={"tokens": 3})
            await asyncio.gather(page.send("pause"), page.send("save"))
            await asyncio.gather(page.send("resume"), page.send("generate", prompt="x", config={"tokens": 2}))
        await page.until("run_ended", reason="finished")
        await page.close()
        return losses_of(page)

    assert asyncio.run(restless()) == asyncio.run(uninterrupted(native))


def test_reload_continues_from_the_last_save_to_the_bit(native: Device) -> None:
    async def reload() -> tuple[list[float], list[float]]:
        page = Page(native)
        await page.prepare()
        run = await page.train()
        await page.until("step", step=5)
        saved = (await page.send("save"))["step"]
        await page.until("step", step=saved + 2)
        await page.close()  # as when the tab is closed: later steps are lost, and repeated
        back = Page(native, page.files)
        (listed,) = (await back.send("runs"))["runs"]
        assert (listed["run"], listed["step"], listed["steps"]) == (run, saved, STEPS)
        assert listed["title"] == "A story, nano"
        opened = await back.send("open_run", run=run)
        assert opened["documents"][0]["title"] == "A story"
        assert opened["tokens"]["train_tokens"] > 1000
        back.events += [event for event in opened["events"] if event["event"] == "step"]
        assert len(back.events) == saved
        await back.train(run)
        await back.until("run_ended", reason="finished")
        await back.close()
        return losses_of(back), await uninterrupted(native)

    parts, whole = asyncio.run(reload())
    assert parts == whole


def test_a_run_is_saved_soon_after_it_has_begun(native: Device) -> None:
    async def begin() -> None:
        page = Page(native)
        await page.prepare()
        run = await page.train(steps=20_000, eval_every=0, sample_every=0)
        saved = (await page.until("saved"))["step"]
        assert page.heard("run_ended") == []
        assert page.heard("step")[-1]["seconds"] < 10
        await page.close()
        (listed,) = (await Page(native, page.files).send("runs"))["runs"]
        assert (listed["run"], listed["step"]) == (run, saved)

    asyncio.run(begin())


def test_trains_longer_after_the_end(native: Device) -> None:
    async def longer() -> Page:
        page = Page(native)
        await page.prepare()
        run = await page.train(steps=4)
        await page.until("run_ended", reason="finished")
        await page.train(run, steps=7)
        await page.until("step", step=7)
        await page.until("saved", step=7)
        await page.close()
        return page

    assert sorted(asyncio.run(longer()).losses) == list(range(1, 8))


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


@pytest.mark.parametrize("command", ["train_tokenizer", "tokenize", "evaluate"])
def test_stop_ends_a_stage_and_leaves_what_was_there(native: Device, command: str) -> None:
    async def stop() -> None:
        page = Page(native)
        await page.prepare({**TEXT, "text": 4 * STORY})
        await page.train(steps=1, warmup=0)
        await page.until("run_ended", reason="finished")
        fields = {"vocab": 4000} if command == "train_tokenizer" else {}
        before = page.session._job
        working = page.sending(command, **fields)
        while page.session._job is before:
            await asyncio.sleep(0)
        await page.send("stop")
        with pytest.raises(Refused) as refused:
            await working
        assert refused.value.fields["kind"] == "stopped"
        assert page.session.material is not None
        assert page.session.material.tokenizer is not None
        assert page.session.material.tokenizer.vocab_size == VOCAB
        await page.send("generate", prompt="", config={"tokens": 2})
        await page.close()

    asyncio.run(stop())


def test_generation_stops_and_training_goes_on(native: Device) -> None:
    async def stop() -> None:
        page = Page(native)
        await page.prepare()
        await page.train(steps=400)
        await page.until("step", step=2)
        writing = page.sending("generate", prompt="One", config={"tokens": 100_000})
        await page.until("token")
        await page.send("stop_generating")
        assert (await writing)["stopped"]
        await page.until("run_ended", reason="finished")
        await page.close()

    asyncio.run(stop())


def test_tokenizer_and_tokens_are_those_of_the_trainer(native: Device) -> None:
    async def prepare() -> Page:
        page = Page(native)
        await page.prepare({**TEXT, "text": STORY}, vocab=600)
        return page

    text = asyncio.run(prepare()).session.material
    assert text is not None
    assert text.tokenizer is not None
    assert text.dataset is not None
    halves = [[document.text for document in half] for half in (text.training, text.validation)]
    expected = Tokenizer.train(halves[0], 600)
    assert text.tokenizer.to_json() == expected.to_json()
    assert text.dataset.train == expected.encode_documents(halves[0])
    assert text.dataset.validation == expected.encode_documents(halves[1])


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


def test_runs_are_renamed_and_deleted(native: Device) -> None:
    async def tidy() -> None:
        page = Page(native)
        await page.prepare()
        run = await page.train(steps=3)
        await page.until("saved", step=3)
        await page.send("rename_run", run=run, title="  <b>Mine</b> ")
        assert (await page.send("runs"))["runs"][0]["title"] == "<b>Mine</b>"
        exported = await page.send("export_run", run=run)
        assert exported["name"] == "b-mine-b.zip"
        await page.send("delete_run", run=run)
        assert (await page.send("runs"))["runs"] == []
        assert not [path for path in page.files.content if run in path]
        back = await page.send("import_run", zip=exported["zip"])
        assert back["title"] == "<b>Mine</b>"
        await page.close()

    asyncio.run(tidy())


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
