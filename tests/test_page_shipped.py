"""A trained model that comes with the built site, as a reader uses it: opened, written with, and trained on a
text of the reader's own, with the real worker.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from page_session import STEPS
from page_site import demo, losses, state, trained, use_text
from playwright.sync_api import Browser, Page, expect
from shipped_model import NAME, TITLE
from ui_page import head, press, title

pytest_plugins = ("browser", "built_site", "shipped_model")

KEPT = "caches.open('tabula-models').then((cache) => cache.keys()).then((keys) => keys.map((key) => key.url))"


@pytest.fixture(scope="module")
def tiny(model: Path, site: Path, base: str) -> Path:
    """The folder of models in the site, with the tiny one in place of those that are shipped."""
    folder = site / "checkpoints"
    shutil.rmtree(folder)
    shutil.copytree(model / "site" / "checkpoints", folder)
    return folder


def open_model(page: Page) -> None:
    page.get_by_role("button", name="Runs").click()
    page.get_by_role("button", name=f"Open {TITLE}").click()


def test_a_shipped_model_writes_and_is_trained_on_a_text_of_the_reader_s(
    tiny: Path, chromium: Browser, base: str
) -> None:
    with demo(chromium, base) as page:
        assert [url for url in page.watch.requests if "/checkpoints/" in url] == [], (
            "not before they are asked for"
        )
        open_model(page)
        expect(title(page)).to_have_text(f"“{TITLE}” is open", timeout=60_000)
        weights = [url for url in page.evaluate(KEPT) if ".safetensors?sha256=" in url]
        assert len(weights) > 1
        assert state(page, "run.step") == STEPS
        head(page, "infer").click()
        page.get_by_label("Begin a sentence").fill("Alice")
        page.get_by_role("button", name="Write").click()
        expect(page.locator('[data-t="out-note"]')).to_contain_text(" tokens, ", timeout=60_000)
        head(page, "eval").click()
        expect(page.locator('[data-t="bpb"]')).to_contain_text("This run")

        press(page, "Train on your text")
        use_text(page)
        head(page, "train").click()
        page.get_by_role("radio", name="Settings").check()
        page.get_by_text("Advanced", exact=True).click()
        for name, value in {"batch": 4, "steps": 5}.items():
            page.locator(f'[data-field="{name}"]').fill(str(value))
        press(page, "Start")
        trained(page, 5)
        expect(page.locator('.run [data-t="note"]')).to_contain_text(f"“{TITLE}, then tale”")
        first = losses(page)[1]
        assert first < json.loads((tiny / NAME / "log.jsonl").read_text().splitlines()[1])["loss"] - 1, first
        asked = len(page.watch.requests)

        page.reload()
        open_model(page)
        expect(title(page)).to_have_text(f"“{TITLE}” is open", timeout=60_000)
        page.get_by_role("button", name="Runs").click()
        expect(page.locator('[data-t="runs"] li')).to_have_count(2)
        again = [url for url in page.watch.requests[asked:] if "/checkpoints/" in url]
        assert [url.rpartition("/")[2] for url in again] == ["index.json"]
        page.watch.assert_clean()


def test_a_model_with_a_wrong_hash_is_refused_and_not_kept(tiny: Path, chromium: Browser, base: str) -> None:
    weights = next((tiny / NAME).glob("model-00002*"))
    right = weights.read_bytes()
    weights.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    with demo(chromium, base) as page:
        open_model(page)
        expect(title(page)).to_have_text(f"“{TITLE}” is not what it should be", timeout=60_000)
        expect(page.locator('.run [data-t="note"]')).to_have_text("A file's hash differs; it was not kept.")
        assert [url for url in page.evaluate(KEPT) if weights.name in url] == []
        page.get_by_role("button", name="Runs").click()
        expect(page.locator('[data-t="runs-note"]')).to_contain_text("No run is kept yet.")
        page.locator('[data-sheet="runs"]').get_by_role("button", name="Close").click()
        weights.write_bytes(right)
        press(page, "Try again")
        expect(title(page)).to_have_text(f"“{TITLE}” is open", timeout=60_000)
        page.watch.assert_clean()
