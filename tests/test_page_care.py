"""The built site's demo, with the real worker, after a real run: markup that a reader or a model wrote stays
text, and axe finds nothing serious, in light and dark.
"""

from __future__ import annotations

from page_site import TALE, TINY, demo, fill, state, trained, use_text, vocabulary
from playwright.sync_api import Browser, Page, expect
from ui_page import AXE, NASTY, head, press, serious, title

pytest_plugins = ("browser", "built_site")

LINE = f"Once upon a time {NASTY}\n".encode()
STAGES = ("data", "tokenizer", "tokenize", "train", "infer", "eval")


def test_markup_stays_text_and_axe_finds_nothing_serious(chromium: Browser, base: str) -> None:
    with demo(chromium, base, color_scheme="light") as page:
        use_text(page, f"{NASTY}.txt", TALE[:8000] + 1500 * LINE)
        expect(page.locator('[data-t="documents"] button')).to_have_text(NASTY)
        vocabulary(page, 400)
        page.get_by_label("Try any text").fill(NASTY)
        fill(page, **TINY, steps=120, learning_rate=0.01)
        press(page, "Start")
        trained(page, 120)
        head(page, "tokenizer").click()
        expect(page.locator('[data-t="pieces"]')).to_have_text(NASTY.replace(" ", "␣"))
        head(page, "train").click()
        samples = page.locator('[data-t="samples"]')
        expect(samples).to_contain_text("<img src=x onerror")

        head(page, "infer").click()
        page.get_by_label("Begin a sentence").fill(f"{NASTY}\nOnce upon a time")
        page.locator('[data-knob="temperature"]').fill("0")
        page.get_by_role("button", name="Write").click()
        expect(page.locator('[data-t="out-note"]')).to_contain_text("48 tokens, ")
        written = "".join(token["text"] for token in state(page, "text.tokens"))
        assert NASTY in written
        out = page.locator('[data-t="out"]')
        expect(out).to_contain_text(NASTY)
        out.locator("button").first.click()
        expect(page.locator('[data-t="alts"] tr')).to_have_count(6)
        page.get_by_role("button", name="Write").click()
        expect(page.locator('[data-t="earlier"]')).to_contain_text(NASTY)

        page.locator('[data-do="runs"]').click()
        kept = page.locator('[data-t="runs"]')
        kept.get_by_role("button", name="Rename").click()
        kept.get_by_label("Name of the run").fill(NASTY)
        kept.get_by_label("Name of the run").press("Enter")
        expect(kept.locator("b")).to_have_text(NASTY)
        page.locator('[data-sheet="runs"]').get_by_role("button", name="Close").click()

        page.evaluate(AXE.read_text(encoding="utf-8"))
        check_all(page)
        page.get_by_title("Switch to dark").click()
        expect(page.locator("body")).to_have_attribute("data-md-color-scheme", "slate")
        check_all(page)

        page.reload()
        expect(title(page)).to_have_text("Training on the processor, not a GPU")  # nothing to continue
        page.locator('[data-do="runs"]').click()
        kept.get_by_role("button", name="Open").click()
        expect(page.locator('.run [data-t="note"]')).to_have_text(f"Saved in this browser as “{NASTY}”.")
        assert page.locator("tabula-demo img").count() == 0
        assert page.title() != "taken"
        assert not [url for url in page.watch.requests if url.endswith("/x")]
        page.watch.assert_clean()


def check_all(page: Page) -> None:
    for stage in STAGES:
        head(page, stage).click()
        assert serious(page) == [], stage
    for sheet in ("runs", "device"):
        page.locator(f'[data-do="{sheet}"]').click()
        assert serious(page) == [], sheet
        page.keyboard.press("Escape")
