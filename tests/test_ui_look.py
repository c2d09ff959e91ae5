"""The page's looks in Chromium: what axe finds, and widths from a phone's to a desk's.

Screenshots of all widths and both colour schemes go to the folder that TABULA_SHOTS names, if it is set.
"""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, expect
from ui_page import AXE, SHOTS, demo, head, serious, shot, small_targets, train

pytest_plugins = ("browser", "ui_page")

SLIDERS = ("temperature", "top_k", "top_p", "tokens")


@pytest.mark.parametrize("scheme", ["default", "slate"])
def test_axe_finds_nothing_serious(chromium: Browser, ui_base: str, scheme: str) -> None:
    with demo(chromium, ui_base, gpu="software", scheme=scheme) as page:
        train(page)
        page.add_script_tag(path=AXE)
        head(page, "infer").click()
        page.get_by_role("button", name="Write").click()
        expect(page.locator('[data-t="out-note"]')).to_contain_text("tokens/s")
        for stage in ("data", "tokenizer", "tokenize", "train", "infer", "eval"):
            head(page, stage).click()
            assert serious(page) == [], stage
        for sheet in ("Runs", "Device"):
            page.locator(f'[data-do="{sheet.lower()}"]').click()
            assert serious(page) == [], sheet
            page.keyboard.press("Escape")


@pytest.mark.parametrize("width", [320, 375])
def test_a_long_name_of_a_measured_device_fits_on_a_phone(
    chromium: Browser, ui_base: str, width: int
) -> None:
    worker = urlencode({"device": "NVIDIA GeForce RTX 4090 Laptop GPU"})
    schemes = ["default", "slate"] if SHOTS else ["default"]
    for scheme in schemes:
        viewport = {"width": width, "height": 900}
        with demo(chromium, ui_base, worker, scheme=scheme, viewport=viewport) as page:
            page.get_by_role("button", name="Runs").click()
            page.keyboard.press("Escape")
            page.locator('[data-do="device"]').click()
            page.get_by_role("button", name="Measure").click()
            page.keyboard.press("Escape")
            expect(page.locator('[data-t="peak"]')).to_have_text("12.5 GFLOP/s")
            expect(page.locator('[data-t="runs-count"]')).to_have_text("1")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            shot(page, f"device-name-{width}-{scheme}")


@pytest.mark.parametrize("width", [375, 768, 1440])
def test_no_width_scrolls_sideways_and_targets_are_large_enough(
    chromium: Browser, ui_base: str, width: int
) -> None:
    schemes = ["default", "slate"] if SHOTS else ["default"]
    for scheme in schemes:
        viewport = {"width": width, "height": 900}
        with demo(chromium, ui_base, gpu="software", scheme=scheme, viewport=viewport) as page:
            shot(page, f"idle-{width}-{scheme}")
            head(page, "tokenizer").click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            train(page)
            for stage in ("data", "tokenizer", "tokenize", "train", "infer", "eval"):
                head(page, stage).click()
                expect(head(page, stage)).to_have_attribute("aria-expanded", "true")
                expect(head(page, stage)).to_be_in_viewport()
                if stage == "infer":
                    page.get_by_role("button", name="Write").click()
                    expect(page.locator('[data-t="out-note"]')).to_contain_text("tokens/s")
                    page.locator('[data-t="out"] .tok').nth(3).click()
                assert page.evaluate("document.documentElement.scrollWidth") <= width, stage
                assert small_targets(page, 24) == [], stage
                if width == 375:
                    assert [low for low in small_targets(page, 40) if low.startswith(SLIDERS)] == [], stage
                shot(page, f"{stage}-{width}-{scheme}")


@pytest.mark.parametrize("first", ["", "书" * 40], ids=["words", "no spaces"])
def test_a_line_of_written_text_breaks_between_words(first: str, chromium: Browser, ui_base: str) -> None:
    words = "[...document.querySelectorAll('.out .word')].filter((w) => w.children.length > 1)"
    lines = f"{words}.map((w) => new Set([...w.children].map((b) => b.offsetTop)).size)"
    with demo(chromium, ui_base, urlencode({"title": first}), gpu="software") as page:
        train(page)
        head(page, "infer").click()
        page.get_by_role("button", name="Write", exact=True).click()
        expect(page.locator('[data-t="out-note"]')).to_have_text(re.compile("^40 tokens"))
        for width in range(320, 420, 7):
            page.set_viewport_size({"width": width, "height": 800})
            assert set(page.evaluate(lines)) == {1}
            out = page.locator('[data-t="out"]')
            assert out.evaluate("(box) => box.scrollWidth <= box.clientWidth")
