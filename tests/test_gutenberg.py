"""Fetching books from a server on 127.0.0.1 that stands in for GitHub's, with every fault it can show."""

from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import make_manifest
import pytest

from trainer import cleaning, corpus, gutenberg
from trainer.errors import CorpusError, FetchError, StorageError
from trainer.events import Event, Notice, Progress
from trainer.gutenberg import Book, BookFile, FolderCache, Library, Response, Retry

FIXTURES = Path(__file__).parent / "fixtures" / "gutenberg"
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


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    """The server; anything that connects elsewhere than to it fails."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if address[0] != "127.0.0.1":
            raise AssertionError(f"a test reaches outside: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setenv("no_proxy", "*")
    for name in (gutenberg.BASE_VARIABLE, gutenberg.CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    server = GitHub()
    yield server
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
        self.cache = FolderCache(folder)
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


@pytest.fixture
def desk(github: GitHub, tmp_path: Path) -> Desk:
    return Desk(github, tmp_path)


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


FAULTS: list[tuple[Answer, str]] = [
    (status(429), "HTTP status 429"),
    (status(500), "HTTP status 500"),
    (status(503), "HTTP status 503"),
    (truncated, "truncated: 1,000 of 232,789 bytes came"),
    (cut_while_chunked, "truncated"),
    (html, "an HTML page came instead of the book"),
    (html_by_type, "an HTML page came instead of the book"),
    (empty, "the file is empty"),
    (binary, "the file is binary"),
    (dropped, "closed connection"),
]
# What only a manifest can tell.
SILENT_FAULTS: list[tuple[Answer, str]] = [
    (truncated_silently, "116,394 bytes came, the manifest says 232,789"),
    (corrupted, "the manifest says 18274f31ae11aea0..."),
]


# The manifest.


def test_manifest_covers_forty_books_and_the_bundled_ones() -> None:
    books = gutenberg.manifest()
    assert len(books) >= 40
    for id, book in books.items():
        assert book.id == id
        assert book.repo.endswith(f"_{id}")
        assert book.title
        assert book.author
        assert book.language
        assert book.licence
        names = [file.name for file in book.files]
        assert names == [name for name in gutenberg.variants(id) if name in names]
        assert names
    files = list(corpus.bundled().rglob("*.txt"))
    assert len(files) == 10
    for path in files:
        book = gutenberg.find(path.parent.name)
        body = path.read_bytes()
        assert book.files[0] == BookFile(path.name, len(body), hashlib.sha256(body).hexdigest())
        assert book.licence == gutenberg.PUBLIC_DOMAIN == gutenberg.licence_of(cleaning.decode(body))


def test_the_script_writes_the_manifest_that_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_manifest, "MANIFEST", tmp_path / "manifest.json")
    assert make_manifest.main([str(corpus.bundled())]) == 0
    written = make_manifest.MANIFEST.read_text(encoding="utf-8")
    shipped = (Path(gutenberg.__file__).parent / "data" / "gutenberg_manifest.json").read_text(
        encoding="utf-8"
    )
    oz = written[written.index('"id": 55') : written.index('"id": 12,')]
    assert oz in shipped


def test_find() -> None:
    assert gutenberg.find("84") is gutenberg.find("Frankenstein_84") is gutenberg.find("frankenstein_84")
    book = gutenberg.find("A-Modest-Proposal_1080")
    assert (book.id, book.title) == (1080, "A Modest Proposal")
    assert [file.name for file in book.files] == ["1080-0.txt", "1080.txt", "1080-8.txt"]
    assert all(file.sha256 is None for file in book.files)


@pytest.mark.parametrize(
    "name", ["99999", "Frankenstein", "", "../../etc_84", "a/b_84", "x_84?y", "9" * 5000]
)
def test_find_refuses(name: str) -> None:
    with pytest.raises(FetchError, match="book"):
        gutenberg.find(name)


# Fetching.


def test_a_known_book_is_fetched_checked_and_cached(github: GitHub, desk: Desk) -> None:
    github.add(OZ.repo, "55.txt", OZ_BODY)
    assert desk.get(OZ) == OZ_BODY
    assert github.requests == ["55.txt"]  # the manifest knows that there is no 55-0.txt
    assert desk.get(OZ) == OZ_BODY
    assert github.requests == ["55.txt"]
    assert len(desk.cached()) == 1
    assert desk.events == []


def test_a_missing_variant_leads_to_the_next(github: GitHub, desk: Desk) -> None:
    body = (FIXTURES / "1661-8.txt").read_bytes()
    github.add("Some-Title_1661", "1661-8.txt", body)
    book = gutenberg.find("Some-Title_1661")
    assert desk.get(book) == body
    assert desk.get(book) == body
    assert github.requests == ["1661-0.txt", "1661.txt", "1661-8.txt"]
    assert [type(event) for event in desk.events] == [Notice, Notice]  # each time that it is used
    assert all("not in the manifest" in str(event) for event in desk.events)


def test_no_variant_at_all_is_an_error(github: GitHub, desk: Desk) -> None:
    with pytest.raises(FetchError, match=r"Nothing-Here_7 has no 7-0\.txt or 7\.txt or 7-8\.txt") as caught:
        desk.get(gutenberg.find("Nothing-Here_7"))
    assert "\n" not in str(caught.value)
    assert desk.clock.pauses == []
    assert desk.cached() == []


@pytest.mark.parametrize(
    ("fault", "problem"), FAULTS + SILENT_FAULTS, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_fault_that_passes_is_retried(github: GitHub, desk: Desk, fault: Answer, problem: str) -> None:
    github.add(OZ.repo, "55.txt", OZ_BODY, fault, fault)
    assert desk.get(OZ) == OZ_BODY
    assert desk.clock.pauses == [0.5, 1.0]
    assert len(github.requests) == 3
    assert desk.get(OZ) == OZ_BODY
    assert len(github.requests) == 3


@pytest.mark.parametrize(
    ("fault", "problem"), FAULTS + SILENT_FAULTS, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_fault_that_stays_is_reported_and_nothing_is_kept(
    github: GitHub, desk: Desk, fault: Answer, problem: str
) -> None:
    github.add(OZ.repo, "55.txt", OZ_BODY, *[fault] * 5)
    with pytest.raises(FetchError) as caught:
        desk.get(OZ)
    assert problem in str(caught.value)
    assert f"{github.base}/GITenberg/{OZ.repo}/master/55.txt" in str(caught.value)
    assert "(5 attempts)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert desk.clock.pauses == [0.5, 1.0, 2.0, 4.0]
    assert desk.cached() == []


@pytest.mark.parametrize(("fault", "problem"), FAULTS, ids=lambda value: getattr(value, "__name__", None))
def test_faults_of_an_unknown_book_are_seen_too(
    github: GitHub, desk: Desk, fault: Answer, problem: str
) -> None:
    github.add("Oz_9", "9-0.txt", OZ_BODY, *[fault] * 5)
    with pytest.raises(FetchError) as caught:
        desk.get(gutenberg.find("Oz_9"))
    assert problem in str(caught.value)
    assert desk.cached() == []


def test_other_refusals_are_not_retried(github: GitHub, desk: Desk) -> None:
    github.add(OZ.repo, "55.txt", OZ_BODY, status(403))
    with pytest.raises(FetchError, match="HTTP status 403"):
        desk.get(OZ)
    assert desk.clock.pauses == []


def test_retry_after_is_honoured(github: GitHub, desk: Desk) -> None:
    github.add(OZ.repo, "55.txt", OZ_BODY, status(429, Retry_After="7"), status(503, Retry_After="soon"))
    assert desk.get(OZ) == OZ_BODY
    assert desk.clock.pauses == [7.0, 1.0]


def test_retry_after_as_a_date(github: GitHub, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gutenberg.time, "time", lambda: 1_000_000.0)
    github.add(OZ.repo, "55.txt", OZ_BODY, status(429, Retry_After=formatdate(1_000_030, usegmt=True)))
    assert desk.get(OZ) == OZ_BODY
    assert desk.clock.pauses == [30.0]


def test_a_server_that_asks_for_too_long_a_pause_is_not_waited_for(github: GitHub, desk: Desk) -> None:
    github.add(OZ.repo, "55.txt", OZ_BODY, status(429, Retry_After="3600"))
    with pytest.raises(FetchError, match="again in 3600 seconds"):
        desk.get(OZ)
    assert desk.clock.pauses == []


def test_a_server_that_hangs_is_given_up(github: GitHub, tmp_path: Path) -> None:
    desk = Desk(github, tmp_path, timeout=0.05, attempts=2)

    def hang(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        github.released.wait(30)

    def hang_in_the_body(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        send(handler, 200, body[:100], Content_Length=str(len(body)))
        handler.wfile.flush()
        github.released.wait(30)

    github.add(OZ.repo, "55.txt", OZ_BODY, hang, hang_in_the_body)
    with pytest.raises(FetchError, match=r"timed out \(2 attempts\)"):
        desk.get(OZ)
    assert desk.cached() == []


def test_a_server_that_drips_is_given_up(github: GitHub, tmp_path: Path) -> None:
    desk = Desk(github, tmp_path, timeout=0.1, attempts=1)

    def drip(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        send(handler, 200, b"", Content_Length=str(len(body)))
        while not github.released.wait(0.005):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    github.add(OZ.repo, "55.txt", OZ_BODY, drip)
    with pytest.raises(FetchError, match=r"too slowly|timed out"):
        desk.get(OZ)


def test_nobody_listens(github: GitHub, tmp_path: Path) -> None:
    desk = Desk(github, tmp_path)
    github.close()
    with pytest.raises(FetchError, match="refused"):
        desk.get(OZ)


def test_an_interrupted_connection_is_oserror_for_every_host(desk: Desk) -> None:
    """The page's fetch raises OSError too: the policy asks no more of a host."""

    async def fetch(url: str) -> Response:
        raise OSError("NetworkError when attempting to fetch resource")

    desk.library.fetch = fetch
    with pytest.raises(FetchError, match="NetworkError"):
        desk.get(OZ)


def test_lengths_of_compressed_answers_are_not_compared(desk: Desk) -> None:
    async def fetch(url: str) -> Response:
        compressed = gzip.compress(OZ_BODY)
        return Response(200, {"content-length": str(len(compressed)), "content-encoding": "gzip"}, OZ_BODY)

    desk.library.fetch = fetch
    assert desk.get(gutenberg.find("Oz_9")) == OZ_BODY


@pytest.mark.parametrize("base", ["ftp://127.0.0.1", "file:///etc", "127.0.0.1"])
def test_only_http_addresses(base: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="is no http address"):
        Library(cache=FolderCache(tmp_path), base=base)


def test_base_address_from_the_environment(
    github: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(gutenberg.BASE_VARIABLE, github.base + "/")
    github.add(OZ.repo, "55.txt", OZ_BODY)
    library = Library(cache=FolderCache(tmp_path))
    assert asyncio.run(library.get(OZ)) == (OZ_BODY, f"{github.base}/GITenberg/{OZ.repo}/master/55.txt")


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_pauses_grow_and_end(jitter: float) -> None:
    retry = Retry(first=0.5, longest=8.0, jitter=lambda: jitter)
    share = (1 + jitter) / 2
    assert [retry.pause(n, 0) for n in range(1, 8)] == [share * p for p in (0.5, 1, 2, 4, 8, 8, 8)]


# The cache.


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
    desk.cached()[0].write_bytes(gutenberg.seal(ALICE_BODY))
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
from trainer import gutenberg
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
        gutenberg.CACHE_VARIABLE: str(desk.cache.folder.parent),
    }
    command = [sys.executable, "-c", FETCH_ONE]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].strip() for process in both]
    assert outputs == [OZ.files[0].sha256] * 2
    assert github.requests == ["55.txt"] * 2
    assert len(desk.cached()) == 1
    assert desk.get(OZ) == OZ_BODY
    assert github.requests == ["55.txt"] * 2


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TABULA_CACHE": "/x/y", "XDG_CACHE_HOME": "/z"}, Path("/x/y")),
        ({"XDG_CACHE_HOME": "/z"}, Path("/z/tabula")),
        ({"XDG_CACHE_HOME": "relative"}, Path("/home/u/.cache/tabula")),
        ({"TABULA_CACHE": ""}, Path("/home/u/.cache/tabula")),
        ({}, Path("/home/u/.cache/tabula")),
    ],
)
def test_cache_folder(variables: dict[str, str], expected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/u"))
    for name in ("TABULA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert gutenberg.cache_folder() == expected


# From a source to a document.


def test_books_are_loaded_with_progress(github: GitHub, desk: Desk) -> None:
    github.add(ALICE.repo, "11-0.txt", ALICE_BODY)
    github.add("Holmes_1661", "1661-8.txt", (FIXTURES / "1661-8.txt").read_bytes())
    events: list[Event] = []
    documents = asyncio.run(
        corpus.load(
            ["gutenberg:11", "gutenberg:Holmes_1661", f"gutenberg:{ALICE.repo}"],
            cache=desk.cache,
            base=github.base,
            on_event=events.append,
        )
    )
    alice, holmes = documents
    assert alice.title == "Alice’s Adventures in Wonderland"
    assert alice.author == "Lewis Carroll"
    assert alice.source == f"{github.base}/GITenberg/{ALICE.repo}/master/11-0.txt"
    assert alice.licence == gutenberg.PUBLIC_DOMAIN
    assert alice.text == cleaning.clean(cleaning.decode(ALICE_BODY))
    assert holmes.title == "The Adventures of Sherlock Holmes"
    assert holmes.author == "Arthur Conan Doyle"
    assert "née ADLER" in holmes.text
    progress = [
        (event.stage, event.done, event.total, event.unit) for event in events if isinstance(event, Progress)
    ]
    assert progress == [("fetch", done, 3, "books") for done in (0, 1, 1, 2, 2, 3)]
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert len(notices) == 2
    assert "not in the manifest" in notices[0]
    assert "left out as repeated" in notices[1]


def test_a_book_without_text_is_refused(github: GitHub, desk: Desk) -> None:
    marker = b"*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\nEnd of Project Gutenberg's X\n"
    github.add("X_9", "9.txt", marker)
    with pytest.raises(CorpusError, match="holds no text"):
        asyncio.run(corpus.load(["gutenberg:X_9"], cache=desk.cache, base=github.base))
