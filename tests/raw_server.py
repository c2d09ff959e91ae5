"""A server on 127.0.0.1 that stands in for GitHub's raw-file server, the faults it can show, and a library
that uses it: for the tests of fetching and of the cache.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from trainer import corpus, gutenberg
from trainer.cache import CACHE_VARIABLE, FolderCache
from trainer.errors import FetchFailure
from trainer.events import Event
from trainer.gutenberg import Book, Library, Retry

OZ = gutenberg.manifest()[55]
OZ_BODY = (corpus.bundled() / OZ.repo / "55.txt").read_bytes()
ALICE = gutenberg.manifest()[11]
ALICE_BODY = (corpus.bundled() / ALICE.repo / "11-0.txt").read_bytes()

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    fields = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
    for name, value in (fields | {key.replace("_", "-"): value for key, value in headers.items()}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


class GitHub:
    """A raw-file server: `files` by path, and for each path the faults that its next requests meet."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Answer]] = {}
        self.requests: list[str] = []
        self.released = threading.Event()
        github = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                github.requests.append(self.path.rpartition("/")[2])
                body = github.files.get(self.path)
                faults = github.faults.get(self.path)
                if faults:
                    faults.pop(0)(self, body or b"")
                elif body is None:
                    send(self, 404, b"404: Not Found")
                else:
                    send(self, 200, body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.base = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def add(self, repo: str, name: str, body: bytes, *faults: Answer) -> None:
        path = f"/GITenberg/{repo}/master/{name}"
        self.files[path] = body
        self.faults[path] = list(faults)

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    """The server, running; anything that connects elsewhere than to it fails."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if address[0] != "127.0.0.1":
            raise AssertionError(f"a test reaches outside: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setenv("no_proxy", "*")
    for name in (gutenberg.BASE_VARIABLE, CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    server = GitHub()
    try:
        yield server
    finally:
        server.close()


class Clock:
    """Stands in for asyncio.sleep, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


class Desk:
    """A library on the test's server and folder, and what it did."""

    def __init__(self, github: GitHub, folder: Path, timeout: float = 20.0, **retry: Any) -> None:
        self.events: list[Event] = []
        self.clock = Clock()
        self.cache = FolderCache(gutenberg.CACHE, folder)
        self.library = Library(
            gutenberg.urllib_fetch(timeout),
            self.cache,
            github.base,
            Retry(sleep=self.clock.sleep, jitter=lambda: 1.0, **retry),
            self.events.append,
        )

    def get(self, book: Book) -> bytes:
        return asyncio.run(self.library.get(book))[0]

    def cached(self) -> list[Path]:
        return sorted(self.cache.folder.iterdir()) if self.cache.folder.is_dir() else []


# Faults, each a way to answer one request.


def status(code: int, **headers: str) -> Answer:
    return lambda handler, body: send(handler, code, b"no", **headers)


def truncated(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, 200, body[:1000], Content_Length=str(len(body)))


def truncated_silently(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, 200, body[: len(body) // 2])


def cut_while_chunked(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"400\r\n" + body[:500])


def corrupted(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, 200, body[:5000] + bytes([body[5000] ^ 1]) + body[5001:])


def html(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, 200, b"<!DOCTYPE html>\n<html><body>Log in to the wireless network</body></html>")


def html_by_type(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, 200, b"Please log in.", Content_Type="text/html")


def empty(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, 200, b"\xef\xbb\xbf\r\n")


def binary(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, 200, b"\x89PNG\0\0")


def dropped(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.close_connection = True


# (fault, what is said of it, the kind that it is)
FAULTS: list[tuple[Answer, str, FetchFailure]] = [
    (status(429), "HTTP status 429", "busy"),
    (status(500), "HTTP status 500", "network"),
    (status(503), "HTTP status 503", "network"),
    (truncated, "truncated: 1,000 of 232,789 bytes came", "damaged"),
    (cut_while_chunked, "truncated", "network"),
    (html, "an HTML page came instead of the book", "damaged"),
    (html_by_type, "an HTML page came instead of the book", "damaged"),
    (empty, "the file is empty", "damaged"),
    (binary, "the file is binary", "damaged"),
    (dropped, "closed connection", "network"),
]
# What only a manifest can tell.
SILENT_FAULTS: list[tuple[Answer, str, FetchFailure]] = [
    (truncated_silently, "116,394 bytes came, the manifest says 232,789", "damaged"),
    (corrupted, "the manifest says 18274f31ae11aea0...", "hash"),
]
