"""A page with all live figures, built as the site is, for tests. As a plugin:
pytest_plugins = ("browser", "figures_page"). (PYTEST_DONT_REWRITE: it asserts little itself.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import WatchedPage, serve, watched
from playwright.sync_api import Browser, Locator, Page, expect

from demo.site.figures import FIGURES

ROOT = Path(__file__).parent.parent
SECONDS = {"s": 1, "min": 60, "hours": 3600, "days": 86_400, "years": 365.25 * 86_400}
BUILD = """
import sys
from mkdocs.commands.build import build
from mkdocs.config import load_config
docs, site, address = sys.argv[1:]
nav = [{"Figures": "index.md"}, {"None": "none.md"}]
config = load_config("mkdocs.yml", docs_dir=docs, site_dir=site, site_url=address, nav=nav)
config.plugins.on_startup(command="build", dirty=False)
build(config)
"""


@pytest.fixture(scope="module")
def figures_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a small site with the real configuration: a page with all figures, and one with none."""
    docs, site = tmp_path_factory.mktemp("docs"), tmp_path_factory.mktemp("site")
    for name in ("assets", "data"):
        shutil.copytree(ROOT / "docs" / name, docs / name)
    marks = "\n\nWords between.\n\n".join(f"<!-- figure: {name} -->" for name in FIGURES)
    (docs / "index.md").write_text(f"# Figures\n\n{marks}\n\nWords behind.\n")
    (docs / "none.md").write_text("# None\n\nA page without a figure.\n")
    with serve(site, "/some/where/") as address:
        command = [sys.executable, "-c", BUILD, str(docs), str(site), address]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        yield address


@contextmanager
def figures(browser: Browser, base: str, **options: Any) -> Iterator[WatchedPage]:
    """The page, alive; at its end it must have been without errors and requests to others."""
    options = {"viewport": {"width": 1440, "height": 1000}, "reduced_motion": "reduce", **options}
    with watched(browser, **options) as page:
        page.set_default_timeout(20_000)
        page.goto(base, wait_until="networkidle")
        expect(page.get_by_role("button", name="Measure")).to_be_enabled()
        yield page
        page.watch.assert_clean()


def measure(page: Page) -> dict[str, Any]:
    """Presses the button, waits for the end, and returns what was kept."""
    compute = page.locator("tabula-compute")
    compute.get_by_role("button").click()
    expect(compute.get_by_role("button")).to_have_text("Measuring")
    expect(compute.get_by_role("button")).to_have_text("Measure again", timeout=60_000)
    return page.evaluate("JSON.parse(localStorage.getItem('tabula.compute'))")


@contextmanager
def without_javascript(browser: Browser, base: str) -> Iterator[WatchedPage]:
    """The page as it is served."""
    with watched(browser, java_script_enabled=False) as page:
        page.goto(base)
        yield page
        page.watch.assert_clean()


def cells(row: Locator) -> list[str]:
    return [text.strip() for text in row.locator("td").all_text_contents()]


def seconds(text: str) -> float:
    """16.6 hours → 59,760."""
    number, unit = text.split()
    return float(number.replace(",", "")) * SECONDS[unit]


def module(base: str, page: Page, name: str) -> str:
    """The address of a module of the figures."""
    address = page.locator("tabula-compute + script").get_attribute("src")
    return page.evaluate(
        "([address, name]) => new URL(name, new URL(address, location.href)).href", [address, name]
    )
