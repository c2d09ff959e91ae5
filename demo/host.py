"""The session in a browser's worker: worker.js calls `start`, and hands every message of the page over.

Nothing of JavaScript is imported before `start`: the memory snapshot is taken with this module imported.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo.device import BrowserDevice
from demo.fetch import BrowserCache, browser_download, browser_fetch
from demo.session import Session
from demo.store import BrowserFiles, BrowserLocks, Files, MemoryFiles, RunStore
from trainer import corpus
from trainer.benchmarks import Paradigm, read_blimp
from trainer.devices.subgroups import tried
from trainer.errors import CorpusError, DeviceError
from trainer.gutenberg import Retry

PAIRS = "blimp.jsonl"  # of the bundle
BOOKS, MODELS, MEASURED = "tabula-books", "tabula-models", "tabula-measured"  # caches
LONGEST_WAIT = (
    5.0  # s that a server of books may ask for in silence; with more, the page tells and counts down
)


class Host:
    """What a session needs of the browser."""

    def __init__(self, worker: Any, store: Any) -> None:
        import js  # pyright: ignore[reportMissingImports]

        self.worker = worker
        self.fetch = browser_fetch(js)
        self.download = browser_download(js)
        self.store = store
        self.books: list[str] = json.loads(worker.books)
        self.running: set[asyncio.Task[None]] = set()  # or they would be forgotten while they run

    async def session(self) -> Session:
        """A session whose runs are kept in OPFS, or for the time being where the browser has none."""
        files: Files = BrowserFiles(self.store) if await self.store.usable() else MemoryFiles()
        return Session(
            open_device=self.open_device,
            store=RunStore(files),
            locks=BrowserLocks(self.store),
            post=self.post,
            fetch=self.fetch,
            cache=BrowserCache(self.store, BOOKS),
            download=self.download,
            models=BrowserCache(self.store, MODELS),
            measured=BrowserCache(self.store, MEASURED),
            base=self.worker.library or None,
            retry=Retry(longest=LONGEST_WAIT),
            prepare_books=self.prepare_books,
            read_pairs=self.read_pairs,
        )

    def post(self, message: dict[str, Any]) -> None:
        """To the page: a zip is converted, all else goes as JSON, which is several times faster."""
        if isinstance(message.get("result"), dict) and "zip" in message["result"]:
            from pyodide.ffi import to_js  # pyright: ignore[reportMissingImports]

            packed = to_js(message["result"].pop("zip"))
            self.worker.postWithZip(json.dumps(message), packed)
        else:
            self.worker.post(json.dumps(message))

    async def open_device(self) -> BrowserDevice:
        try:
            return await tried(BrowserDevice(await self.worker.openGpu()))
        except Exception as error:
            problem = getattr(error, "problem", None)  # of a GpuError of gpu.js
            if problem is None:
                raise
            raise DeviceError(problem, getattr(error, "remedy", "")) from error

    async def prepare_books(self) -> None:
        """Fetch the bundled books to where the trainer looks for them; it checks what they are."""
        folder = Path(corpus.__file__).parent / "books"
        missing = [name for name in self.books if not (folder / name.partition("/")[2]).is_file()]
        for name, body in zip(missing, await asyncio.gather(*map(self._fetched, missing)), strict=True):
            path = folder / name.partition("/")[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)

    async def read_pairs(self) -> Sequence[Paradigm]:
        path = Path("/tmp") / PAIRS
        if not path.is_file():
            path.write_bytes(await self._fetched(PAIRS))
        return read_blimp(path)

    async def _fetched(self, name: str) -> bytes:
        """A file of the bundle."""
        body = await self.worker.bundled(name)
        if body is None:
            raise CorpusError(f"{name} did not arrive", "check the connection and try again")
        return body.to_bytes()

    def receive(self, session: Session, command: str, zip: Any) -> None:
        """Obey a command, while others are being obeyed."""
        message = json.loads(command)
        if zip is not None:
            message["zip"] = zip.to_bytes()
        task = asyncio.ensure_future(session.receive(message))
        self.running.add(task)
        task.add_done_callback(self.running.discard)


async def start(worker: Any, store: Any) -> Any:
    """What takes the page's messages from now on."""
    host = Host(worker, store)
    session = await host.session()
    return lambda command, zip=None: host.receive(session, command, zip)
