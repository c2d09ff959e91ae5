"""What the page does when a reader stops, pauses, chooses another text or is refused something, at any moment:
in Chromium, with the worker that answers from a recorded run.
"""

from __future__ import annotations

import re

import pytest
from browser import wait_until
from playwright.sync_api import Browser, Page, expect
from ui_page import demo, head, press, title

pytest_plugins = ("browser", "ui_page")

FLOW = "document.querySelector('tabula-demo').flow"
TRAINING = re.compile(r"^Training: step \d+ of 300")
READY = "Training on the processor, not a GPU"


def release(page: Page) -> None:
    """The worker answers the command that it holds."""
    page.workers[0].evaluate("release()")


def note(page: Page) -> object:
    return page.locator('.run [data-t="note"]')


def open_run(page: Page) -> None:
    """The kept run, which was left at step 150 of 300."""
    page.get_by_role("button", name="Runs").click()
    page.locator('[data-t="runs"]').get_by_role("button", name="Open").click()
    expect(title(page)).to_have_text("Paused at step 150")


def test_a_run_is_stopped_while_its_kernels_are_compiled(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "hold=train", gpu="software") as page:
        press(page, "Start")
        expect(title(page)).to_have_text("Compiling the kernels")
        press(page, "Stop")
        expect(title(page)).to_have_text(READY)
        expect(head(page, "train")).to_contain_text("Ready")
        press(page, "Start")
        expect(title(page)).to_have_text("Compiling the kernels")
        release(page)
        expect(title(page)).to_have_text(re.compile("^Trained: 300 steps"))


def test_a_run_that_goes_on_is_stopped_while_its_kernels_are_compiled(
    chromium: Browser, ui_base: str
) -> None:
    with demo(chromium, ui_base, "hold=train&pace=100", gpu="software") as page:
        open_run(page)
        press(page, "Resume")
        expect(title(page)).to_have_text("Compiling the kernels")
        press(page, "Stop")
        expect(title(page)).to_have_text("Stopped at step 150 of 300")
        expect(head(page, "train")).to_contain_text("Done")
        press(page, "Train longer")
        expect(title(page)).to_have_text("Compiling the kernels")
        release(page)
        expect(title(page)).to_have_text(re.compile(r"^Training: step \d+ of 450"))


def test_a_pause_while_the_kernels_are_compiled_holds_the_run(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "hold=train&pace=100", gpu="software") as page:
        press(page, "Start")
        expect(title(page)).to_have_text("Compiling the kernels")
        press(page, "Pause")
        expect(title(page)).to_have_text("Paused before Train")
        press(page, "Resume")
        expect(title(page)).to_have_text("Compiling the kernels")
        press(page, "Pause")
        release(page)
        expect(title(page)).to_have_text(re.compile(r"^Paused at step \d+$"))
        expect(head(page, "train")).to_contain_text("Paused")
        step = page.evaluate(f"{FLOW}.state.run.step")
        page.wait_for_timeout(300)
        assert page.evaluate(f"{FLOW}.state.run.step") == step < 300
        press(page, "Resume")
        expect(title(page)).to_have_text(TRAINING)


@pytest.mark.parametrize(("label", "then"), [("Stop", "Stopped at step"), ("Pause", "Paused at step")])
def test_the_bar_says_what_was_asked_for_until_it_is_done(
    chromium: Browser, ui_base: str, label: str, then: str
) -> None:
    with demo(chromium, ui_base, f"hold={label.lower()}&pace=300", gpu="software") as page:
        press(page, "Start")
        expect(title(page)).to_have_text(TRAINING)
        press(page, label)
        expect(note(page)).to_contain_text("as soon as")
        buttons = page.locator(".run__actions button")
        expect(buttons.first).to_have_attribute("aria-disabled", "true")
        page.keyboard.press("p")
        expect(title(page)).to_have_text(TRAINING)
        release(page)
        expect(title(page)).to_contain_text(then)
        expect(buttons.first).to_have_attribute("aria-disabled", "false")


def test_the_second_half_of_a_double_click_presses_nothing(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "pace=100", gpu="software") as page:
        page.locator(".run__actions").get_by_role("button", name="Start").dblclick(delay=50)
        expect(title(page)).to_have_text(TRAINING)
        page.locator(".run__actions").get_by_role("button", name="Pause").dblclick(delay=50)
        expect(title(page)).to_have_text(re.compile("^Paused at step"))


def test_an_opened_run_is_left_by_stop(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu="software") as page:
        open_run(page)
        press(page, "Stop")
        expect(title(page)).to_have_text("Stopped at step 150 of 300")
        expect(head(page, "train")).to_contain_text("Done")
        page.get_by_role("button", name="Runs").click()
        kept = page.locator('[data-t="runs"]')
        expect(kept.get_by_role("button", name="Delete")).to_be_enabled()
        kept.get_by_role("button", name="Open").click()
        expect(title(page)).to_have_text("Paused at step 150")
        press(page, "Resume")
        expect(title(page)).to_have_text(re.compile("^Trained: 300 steps"))
