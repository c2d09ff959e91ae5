"""What the page does when a reader stops, pauses, chooses another text or is refused something, at any
moment: in Chromium, with the worker that answers from a recorded run.
"""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect
from ui_page import demo, head, press, title

pytest_plugins = ("browser", "ui_page")

FLOW = "document.querySelector('tabula-demo').flow"
TRAINING = re.compile(r"^Training: step \d+ of 300")
READY = "Training on the processor, not a GPU"


def release(page: Page) -> None:
    """The worker answers the command that it holds."""
    page.workers[0].evaluate("release()")


def note(page: Page) -> Locator:
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
    with demo(chromium, ui_base, "hold=train&pace=500", gpu="software") as page:
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
    with demo(chromium, ui_base, f"hold={label.lower()}&pace=1000", gpu="software") as page:
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
    with demo(chromium, ui_base, "pace=1000", gpu="software") as page:
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


def writes(page: Page) -> None:
    head(page, "infer").click()
    page.locator('[data-do="write"]').click()


def evaluates(page: Page) -> None:
    head(page, "eval").click()
    page.locator('[data-do="evaluate"]').click()


@pytest.mark.parametrize(("command", "ask"), [("generate", writes), ("evaluate", evaluates)])
def test_what_is_refused_beside_the_training_is_told_and_leaves_it_alone(
    chromium: Browser, ui_base: str, command: str, ask: object
) -> None:
    assert callable(ask)
    with demo(chromium, ui_base, f"refuse={command}&pace=1000", gpu="software") as page:
        press(page, "Start")
        expect(title(page)).to_have_text(TRAINING)
        ask(page)
        expect(title(page)).to_have_text(f"{command} is refused")
        expect(page.get_by_role("alert").first).to_contain_text("Ask again.")
        for stage, word in {"train": "Working", "infer": "Ready", "eval": "Ready"}.items():
            expect(head(page, stage)).to_contain_text(word)
        press(page, "Details")
        expect(page.locator('[data-t="details-note"]')).to_have_text(f"{command} is refused. Ask again.")
        page.keyboard.press("Escape")
        press(page, "Dismiss")
        expect(title(page)).to_have_text(TRAINING)
        press(page, "Stop")
        expect(title(page)).to_have_text(re.compile(r"^Stopped at step \d+ of 300"))


def test_a_refusal_is_forgotten_when_the_run_has_ended(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "refuse=generate&pace=1000", gpu="software") as page:
        press(page, "Start")
        expect(title(page)).to_have_text(TRAINING)
        writes(page)
        expect(title(page)).to_have_text("generate is refused")
        page.workers[0].evaluate("hurry()")
        expect(title(page)).to_have_text(re.compile("^Trained: 300 steps"))


def test_a_run_that_cannot_be_opened_leaves_the_current_one(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "refuse=open_run", gpu="software") as page:
        press(page, "Start")
        expect(head(page, "eval")).to_contain_text("bits/byte")
        page.get_by_role("button", name="Runs").click()
        page.locator('[data-t="runs"]').get_by_role("button", name="Open").click()
        expect(title(page)).to_have_text("open_run is refused")
        press(page, "Dismiss")
        expect(title(page)).to_have_text(re.compile("^Trained: 300 steps"))
        expect(head(page, "train")).to_contain_text("300 steps")


def test_a_missing_text_does_not_stop_the_writing(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "hold=generate", gpu="software") as page:
        page.get_by_role("button", name="Runs").click()
        page.locator('[data-t="shipped"] button').first.click()
        press(page, "Train on your text")
        writes(page)
        expect(head(page, "infer")).to_contain_text("Working")
        press(page, "Start")
        expect(title(page)).to_have_text("There is no text yet")
        expect(head(page, "infer")).to_contain_text("Working")
        release(page)
        expect(head(page, "infer")).to_contain_text("Done")


@pytest.mark.parametrize(("typed", "taken"), [("-1", "0"), ("1.5", "2"), ("5e9", "4294967295"), ("", "0")])
def test_a_seed_is_made_one(chromium: Browser, ui_base: str, typed: str, taken: str) -> None:
    with demo(chromium, ui_base) as page:
        head(page, "infer").click()
        seed = page.get_by_label("Seed").last
        seed.fill(typed)
        seed.press("Enter")
        expect(seed).to_have_value(taken)


TALE: FilePayload = {"name": "tale.txt", "mimeType": "text/plain", "buffer": b"Once upon a time. " * 2000}


def choose(page: Page, source: str) -> None:
    head(page, "data").click()
    page.get_by_role("radio", name=source).check()


def add_tale(page: Page) -> None:
    choose(page, "Your own text")
    page.locator('[data-t="files"]').set_input_files(TALE)
    expect(page.locator('[data-t="own-files"] li')).to_have_count(1)


def another_seed(page: Page) -> None:
    head(page, "train").click()
    page.get_by_role("radio", name="Settings").check()
    page.get_by_text("Advanced", exact=True).click()
    page.locator('[data-field="seed"]').fill("5")


def trained_as(page: Page, name: str, text: str) -> None:
    """Start, and the run is called `name` and was made from `text`, as Data's head has it."""
    press(page, "Start")
    expect(title(page)).to_have_text(re.compile("^Trained: 300 steps"))
    expect(note(page)).to_contain_text(f"“{name}")
    expect(head(page, "data")).to_contain_text(text)


def test_start_takes_the_books_that_are_chosen_after_a_text(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu="software") as page:
        add_tale(page)
        page.get_by_role("button", name="Use this text").click()
        expect(head(page, "data")).to_contain_text("1 text")
        choose(page, "Ten books")
        expect(page.get_by_role("button", name="Use this text")).to_be_enabled()
        expect(head(page, "data")).to_contain_text("1 text")
        trained_as(page, "Ten books, nano", "2 books")
        expect(page.get_by_role("button", name="Use this text")).to_be_hidden()


def test_start_takes_the_text_that_is_chosen_after_the_books(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu="software") as page:
        trained_as(page, "Ten books, nano", "2 books")
        add_tale(page)
        expect(head(page, "data")).to_contain_text("2 books")
        another_seed(page)
        trained_as(page, "tale, own settings", "1 text")


def test_start_asks_for_a_book_where_none_is_picked(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu="software") as page:
        choose(page, "Pick from the library")
        head(page, "train").click()
        press(page, "Start")
        expect(title(page)).to_have_text("No book is picked yet")
        press(page, "Pick books")
        expect(page.get_by_label("Search the library")).to_be_focused()


def test_a_run_that_is_opened_brings_its_text(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu="software") as page:
        add_tale(page)
        trained_as(page, "tale, nano", "1 text")
        choose(page, "Ten books")
        open_run(page)
        expect(page.locator('input[value="text"]')).to_be_checked()
        press(page, "Stop")
        another_seed(page)
        trained_as(page, "tale, own settings", "1 text")


DROP = """(body) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File(["Once upon a time. ".repeat(2000)], "tale.txt"));
  body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
}"""


def test_a_file_that_is_dropped_while_it_trains_changes_nothing(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "pace=1000", gpu="software") as page:
        body = page.locator('[data-stage="data"] .stage__body')
        press(page, "Start")
        expect(title(page)).to_have_text(TRAINING)
        head(page, "data").click()
        body.evaluate(DROP)
        expect(page.locator('input[value="books"]')).to_be_checked()
        expect(head(page, "data")).to_contain_text("2 books")
        press(page, "Stop")
        expect(title(page)).to_have_text(re.compile("^Stopped at"))
        body.evaluate(DROP)
        expect(page.locator('[data-t="own-files"]')).to_have_text(re.compile("^tale"))
        expect(page.locator('[data-t="own-files"] li')).to_have_count(1)


def test_a_run_that_is_deleted_is_the_current_one_no_more(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu="software") as page:
        open_run(page)
        press(page, "Resume")
        expect(title(page)).to_have_text(re.compile("^Trained: 300 steps"))
        page.get_by_role("button", name="Runs").click()
        page.clock.install()
        page.locator('[data-t="runs"]').get_by_role("button", name="Delete").click()
        page.clock.run_for(11_000)
        expect(title(page)).to_have_text(READY)
        for stage, word in {"train": "Ready", "infer": "Needs a model", "eval": "Needs a model"}.items():
            expect(head(page, stage)).to_contain_text(word)
        page.locator('[data-sheet="runs"]').get_by_role("button", name="Close").click()
        press(page, "Start")
        page.clock.run_for(1000)
        expect(title(page)).to_have_text(re.compile("^Trained: 300 steps"))


def test_the_bar_says_that_training_waits_for_an_evaluation(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "hold=evaluate&pace=1000", gpu="software") as page:
        press(page, "Start")
        expect(title(page)).to_have_text(TRAINING)
        evaluates(page)
        expect(title(page)).to_have_text("Evaluating on held-out text")
        expect(note(page)).to_have_text("Training waits until that is done.")
        release(page)
        expect(title(page)).to_have_text(TRAINING)
