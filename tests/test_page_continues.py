"""The built site's demo, with the real worker: whatever a reader does to a run in mid-training, its curve
goes on from the last save and is that of an uninterrupted run, to the bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from browser import WatchedPage, wait_until
from page_site import demo, finished, losses, prepared, state, step_reached, trained
from playwright.sync_api import Browser, Page, expect
from ui_page import head, press, title

pytest_plugins = ("browser", "built_site")

STEPS = 120
OFFER = "Continue “tale, own settings”?"


@pytest.fixture(scope="module")
def whole(chromium: Browser, base: str) -> dict[int, float]:
    """The losses of a run that nothing disturbs."""
    with demo(chromium, base) as page:
        prepared(page, STEPS)
        press(page, "Start")
        trained(page, STEPS)
        curve = losses(page)
        assert list(curve) == list(range(1, STEPS + 1))
        page.watch.assert_clean()
        return curve


@contextmanager
def training(chromium: Browser, base: str) -> Iterator[WatchedPage]:
    """A page in the middle of the same run."""
    with demo(chromium, base) as page:
        prepared(page, STEPS)
        press(page, "Start")
        step_reached(page, 10)
        yield page
        page.watch.assert_clean()


def up_to(curve: dict[int, float], step: int) -> dict[int, float]:
    return {at: loss for at, loss in curve.items() if at <= step}


def test_a_reload_soon_after_the_start_and_a_pause(
    chromium: Browser, base: str, whole: dict[int, float]
) -> None:
    with training(chromium, base) as page:
        wait_until(page, "document.querySelector('tabula-demo').flow.state.run.saved", 20)
        assert state(page, "run.reason") == ""
        page.reload()
        expect(title(page)).to_have_text(OFFER)
        expect(page.locator('.run [data-t="note"]')).to_contain_text(
            re.compile(rf"^Saved at step \d+ of {STEPS}")
        )
        press(page, "Continue")
        step_reached(page, 15)
        page.keyboard.press("p")
        expect(title(page)).to_have_text(re.compile("^Paused at step"))
        assert state(page, "run.saved.step") == state(page, "run.step") < STEPS
        page.keyboard.press("p")
        finished(page)
        assert losses(page) == whole
        expect(head(page, "eval")).to_contain_text("bits/byte")


def test_two_tabs_at_once(chromium: Browser, base: str, whole: dict[int, float]) -> None:
    with training(chromium, base) as first:
        press(first, "Pause")
        expect(title(first)).to_have_text(re.compile("^Paused at step"))
        second = first.context.new_page()
        second.goto(base + "demo/")
        expect(title(second)).to_have_text(OFFER)
        press(second, "Continue")
        expect(title(second)).to_have_text("This run is open in another tab", timeout=60_000)
        expect(second.locator('.run [data-t="note"]')).to_have_text("Only one can train it.")

        press(second, "Look on")
        looking = title(second)
        expect(looking).to_have_text(f"Looking on: step {state(first, 'run.step')} of {STEPS}")
        assert losses(second) == losses(first)
        press(first, "Resume")
        step_reached(first, state(first, "run.step") + 10)
        press(first, "Pause")
        expect(title(first)).to_have_text(re.compile("^Paused at step"))
        expect(looking).to_have_text(f"Looking on: step {state(first, 'run.step')} of {STEPS}")
        assert losses(second) == losses(first) == up_to(whole, state(first, "run.step"))

        press(first, "Resume")
        press(second, "Take over")
        expect(title(first)).to_have_text("This run is open in another tab")
        last = state(first, "run.step")
        assert last < STEPS
        press(first, "Look on")
        finished(second)
        assert losses(second) == whole
        assert list(second.context.pages) == [first, second]
        expect(title(first)).to_contain_text(f"Trained: {STEPS} steps")
        assert losses(first) == whole


def test_away_by_instant_navigation_and_back(chromium: Browser, base: str, whole: dict[int, float]) -> None:
    with training(chromium, base) as page:
        page.evaluate("window.stayed = true")
        tabs = page.locator(".md-tabs")
        tabs.get_by_role("link", name="How it works").click()
        expect(page.locator("h1").first).to_contain_text("How it works")
        worker_ended(page)
        tabs.get_by_role("link", name="Demo").click()
        expect(title(page)).to_have_text(OFFER)
        press(page, "Continue")
        finished(page)
        assert losses(page) == whole
        assert page.evaluate("stayed"), "the page was loaded anew"


def worker_ended(page: Page) -> None:
    for _ in range(200):
        if not any("/tabula/" in worker.url for worker in page.workers):  # the site's search has one, too
            return
        page.wait_for_timeout(50)
    raise AssertionError("the worker still runs")


HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_hidden_tab_trains_on_or_pauses_as_chosen(
    chromium: Browser, base: str, whole: dict[int, float]
) -> None:
    """Headless Chromium shows all its tabs at all times: what the page sees of hiding is feigned."""
    with training(chromium, base) as page:
        before = state(page, "run.step")
        page.evaluate(HIDE, True)
        wait_until(page, f"document.querySelector('tabula-demo').flow.state.run.saved?.step >= {before}", 30)
        step_reached(page, state(page, "run.saved.step") + 3)
        page.evaluate(HIDE, False)

        page.get_by_role("radio", name="Settings").check()
        page.get_by_label("Pause when this tab is hidden").check()
        page.evaluate(HIDE, True)
        expect(title(page)).to_have_text(re.compile("^Paused at step"))
        step = state(page, "run.step")
        assert state(page, "run.saved.step") == step < STEPS
        page.wait_for_timeout(1000)
        assert state(page, "run.step") == step
        page.evaluate(HIDE, False)
        finished(page)
        assert losses(page) == whole
