"""How the page gets books: the browser's `fetch`, and its Cache API. The trainer decides all the rest."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from trainer.errors import StorageError
from trainer.gutenberg import TIMEOUT, Fetch, Response

HIDDEN = ("content-length", "content-encoding")  # of the body before the browser undid the compression


def browser_fetch(js: Any, timeout: float = TIMEOUT) -> Fetch:
    """A `Fetch` through `js.fetch`, given up after `timeout` seconds without a whole answer."""

    async def read(url: str, signal: Any) -> Response:
        options = js.Object.new()
        options.signal = signal
        options.credentials = "omit"
        options.cache = "no-store"  # what is kept is kept by the trainer, after its hash was checked
        answer = await js.fetch(url, options)
        headers = {str(name).lower(): str(value) for name, value in answer.headers.entries()}
        body = await answer.arrayBuffer()
        known = {name: value for name, value in headers.items() if name not in HIDDEN}
        return Response(answer.status, known, body.to_bytes())

    async def fetch(url: str) -> Response:
        controller = js.AbortController.new()
        try:
            return await asyncio.wait_for(read(url, controller.signal), timeout)
        except TimeoutError:
            raise
        except OSError as error:  # pyodide's own network errors
            raise OSError(str(error)) from error
        except Exception as error:  # JavaScript's TypeError: there is no answer
            raise OSError(f"no answer ({getattr(error, 'message', error)})") from error
        finally:
            controller.abort()

    return fetch


class BrowserCache:
    """A `Cache` in the browser's Cache API, through store.js. What it cannot keep is a StorageError."""

    def __init__(self, store: Any) -> None:
        self.store = store

    async def get(self, key: str) -> bytes | None:
        with contextlib.suppress(Exception):  # what cannot be read is fetched again
            found = await self.store.keptBook(key)
            return found.to_bytes() if found is not None else None
        return None

    async def put(self, key: str, entry: bytes) -> None:
        try:
            await self.store.keepBook(key, entry)
        except Exception as error:
            raise StorageError(f"the browser cannot keep {key} ({error})", "delete a run") from error
