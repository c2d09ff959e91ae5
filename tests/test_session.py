"""The worker's session, natively: the whole life of a run, and what the reader may do at any moment of it."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from pathlib import Path

import pytest
from page_session import QUICK, SMALL, STEPS, STORY, TEXT, VOCAB, Page, Refused, losses_of, uninterrupted

from trainer.cli import main
from trainer.devices import Device
from trainer.report import validate
from trainer.tokenizer import Tokenizer


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


def test_a_line_separator_in_what_was_written_does_not_break_the_log(native: Device) -> None:
    async def reopen() -> list[str]:
        page = Page(native)
        await page.prepare()
        run = await page.train(steps=3, sample_prompt="one\u2028two\x85three")
        await page.until("saved", step=3)
        await page.close()
        again = Page(native, page.files)
        opened = await again.send("open_run", run=run)
        await again.close()
        return [event["prompt"] for event in opened["events"] if event["event"] == "sample"]

    assert asyncio.run(reopen()) == ["one\u2028two\x85three"]


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
