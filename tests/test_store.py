"""The store of runs: whole saves or none, whatever breaks; and the zip that carries a run."""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from datetime import datetime
from typing import Any

import pytest

from demo import archive
from demo.store import BrowserFiles, Chunks, Full, MemoryFiles, RunStore, now
from trainer.errors import CheckpointError, StorageError

INFO = {"title": "A run", "step": 1, "steps": 9, "loss": 2.5, "date": "2026-11-22T21:00:00Z"}


class Faulty(MemoryFiles):
    """Files that fail at the `at`-th change: with an error, or as if the tab had been closed."""

    def __init__(self, at: int, error: BaseException) -> None:
        super().__init__()
        self.at, self.error, self.changes = at, error, 0

    def _count(self) -> None:
        self.changes += 1
        if self.changes >= self.at and (self.changes == self.at or not isinstance(self.error, StorageError)):
            raise self.error

    async def write(self, path: str, chunks: Chunks) -> None:
        self._count()
        await super().write(path, chunks)

    async def remove(self, path: str) -> None:
        self._count()
        await super().remove(path)


def files(step: int) -> dict[str, list[bytes]]:
    return {name: [f"{name} ".encode(), str(step).encode()] for name in ("a", "b", "c")}


async def save(store: RunStore, step: int, run: str = "r") -> None:
    await store.save(run, {**INFO, "step": step}, files(step), {"text": [b"data"]})


async def content(store: RunStore, run: str = "r") -> tuple[int, dict[str, bytes], dict[str, bytes]]:
    info = await store.info(run)
    assert info
    return info["step"], *await store.load(run)


def whole(step: int) -> tuple[int, dict[str, bytes], dict[str, bytes]]:
    return step, {name: b"".join(chunks) for name, chunks in files(step).items()}, {"text": b"data"}


def test_saves_follow_one_another_and_only_the_last_stays() -> None:
    async def three() -> RunStore:
        store = RunStore(MemoryFiles())
        for step in (1, 2, 3):
            await save(store, step)
            assert await content(store) == whole(step)
        return store

    store = asyncio.run(three())
    assert isinstance(store.files, MemoryFiles)
    assert sorted(store.files.content) == [
        "runs/r/3/a",
        "runs/r/3/b",
        "runs/r/3/c",
        "runs/r/data/text",
        "runs/r/run.json",
    ]


@pytest.mark.parametrize("error", [StorageError("no room"), KeyboardInterrupt()], ids=["refused", "killed"])
@pytest.mark.parametrize("at", range(1, 14))
def test_interrupted_save_leaves_a_whole_one(at: int, error: BaseException) -> None:
    """The first save makes 5 changes, each further one 5; the tab may be closed at any of them."""

    async def crash() -> None:
        faulty = Faulty(at, error)
        store = RunStore(faulty)
        last = 0
        try:
            for step in (1, 2, 3):
                try:
                    await save(store, step)
                    last = step
                except StorageError:
                    continue
        except KeyboardInterrupt:
            pass
        again = RunStore(MemoryFiles())
        again.files.content = faulty.content  # type: ignore[attr-defined]
        listed = await again.runs()
        if listed:
            assert await content(again) in [whole(step) for step in range(max(last, 1), 4)]
        else:
            assert last == 0
        await save(again, 4)
        assert await content(again) == whole(4)
        left = {path.split("/")[2] for path in faulty.content}
        assert len(left - {"data", "run.json"}) == 1

    asyncio.run(crash())


def test_room_is_checked_before_anything_is_written() -> None:
    async def full() -> None:
        store = RunStore(MemoryFiles(quota=1000))
        await save(store, 1)
        before = dict(store.files.content)  # type: ignore[attr-defined]
        with pytest.raises(Full) as error:
            await store.save("r", INFO, {"a": [b"x" * 600, b"x" * 600]}, {})
        assert error.value.needed == 1200
        assert error.value.left < 1000
        assert store.files.content == before  # type: ignore[attr-defined]

    asyncio.run(full())


def test_title_stays_as_it_was_given_and_runs_are_sorted() -> None:
    async def tidy() -> list[dict[str, Any]]:
        store = RunStore(MemoryFiles())
        await save(store, 1)
        await store.save("newer", {**INFO, "date": "2026-11-23T00:00:00Z"}, files(1), {})
        await store.rename("r", "Mine")
        await save(store, 2)
        with pytest.raises(CheckpointError, match="no run"):
            await store.rename("nowhere", "x")
        with pytest.raises(CheckpointError, match="no run"):
            await store.load("nowhere")
        return await store.runs()

    runs = asyncio.run(tidy())
    assert [(info["run"], info["title"]) for info in runs] == [("newer", "A run"), ("r", "Mine")]
    assert runs[1]["bytes"] == 9


class Slow(MemoryFiles):
    """Files whose every operation lets others work, as the browser's do."""

    async def read(self, path: str) -> bytes:
        await asyncio.sleep(0)
        return await super().read(path)

    async def write(self, path: str, chunks: Chunks) -> None:
        await asyncio.sleep(0)
        await super().write(path, chunks)

    async def remove(self, path: str) -> None:
        await asyncio.sleep(0)
        await super().remove(path)


@pytest.mark.parametrize("turns", range(16))
def test_a_name_that_is_given_while_a_save_is_made_undoes_nothing(turns: int) -> None:
    async def meet() -> tuple[str, tuple[int, dict[str, bytes], dict[str, bytes]]]:
        store = RunStore(Slow())
        await save(store, 1)

        async def rename() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await store.rename("r", "Mine")

        await asyncio.gather(save(store, 2), rename())
        info = await store.info("r")
        assert info
        return info["title"], await content(store)

    assert asyncio.run(meet()) == ("Mine", whole(2))


class Refusing:
    """The browser's store, when it does nothing that it is asked for."""

    def __getattr__(self, name: str) -> Any:
        async def refuse(*_: Any) -> None:
            raise RuntimeError("InvalidStateError: the disk is gone")

        return refuse


@pytest.mark.parametrize(
    ("method", "given"),
    [("names", ["runs"]), ("read", ["a"]), ("write", ["a", []]), ("remove", ["a"]), ("room", [])],
)
def test_the_browser_s_errors_are_typed(method: str, given: list[Any]) -> None:
    with pytest.raises(StorageError, match="the disk is gone"):
        asyncio.run(getattr(BrowserFiles(Refusing()), method)(*given))


class Busy(MemoryFiles):
    """Files of a run that another tab saves whenever this one reads a file of it."""

    saves = 0

    async def read(self, path: str) -> bytes:
        body = await super().read(path)
        if path.endswith("/a") and self.saves < 3:
            self.saves += 1
            other = RunStore(MemoryFiles())
            other.files.content = self.content  # type: ignore[attr-defined]
            await save(other, 1 + self.saves)
        return body


def test_runs_that_are_saved_in_one_second_are_told_apart() -> None:
    first = now()
    time.sleep(0.002)
    assert first < now()
    assert abs(datetime.fromisoformat(first).timestamp() - time.time()) < 60


def test_a_run_that_another_tab_saves_meanwhile_is_read_as_one_save() -> None:
    async def meet() -> None:
        busy = Busy()
        store = RunStore(busy)
        await save(store, 1)
        assert await store.load("r") == whole(4)[1:]
        busy.saves = 0
        assert await store.saved("r", "a") == b"a 4"
        assert await store.saved("r", "nothing") is None

    asyncio.run(meet())


def test_damaged_pointer_hides_the_run_and_nothing_else() -> None:
    async def damage() -> list[str]:
        store = RunStore(MemoryFiles())
        await save(store, 1)
        await save(store, 1, "other")
        await store.files.write("runs/r/run.json", [b""])
        return [info["run"] for info in await store.runs()]

    assert asyncio.run(damage()) == ["other"]


# -------------------------------------------------------------------- zips


def test_archive_comes_back_as_it_was_packed() -> None:
    inside = {"config.json": [b"{", b"}"], "model.safetensors": [b"weights"]}
    beside = {"log.jsonl": b"{}\n", "documents.jsonl": b"{}\n"}
    packed, name = archive.pack("Ten books, micro", 20, inside, beside)
    assert name == "ten-books-micro.zip"
    found = archive.unpack(packed)
    assert found == archive.Archive(
        "Ten books, micro", {file: b"".join(chunks) for file, chunks in inside.items()}, beside
    )
    assert archive.pack("Ten books, micro", 20, inside, beside)[0] == packed


def zipped(*names: str, latest: str = "") -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as packed:
        for name in names:
            packed.writestr(name, name)
        if latest:
            packed.writestr("run/latest", latest)
    return whole.getvalue()


@pytest.mark.parametrize(
    ("data", "title", "config"),
    [
        (zipped("config.json", "model.safetensors"), "Imported run", b"config.json"),
        (zipped("gpt2/config.json", "gpt2/model.safetensors"), "gpt2", b"gpt2/config.json"),
        (
            zipped("run/step-000001/config.json", "run/step-000002/config.json", latest="step-000001\n"),
            "run",
            b"run/step-000001/config.json",
        ),
    ],
)
def test_zips_of_native_folders_are_understood(data: bytes, title: str, config: bytes) -> None:
    found = archive.unpack(data)
    assert (found.title, found.checkpoint["config.json"]) == (title, config)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", zipped("a.txt"), zipped("config.json")[:-30]])
def test_other_zips_are_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        archive.unpack(data)
