"""The page's UI in Chromium, with a worker that answers from the recorded run: no Python, no GPU work.

Screenshots go to the folder that TABULA_SHOTS names, if it is set.
"""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest
from browser import wait_until
from playwright.sync_api import Browser, expect
from ui_page import NASTY, SHOTS, demo, head, press, shot, title, train

pytest_plugins = ("browser", "ui_page")


def test_a_reader_goes_through_all_six_stages(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base) as page:
        expect(title(page)).to_have_text("Ready to train on this device")
        page.get_by_text("Nano", exact=True).click()
        expect(page.locator('[data-t="fact-parameters"]')).to_have_text("0.11 M")
        train(page)
        for stage, says in {
            "data": "2 books", "tokenizer": "1,024 tokens", "tokenize": "1.19 M tokens",
            "train": "Loss ", "infer": "Step 300", "eval": "2.68 bits/byte",
        }.items():  # fmt: skip
            expect(head(page, stage)).to_contain_text(says)
        head(page, "data").click()
        page.get_by_role("button", name="Black Beauty").click()
        expect(page.locator('[data-t="preview"]')).to_have_text("The beginning of Black Beauty.")
        head(page, "tokenizer").click()
        expect(page.locator('[data-t="merges"] tr')).to_have_count(12)
        page.get_by_label("Try any text").fill("Some other words")
        expect(page.locator('[data-t="try-note"]')).to_contain_text("16 bytes, ")
        head(page, "tokenize").click()
        expect(page.locator('[data-t="unigram"]')).to_have_text("5.81")
        head(page, "train").click()
        expect(page.locator('[data-t="samples"] li')).not_to_have_count(0)
        assert page.locator('[data-t="loss-table"] tr').count() == 13
        assert page.locator(".plot canvas").count() == 3
        expect(page.locator('[data-t="n2"]')).to_contain_text("of this processor’s measured 12.5")
        head(page, "eval").click()
        expect(page.locator('[data-t="bpb"]')).to_contain_text("gzip")
        expect(page.locator('[data-t="blimp"]')).to_contain_text("58 of 100")
        head(page, "train").click()
        page.get_by_role("radio", name="Settings").check()
        page.get_by_text("Micro", exact=True).click()
        expect(page.locator(".run__actions")).to_contain_text("Start")
        expect(head(page, "tokenizer")).to_contain_text("Ready")
        for stage in ("tokenize", "train", "eval"):
            expect(head(page, stage)).to_contain_text("from an older vocabulary")
        page.watch.assert_clean()


@pytest.mark.parametrize(("gpu", "kind"), [("software", "processor"), ("adapter", "GPU")])
def test_a_processor_is_not_called_a_gpu(gpu: str, kind: str, chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu=gpu) as page:
        expect(page.locator('[data-t="n2"]')).to_have_text(f"this {kind} is measured on Start")


def test_it_writes_and_shows_what_else_it_could_have_written(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu="software") as page:
        train(page)
        head(page, "infer").click()
        page.get_by_role("button", name="Write").click()
        expect(page.locator('[data-t="out-note"]')).to_contain_text("40 tokens, ")
        tokens = page.locator('[data-t="out"] button')
        expect(tokens).to_have_count(40)
        assert [tokens.nth(i).get_attribute("data-p") for i in range(4)] == ["3", "2", "1", "0"]
        tokens.nth(0).click()
        page.keyboard.press("ArrowRight")
        expect(tokens.nth(1)).to_be_focused()
        expect(page.locator('[data-t="alts"]')).to_contain_text("30%")
        expect(page.locator('[data-t="alts"]')).to_contain_text("all others")
        page.get_by_role("button", name="Continue from here with ␣other").click()
        expect(page.locator('[data-t="out"] .out__given')).to_have_text("Once upon a time there other")
        expect(page.locator('[data-t="earlier"] li')).to_have_count(1)


def test_kernels_are_measured_beside_the_stages_on_a_gpu_and_else_when_asked(
    chromium: Browser, ui_base: str
) -> None:
    for kind in ("GPU", "CPU"):
        with demo(chromium, ui_base, f"kind={kind}") as page:
            facts = page.locator('[data-t="device-facts"]')
            press(page, "Start")
            if kind == "GPU":
                expect(head(page, "train")).to_contain_text(re.compile("kernels: [0-9]+ of 18"))
            expect(title(page)).to_have_text(re.compile("^Trained: "))
            page.locator('[data-do="device"]').click()
            expect(facts).to_contain_text("f32 matmul, measured")
            expect(facts.get_by_text("2 of 18 changed")).to_have_count(int(kind == "GPU"))
            measure = page.get_by_role("button", name="Measure again")
            measure.click()
            expect(measure).to_be_disabled()
            expect(facts).to_contain_text("2 of 18 changed")
            expect(measure).to_be_enabled()
            shot(page, f"device-{kind}")
            page.watch.assert_clean()


def test_pause_resume_and_stop(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "pace=1000", gpu="software") as page:
        press(page, "Start")
        expect(title(page)).to_have_text(re.compile(r"^Training: step \d+ of 300"))
        page.keyboard.press("p")
        expect(title(page)).to_have_text(re.compile(r"^Paused at step"))
        expect(page.locator('[data-field="layers"]')).to_be_disabled()
        page.keyboard.press("P")
        expect(title(page)).to_have_text(re.compile(r"^Training: step"))
        press(page, "Stop")
        expect(title(page)).to_have_text(re.compile(r"^Stopped at step \d+ of 300"))


@pytest.mark.parametrize(
    ("kind", "says", "action"),
    [
        ("lost", "The GPU stopped at step 150", "Continue"),
        ("crash", "Python stopped", "Restart"),
    ],
)
def test_a_run_goes_on_after_trouble(
    chromium: Browser, ui_base: str, kind: str, says: str, action: str
) -> None:
    with demo(chromium, ui_base, f"trouble={kind}&pace=20", gpu="software") as page:
        press(page, "Start")
        expect(title(page)).to_have_text(says)
        expect(head(page, "infer")).to_contain_text("Not now")
        shot(page, f"trouble-{kind}")
        press(page, "Details")
        expect(page.locator('[data-sheet="details"]')).to_be_visible()
        page.keyboard.press("Escape")
        press(page, action)
        expect(title(page)).to_have_text(re.compile("^Trained: 300 steps"), timeout=15_000)


def test_full_storage_is_told_while_training_goes_on(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "trouble=quota&pace=20", gpu="software") as page:
        press(page, "Start")
        expect(title(page)).to_have_text("Storage is full: not saving")
        press(page, "Manage runs")
        expect(page.locator('[data-t="runs"] li')).to_have_count(1)


def test_a_compared_run_that_is_evaluated_again_is_still_the_same(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu="software") as page:
        train(page)
        head(page, "eval").click()
        box = page.get_by_label("Compare Ten books, nano")
        box.press(" ")
        expect(box).to_be_focused()
        page.evaluate("window.first = document.querySelector('tabula-demo').flow.state.reports[0]")
        page.get_by_role("button", name="Evaluate", exact=True).click()
        wait_until(page, "document.querySelector('tabula-demo').flow.state.reports[0] !== first")
        expect(box).to_be_checked()
        box.press(" ")
        expect(box).not_to_be_checked()
        assert page.evaluate("document.querySelector('tabula-demo').compared") == []


def test_runs_of_one_name_are_compared_by_what_tells_them_apart(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu="software") as page:
        rows = page.locator('[data-t="compare"] tr')
        for runs, rate in enumerate(("0.001", "0.002", "0.002"), start=1):
            head(page, "train").click()
            page.get_by_role("radio", name="Settings").check()
            if runs == 1:
                page.get_by_text("Advanced", exact=True).click()
            for value in ("0.004", rate):  # what is set already would change nothing
                page.get_by_label("Learning rate", exact=True).fill(value)
            train(page)
            head(page, "eval").click()
            expect(rows).to_have_count(runs)
        expect(rows.nth(2)).to_have_text(re.compile("^Ten books, own settingslearning rate 0.001"))
        expect(rows.nth(1)).to_have_text(re.compile("^Ten books, own settingslearning rate 0.002, .+ [AP]M"))
        for row in (0, 2):
            rows.nth(row).get_by_role("checkbox").check()
        expect(rows.nth(0)).to_have_text(re.compile("^A Ten books, "))
        expect(rows.nth(2)).to_have_text(re.compile("^B Ten books, "))
        shot(page, "compared")
        head(page, "train").click()
        named = page.locator('[data-t="compared"]')
        expect(named).to_have_text(
            re.compile(r"^A: Ten books, .*; B: Ten books, .* \(learning rate 0.001\)$")
        )
        page.get_by_role("radio", name="Time", exact=True).check()
        shot(page, "compared-curves")
        expect(page.locator('[data-t="key-compared"]')).to_have_text("Compared")


def test_a_stage_says_what_it_noticed(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "most=278", gpu="software") as page:
        train(page)
        head(page, "tokenizer").click()
        expect(head(page, "tokenizer")).to_contain_text("278 tokens")
        said = page.locator('[data-say="tokenizer"]')
        expect(said).to_have_text("The text has no pairs for 1024 tokens: the vocabulary is 278.")
        shot(page, "notice")
        page.get_by_label("Vocabulary, tokens").fill("300")
        expect(head(page, "tokenizer")).to_contain_text("300 tokens")
        expect(said).to_be_hidden()


def test_too_little_text_asks_for_more(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "trouble=too_little") as page:
        press(page, "Start")
        expect(title(page)).to_have_text("Too little text to train on")
        press(page, "Add text")
        expect(page.get_by_label("Paste text here")).to_be_focused()


def test_a_visit_later_offers_to_continue(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "pace=100", gpu="software") as page:
        press(page, "Start")
        wait_until(page, "localStorage.getItem('tabula.last') !== null")
        page.reload()
        expect(title(page)).to_have_text("Continue “Ten books, nano”?")
        expect(page.locator('[data-t="note"]')).to_have_text(
            re.compile(r"^Saved at step 100 of 300, \d+ s ago\.$")
        )
        shot(page, "offer")
        press(page, "Continue")
        expect(title(page)).to_have_text(re.compile(r"^Training: step \d+ of 300"))


def test_leaving_the_page_ends_the_worker_and_coming_back_starts_anew(
    chromium: Browser, ui_base: str
) -> None:
    with demo(chromium, ui_base, "pace=100", gpu="software") as page:
        press(page, "Start")
        wait_until(page, "localStorage.getItem('tabula.last') !== null")
        page.evaluate(
            "window.kept = document.querySelector('.tb-frame'); window.home = kept.parentNode; kept.remove()"
        )
        for _ in range(200):
            if not page.workers:
                break
            page.wait_for_timeout(25)
        assert not page.workers
        page.evaluate("home.append(kept)")
        expect(title(page)).to_have_text("Continue “Ten books, nano”?")
        page.watch.assert_clean()


@pytest.mark.parametrize(
    ("gpu", "says"),
    [("missing", "No WebGPU in this browser"), ("none", "The browser found no usable GPU")],
)
def test_the_recorded_run_plays_where_training_is_impossible(
    chromium: Browser, ui_base: str, gpu: str, says: str
) -> None:
    with demo(chromium, ui_base, "problem=no+GPU", gpu=gpu) as page:
        expect(title(page)).to_have_text(says)
        expect(head(page, "train")).to_contain_text("Playing")
        expect(head(page, "train")).to_contain_text("Loss ")
        expect(head(page, "infer")).to_contain_text("Needs WebGPU")
        page.wait_for_timeout(1500 if SHOTS else 0)
        shot(page, f"recorded-{gpu}")
        page.keyboard.press("p")
        expect(head(page, "train")).to_contain_text("Paused")
        press(page, "Play")
        press(page, "Pause")
        page.get_by_role("button", name="No GPU here").click()
        expect(page.locator('[data-t="device-note"]')).to_contain_text("have WebGPU")
        page.keyboard.press("Escape")
        assert not page.workers
        page.get_by_role("button", name="Runs").click()
        page.get_by_label("Import a run").set_input_files(
            {"name": "run.zip", "mimeType": "application/zip", "buffer": b"PK"}
        )
        expect(page.locator('[data-t="runs-count"]')).to_have_text("1")
        expect(title(page)).to_have_text(says)
        page.watch.assert_clean()


@pytest.mark.parametrize(
    ("gpu", "says", "offers"),
    [
        ("software", "Training on the processor, not a GPU", "SettingsStart"),
        ("missing", "No WebGPU in this browser", "What to do"),
        ("none", "The browser found no usable GPU", "What to doTry again"),
    ],
)
def test_the_device_is_told_before_the_recording_has_come(
    chromium: Browser, ui_base: str, gpu: str, says: str, offers: str
) -> None:
    with demo(chromium, ui_base, gpu=gpu, hangs="**/recorded/*") as page:
        expect(title(page)).to_have_text(says)
        shown = page.locator(".run__actions button:visible")
        assert "".join(shown.all_inner_texts()) == offers


def test_text_stays_text(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, urlencode({"title": NASTY}), gpu="software") as page:
        train(page)
        expect(page.locator('[data-t="samples"] li').first).to_contain_text(NASTY)
        head(page, "data").click()
        expect(page.get_by_role("button", name=NASTY)).to_be_visible()
        head(page, "tokenizer").click()
        page.get_by_label("Try any text").fill(NASTY)
        head(page, "infer").click()
        page.get_by_label("Begin a sentence").fill(NASTY)
        page.get_by_role("button", name="Write").click()
        expect(page.locator('[data-t="out"] .tok', has_text=NASTY).first).to_be_visible()
        page.locator('[data-t="out"] .tok', has_text=NASTY).first.click()
        expect(page.locator('[data-t="alt-title"]')).to_contain_text("onerror")
        page.get_by_role("button", name="Runs").click()
        expect(page.locator('[data-t="runs"] b')).to_have_text(NASTY)
        assert page.title() != "taken"
        assert page.locator("tabula-demo img").count() == 0


def test_own_text_and_the_library(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base) as page:
        head(page, "data").click()
        page.get_by_text("Your own text").click()
        page.get_by_label("Paste text here").fill("too short")
        expect(page.get_by_role("button", name="Use this text")).to_be_disabled()
        page.get_by_role("button", name="Choose files").set_input_files(
            {"name": "tale.txt", "mimeType": "text/plain", "buffer": b"Once upon a time. " * 2000}
        )
        expect(page.locator('[data-t="own-files"]')).to_contain_text("tale (36 KB)")
        page.get_by_role("button", name="Use this text").click()
        expect(page.locator('[data-t="documents"] tr')).to_have_count(2)
        page.get_by_text("Pick from the library").click()
        expect(page.locator(".pick__row")).to_have_count(47)
        page.get_by_label("Search the library").fill("persua")
        expect(page.locator(".pick__row")).to_have_count(1)
        page.get_by_label("Persuasion").check()
        page.get_by_role("button", name="Fetch these books").click()
        expect(head(page, "data")).to_contain_text("Done")


def test_a_missing_text_is_no_trouble_once_it_is_there(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base) as page:
        head(page, "data").click()
        page.get_by_text("Your own text").click()
        press(page, "Start")
        expect(title(page)).to_have_text("There is no text yet")
        files = page.get_by_role("button", name="Choose files")
        files.set_input_files({"name": "blank.txt", "mimeType": "text/plain", "buffer": b" \n" * 15_000})
        expect(page.locator('[data-t="own-files"]')).to_contain_text("blank (0 bytes)")
        expect(page.locator('[data-t="own-size"]')).to_have_text("0 bytes given; 20 KB are needed.")
        expect(page.locator(".run")).to_have_attribute("data-tone", "failed")
        page.get_by_label("Paste text here").fill("Once upon a time. " * 2000)
        expect(page.locator(".run")).to_have_attribute("data-tone", "ready")
        press(page, "Start")
        expect(title(page)).to_have_text(re.compile("^Trained: "))


def test_the_screen_stays_on_while_it_trains_if_wanted(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, "pace=1000", gpu="software") as page:
        page.evaluate(WAKE_LOCKS)
        page.get_by_text("Advanced", exact=True).click()
        page.get_by_label("Keep the screen on while training").check()
        press(page, "Start")
        expect(title(page)).to_have_text(re.compile(r"^Training: step \d+ of 300"))
        assert page.evaluate("locks") == ["screen"]
        press(page, "Pause")
        expect(title(page)).to_have_text(re.compile(r"^Paused at step"))
        assert page.evaluate("locks") == ["screen", "released"]


WAKE_LOCKS = """() => {
  window.locks = [];
  const lock = () => Object.assign(new EventTarget(), { release: async () => { locks.push("released"); } });
  const request = async (kind) => { locks.push(kind); return lock(); };
  Object.defineProperty(Navigator.prototype, "wakeLock", { get: () => ({ request }) });
}"""
