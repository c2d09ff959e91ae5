"""The built site in Chromium, served from a sub-path: no error, no request to another host, no violation of
its Content-Security-Policy; and Pyodide boots from its bundle, plainly and from a memory snapshot.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from browser import wait_until, watched
from built_site import TESTS
from playwright.sync_api import Browser, expect

from trainer import __version__

pytest_plugins = ("browser", "built_site")

MEGABYTE = 1_000_000


def bundle_of(site: Path) -> Path:
    (folder,) = (site / "assets" / "tabula").iterdir()
    return folder


def test_the_scheme_can_be_switched(chromium: Browser, base: str) -> None:
    with watched(chromium, color_scheme="light") as page:
        page.goto(base)
        page.get_by_title("Switch to dark").click()
        wait_until(page, "document.body.dataset.mdColorScheme == 'slate'")
        page.watch.assert_clean()


def test_the_front_page_leads_to_the_demo_without_a_reload(chromium: Browser, base: str) -> None:
    with watched(chromium) as page:
        page.goto(base, wait_until="networkidle")
        page.evaluate("window.stayed = true")
        page.locator(".tb-start").first.get_by_role("link", name="Tokenizer").click()
        page.locator("tabula-demo").wait_for(state="attached")
        assert page.url == base + "demo/#tokenizer"
        assert page.evaluate("window.stayed")
        assert wait_until(page, "!!customElements.get('tabula-demo')")
        expect(page.locator('[data-stage="tokenizer"] .stage__body')).to_be_visible()
        page.watch.assert_clean()


def test_the_search_finds_a_page(chromium: Browser, base: str) -> None:
    with watched(chromium) as page:
        page.goto(base)
        page.get_by_role("textbox", name="Search").click()
        page.keyboard.type("reference device")
        page.locator(".md-search-result__item").first.wait_for(state="attached")
        page.watch.assert_clean()


def test_the_policy_stops_what_it_should(chromium: Browser, base: str) -> None:
    """Checks the check: an inline script and a request to another host are refused, and seen."""
    with watched(chromium) as page:
        page.goto(base)
        page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {text: 'bad = 1'}))"
        )
        assert page.evaluate("typeof bad") == "undefined"
        page.evaluate("fetch('https://example.org/').catch(() => 0)")
        stopped = " ".join(page.watch.violations)
        assert "inline script" in stopped
        assert "https://example.org/" in stopped


def test_pages_hold_no_handlers_and_no_other_hosts(base: str, site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"<[^>]+\son\w+=", text) == [], path
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="(https?:[^"]+)"', text)
        assert [url for url in loaded if not url.startswith(base)] == [], path


def test_the_bundle_is_in_the_site_as_it_was_built(base: str, site: Path) -> None:
    folder = bundle_of(site)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert folder.name == manifest["version"]
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    del there["manifest.json"]
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in there.items()}
    assert hashes == {name: entry["sha256"] for name, entry in manifest["files"].items()}
    assert folder.name not in (site / "sitemap.xml").read_text()


def compressed(files: Iterable[Path]) -> float:
    """Megabytes, as a server that gzips sends them."""
    return sum(len(gzip.compress(path.read_bytes(), 6)) for path in files) / MEGABYTE


def test_a_first_visit_stays_within_its_budget(chromium: Browser, base: str, site: Path) -> None:
    """The demo's page is readable after little; with all of Python, all modules and the books it stays light.
    Of recorded runs those count that the page loads; the post's figures are no part of the demo.
    """
    with watched(chromium) as page:
        page.goto(base + "demo/", wait_until="networkidle")
        names = {url.removeprefix(base).partition("?")[0] for url in page.watch.requests}
    assert [name for name in names if "/pyodide/" in name or "/books/" in name] == []
    page_files = {site / name / ("index.html" if (site / name).is_dir() else "") for name in names}
    parts = {path for path in bundle_of(site).rglob("*") if path.is_file() and path.suffix != ".jsonl"}
    parts -= set((bundle_of(site) / "figures").rglob("*"))
    print(f"{compressed(page_files):.3f} MB for the page, {compressed(page_files | parts):.3f} MB in all")
    assert compressed(page_files) <= 0.6
    assert compressed(page_files | parts) <= 8


BOOT = """([worker, base, mode]) => new Promise((resolve, reject) => {
  const started = new Worker(worker, { type: "module" });
  started.onmessage = ({ data }) => { started.terminate(); resolve(data); };
  started.onerror = (event) => reject(new Error(`worker: ${event.message}`));
  started.postMessage({ base, mode });
})"""


def test_python_boots_in_a_worker_plainly_and_from_a_snapshot(
    chromium: Browser, base: str, site: Path
) -> None:
    bundle = f"{base}assets/tabula/{bundle_of(site).name}/"
    with watched(chromium) as page:
        page.goto(base + "design/")

        def boot(mode: str) -> dict[str, Any]:
            answer = page.evaluate(BOOT, [f"{base}{TESTS}boot.worker.js", bundle, mode])
            assert "error" not in answer, answer["error"]
            return answer

        plain, made, restored = boot("plain"), boot("make"), boot("restore")
        assert plain["found"][0] == __version__
        assert plain["found"] == made["found"] == restored["found"]
        assert (plain["imported"], made["imported"], restored["imported"]) == (False, False, True)
        assert not plain["isolated"]
        page.watch.assert_clean()
        assert [url for url in page.watch.requests if not url.startswith(base)] == []
