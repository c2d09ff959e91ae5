"""Where runs are kept: in the browser's private file system (OPFS), each in a folder of its own.

runs/<run>/run.json        the pointer: which save counts, and what the list of runs shows
runs/<run>/3/...           that save: the files of trainer.checkpoint, and the run's log.jsonl
runs/<run>/data/...        the text and the tokens, which never change
runs/<run>/report.json     the last evaluation
runs/<run>/title.txt       what the reader called it: apart from the pointer, so that a save and a new name at
                           once, in two tabs perhaps, cannot undo one another

A save writes a new folder, then flips the pointer, then removes the folder before. The pointer is one file,
and `Files.write` replaces a file as a whole: a crash leaves the save before, and at most a leftover.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

from trainer.errors import CheckpointError, StorageError

ROOT = "runs"
POINTER = "run.json"
DATA = "data"
REPORT = "report.json"
TITLE = "title.txt"

Chunks = Iterable[bytes | bytearray | memoryview]
T = TypeVar("T")


def now() -> str:
    """The time as runs are dated, in UTC: to the millisecond, as two may be saved in one second."""
    passed = time.time()
    date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(passed))
    return f"{date}.{int(passed * 1000) % 1000:03}Z"


class Full(StorageError):
    """There is no room for a save of `needed` bytes: `left` bytes are left."""

    def __init__(self, needed: int, left: int) -> None:
        super().__init__(f"a save needs {needed:,} bytes and {left:,} are left", "delete a run")
        self.needed, self.left = needed, left


class Files(Protocol):
    """A small file system; folders exist as soon as something is in them."""

    async def names(self, folder: str) -> list[str]:
        """What is in a folder; nothing if there is no such folder."""
        ...

    async def read(self, path: str) -> bytes:
        """Raises FileNotFoundError."""
        ...

    async def write(self, path: str, chunks: Chunks) -> None:
        """All of the file or nothing, which leaves what was there. Raises StorageError."""
        ...

    async def remove(self, path: str) -> None:
        """A file, or a folder and all that is in it; nothing happens if there is none."""
        ...

    async def room(self) -> tuple[int, int]:
        """Bytes used, and bytes still available."""
        ...


class RunStore:
    """The kept runs."""

    def __init__(self, files: Files) -> None:
        self.files = files

    async def runs(self) -> list[dict[str, Any]]:
        """What is known of each run, the newest first."""
        found = []
        for run in await self.files.names(ROOT):
            info = await self.info(run)
            if info:
                found.append(info)
        return sorted(found, key=lambda info: info["date"], reverse=True)

    async def info(self, run: str) -> dict[str, Any] | None:
        """What is known of a run, or None if it was never saved."""
        info = await self._pointer(run)
        if info is None:
            return None
        given = await self.attached(run, TITLE)
        title = {"title": given.decode()} if given else {}
        return {"run": run, **{name: value for name, value in info.items() if name != "folder"}, **title}

    async def save(
        self, run: str, info: Mapping[str, Any], files: Mapping[str, Chunks], data: Mapping[str, Chunks]
    ) -> None:
        """Keep `files` as the newest save of a run; `data` only with the first one.

        A title that `rename` gave stays. Raises Full before anything is written if there is no
        room, StorageError if the browser refuses.
        """
        before = await self._pointer(run) or {}
        new = {name: list(chunks) for name, chunks in files.items()}
        first = {} if "folder" in before else {name: list(chunks) for name, chunks in data.items()}
        size = _nbytes(new)
        needed = size + _nbytes(first)
        _, left = await self.files.room()
        if needed > left:
            raise Full(needed, left)
        await self._remove_leftovers(run, before)
        folder = str(int(before.get("folder", "0")) + 1)
        try:
            for place, group in ((DATA, first), (folder, new)):
                for name, chunks in group.items():
                    await self.files.write(f"{ROOT}/{run}/{place}/{name}", chunks)
            await self._point(run, {**info, "bytes": size, "folder": folder})
        except StorageError:
            await self.files.remove(f"{ROOT}/{run}/{folder}")
            raise
        await self._remove_leftovers(run, {"folder": folder})

    async def load(self, run: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """(files of the newest save, data) of a run. Raises CheckpointError."""
        files = await self._newest(run, self._folder)
        return files or {}, await self._folder(f"{ROOT}/{run}/{DATA}")

    async def saved(self, run: str, name: str) -> bytes | None:
        """One file of the newest save. Raises CheckpointError."""
        return await self._newest(run, lambda folder: self.files.read(f"{folder}/{name}"))

    async def attach(self, run: str, name: str, content: bytes) -> None:
        """Keep a file beside the saves. Raises StorageError."""
        if await self._pointer(run):
            await self.files.write(f"{ROOT}/{run}/{name}", [content])

    async def attached(self, run: str, name: str) -> bytes | None:
        """What `attach` kept."""
        try:
            return await self.files.read(f"{ROOT}/{run}/{name}")
        except FileNotFoundError:
            return None

    async def rename(self, run: str, title: str) -> None:
        """Raises CheckpointError if there is no such run."""
        await self._known(run)
        await self.attach(run, TITLE, title.encode())

    async def delete(self, run: str) -> None:
        """First the pointer, so that what is left is never taken for a whole run."""
        await self.files.remove(f"{ROOT}/{run}/{POINTER}")
        await self.files.remove(f"{ROOT}/{run}")

    async def _pointer(self, run: str) -> dict[str, Any] | None:
        try:
            info = json.loads(await self.files.read(f"{ROOT}/{run}/{POINTER}"))
        except (FileNotFoundError, ValueError):
            return None
        return info if isinstance(info, dict) and "folder" in info else None

    async def _known(self, run: str) -> dict[str, Any]:
        info = await self._pointer(run)
        if info is None:
            raise CheckpointError(f"there is no run {run!r} here", "it may have been deleted in another tab")
        return info

    async def _newest(self, run: str, read: Callable[[str], Awaitable[T]]) -> T | None:
        """What `read` makes of the folder of the newest save; None if that lacks a file.

        Another tab may be saving the run, and removes a folder once there is a newer one, which is read then.
        """
        while True:
            folder = (await self._known(run))["folder"]
            found = None
            with suppress(FileNotFoundError):
                found = await read(f"{ROOT}/{run}/{folder}")
            if (await self._known(run))["folder"] == folder:
                return found

    async def _point(self, run: str, info: Mapping[str, Any]) -> None:
        await self.files.write(f"{ROOT}/{run}/{POINTER}", [json.dumps(info).encode()])

    async def _folder(self, path: str) -> dict[str, bytes]:
        return {name: await self.files.read(f"{path}/{name}") for name in await self.files.names(path)}

    async def _remove_leftovers(self, run: str, info: Mapping[str, Any]) -> None:
        for name in await self.files.names(f"{ROOT}/{run}"):
            if name.isdecimal() and name != info.get("folder"):
                await self.files.remove(f"{ROOT}/{run}/{name}")


def _nbytes(files: Mapping[str, list[Any]]) -> int:
    return sum(memoryview(chunk).nbytes for chunks in files.values() for chunk in chunks)


class MemoryFiles:
    """Files that last as long as this object, for browsers that keep nothing; `quota` in bytes."""

    def __init__(self, quota: int = 1 << 30) -> None:
        self.content: dict[str, bytes] = {}
        self.quota = quota

    async def names(self, folder: str) -> list[str]:
        inside = (path.removeprefix(f"{folder}/") for path in self.content if path.startswith(f"{folder}/"))
        return sorted({path.partition("/")[0] for path in inside})

    async def read(self, path: str) -> bytes:
        if path not in self.content:
            raise FileNotFoundError(path)
        return self.content[path]

    async def write(self, path: str, chunks: Chunks) -> None:
        body = b"".join(chunks)
        used, left = await self.room()
        if len(body) > left + len(self.content.get(path, b"")):
            raise StorageError(f"{path} does not fit ({used:,} bytes are used)", "delete a run")
        self.content[path] = body

    async def remove(self, path: str) -> None:
        for name in [name for name in self.content if name == path or name.startswith(f"{path}/")]:
            del self.content[name]

    async def room(self) -> tuple[int, int]:
        used = sum(map(len, self.content.values()))
        return used, self.quota - used


class BrowserFiles:
    """The browser's private file system, through store.js."""

    def __init__(self, store: Any) -> None:
        self.store = store

    async def names(self, folder: str) -> list[str]:
        with _typed_errors(folder, "read"):
            return sorted((await self.store.names(folder)).to_py())

    async def read(self, path: str) -> bytes:
        with _typed_errors(path, "read"):
            body = await self.store.read(path)
        if body is None:
            raise FileNotFoundError(path)
        return body.to_bytes()

    async def write(self, path: str, chunks: Chunks) -> None:
        with _typed_errors(path, "written"):
            writer = await self.store.create(path)
            try:
                for chunk in chunks:
                    await writer.write(chunk)
            except BaseException:
                await writer.abort()
                raise
            await writer.close()

    async def remove(self, path: str) -> None:
        with _typed_errors(path, "removed"):
            await self.store.remove(path)

    async def room(self) -> tuple[int, int]:
        with _typed_errors("the storage", "measured"):
            used, available = (await self.store.room()).to_py()
        return int(used), int(available)


@contextmanager
def _typed_errors(path: str, done: str) -> Iterator[None]:
    """Makes a StorageError of JavaScript's: QuotaExceededError, NoModificationAllowedError, ..."""
    try:
        yield
    except Exception as error:
        raise StorageError(
            f"{path} cannot be {done} ({error})", "delete a run, or export this one"
        ) from error


class Locks(Protocol):
    """Which tab owns a run: only one may train it."""

    async def take(self, run: str, on_lost: Callable[[], None], *, steal: bool = False) -> bool:
        """Become the owner; False if another tab is. `on_lost` is called when another tab takes it over."""
        ...

    def give_back(self, run: str) -> None:
        """Own the run no more."""
        ...


class MemoryLocks:
    """Owners of runs among the sessions of one process."""

    def __init__(self) -> None:
        self.owners: dict[str, Callable[[], None]] = {}

    async def take(self, run: str, on_lost: Callable[[], None], *, steal: bool = False) -> bool:
        before = self.owners.get(run)
        if before and not steal:
            return False
        self.owners[run] = on_lost
        if before:
            before()
        return True

    def give_back(self, run: str) -> None:
        self.owners.pop(run, None)


class BrowserLocks:
    """The Web Locks API, through store.js: a lock ends with its tab, whatever happens to it."""

    def __init__(self, store: Any) -> None:
        self.store = store

    async def take(self, run: str, on_lost: Callable[[], None], *, steal: bool = False) -> bool:
        from pyodide.ffi import create_proxy  # pyright: ignore[reportMissingImports]

        return await self.store.lock(run, steal, create_proxy(on_lost))

    def give_back(self, run: str) -> None:
        self.store.unlock(run)
