"""A static server and Chromium for the tests of the page, as a plugin too: pytest_plugins = ("browser",)

    def test_page(chromium):
        with serve(folder, "/some/where/") as base, watched(chromium) as page:
            page.goto(base + "index.html")
            ...
            page.watch.assert_clean()

Playwright's loop runs in the thread that uses it: asyncio.run() fails there while Chromium is open. The
fixture `chromium` therefore lives as long as one module; natively computed values of that module go through
a subprocess, a thread, or a fixture that is made before it. (PYTEST_DONT_REWRITE: asserts carry messages.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, sync_playwright

# WebGPU on the CPU, and nothing that the browser would do on its own account: no name resolves but ours.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
SOFTWARE_WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
TIMEOUT = 120_000  # ms; generous, for two shared cores

TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm"}


class StaticFiles(SimpleHTTPRequestHandler):
    """Files below one folder under `prefix`, and nothing else: a page that leaves its sub-path gets 404s.

    `folders` may lay further folders into the tree: {"bundle/": path}. Sends no special header.
    """

    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, **TYPES}  # noqa: RUF012
    protocol_version = "HTTP/1.1"

    def __init__(self, *given: Any, root: str, prefix: str, folders: Mapping[str, Path]) -> None:
        self.root, self.prefix, self.folders = root, prefix, folders
        super().__init__(*given, directory=root)

    def translate_path(self, path: str) -> str:
        wanted = urlsplit(path).path
        if not wanted.startswith(self.prefix):
            return str(Path(self.root) / "outside the prefix")
        inside = wanted.removeprefix(self.prefix)
        self.directory = self.root
        for place, folder in self.folders.items():
            if inside.startswith(place):
                self.directory, inside = str(folder), inside.removeprefix(place)
                break
        return super().translate_path("/" + inside)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def serve(
    folder: Path,
    prefix: str = "/tabula/site/",
    folders: Mapping[str, Path] | None = None,
    handler: type[StaticFiles] = StaticFiles,
) -> Iterator[str]:
    """Serves `folder` under `prefix` of a free port of 127.0.0.1; the address ends with a slash."""
    assert prefix.startswith("/")
    assert prefix.endswith("/")
    handles = partial(handler, root=str(folder), prefix=prefix, folders=folders or {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handles)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{prefix}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def launch(*more: str, webgpu: bool = True) -> Iterator[Browser]:
    """Headless Chromium, the system's, else Playwright's own; with software WebGPU, or with no adapter."""
    system = which("chromium") or which("chromium-browser") or which("google-chrome")
    with sync_playwright() as playwright:
        arguments = [*ARGUMENTS, *(SOFTWARE_WEBGPU if webgpu else ()), *more]
        browser = playwright.chromium.launch(executable_path=system, headless=True, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One Chromium for the tests of a module; each takes a context of its own, through `watched`."""
    with launch() as browser:
        yield browser


@dataclass
class Watch:
    """What a page and its workers did: requests, console messages, and what went wrong."""

    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # console errors, uncaught exceptions, HTTP errors

    @property
    def violations(self) -> list[str]:
        """Of the Content-Security-Policy."""
        return [error for error in self.errors if "Content Security Policy" in error]

    @property
    def outside(self) -> list[str]:
        """Requests that left the machine."""
        local = ("http://127.0.0.1:", "blob:", "data:")
        return [url for url in self.requests if not url.startswith(local)]

    def assert_clean(self) -> None:
        assert not self.errors, "\n".join(self.errors)
        assert not self.outside, "\n".join(self.outside)


def wait_until(page: Page, expression: str, seconds: float = TIMEOUT / 1000) -> Any:
    """The value of a JavaScript expression as soon as it is truthy. (Playwright's wait_for_function needs
    eval, which the site's Content-Security-Policy forbids.)
    """
    deadline = time.monotonic() + seconds
    while not (value := page.evaluate(expression)):
        assert time.monotonic() < deadline, f"still false after {seconds} s: {expression}"
        page.wait_for_timeout(50)
    return value


class WatchedPage(Page):
    """For type checkers: a page that `watched` gave carries its watch."""

    watch: Watch


@contextmanager
def watched(browser: Browser, **options: Any) -> Iterator[WatchedPage]:
    """A page in a new context (`options` are new_context's) whose `watch` collects what it does."""
    watch = Watch()

    def heard(message: ConsoleMessage) -> None:
        watch.console.append(f"{message.type}: {message.text}")
        if message.type == "error":
            watch.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def answered(response: Response) -> None:
        if response.status >= 400:
            watch.errors.append(f"HTTP status {response.status}: {response.url}")

    context = browser.new_context(**options)
    context.set_default_timeout(TIMEOUT)
    context.on("request", lambda request: watch.requests.append(request.url))
    context.on("response", answered)  # a worker's 404 writes nothing into the console
    context.on("console", heard)
    context.on("weberror", lambda error: watch.errors.append(f"uncaught: {error.error}"))
    page: Any = context.new_page()
    page.watch = watch
    try:
        yield page
    finally:
        context.close()
