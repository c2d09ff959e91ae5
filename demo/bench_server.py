"""A static host for demo.bench: a sub-path, gzip, GitHub Pages' cache headers, and every byte counted."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PREFIX = "/tabula/site/"
TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm"}
COMPRESSED = ("text/", "application/wasm", "application/json", "application/xml", "image/svg+xml")


@dataclass
class Tally:
    """Bytes that were sent, headers and all."""

    sent: int = 0


@dataclass(frozen=True)
class File:
    """A file as it is sent."""

    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> File:
        body = path.read_bytes()
        kind = TYPES.get(path.suffix) or guess_type(path.name)[0] or "application/octet-stream"
        headers = {
            "Content-Type": kind,
            "ETag": f'"{hashlib.sha256(body).hexdigest()[:16]}"',
            "Cache-Control": "max-age=600",
        }
        if kind.startswith(COMPRESSED):
            body = gzip.compress(body, 6)
            headers["Content-Encoding"] = "gzip"
        return cls(body, headers)


class Counted:
    """A stream to the browser that counts."""

    def __init__(self, stream: Any, tally: Tally) -> None:
        self.stream, self.tally = stream, tally

    def write(self, data: bytes) -> int:
        self.tally.sent += len(data)
        return self.stream.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Host(BaseHTTPRequestHandler):
    """Files by their path below the prefix; all else is a 404."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *given: Any, files: Mapping[str, File], tally: Tally) -> None:
        self.files, self.tally = files, tally
        super().__init__(*given)

    def setup(self) -> None:
        super().setup()
        counted: Any = Counted(self.wfile, self.tally)
        self.wfile = counted

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        name = path.removeprefix(PREFIX) if path.startswith(PREFIX) else "outside the prefix"
        file = self.files.get(f"{name}index.html" if name == "" or name.endswith("/") else name)
        if file is None:
            self.send_error(404)
            return
        fresh = self.headers.get("If-None-Match") == file.headers["ETag"]
        body = b"" if fresh else file.body
        self.send_response(304 if fresh else 200)
        for header, value in file.headers.items():
            self.send_header(header, value)
        if not fresh:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def serve(site: Path, more: Mapping[str, Path] | None = None) -> Iterator[tuple[str, Tally]]:
    """Serves `site`, and `more` files by their paths beside it, below PREFIX of a free port of 127.0.0.1: the
    address, and what has been sent.
    """
    paths = {path.relative_to(site).as_posix(): path for path in site.rglob("*") if path.is_file()}
    # Compressed before the first visit, as a host keeps them.
    files = {name: File.read(path) for name, path in {**paths, **(more or {})}.items()}
    tally = Tally()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Host, files=files, tally=tally))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{PREFIX}", tally
    finally:
        server.shutdown()
        server.server_close()
