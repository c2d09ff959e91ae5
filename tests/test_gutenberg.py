"""Fetching books from a server on 127.0.0.1 that stands in for GitHub's, with every fault it can show."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import make_manifest
import pytest
from raw_server import (
    ALICE,
    ALICE_BODY,
    FAULTS,
    OZ,
    OZ_BODY,
    SILENT_FAULTS,
    Answer,
    Desk,
    GitHub,
    send,
    serving,
    status,
)

from trainer import cleaning, corpus, gutenberg
from trainer.cache import FolderCache
from trainer.errors import CorpusError, FetchError
from trainer.events import Event, Notice, Progress
from trainer.gutenberg import BookFile, Library, Response, Retry

FIXTURES = Path(__file__).parent / "fixtures" / "gutenberg"


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    with serving(monkeypatch) as server:
        yield server


@pytest.fixture
def desk(github: GitHub, tmp_path: Path) -> Desk:
    return Desk(github, tmp_path)


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
    assert caught.value.kind == "missing"
    assert "\n" not in str(caught.value)
    assert desk.clock.pauses == []
    assert desk.cached() == []


@pytest.mark.parametrize(
    ("fault", "problem", "kind"), FAULTS + SILENT_FAULTS, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_fault_that_passes_is_retried(
    github: GitHub, desk: Desk, fault: Answer, problem: str, kind: str
) -> None:
    github.add(OZ.repo, "55.txt", OZ_BODY, fault, fault)
    assert desk.get(OZ) == OZ_BODY
    assert desk.clock.pauses == [0.5, 1.0]
    assert len(github.requests) == 3
    assert desk.get(OZ) == OZ_BODY
    assert len(github.requests) == 3


@pytest.mark.parametrize(
    ("fault", "problem", "kind"), FAULTS + SILENT_FAULTS, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_fault_that_stays_is_reported_and_nothing_is_kept(
    github: GitHub, desk: Desk, fault: Answer, problem: str, kind: str
) -> None:
    github.add(OZ.repo, "55.txt", OZ_BODY, *[fault] * 5)
    with pytest.raises(FetchError) as caught:
        desk.get(OZ)
    assert caught.value.kind == kind
    assert problem in str(caught.value)
    assert f"{github.base}/GITenberg/{OZ.repo}/master/55.txt" in str(caught.value)
    assert "(5 attempts)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert desk.clock.pauses == [0.5, 1.0, 2.0, 4.0]
    assert desk.cached() == []


@pytest.mark.parametrize(
    ("fault", "problem", "kind"), FAULTS, ids=lambda value: getattr(value, "__name__", None)
)
def test_faults_of_an_unknown_book_are_seen_too(
    github: GitHub, desk: Desk, fault: Answer, problem: str, kind: str
) -> None:
    github.add("Oz_9", "9-0.txt", OZ_BODY, *[fault] * 5)
    with pytest.raises(FetchError) as caught:
        desk.get(gutenberg.find("Oz_9"))
    assert problem in str(caught.value)
    assert desk.cached() == []


def test_other_refusals_are_not_retried(github: GitHub, desk: Desk) -> None:
    github.add(OZ.repo, "55.txt", OZ_BODY, status(403))
    with pytest.raises(FetchError, match="HTTP status 403") as caught:
        desk.get(OZ)
    assert caught.value.kind == "refused"
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
    with pytest.raises(FetchError, match="again in 3600 seconds") as caught:
        desk.get(OZ)
    assert (caught.value.kind, caught.value.wait) == ("busy", 3600)
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
        Library(cache=FolderCache(gutenberg.CACHE, tmp_path), base=base)


def test_base_address_from_the_environment(
    github: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(gutenberg.BASE_VARIABLE, github.base + "/")
    github.add(OZ.repo, "55.txt", OZ_BODY)
    library = Library(cache=FolderCache(gutenberg.CACHE, tmp_path))
    assert asyncio.run(library.get(OZ)) == (OZ_BODY, f"{github.base}/GITenberg/{OZ.repo}/master/55.txt")


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_pauses_grow_and_end(jitter: float) -> None:
    retry = Retry(first=0.5, longest=8.0, jitter=lambda: jitter)
    share = (1 + jitter) / 2
    assert [retry.pause(n, 0) for n in range(1, 8)] == [share * p for p in (0.5, 1, 2, 4, 8, 8, 8)]


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
