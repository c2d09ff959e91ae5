"""The site's Content-Security-Policy, written into every page as a <meta> element.

One policy serves all pages, since instant navigation shows them all under that of the first. A page's inline
scripts (Material has a few) are allowed by the SHA-256 of their text; there is no unsafe-inline for scripts.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html.parser import HTMLParser

HEAD = '<meta charset="utf-8">'  # the policy goes behind it: before anything that it could forbid
BOOKS = "https://raw.githubusercontent.com"  # the one other host: books that a reader picks


class _Scripts(HTMLParser):
    """Collects the inline scripts that a browser would run; of type JSON and the like it runs none."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        runs = (given.get("type") or "text/javascript") in ("text/javascript", "module")
        if tag == "script" and "src" not in given and runs:
            self.inside = True
            self.found.append("")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self.inside = False


def inline_scripts(page: str) -> list[str]:
    """The texts of a page's inline scripts, to the byte."""
    parser = _Scripts()
    parser.feed(page)
    parser.close()
    return parser.found


def policy(scripts: Iterable[str]) -> str:
    """The policy under which `scripts` may stand inline."""
    digests = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts}
    hashes = " ".join(f"'sha256-{digest}'" for digest in sorted(digests))
    directives = {
        "default-src": "'self'",  # of the rest only this: Firefox fetches rel="next" ahead under it
        "frame-src": "'none'",
        "media-src": "'none'",
        "object-src": "'none'",
        "script-src": f"'self' 'wasm-unsafe-eval' {hashes}".rstrip(),
        "style-src": "'self'",
        "img-src": "'self' data:",  # icons in Material's stylesheet
        "font-src": "'self'",
        "connect-src": f"'self' {BOOKS}",
        "worker-src": "'self'",
        "manifest-src": "'self'",
        "base-uri": "'self'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def with_policy(page: str, content: str) -> str:
    """`page` with the policy in its head."""
    before, head, after = page.partition(HEAD)
    if not head:
        raise ValueError(f"a page without {HEAD}")
    return f'{before}{head}<meta http-equiv="Content-Security-Policy" content="{content}">{after}'
