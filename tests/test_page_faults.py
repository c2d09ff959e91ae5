"""The built site's demo as a reader drives it, with the real worker: the whole way, and what may go wrong."""

from __future__ import annotations

import re

from page_site import TINY, demo, fill, finished, losses, prepared, state, step_reached, trained, vocabulary
from playwright.sync_api import Browser, expect
from ui_page import head, press, title

pytest_plugins = ("browser", "page_site")


def test_the_whole_way_from_the_shipped_books_to_the_evaluation(chromium: Browser, base: str) -> None:
    with demo(chromium, base) as page:
        vocabulary(page)
        fill(page, **TINY, steps=50)
        press(page, "Start")
        trained(page, 50)
        for stage, says in {
            "data": "10 books", "tokenizer": "300 tokens", "tokenize": "tokens",
            "train": "Loss ", "eval": "bits/byte",
        }.items():  # fmt: skip
            expect(head(page, stage)).to_contain_text("Done")
            expect(head(page, stage)).to_contain_text(says)
        curve = losses(page)
        assert list(curve) == list(range(1, 51))
        assert curve[50] < curve[1] - 0.3
        head(page, "infer").click()
        page.get_by_role("button", name="Write").click()
        expect(page.locator('[data-t="out-note"]')).to_contain_text("48 tokens, ")
        expect(page.locator('[data-t="out"] button')).to_have_count(48)
        head(page, "eval").click()
        expect(page.locator('[data-t="bpb"]')).to_contain_text("This run")
        expect(page.locator('[data-t="blimp-note"]')).to_have_text(re.compile("of 40 pairs"))
        assert state(page, "report.text.bits_per_byte") < state(
            page, "report.text.baselines.uniform_bits_per_byte"
        )
        page.watch.assert_clean()
        assert [url for url in page.watch.requests if not url.startswith((base, "blob:", "data:"))] == []


def test_a_reload_in_mid_training_offers_the_run_and_it_ends_as_if_nothing_had_been(
    chromium: Browser, base: str
) -> None:
    with demo(chromium, base) as page:
        prepared(page, 80)
        press(page, "Start")
        trained(page, 80)
        whole = losses(page)
        assert list(whole) == list(range(1, 81))
        fill(page, steps=80)  # the same settings, for another run
        press(page, "Start")
        step_reached(page, 10)
        press(page, "Pause")
        expect(title(page)).to_have_text(re.compile("^Paused at step"))
        saved = state(page, "run.saved.step")
        assert 10 <= saved < 80
        press(page, "Resume")
        step_reached(page, saved + 5)
        page.reload()
        expect(title(page)).to_have_text("Continue “tale, own settings”?")
        expect(page.locator('[data-t="note"]')).to_contain_text(re.compile(r"^Saved at step \d+ of 80"))
        press(page, "Continue")
        finished(page)
        assert losses(page) == whole
        expect(head(page, "eval")).to_contain_text("bits/byte")
        page.watch.assert_clean()
