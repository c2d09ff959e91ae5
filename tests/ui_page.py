"""The demo's page on its own, for tests: markup, styles and modules, with a worker that answers from the
recorded run. As a plugin: pytest_plugins = ("browser", "ui_page"). (PYTEST_DONT_REWRITE: it asserts little
itself.)
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import material
import pytest
from browser import WatchedPage, serve, watched
from playwright.sync_api import Browser, Page, expect

from demo.site.live import recordings

ROOT = Path(__file__).parent.parent
PAGES = Path(__file__).parent / "pages" / "ui"
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
NASTY = "<img src=x onerror=document.title='taken'>"
SHOTS = os.environ.get("TABULA_SHOTS", "")


@pytest.fixture(scope="module")
def ui_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the markup on a bare page with Material's styles, as the site has them."""
    folder = tmp_path_factory.mktemp("ui")
    styles = Path(material.__file__).parent / "templates" / "assets" / "stylesheets"
    for name, pattern in (("material.css", "main.*.min.css"), ("palette.css", "palette.*.min.css")):
        text = next(styles.glob(pattern)).read_text(encoding="utf-8")
        (folder / name).write_text(re.sub(r"/\*# sourceMappingURL.*?\*/", "", text), encoding="utf-8")
    shutil.copytree(ROOT / "demo" / "page", folder / "bundle" / "page")
    index = json.dumps(recordings.index(recordings.all_runs()))
    (folder / "bundle" / recordings.INDEX).write_text(index, encoding="utf-8")
    for name in ("adapter.js", "protocol.js"):
        shutil.copy(ROOT / "demo" / name, folder / "bundle")
    vendor = folder / "bundle" / "page" / "vendor"
    vendor.mkdir()
    shutil.copy(ROOT / "node_modules" / "uplot" / "dist" / "uPlot.esm.js", vendor / "uplot.js")
    shutil.copy(ROOT / "node_modules" / "uplot" / "dist" / "uPlot.min.css", vendor / "uplot.css")
    shutil.copytree(ROOT / "docs" / "assets" / "fonts", folder / "fonts")
    fonts = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "assets").glob("*.css")]
    (folder / "fonts.css").write_text("\n".join(fonts), encoding="utf-8")
    shutil.copy(PAGES / "worker.js", folder)
    (folder / "checkpoints").mkdir()
    shutil.copy(ROOT / "docs" / "checkpoints" / "index.json", folder / "checkpoints")
    shell = (PAGES / "index.html").read_text(encoding="utf-8")
    markup = (ROOT / "demo" / "page" / "demo.html").read_text(encoding="utf-8")
    (folder / "index.html").write_text(shell.replace("<!-- markup -->", markup), encoding="utf-8")
    with serve(folder) as address:
        yield address


@contextmanager
def demo(
    browser: Browser,
    base: str,
    worker: str = "",
    *,
    gpu: str = "adapter",
    features: tuple[str, ...] = (),
    scheme: str = "default",
    hangs: str = "",
    **options: Any,
) -> Iterator[WatchedPage]:
    """The page, ready: `gpu` is adapter, software, none (no adapter) or missing (no WebGPU); requests that
    match `hangs` are never answered. `features` are the adapter's.
    """
    info = {"adapter": "{vendor: 'apple', architecture: 'm1'}", "software": "{architecture: 'swiftshader'}"}
    given = f"features: new Set({json.dumps(features)})"
    adapter = f"{{info: {info[gpu]}, {given}}}" if gpu in info else "null"
    value = "undefined" if gpu == "missing" else f"{{requestAdapter: async () => ({adapter})}}"
    options = {"viewport": {"width": 1440, "height": 1000}, "reduced_motion": "reduce", **options}
    with watched(browser, **options) as page:
        page.set_default_timeout(10_000)
        page.add_init_script(f'Object.defineProperty(Navigator.prototype, "gpu", {{get: () => ({value})}});')
        if hangs:
            page.route(hangs, lambda route: None)
        page.goto(f"{base}index.html?{urlencode({'worker': worker, 'scheme': scheme})}")
        expect(page.locator('[data-t="device"]')).not_to_have_text("Device")
        yield page


def title(page: Page) -> Any:
    return page.locator('.run [data-t="title"]')


def head(page: Page, stage: str) -> Any:
    return page.locator(f'[data-stage="{stage}"] .stage__head button')


def press(page: Page, label: str) -> None:
    page.locator(".run__actions").get_by_role("button", name=label, exact=True).click()


def train(page: Page) -> None:
    """Start, and wait until all is done."""
    press(page, "Start")
    expect(head(page, "eval")).to_contain_text("bits/byte")
    expect(title(page)).to_have_text(re.compile("^Trained: 300 steps in"))


def serious(page: Page) -> list[str]:
    found = page.evaluate("axe.run('tabula-demo', {resultTypes: ['violations']}).then((r) => r.violations)")
    return [
        f"{v['id']}: {node['html'][:160]} {node['any'][:1]}"
        for v in found
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]


def small_targets(page: Page, least: int) -> list[str]:
    """Buttons that are too low to hit. Tokens are words in running text, which WCAG 2.5.8 leaves out."""
    return page.evaluate(
        """(least) => [...document.querySelectorAll("tabula-demo :is(button, summary, label, .knob input)")]
            .filter((b) => !b.matches("label") || b.closest(".seg"))
            .filter((b) => b.offsetParent && !b.matches(".tok"))
            .filter((b) => b.getBoundingClientRect().height < least - 0.5)
            .map((b) => `${b.textContent.trim() || b.dataset.knob} ${b.getBoundingClientRect().height}`)""",
        least,
    )


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.wait_for_timeout(150)
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)
