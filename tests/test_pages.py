"""Every page of the built site: it loads cleanly in both schemes, axe finds nothing, its links and anchors
resolve, it says what it is to others; and the post is light, and needs no JavaScript.
"""

from __future__ import annotations

import gzip
import json
import posixpath
import re
import xml.etree.ElementTree as ElementTree
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
from browser import WatchedPage, wait_until, watched
from documents import ROOT
from playwright.sync_api import Browser, expect
from ui_page import AXE

pytest_plugins = ("browser", "built_site")

DOCS = ROOT / "docs"
PAGES = sorted(
    "" if path.name == "index.md" else f"{path.relative_to(DOCS).with_suffix('').as_posix()}/"
    for path in DOCS.rglob("*.md")
)
STAGES = ("data", "tokenizer", "tokenize", "train", "infer", "eval")
DEMO_HASHES = {"start", *STAGES}  # demo/page/demo.js reads them
FIRST_VIEW = 400_000  # bytes of the post, compressed
SCHEMES = {"light": "default", "dark": "slate"}


def violations(page: WatchedPage) -> list[str]:
    """What axe finds and calls serious or critical."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations)")
    found = [violation for violation in found if violation["impact"] in ("serious", "critical")]
    return [f"{violation['id']}: {node['html'][:200]}" for violation in found for node in violation["nodes"]]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("page_name", [*PAGES, "404.html"])
def test_every_page_loads_cleanly_and_is_accessible(
    chromium: Browser, base: str, page_name: str, scheme: Any
) -> None:
    with watched(chromium, color_scheme=scheme, viewport={"width": 1440, "height": 1000}) as page:
        page.goto(base + page_name, wait_until="networkidle")
        assert page.locator("body").get_attribute("data-md-color-scheme") == SCHEMES[scheme]
        fonts = page.evaluate("[...document.fonts].filter((f) => f.status == 'loaded').map((f) => f.family)")
        assert "Tabula Sans" in " ".join(fonts)
        page.watch.assert_clean()
        assert [url for url in page.watch.requests if not url.startswith(base)] == []
        assert violations(page) == []


@pytest.mark.parametrize("width", [320, 375, 768])
def test_no_page_is_wider_than_the_screen(chromium: Browser, base: str, width: int) -> None:
    with watched(chromium, viewport={"width": width, "height": 800}) as page:
        for page_name in PAGES:
            page.goto(base + page_name)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, page_name
            if width == 375:  # where more of a page has to be scrolled by hand
                assert violations(page) == [], page_name


# ---------------------------------------------------------------- links


class Links(HTMLParser):
    """The addresses that a page refers to, its ids, and its metadata."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.meta: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.links += [
            given[name] for name in ("href", "src", "xlink:href") if name in given and tag != "use"
        ]
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "meta" and "content" in given:
            self.meta[given.get("name") or given.get("property", "")] = given["content"]


@cache
def parsed(path: Path) -> Links:
    return Links(path.read_text(encoding="utf-8"))


def html(site: Path, page_name: str) -> Path:
    return site / page_name / "index.html"


@pytest.mark.parametrize("page_name", PAGES)
def test_every_link_and_anchor_resolves(base: str, site: Path, page_name: str) -> None:
    broken, seen = [], 0
    for link in parsed(html(site, page_name)).links:
        if link.startswith(base):
            link = link.removeprefix(base)
            place = unquote(urldefrag(link)[0])
        elif "://" in link or link.startswith("data:"):
            continue
        else:
            inside = unquote(urldefrag(link)[0])
            place = posixpath.normpath(posixpath.join(page_name, inside)) if inside else page_name
        seen += 1
        target, anchor = site / place, urldefrag(link)[1]
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file():
            broken.append(link)
        elif target == html(site, "demo/") and anchor in DEMO_HASHES:
            continue
        elif anchor and anchor not in parsed(target).ids:
            broken.append(link)
    assert seen > 10
    assert broken == []


def test_ids_are_unique(base: str, site: Path) -> None:
    for page_name in PAGES:
        ids = parsed(html(site, page_name)).ids
        assert sorted({name for name in ids if ids.count(name) > 1}) == [], page_name


# ---------------------------------------------------------------- what others see


def test_every_page_has_a_title_a_description_and_a_card_of_its_own(base: str, site: Path) -> None:
    described = {}
    for page_name in PAGES:
        meta = parsed(html(site, page_name)).meta
        described[page_name] = meta["description"]
        assert 40 <= len(meta["description"]) <= 160, page_name
        assert meta["og:title"], page_name
        assert meta["og:description"] == meta["description"]
        assert meta["og:url"] == base + page_name
        card = site / meta["og:image"].removeprefix(base)
        assert card.read_bytes().startswith(b"\x89PNG"), page_name
        assert card.stat().st_size < 100_000
    assert len(set(described.values())) == len(described)


def test_the_sitemap_lists_the_pages(base: str, site: Path) -> None:
    tree = ElementTree.parse(site / "sitemap.xml")
    listed = {str(place.text) for place in tree.iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")}
    assert listed == {base + page_name for page_name in PAGES}


def test_an_address_that_is_none_leads_back(chromium: Browser, base: str) -> None:
    with watched(chromium) as page:
        page.goto(base + "404.html")
        expect(page.get_by_role("heading", level=1)).to_have_text("There is no such page")
        page.get_by_role("link", name="To the front page").click()
        wait_until(page, f"location.href === {json.dumps(base)}")
        page.watch.assert_clean()


# ---------------------------------------------------------------- the post


def test_the_first_view_of_the_post_is_light(chromium: Browser, base: str, site: Path) -> None:
    """All that the post loads by itself, compressed; the demo's parts come when they are wanted."""
    with watched(chromium, viewport={"width": 1440, "height": 1000}) as page:
        page.goto(base, wait_until="networkidle")
        names = {url.removeprefix(base).partition("?")[0] for url in page.watch.requests}
    files = [site / name / "index.html" if (site / name).is_dir() else site / name for name in names]
    sizes = {path: len(gzip.compress(path.read_bytes(), 6)) for path in files}
    print(f"{sum(sizes.values()):,} bytes in {len(sizes)} requests")
    assert [
        name for name in names if "/pyodide/" in name or "/books/" in name or name.endswith("/worker.js")
    ] == []
    assert sum(sizes.values()) <= FIRST_VIEW, sorted(sizes.items(), key=lambda item: -item[1])[:5]


def test_the_post_says_how_long_it_takes_to_read(base: str, site: Path) -> None:
    minutes = re.search(r"(\d+) minutes to read", html(site, "").read_text(encoding="utf-8"))
    assert minutes
    assert 4 <= int(minutes[1]) <= 15


def test_without_javascript_all_but_the_demo_can_be_read(chromium: Browser, base: str) -> None:
    with watched(chromium, java_script_enabled=False, viewport={"width": 1440, "height": 1000}) as page:
        page.goto(base)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        for heading in ("Why a tab", "Two lessons", "Need more compute", "Train one now"):
            expect(page.get_by_role("heading", name=heading, exact=False).first).to_be_visible()
        expect(page.locator(".tb-pipeline__wide")).to_be_visible()
        assert page.locator(".tb-figure").count() > 40
        page.locator(".md-tabs").get_by_role("link", name="How it works").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("How it works")
        page.goto(base + "demo/")
        expect(page.locator("noscript p")).to_be_visible()
        page.watch.assert_clean()


@pytest.mark.parametrize(("width", "kind"), [(1440, "wide"), (375, "narrow")])
def test_the_boxes_of_the_pipeline_lead_to_their_stages(
    chromium: Browser, base: str, width: int, kind: str
) -> None:
    with watched(chromium, viewport={"width": width, "height": 900}) as page:
        page.goto(base, wait_until="networkidle")
        boxes = page.locator(f".tb-pipeline__{kind} a")
        expect(boxes).to_have_count(len(STAGES))
        boxes.nth(1).click()
        page.locator("tabula-demo").wait_for(state="attached")
        assert page.url == base + "demo/#tokenizer"
        expect(page.locator('[data-stage="tokenizer"] .stage__body')).to_be_visible()
        expect(page.locator('[data-stage="train"] .stage__body')).to_be_hidden()
        page.watch.assert_clean()


def test_start_in_the_post_opens_the_demo_running(chromium: Browser, base: str) -> None:
    with watched(chromium, viewport={"width": 1440, "height": 900}) as page:
        page.goto(base, wait_until="networkidle")
        page.locator(".tb-start .md-button").first.click()
        expect(page.locator(".run__actions").get_by_role("button", name="Pause")).to_be_visible()
        assert page.url == base + "demo/"  # without #start: a reload starts nothing
        page.watch.assert_clean()


def test_a_figure_leads_to_its_record(chromium: Browser, base: str) -> None:
    with watched(chromium, viewport={"width": 1440, "height": 900}) as page:
        page.goto(base, wait_until="networkidle")
        link = page.locator('.tb-figure[href*="benchmarks/#"]').first
        assert re.search(r"commit [0-9a-f]{9}: \S", link.get_attribute("title") or "")
        anchor = (link.get_attribute("href") or "").partition("#")[2]
        shown = link.inner_text()
        link.click()
        row = page.locator(f'[id="{anchor}"]')
        expect(row).to_be_visible()
        assert shown.replace("\u00a0", " ") in row.inner_text()
