"""Trained models that come with the site, and recorded runs, in the page's UI: with the worker that answers
from a recorded run.
"""

from __future__ import annotations

import re

import pytest
from browser import WatchedPage
from playwright.sync_api import Browser, Locator, Page, Route, expect
from ui_page import demo, head, press, shot, title

pytest_plugins = ("browser", "ui_page")

MICRO = "Micro, on children’s stories"


def models(page: Page) -> Locator:
    """The list of them, in the sheet that is opened here."""
    page.get_by_role("button", name="Runs").click()
    return page.locator('[data-t="shipped"]')


def opened(page: Page) -> None:
    models(page).get_by_role("button", name=f"Open {MICRO}").click()
    expect(title(page)).to_have_text(f"“{MICRO}” is open")


def test_models_are_listed_with_their_size_and_text(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base) as page:
        listed = models(page).get_by_role("listitem")
        expect(listed).to_have_count(2)
        expect(listed.first).to_contain_text(MICRO)
        expect(listed.first).to_contain_text(
            "1.07 M parameters, 2.34 MB. Trained on 13 MB of children’s stories."
        )
        expect(listed.last).to_contain_text("13.9 M parameters, 28 MB.")
        shot(page, "models")
        page.watch.assert_clean()


def test_a_model_is_opened_and_trained_on_a_text_of_the_reader_s(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "pace=20", gpu="software") as page:
        opened(page)
        expect(head(page, "train")).to_contain_text("Done")
        shot(page, "model-open")
        head(page, "infer").click()
        page.get_by_role("button", name="Write").click()
        expect(page.locator('[data-t="out-note"]')).to_contain_text("tokens")
        press(page, "Train on your text")
        expect(page.get_by_label("Paste text here")).to_be_focused()
        expect(title(page)).to_have_text(f"Ready to train “{MICRO}” further")
        press(page, "Start")
        expect(title(page)).to_have_text("There is no text yet")
        press(page, "Add text")
        page.get_by_label("Paste text here").fill("Once upon a time. " * 2000)
        page.get_by_role("button", name="Use this text").click()
        expect(title(page)).to_have_text(f"Ready to train “{MICRO}” further")
        expect(head(page, "tokenizer")).to_contain_text("the model’s own")
        expect(page.locator('[data-field="width"]')).to_be_disabled()
        expect(page.locator('[data-field="steps"]')).to_have_value("300")
        shot(page, "model-ready")
        press(page, "Start")
        expect(title(page)).to_have_text(re.compile("^Trained: 300 steps"), timeout=20_000)
        expect(page.locator('[data-t="note"]')).to_contain_text(f"“{MICRO}, then Pasted text”")
        page.watch.assert_clean()


def test_a_preset_begins_from_nothing_again(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base) as page:
        opened(page)
        head(page, "train").click()
        page.get_by_role("radio", name="Settings").check()
        expect(page.locator('[data-field="width"]')).to_be_disabled()
        page.get_by_text("Micro", exact=True).click()
        expect(page.locator('[data-field="width"]')).to_be_enabled()
        expect(head(page, "tokenizer")).not_to_contain_text("the model’s own")
        expect(page.locator(".run__actions")).to_contain_text("Start")
        expect(title(page)).not_to_contain_text(MICRO)


def test_a_model_that_does_not_come_is_tried_again_or_left(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "trouble=shipped") as page:
        models(page).get_by_role("button", name=f"Open {MICRO}").click()
        expect(title(page)).to_have_text(f"“{MICRO}” did not arrive")
        expect(page.get_by_role("alert").first).to_contain_text("The server does not answer.")
        shot(page, "model-trouble")
        press(page, "Leave it")
        expect(title(page)).to_have_text("Training on the processor, not a GPU")
    with demo(chromium, ui_base, "trouble=shipped") as page:
        models(page).get_by_role("button", name=f"Open {MICRO}").click()
        press(page, "Try again")
        expect(title(page)).to_have_text(f"“{MICRO}” is open")


def test_a_model_that_is_coming_is_stopped(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "pace=700", gpu="software") as page:
        models(page).get_by_role("button", name=f"Open {MICRO}").click()
        expect(title(page)).to_have_text(f"Fetching “{MICRO}”: 1.0 of 4.0 MB")
        assert page.locator(".run__actions button:visible").all_inner_texts() == ["Stop"]
        shot(page, "model-coming")
        press(page, "Stop")
        expect(title(page)).to_have_text("Training on the processor, not a GPU")
        page.wait_for_timeout(3500)
        expect(title(page)).to_have_text("Training on the processor, not a GPU")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda route: route.fulfill(status=404), "None came with this site."),
        (lambda route: route.abort(), "Their list did not arrive."),
    ],
)
def test_a_site_without_models_says_so(chromium: Browser, ui_base: str, answer: object, says: str) -> None:
    def reply(route: Route) -> None:
        assert callable(answer)
        answer(route)

    with demo(chromium, ui_base) as page:
        page.route("**/checkpoints/index.json", reply)
        models(page)
        expect(page.locator('[data-t="shipped-note"]')).to_contain_text(says)
        expect(page.locator('[data-t="runs"] li')).to_have_count(1)


def test_models_are_not_opened_where_none_can_run(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu="missing") as page:
        expect(models(page).get_by_role("button", name=f"Open {MICRO}")).to_be_disabled()
        expect(page.locator('[data-t="shipped-note"]')).to_have_text("They run where training is possible.")


def recordings(page: WatchedPage) -> list[str]:
    """Recorded runs that were fetched."""
    names = [url.rpartition("/")[2] for url in page.watch.requests if "/recorded/" in url]
    return [name for name in names if "report" not in name and name != "index.json"]


def test_only_the_recorded_run_that_is_shown_is_fetched(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu="adapter") as page:
        expect(head(page, "train")).to_contain_text("2,000 steps")
        page.wait_for_load_state("networkidle")
        assert recordings(page) == ["micro.jsonl"]
        page.get_by_role("radio", name="Settings").check()
        page.get_by_text("Nano", exact=True).click()
        page.wait_for_load_state("networkidle")
        page.get_by_text("Small", exact=True).click()
        page.wait_for_load_state("networkidle")
        assert set(recordings(page)) == {"micro.jsonl", "nano.jsonl"}


def test_the_larger_recorded_run_plays_where_training_is_impossible(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu="missing") as page:
        expect(head(page, "train")).to_contain_text("of 2,000")
        expect(page.locator('[data-t="note"]')).to_contain_text("recorded on an NVIDIA H100")
        assert recordings(page) == ["micro.jsonl"]
