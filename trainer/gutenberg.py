"""Fetching Project Gutenberg books from the GITenberg repositories on GitHub.

    book = find("84")                                    # or "Frankenstein_84"
    body, url = await Library(fetch=urllib_fetch()).get(book)

Project Gutenberg's own site refuses requests from web pages; GitHub's raw server allows them. How bytes
travel (`Fetch`) and where they are kept (`Cache`) are passed in, so that the page brings its own two; which
file is asked for, what is tried again and what is believed is decided here, the same for both hosts.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from functools import cache
from importlib import resources
from typing import NamedTuple

from trainer.cache import Cache, FolderCache, seal, unseal
from trainer.errors import FetchError, FetchFailure
from trainer.events import Notice, Reader

BASE = "https://raw.githubusercontent.com"
BASE_VARIABLE = "TABULA_GITENBERG"
CACHE = "gitenberg"  # the folder of fetched books in the cache
TIMEOUT = 30.0  # seconds without a byte after which a request is given up
PUBLIC_DOMAIN = "Public domain in the USA"
COPYRIGHTED = "Copyrighted: see the notice in the file"

_REPOSITORY = re.compile(r"[A-Za-z0-9._-]*_([0-9]{1,9})")
_COPYRIGHTED = re.compile(r"This is a COPYRIGHTED Project Gutenberg", re.I)
_BOM = b"\xef\xbb\xbf"
_HTML = re.compile(rb"\s*(?:<!doctype html|<html\b|<head\b|<\?xml)", re.I)


class Response(NamedTuple):
    """What a server answered: header names in lower case, the body as it was before any transfer coding."""

    status: int
    headers: Mapping[str, str]
    body: bytes


# Fetches one URL. Raises OSError (TimeoutError included) when there is no answer; statuses are no errors.
# A host whose HTTP client undoes compression by itself, as browsers do, leaves `content-length` out.
Fetch = Callable[[str], Awaitable[Response]]


@dataclass(frozen=True)
class BookFile:
    """One file of a repository; `bytes` and `sha256` are unknown for books that the manifest lacks."""

    name: str
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Book:
    """A GITenberg repository, and its text files in the order in which they are tried."""

    id: int
    repo: str
    title: str
    author: str = ""
    language: str = ""
    licence: str = ""
    files: tuple[BookFile, ...] = ()


@dataclass(frozen=True)
class Retry:
    """How often and after how many seconds a request is made again; `sleep` and `jitter` are for tests."""

    attempts: int = 5
    first: float = 0.5  # pause after the first failure; doubled after each further one
    longest: float = 60.0  # a server that asks for a longer pause is not waited for
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random  # from 0 to 1

    def pause(self, failures: int, asked: float) -> float:
        """Seconds before the next request: exponential, half of it random, and at least what was asked."""
        backoff = min(self.first * 2 ** (failures - 1), self.longest)
        return max(asked, backoff * (1 + self.jitter()) / 2)


def variants(id: int) -> tuple[str, str, str]:
    """The names that a book's text has, best first: UTF-8, ASCII (or UTF-8), Latin-1."""
    return f"{id}-0.txt", f"{id}.txt", f"{id}-8.txt"


@cache
def manifest() -> Mapping[int, Book]:
    """The books whose files this project knows, by Gutenberg id (written by tests/make_manifest.py)."""
    text = resources.files("trainer").joinpath("data/gutenberg_manifest.json").read_text(encoding="utf-8")
    return {
        entry["id"]: Book(**{**entry, "files": tuple(BookFile(**file) for file in entry["files"])})
        for entry in json.loads(text)["books"]
    }


def find(name: str) -> Book:
    """The book called `name`: a Gutenberg id ("84") or a repository ("Frankenstein_84").

    A repository that the manifest lacks gets a Book whose files are unverified guesses. Raises FetchError
    for an id that the manifest lacks and for what is neither an id nor a repository's name.
    """
    known = manifest()
    if re.fullmatch("[0-9]{1,9}", name):
        if int(name) in known:
            return known[int(name)]
        raise FetchError(
            f"book {name} is not in the manifest",
            f"give its repository's name at github.com/GITenberg, as in gutenberg:Some-Title_{name}",
            kind="name",
        )
    match = _REPOSITORY.fullmatch(name)
    if match is None:
        raise FetchError(
            f"{name!r} names no book",
            "give an id or a repository: gutenberg:84, gutenberg:Frankenstein_84",
            kind="name",
        )
    id = int(match[1])
    if id in known and known[id].repo.lower() == name.lower():
        return known[id]
    title = name.rpartition("_")[0].replace("--", ": ").replace("-", " ")
    return Book(id, name, title or name, files=tuple(BookFile(file) for file in variants(id)))


def licence_of(text: str) -> str:
    """The licence that a Project Gutenberg file's own header states."""
    return COPYRIGHTED if _COPYRIGHTED.search(text, 0, 4000) else PUBLIC_DOMAIN


class Flaw(NamedTuple):
    """Why an answer is not taken for the file that was asked for."""

    kind: FetchFailure
    problem: str
    wait: float = 0.0  # seconds that the server asked for


class Library:
    """Gets books, from the cache or from a server that answers as raw.githubusercontent.com does.

    `base` is the server's address; without one, the environment variable TABULA_GITENBERG or GitHub.
    """

    def __init__(
        self,
        fetch: Fetch | None = None,
        cache: Cache | None = None,
        base: str | None = None,
        retry: Retry | None = None,
        on_event: Reader | None = None,
    ) -> None:
        self.fetch = fetch or urllib_fetch()
        self.cache = cache or FolderCache(CACHE)
        self.base = (base or os.environ.get(BASE_VARIABLE) or BASE).rstrip("/")
        self.retry = retry or Retry()
        self.on_event = on_event or (lambda event: None)
        if not self.base.startswith(("https://", "http://")):
            raise FetchError(f"base address {self.base!r} is no http address", f"try {BASE}", kind="name")

    async def get(self, book: Book) -> tuple[bytes, str]:
        """The bytes of the book's first file that there is, and its address.

        Raises FetchError if the server has none of them, does not answer, or answers with something else
        than the expected file; StorageError if the cache cannot be written.
        """
        addresses = [(file, f"{self.base}/GITenberg/{book.repo}/master/{file.name}") for file in book.files]
        for get in (self._cached, self._download):
            for file, url in addresses:
                body = await get(file, url)
                if body is None:
                    continue
                if file.sha256 is None:
                    self.on_event(Notice(f"{url} is not in the manifest: its content could not be checked"))
                return body, url
        raise FetchError(
            f"{self.base}/GITenberg/{book.repo} has no {' or '.join(file.name for file in book.files)}",
            "check the repository's name at github.com/GITenberg",
            kind="missing",
        )

    async def _cached(self, file: BookFile, url: str) -> bytes | None:
        entry = await self.cache.get(url)
        if entry is None:
            return None
        body = unseal(entry)
        if body is None or _flaw(file, {}, body):
            self.on_event(Notice(f"the cached copy of {url} is damaged: fetching it again"))
            return None
        return body

    async def _download(self, file: BookFile, url: str) -> bytes | None:
        """The body at `url`, now cached, or None if the server says that there is no such file."""
        failures = 0
        while True:
            got = await self._request(file, url)
            if not isinstance(got, Flaw):
                return got
            failures += 1
            after = ""
            if got.kind == "refused":
                remedy = "check the address and your access to it"
            elif got.wait > self.retry.longest:
                remedy = f"the server asks to try again in {got.wait:.0f} seconds"
            elif failures == self.retry.attempts:
                after = f" ({failures} attempts)"
                remedy = f"try again later, or set {BASE_VARIABLE} to a mirror"
            else:
                await self.retry.sleep(self.retry.pause(failures, got.wait))
                continue
            raise FetchError(f"{url}: {got.problem}{after}", remedy, kind=got.kind, wait=got.wait)

    async def _request(self, file: BookFile, url: str) -> bytes | Flaw | None:
        """The body at `url`, now cached; None if there is no such file; else what was wrong."""
        try:
            status, headers, body = await self.fetch(url)
        except OSError as error:
            return Flaw("network", str(error) or type(error).__name__)
        if status in (404, 410):
            return None
        if status == 200:
            flaw = _flaw(file, headers, body)
            if flaw is None:
                await self.cache.put(url, seal(body))
            return flaw or body
        kind: FetchFailure = "busy" if status == 429 else "network"
        if status not in (408, 429) and status < 500:
            kind = "refused"
        return Flaw(kind, f"HTTP status {status}", _retry_after(headers))


def _flaw(file: BookFile, headers: Mapping[str, str], body: bytes) -> Flaw | None:
    """What is wrong with `body`, or None if it is the file that was asked for."""
    digest = hashlib.sha256(body).hexdigest()
    if digest == file.sha256:
        return None
    length = headers.get("content-length", "")
    html = headers.get("content-type", "").lower().startswith("text/html")
    if html or _HTML.match(body.removeprefix(_BOM)):
        return Flaw("damaged", "an HTML page came instead of the book")
    if length.isdecimal() and "content-encoding" not in headers and int(length) != len(body):
        return Flaw("damaged", f"truncated: {len(body):,} of {int(length):,} bytes came")
    if not body.removeprefix(_BOM).strip():
        return Flaw("damaged", "the file is empty")
    if b"\0" in body:
        return Flaw("damaged", "the file is binary, not text")
    if file.bytes is not None and file.bytes != len(body):
        return Flaw("damaged", f"{len(body):,} bytes came, the manifest says {file.bytes:,}")
    if file.sha256 is not None:
        return Flaw("hash", f"its SHA-256 is {digest[:16]}..., the manifest says {file.sha256[:16]}...")
    return None


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait: `Retry-After` as a number or a date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def urllib_fetch(timeout: float = TIMEOUT) -> Fetch:
    """A `Fetch` for native hosts. Gives up after `timeout` seconds of silence, or ten times that in all."""

    def read(url: str) -> Response:
        deadline = time.monotonic() + 10 * timeout
        request = urllib.request.Request(
            url, headers={"User-Agent": "tabula-trainer", "Accept-Encoding": "identity"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return Response(answer.status, _lower(answer.headers), _read_all(answer, deadline))
        except urllib.error.HTTPError as error:
            with error:
                return Response(error.code, _lower(error.headers), b"")
        except urllib.error.URLError as error:
            raise OSError(str(error.reason)) from error
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"{type(error).__name__} {error}".strip()) from error

    async def fetch(url: str) -> Response:
        return await asyncio.to_thread(read, url)

    return fetch


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _read_all(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body, as much of it as came: the policy compares lengths."""
    chunks: list[bytes] = []
    try:
        while chunk := answer.read1(1 << 16):
            chunks.append(chunk)
            if time.monotonic() > deadline:
                raise TimeoutError("the server sends too slowly")
    except http.client.IncompleteRead as error:
        raise OSError("truncated: the connection was cut") from error
    return b"".join(chunks)
