"""Trained models that come with the site: fetched when a reader opens one, checked, and kept."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urljoin

from demo import trouble
from demo.archive import Archive
from demo.store import REPORT
from trainer import checkpoint
from trainer.cache import Cache
from trainer.checkpoint import LOG
from trainer.errors import StorageError
from trainer.events import Progress, Reader
from trainer.gutenberg import Response

NEEDED = (checkpoint.CONFIG, checkpoint.WEIGHTS_INDEX, checkpoint.TOKENIZER, checkpoint.TOKENIZER_CONFIG)
BESIDE = (LOG, REPORT)  # how it was trained, and how well it does
FOUND = 200  # HTTP status

# Fetches one address, and tells how many bytes have come so far. Raises OSError when there is no answer.
Download = Callable[[str, Callable[[int], None]], Awaitable[Response]]


def identity(entry: Mapping[str, Any]) -> str:
    """What tells this very model from others, and from another version of it."""
    return hashlib.sha256("".join(file["sha256"] for file in entry["files"]).encode()).hexdigest()


async def fetch(
    address: str, entry: Mapping[str, Any], download: Download, cache: Cache | None, on_event: Reader
) -> Archive:
    """The files of a model of the index, which lies at `address`, from the cache or the server.

    Raises Trouble for a file that does not come, or is not what the index says; that one is not kept.
    """
    title = entry["title"]
    files = [file for file in entry["files"] if _wanted(file["name"])]
    total = sum(file["bytes"] for file in files)
    before = 0  # bytes of the files that are here

    def tell(done: int) -> None:
        on_event(Progress("open", min(total, before + done), total, "bytes", title))

    bodies: dict[str, bytes] = {}
    for file in files:
        tell(0)
        url = urljoin(urljoin(address, f"{entry['name']}/"), file["name"])
        key = f"{url}?sha256={file['sha256']}"
        body = await cache.get(key) if cache else None
        if body is None or not _is(body, file):
            body = await _downloaded(url, title, download, tell)
            if not _is(body, file):
                raise trouble.wrong_model(title, f"{url} is not what the index of models says it is")
            if cache:
                with contextlib.suppress(StorageError):  # it will be fetched again
                    await cache.put(key, body)
        bodies[file["name"]] = body
        before += file["bytes"]
    tell(0)
    beside = {name: bodies.pop(name) for name in BESIDE if name in bodies}
    return Archive(title, bodies, beside)


async def _downloaded(url: str, title: str, download: Download, tell: Callable[[int], None]) -> bytes:
    try:
        answer = await download(url, tell)
    except OSError as error:  # TimeoutError included
        raise trouble.no_model(title, "The server does not answer.", f"{url}: {error}") from error
    if answer.status != FOUND:
        raise trouble.no_model(title, f"The server says {answer.status}.", f"{url}: {answer.status}")
    return answer.body


def _wanted(name: str) -> bool:
    """Whether a run is made of this file, too; some are evidence only."""
    return name.endswith(".safetensors") or name in NEEDED or name in BESIDE


def _is(body: bytes, file: Mapping[str, Any]) -> bool:
    return len(body) == file["bytes"] and hashlib.sha256(body).hexdigest() == file["sha256"]
