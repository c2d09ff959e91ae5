"""How the page gets books and trained models: the browser's `fetch`, and its Cache API. All the rest is
decided by the trainer, of books, and by demo/shipped.py, of models.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from demo.shipped import Download
from trainer.errors import StorageError
from trainer.gutenberg import TIMEOUT, Fetch, Response

HIDDEN = ("content-length", "content-encoding")  # of the body before the browser undid the compression


def browser_fetch(js: Any, timeout: float = TIMEOUT) -> Fetch:
    """A `Fetch` through `js.fetch`, given up after `timeout` seconds without a whole answer."""

    async def read(url: str, options: Any) -> Response:
        answer = await js.fetch(url, options)
        headers = {str(name).lower(): str(value) for name, value in answer.headers.entries()}
        body = await answer.arrayBuffer()
        known = {name: value for name, value in headers.items() if name not in HIDDEN}
        return Response(answer.status, known, body.to_bytes())

    return lambda url: _asked(js, lambda options: asyncio.wait_for(read(url, options), timeout))


def browser_download(js: Any, timeout: float = TIMEOUT) -> Download:
    """A `Download` through `js.fetch`, given up after `timeout` seconds without a byte."""

    async def read(url: str, on_bytes: Callable[[int], None], options: Any) -> Response:
        answer = await asyncio.wait_for(js.fetch(url, options), timeout)
        body = bytearray()
        reader = answer.body.getReader()
        while not (part := await asyncio.wait_for(reader.read(), timeout)).done:
            body += part.value.to_bytes()
            on_bytes(len(body))
        return Response(answer.status, {}, bytes(body))

    return lambda url, on_bytes: _asked(js, lambda options: read(url, on_bytes, options))


async def _asked(js: Any, read: Callable[[Any], Awaitable[Response]]) -> Response:
    """What `read` makes with the options of a request, which ends with it. Raises OSError."""
    controller = js.AbortController.new()
    options = js.Object.new()
    options.signal = controller.signal
    options.credentials = "omit"
    options.cache = "no-store"  # what is kept is kept by us, after its hash was checked
    try:
        return await read(options)
    except TimeoutError:
        raise
    except OSError as error:  # pyodide's own network errors
        raise OSError(str(error)) from error
    except Exception as error:  # JavaScript's TypeError: there is no answer
        raise OSError(f"no answer ({getattr(error, 'message', error)})") from error
    finally:
        controller.abort()


class BrowserCache:
    """A `Cache` of that name in the browser's Cache API, through store.js. What it cannot keep is a
    StorageError.
    """

    def __init__(self, store: Any, name: str) -> None:
        self.store, self.name = store, name

    async def get(self, key: str) -> bytes | None:
        with contextlib.suppress(Exception):  # what cannot be read is fetched again
            found = await self.store.kept(self.name, key)
            return found.to_bytes() if found is not None else None
        return None

    async def put(self, key: str, entry: bytes) -> None:
        try:
            await self.store.keep(self.name, key, entry)
        except Exception as error:
            raise StorageError(f"the browser cannot keep {key} ({error})", "delete a run") from error
