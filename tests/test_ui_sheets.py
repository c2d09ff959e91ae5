"""The page's sheets in Chromium: kept runs and trained models, keyboard, and what must not move or close."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, Page, Route, expect
from ui_page import demo, head, press, shot, title, train

pytest_plugins = ("browser", "ui_page")


def test_keyboard(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base) as page:
        page.keyboard.press("2")
        expect(head(page, "tokenizer")).to_be_focused()
        expect(head(page, "tokenizer")).to_have_attribute("aria-expanded", "true")
        expect(head(page, "train")).to_have_attribute("aria-expanded", "false")
        page.keyboard.press("?")
        expect(page.locator('[data-sheet="keys"]')).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator('[data-sheet="keys"]')).to_be_hidden()
        expect(head(page, "tokenizer")).to_be_focused()
        page.get_by_label("Try any text").fill("")
        page.get_by_label("Try any text").press("4")
        expect(head(page, "tokenizer")).to_have_attribute("aria-expanded", "true")


def test_no_key_turns_the_page(chromium: Browser, ui_base: str) -> None:
    """The site's theme listens at the window, and takes P, N, comma and full stop for other pages."""
    with demo(chromium, ui_base, "pace=1000", gpu="software") as page:
        page.evaluate("window.heard = []; addEventListener('keydown', (event) => heard.push(event.key))")
        press(page, "Start")
        expect(title(page)).to_have_text(re.compile(r"^Training: step"))
        page.get_by_label("Time", exact=True).focus()
        page.keyboard.press("p")
        expect(title(page)).to_have_text(re.compile(r"^Paused at step"))
        head(page, "data").focus()
        for key in "n,.NP":
            page.keyboard.press(key)
        expect(title(page)).to_have_text(re.compile(r"^Training: step"))
        page.get_by_label("Settings", exact=True).check()
        page.get_by_text("Advanced", exact=True).click()
        page.get_by_label("Keyboard: P").uncheck()
        page.keyboard.press("p")
        page.get_by_role("button", name="Runs").click()
        page.keyboard.press("n")
        page.keyboard.press("/")
        assert page.evaluate("heard") == ["/"]


def test_runs_are_renamed_exported_and_deleted_with_a_way_back(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base) as page:
        page.get_by_role("button", name="Runs").click()
        kept = page.locator('[data-t="runs"]')
        expect(kept.get_by_role("listitem")).to_have_count(1)
        kept.get_by_role("button", name="Rename").click()
        kept.get_by_label("Name of the run").fill("The sea")
        kept.get_by_label("Name of the run").press("Enter")
        expect(kept.locator("b")).to_have_text("The sea")
        shot(page, "runs")
        with page.expect_download() as download:
            kept.get_by_role("button", name="Export").click()
        assert download.value.suggested_filename == "run.zip"
        kept.get_by_role("button", name="Delete").click()
        kept.get_by_role("button", name="Undo").click()
        expect(kept.locator("b")).to_have_text("The sea")
        kept.get_by_role("button", name="Open").click()
        expect(title(page)).to_have_text("Paused at step 150")


def test_a_run_that_was_deleted_is_gone_however_soon_the_page_is_left(
    chromium: Browser, ui_base: str
) -> None:
    """The fake worker knows its run again after a reload, as the browser does a run that nobody deleted."""
    with demo(chromium, ui_base) as page:
        page.evaluate(
            "localStorage.setItem('tabula.last', JSON.stringify({run: 'run-1', title: 'X', steps: 1}))"
        )
        kept = page.locator('[data-t="runs"]')
        page.get_by_role("button", name="Runs").click()
        kept.get_by_role("button", name="Delete").click()
        expect(kept).to_contain_text("is deleted")
        page.reload()
        expect(title(page)).to_have_text("Ready to train on this device")
        page.get_by_role("button", name="Runs").click()
        expect(page.locator('[data-t="runs-note"]')).to_contain_text("No run is kept yet.")
        page.reload()
        page.get_by_role("button", name="Runs").click()
        kept.get_by_role("button", name="Delete").click()
        kept.get_by_role("button", name="Undo").click()
        page.reload()
        page.get_by_role("button", name="Runs").click()
        expect(kept.locator("b")).to_have_text("Treasure Island")


def test_a_new_name_can_be_left_and_is_that_of_the_open_run_too(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu="software") as page:
        page.get_by_role("button", name="Runs").click()
        kept = page.locator('[data-t="runs"]')
        field = kept.get_by_label("Name of the run")
        kept.get_by_role("button", name="Open").click()
        page.get_by_role("button", name="Resume").click()
        expect(title(page)).to_have_text(re.compile("^Trained: "))
        expect(head(page, "eval")).to_contain_text("bits/byte")
        page.get_by_role("button", name="Runs").click()
        kept.get_by_role("button", name="Rename").click()
        shot(page, "rename")
        page.keyboard.type("The sea")  # over the old name, which is selected
        page.keyboard.press("Escape")
        expect(field).to_have_count(0)
        expect(kept.locator("b")).to_have_text("Treasure Island")
        kept.get_by_role("button", name="Rename").click()
        kept.get_by_role("button", name="Cancel").click()
        expect(field).to_have_count(0)
        kept.get_by_role("button", name="Rename").click()
        page.keyboard.type("The sea")
        kept.get_by_role("button", name="Save").click()
        expect(kept.locator("b")).to_have_text("The sea")
        expect(page.locator('.run [data-t="note"]')).to_contain_text("“The sea”")
        page.reload()
        head(page, "eval").click()
        expect(page.locator('[data-t="compare"] tr')).to_contain_text("The sea")


def test_the_focus_stays_where_a_button_was_pressed(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "pace=100", gpu="software") as page:
        page.get_by_role("button", name="Runs").click()
        for key, now in (
            ("Rename", "Name of the run"), ("", "Rename Treasure Island"),
            ("Delete", "Undo: keep Treasure Island"), ("", "Delete Treasure Island"),
        ):  # fmt: skip
            if key:
                page.locator('[data-t="runs"]').get_by_role("button", name=key).focus()
            page.keyboard.press("Enter")
            expect(page.locator(":focus")).to_have_attribute("aria-label", now)
        page.keyboard.press("Escape")

        head(page, "data").click()
        page.get_by_text("Your own text").click()
        chosen = page.get_by_role("button", name="Choose files")
        chosen.set_input_files([{"name": f"{n}.txt", "mimeType": "", "buffer": b"x"} for n in "ab"])
        expect(chosen).to_have_value("")
        for name in "ab":
            page.get_by_role("button", name=f"Leave out {name}").press("Enter")
        expect(chosen).to_be_focused()

        page.get_by_text("Ten books").click()
        train(page)
        head(page, "infer").click()
        write = page.get_by_role("button", name="Write")
        write.focus()
        write.evaluate("(button) => { button.click(); button.click(); }")  # while it writes: in vain
        expect(write).to_be_disabled()
        expect(write).to_be_focused()
        page.get_by_role("button", name="Stop").press("Enter")
        expect(write).to_be_focused()
        expect(page.locator('[data-t="earlier"] p')).to_have_count(0)


def test_what_an_import_comes_to_is_said_in_the_sheet(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base) as page:
        page.get_by_role("button", name="Runs").click()
        chosen = page.get_by_label("Import a run")
        note = page.locator('[data-t="share-note"]')
        for body, says in (
            (b"", "This is no run of Tabula. Export one first."),
            (b"PK", "“Imported” is imported."),
        ):
            chosen.set_input_files({"name": "run.zip", "mimeType": "application/zip", "buffer": body})
            expect(note).to_have_text(says)
            expect(chosen).to_have_value("")  # else the same file could not be chosen again
            expect(page.locator(".run")).to_have_attribute("data-tone", "ready")


def test_what_an_import_comes_to_later_is_said_in_the_bar(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base) as page:
        late: list[Route] = []
        page.route("**/recorded/nano.jsonl", lambda route: late.append(route))
        page.get_by_role("button", name="Runs").click()
        page.get_by_label("Import a run").set_input_files(
            {"name": "run.zip", "mimeType": "application/zip", "buffer": b""}
        )
        page.keyboard.press("Escape")
        expect(page.locator('[data-sheet="runs"]')).to_be_hidden()
        answer(page, late)
        expect(title(page)).to_have_text("This is no run of Tabula")


def test_nothing_moves_under_the_pointer_when_python_has_come(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base) as page:
        late: list[Route] = []  # what the worker reads while it boots
        page.route("**/recorded/nano.jsonl", lambda route: late.append(route))
        page.get_by_role("button", name="Runs").click()
        buttons = page.locator('[data-t="shipped"] button')
        expect(buttons).to_have_count(2)
        before = [button.bounding_box() for button in buttons.all()]
        assert page.locator('[data-t="runs"] li').count() == 0
        answer(page, late)
        expect(page.locator('[data-t="runs"] li')).to_have_count(1)
        assert [button.bounding_box() for button in buttons.all()] == before


def test_lists_that_arrive_do_not_move_what_is_above_them(chromium: Browser, ui_base: str) -> None:
    """A press on Share settings was lost when the lists, then above it, came before the release."""
    with demo(chromium, ui_base) as page:
        late: list[Route] = []
        page.route("**/checkpoints/index.json", lambda route: late.append(route))
        page.get_by_role("button", name="Runs").click()
        share = page.get_by_role("button", name="Share settings")
        before = share.bounding_box()
        share.hover()
        page.mouse.down()
        answer(page, late)
        expect(page.locator('[data-t="shipped"] li')).to_have_count(2)
        expect(page.locator('[data-t="runs"] li')).to_have_count(1)
        assert share.bounding_box() == before
        page.mouse.up()
        expect(page.locator('[data-t="share-note"]')).to_contain_text("#settings=")


def test_runs_wait_for_the_models_above_them(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base) as page:
        late: list[Route] = []
        page.route("**/checkpoints/index.json", lambda route: late.append(route))
        page.get_by_role("button", name="Runs").click()
        expect(page.locator('[data-t="runs-count"]')).to_have_text("1")
        page.wait_for_timeout(100)
        assert page.locator('[data-t="runs"] li').count() == 0
        answer(page, late)
        expect(page.locator('[data-t="shipped"] li')).to_have_count(2)
        expect(page.locator('[data-t="runs"] li')).to_have_count(1)


def answer(page: Page, routes: list[Route]) -> None:
    """Lets requests go on that were held up, once there are some."""
    for _ in range(500):
        if routes:
            break
        page.wait_for_timeout(20)
    assert routes, "nothing was asked for in ten seconds"
    for route in routes:
        route.continue_()


def test_a_click_beside_a_sheet_closes_it_and_one_that_slips_does_not(
    chromium: Browser, ui_base: str
) -> None:
    with demo(chromium, ui_base) as page:
        sheet = page.locator('[data-sheet="runs"]')
        page.get_by_role("button", name="Runs").click()
        box = page.locator('[data-t="shipped"] button').first.bounding_box()
        edge = sheet.bounding_box()
        assert box
        assert edge
        page.mouse.move(box["x"] + 5, box["y"] + 5)
        page.mouse.down()
        page.mouse.move(edge["x"] + edge["width"] - 5, edge["height"] - 5)  # the sheet's own ground
        page.mouse.up()
        expect(sheet).to_be_visible()
        page.mouse.click(edge["x"] + 5, edge["height"] - 5)
        expect(sheet).to_be_visible()
        page.mouse.click(edge["x"] - 50, 300)
        expect(sheet).to_be_hidden()
