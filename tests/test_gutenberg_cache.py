"""The cache of fetched books: damage, a full disk, two processes at once."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from raw_server import ALICE_BODY, OZ, OZ_BODY, Desk, GitHub, send, serving

from trainer import cache, gutenberg
from trainer.errors import StorageError
from trainer.events import Notice


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    with serving(monkeypatch) as server:
        yield server


@pytest.fixture
def desk(github: GitHub, tmp_path: Path) -> Desk:
    return Desk(github, tmp_path)


def damage(path: Path, how: str) -> None:
    entry = path.read_bytes()
    path.write_bytes(
        {"cut": entry[:-100], "flipped": entry[:-1] + b"?", "empty": b"", "short": entry[:40]}[how]
    )


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "short"])
@pytest.mark.parametrize("name", ["55", "Oz_9"])
def test_a_damaged_copy_is_fetched_again(github: GitHub, desk: Desk, how: str, name: str) -> None:
    book = gutenberg.find(name)
    github.add(book.repo, f"{book.id}.txt", OZ_BODY)
    desk.get(book)
    before = len(github.requests)
    damage(desk.cached()[0], how)
    assert desk.get(book) == OZ_BODY
    assert len(github.requests) > before
    assert any("damaged" in event.message for event in desk.events if isinstance(event, Notice))
    after = len(github.requests)
    assert desk.get(book) == OZ_BODY
    assert len(github.requests) == after


def test_a_sealed_copy_of_something_else_is_not_believed(github: GitHub, desk: Desk) -> None:
    github.add(OZ.repo, "55.txt", OZ_BODY)
    desk.get(OZ)
    desk.cached()[0].write_bytes(cache.seal(ALICE_BODY))
    assert desk.get(OZ) == OZ_BODY


def test_an_unreadable_copy_is_fetched_again(github: GitHub, desk: Desk) -> None:
    github.add(OZ.repo, "55.txt", OZ_BODY)
    desk.get(OZ)
    path = desk.cached()[0]
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError):  # and a folder in its place cannot be replaced
        desk.get(OZ)


def test_a_full_disk_leaves_nothing_half_written(
    github: GitHub, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    github.add(OZ.repo, "55.txt", OZ_BODY)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left on device") as caught:
            desk.get(OZ)
    assert str(desk.cache.folder) in str(caught.value)
    assert desk.cached() == []
    assert desk.get(OZ) == OZ_BODY


def test_a_cache_folder_that_cannot_be_made(github: GitHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    github.add(OZ.repo, "55.txt", OZ_BODY)
    with pytest.raises(StorageError, match="cannot write"):
        Desk(github, tmp_path / "file").get(OZ)


FETCH_ONE = """
import asyncio, hashlib, sys
from trainer import cache, gutenberg
body, _ = asyncio.run(gutenberg.Library().get(gutenberg.find("55")))
print(hashlib.sha256(body).hexdigest())
"""


def test_two_processes_fetch_the_same_book_at_once(github: GitHub, desk: Desk) -> None:
    meeting = threading.Barrier(2)

    def together(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        meeting.wait(60)
        send(handler, 200, body)

    github.add(OZ.repo, "55.txt", OZ_BODY, together, together)
    environment = {
        **os.environ,
        gutenberg.BASE_VARIABLE: github.base,
        cache.CACHE_VARIABLE: str(desk.cache.folder.parent),
    }
    command = [sys.executable, "-c", FETCH_ONE]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].strip() for process in both]
    assert outputs == [OZ.files[0].sha256] * 2
    assert github.requests == ["55.txt"] * 2
    assert len(desk.cached()) == 1
    assert desk.get(OZ) == OZ_BODY
    assert github.requests == ["55.txt"] * 2
