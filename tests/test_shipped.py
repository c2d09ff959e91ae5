"""Models that come with the site: made by the command, opened in a session, written with, evaluated, gone on
from with another text.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from page_session import QUICK, SMALL, STEPS, STORY, VOCAB, Page, Refused
from shipped_model import NAME, SAMPLES, SHARD, TEXT, TITLE, index, shipped

from demo.store import MemoryFiles
from trainer.checkpoint import load
from trainer.devices import Device
from trainer.gutenberg import Response

pytest_plugins = ("shipped_model",)

ADDRESS = "http://127.0.0.1/some/where/checkpoints/"
OTHER = {"kind": "text", "title": "Another story", "text": STORY[60_000:100_000]}
WRITE = {"tokens": 12, "temperature": 0}
FURTHER = {**QUICK, "steps": 20, "learning_rate": 3e-4}


class Server:
    """Downloads from a folder, and the cache before it; `answers` replaces what a file's name gets."""

    def __init__(self, model: Path) -> None:
        self.folder = model / "site"
        self.asked: list[str] = []
        self.kept: dict[str, bytes] = {}
        self.answers: dict[str, Callable[[bytes], Awaitable[Response]]] = {}

    async def download(self, url: str, on_bytes: Callable[[int], None]) -> Response:
        name = urlsplit(url).path.removeprefix("/some/where/")
        self.asked.append(name.rpartition("/")[2])
        body = (self.folder / name).read_bytes()
        on_bytes(len(body) // 2)
        await asyncio.sleep(0)
        answer = self.answers.get(self.asked[-1])
        return await answer(body) if answer else Response(200, {}, body)

    async def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    async def put(self, key: str, entry: bytes) -> None:
        self.kept[key] = entry

    def page(self, native: Device, files: MemoryFiles | None = None) -> Page:
        return Page(native, files, download=self.download, models=self)


async def opened(page: Page, model: Path) -> dict[str, Any]:
    """A shipped model as the current one."""
    (entry,) = index(model)
    run = (await page.send("open_shipped", address=ADDRESS, entry=entry))["run"]
    return await page.send("open_run", run=run)


# ---------------------------------------------------------------- the maker's command


def test_the_index_says_what_the_model_is(model: Path) -> None:
    (entry,) = index(model)
    folder = model / "site" / "checkpoints" / NAME
    loaded = load(folder)
    assert (entry["name"], entry["title"]) == (NAME, TITLE)
    assert entry["parameters"] == loaded.model.parameters
    assert entry["config"] == vars(loaded.model)
    assert entry["trained"]["tokens"] == STEPS * 4 * 16
    assert (entry["trained"]["steps"], entry["trained"]["text"]) == (STEPS, TEXT)
    assert entry["samples"] == SAMPLES
    report = json.loads((folder / "report.json").read_text())
    assert entry["scores"]["bits per byte of its held-out text"] == pytest.approx(
        report["text"]["bits_per_byte"], rel=1e-3
    )
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {file["name"]: (file["bytes"], file["sha256"]) for file in entry["files"]} == {
        name: (len(body), hashlib.sha256(body).hexdigest()) for name, body in files.items()
    }
    assert len([name for name in files if name.endswith(".safetensors")]) > 1
    first = json.loads(files["log.jsonl"].splitlines()[0])
    assert first["recording"]["machine"] == "A rented GPU"
    assert [name for name, body in files.items() if str(model).encode() in body] == []


def test_a_model_is_replaced_by_its_name_and_others_stay(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    assert shipped(tmp_path, "--name", "other") == 0
    assert shipped(tmp_path, "--title", "Tiny, again") == 0
    assert [(entry["name"], entry["title"]) for entry in index(tmp_path)] == [
        ("other", TITLE),
        (NAME, "Tiny, again"),
    ]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda place: (place / "run" / "samples.jsonl").unlink(), "holds no samples"),
        (lambda place: (place / "run" / "samples.jsonl").write_text('{"prompt": 1}\n'), "holds no samples"),
        (lambda place: (place / "run" / "report.json").unlink(), "has no report.json"),
        (lambda place: (place / "run" / "log.jsonl").unlink(), "cannot be read"),
        (lambda place: (place / "export" / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda place: (place / "export" / "optimizer.safetensors").touch(), "is no part of an export"),
        (lambda place: of_another_step(place / "run" / "report.json"), "another file of"),
    ],
)
def test_what_is_no_whole_model_is_refused(
    model: Path, tmp_path: Path, damage: Any, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("export", "run"):
        shutil.copytree(model / part, tmp_path / part)
    damage(tmp_path)
    assert shipped(tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert not (tmp_path / "site").exists()


def of_another_step(path: Path) -> None:
    report = json.loads(path.read_text())
    report["checkpoint"]["step"] += 1
    path.write_text(json.dumps(report))


@pytest.mark.parametrize("name", ["../elsewhere", "Small", "a b", ""])
def test_a_name_is_a_folder_s(model: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shipped(model, "--name", name) == 2
    assert "--name is" in capsys.readouterr().err


def test_the_committed_models_are_what_their_index_says() -> None:
    from demo import ship

    entries = json.loads((ship.FOLDER / ship.INDEX).read_text(encoding="utf-8"))
    assert [entry["name"] for entry in entries] == ["stories", "small"]
    for entry in entries:
        folder = ship.FOLDER / entry["name"]
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        again = ship.entry(entry["name"], entry["title"], entry["trained"]["text"], files, entry["samples"])
        assert again == entry
        assert len(entry["samples"]) == 20
        assert max(map(len, files.values())) <= ship.LARGEST


# ---------------------------------------------------------------- opened in a session


def test_a_shipped_model_is_opened_writes_is_evaluated_and_trained_on_another_text(
    native: Device, model: Path
) -> None:
    async def life() -> None:
        server = Server(model)
        page = server.page(native)
        known = await opened(page, model)
        told = [event for event in page.heard("progress") if event["stage"] == "open"]
        assert told[-1]["done"] == told[-1]["total"] > SHARD
        assert [event["done"] for event in told] == sorted(event["done"] for event in told)
        assert (known["title"], known["train"], known["documents"]) == (TITLE, None, None)
        assert known["report"]["text"]["bits_per_byte"] > 0
        assert known["events"][-1]["event"] == "run_ended"
        (listed,) = (await page.send("runs"))["runs"]
        assert (listed["step"], listed["steps"]) == (STEPS, STEPS)

        texts: list[str] = []
        page.watch = lambda event: texts.append(event["text"]) if event["event"] == "token" else None
        assert (await page.send("generate", prompt="Alice", config=WRITE))["count"] == 12
        shipped_text = "".join(texts)

        with pytest.raises(Refused, match="no training state"):
            await page.send("train", model=None, train={}, run=known["run"], base="")
        await page.send("load", sources=[OTHER])
        first = await page.send("evaluate")
        assert await page.send("use_tokenizer", run=known["run"]) == {"vocab": VOCAB}
        await page.send("tokenize")
        begun = await page.send("train", model=SMALL, train=FURTHER, run="", base=known["run"])
        await page.until("run_ended", reason="finished")
        await page.send("save")
        losses = page.losses
        assert losses[1] == pytest.approx(first["text"]["loss"], abs=0.4), "it began from the weights"
        last = await page.send("evaluate")
        assert last["text"]["bits_per_byte"] < first["text"]["bits_per_byte"]
        runs = {run["run"]: run for run in (await page.send("runs"))["runs"]}
        assert runs[begun["run"]]["title"] == f"{TITLE}, then Another story"
        assert runs[known["run"]]["step"] == STEPS, "what it began from stays"

        texts.clear()
        await page.send("open_run", run=known["run"])
        await page.send("generate", prompt="Alice", config=WRITE)
        assert "".join(texts) == shipped_text
        await page.close()

    asyncio.run(life())


def test_a_new_run_from_weights_is_to_the_bit_what_the_command_line_s_is(
    native: Device, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.cli import main

    async def here() -> list[float]:
        page = Server(model).page(native)
        run = (await opened(page, model))["run"]
        await page.send("load", sources=[OTHER])
        await page.send("use_tokenizer", run=run)
        await page.send("tokenize")
        await page.send("train", model=None, train=FURTHER, run="", base=run)
        await page.until("run_ended", reason="finished")
        await page.close()
        return [page.losses[step] for step in sorted(page.losses)]

    losses = asyncio.run(here())
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text(OTHER["text"])
    flags = [text for name, value in FURTHER.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    start = str(model / "site" / "checkpoints" / NAME)
    assert main(["train", "--from", start, "--sources", "story.txt", "--out", "run", *flags]) == 0
    log = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert losses == [event["loss"] for event in log if event["event"] == "step"]


def test_it_is_evaluated_on_the_books_where_no_text_is_at_hand(native: Device, model: Path) -> None:
    async def evaluated() -> dict[str, Any]:
        page = Server(model).page(native)
        await opened(page, model)
        report = await page.send("evaluate")
        await page.close()
        return report

    assert asyncio.run(evaluated())["text"]["documents"] == 2


def test_a_model_that_was_opened_before_is_opened_again_without_the_server(
    native: Device, model: Path
) -> None:
    async def life() -> None:
        server = Server(model)
        page = server.page(native)
        first = await opened(page, model)
        count = len(server.asked)
        await page.send("rename_run", run=first["run"], title="Mine")
        again = await opened(page, model)
        assert (again["run"], again["title"]) == (first["run"], "Mine")
        await page.send("delete_run", run=first["run"])
        other = await opened(page, model)
        assert other["run"] != first["run"]
        assert len(server.asked) == count, "its files came from the cache"
        key = next(key for key in server.kept if "safetensors" in key)
        server.kept[key] = b"damaged" + server.kept[key][7:]
        await page.send("delete_run", run=other["run"])
        await opened(page, model)
        assert len(server.asked) == count + 1, "what the cache damaged is fetched again"
        await page.close()

    asyncio.run(life())


async def gone(body: bytes) -> Response:
    return Response(404, {}, b"not here")


async def offline(body: bytes) -> Response:
    raise OSError("no answer (Failed to fetch)")


async def changed(body: bytes) -> Response:
    return Response(200, {}, body[:-1] + bytes([body[-1] ^ 1]))


async def cut(body: bytes) -> Response:
    return Response(200, {}, body[:-1])


@pytest.mark.parametrize(
    ("answer", "title", "note"),
    [
        (gone, "did not arrive", "The server says 404."),
        (offline, "did not arrive", "The server does not answer."),
        (changed, "is not what it should be", "it was not kept"),
        (cut, "is not what it should be", "it was not kept"),
    ],
)
def test_a_file_that_does_not_come_whole_is_told_and_not_kept(
    native: Device, model: Path, answer: Any, title: str, note: str
) -> None:
    async def life() -> None:
        server = Server(model)
        name = "model-00002-of-"
        (bad,) = [file["name"] for file in index(model)[0]["files"] if file["name"].startswith(name)]
        server.answers[bad] = answer
        page = server.page(native)
        with pytest.raises(Refused) as refused:
            await opened(page, model)
        assert refused.value.fields["kind"] == "shipped"
        assert title in refused.value.fields["title"]
        assert note in refused.value.fields["note"]
        assert (await page.send("runs"))["runs"] == []
        assert [key for key in server.kept if bad in key] == []
        server.answers.clear()
        before = len(server.asked)
        assert (await opened(page, model))["title"] == TITLE
        assert "config.json" not in server.asked[before:], "what had arrived is not fetched again"
        await page.close()

    asyncio.run(life())


def test_a_reader_stops_a_model_that_is_coming(native: Device, model: Path) -> None:
    async def life() -> None:
        server = Server(model)
        hanging = asyncio.Event()

        async def hang(body: bytes) -> Response:
            hanging.set()
            await asyncio.sleep(60)
            raise AssertionError("it was not stopped")

        server.answers["tokenizer.json"] = hang
        page = server.page(native)
        coming = asyncio.create_task(opened(page, model))
        await hanging.wait()
        await page.send("stop")
        with pytest.raises(Refused) as refused:
            await coming
        assert refused.value.fields["kind"] == "stopped"
        assert page.files.content == {}
        await page.close()

    asyncio.run(life())


def test_full_storage_keeps_no_half_of_a_model(native: Device, model: Path) -> None:
    async def life() -> None:
        files = MemoryFiles(quota=10_000)
        page = Server(model).page(native, files)
        with pytest.raises(Refused) as refused:
            await opened(page, model)
        assert refused.value.fields["kind"] == "quota"
        assert files.content == {}
        await page.close()

    asyncio.run(life())


def test_text_in_other_tokens_is_refused(native: Device, model: Path) -> None:
    async def life() -> None:
        page = Server(model).page(native)
        run = (await opened(page, model))["run"]
        await page.prepare(OTHER)
        with pytest.raises(Refused, match="not in the tokens"):
            await page.send("train", model=SMALL, train=FURTHER, run="", base=run)
        await page.close()

    asyncio.run(life())
