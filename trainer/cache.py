"""What is kept between commands, because it takes long to get: fetched books, and measurements of kernels.

A host brings a `Cache`: a folder natively (`FolderCache`), the browser's Cache API in the page. It may lose
entries at any time, and need not be trusted: what is sealed shows damage.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Protocol

from trainer.storage import storage_errors, write_file

CACHE_VARIABLE = "TABULA_CACHE"


class Cache(Protocol):
    """Keeps bytes by their keys, which look like addresses."""

    async def get(self, key: str) -> bytes | None:
        """What was put under `key`, or None."""
        ...

    async def put(self, key: str, entry: bytes) -> None:
        """Keeps `entry` under `key`, all of it or nothing. Raises StorageError if there is no room."""
        ...


def seal(body: bytes) -> bytes:
    """`body` behind a line with its own SHA-256, so that damage shows whatever the cache does."""
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def unseal(entry: bytes) -> bytes | None:
    """The body that `seal` was given, or None if the entry is damaged."""
    body = entry[65:]
    return body if seal(body) == entry else None


def cache_folder() -> Path:
    """$TABULA_CACHE, else $XDG_CACHE_HOME/tabula, else ~/.cache/tabula."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    shared = Path(os.environ.get("XDG_CACHE_HOME") or "")  # the XDG specification wants relative ones ignored
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "tabula"


class FolderCache:
    """A `Cache` with one file an entry. Several processes may use the same folder at once."""

    def __init__(self, name: str, folder: str | os.PathLike[str] | None = None) -> None:
        """Keeps entries in the folder `name` of `folder` or, without one, of the user's cache."""
        self.folder = (Path(folder) if folder is not None else cache_folder()) / name

    def path(self, key: str) -> Path:
        """The file that keeps `key`, named after the end of the address and a hash of all of it."""
        name = re.sub(r"[^A-Za-z0-9._-]", "-", key.rpartition("/")[2])[-64:]
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}-{name}"

    async def get(self, key: str) -> bytes | None:
        try:
            return self.path(key).read_bytes()
        except OSError:  # an entry that cannot be read is fetched, or measured, again
            return None

    async def put(self, key: str, entry: bytes) -> None:
        path = self.path(key)
        with storage_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_file(path, [entry])
