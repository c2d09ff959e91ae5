"""The built site's demo as a reader has it: with the real worker, Python and software WebGPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from browser import WatchedPage, wait_until, watched
from page_session import STORY
from playwright.sync_api import Browser, Page, expect
from ui_page import head, title

TALE = STORY[:40_000].encode()
TINY = {"layers": 1, "width": 32, "heads": 2, "context": 32, "batch": 4}
VOCAB = 300


@contextmanager
def demo(browser: Browser, base: str, **options: Any) -> Iterator[WatchedPage]:
    """The demo's page in a context of its own, ready to train."""
    with watched(browser, viewport={"width": 1440, "height": 1000}, **options) as page:
        page.goto(base + "demo/")
        expect(title(page)).to_have_text("Training on the processor, not a GPU", timeout=30_000)
        yield page


def fill(page: Page, **settings: Any) -> None:
    """Fields of the form; those of Advanced are opened first."""
    head(page, "train").click()
    page.get_by_role("radio", name="Settings").check()
    if not page.locator('[data-t="advanced"]').evaluate("(details) => details.open"):
        page.get_by_text("Advanced", exact=True).click()
    for name, value in settings.items():
        page.locator(f'[data-field="{name}"]').fill(str(value))


def vocabulary(page: Page, size: int = VOCAB) -> None:
    head(page, "tokenizer").click()
    page.get_by_label("Vocabulary, tokens").fill(str(size))


def use_text(page: Page, name: str = "tale.txt", body: bytes = TALE) -> None:
    """A text of the reader's own, as a file."""
    head(page, "data").click()
    page.get_by_text("Your own text").click()
    page.locator('[data-t="files"]').set_input_files(
        [{"name": name, "mimeType": "text/plain", "buffer": body}]
    )
    page.get_by_role("button", name="Use this text").click()
    expect(page.locator('[data-t="documents"] button')).to_have_count(1, timeout=60_000)


def prepared(page: Page, steps: int) -> None:
    """A tiny model on a text of the reader's own: all is set, and Start waits."""
    use_text(page)
    vocabulary(page)
    fill(page, **TINY, steps=steps)


def trained(page: Page, steps: int) -> None:
    """Waits until the run in progress has ended and is evaluated."""
    expect(title(page)).to_contain_text(f"Trained: {steps} steps", timeout=90_000)


def finished(page: Page) -> None:
    """Waits until the run in progress has made its last step."""
    wait_until(page, "document.querySelector('tabula-demo').flow.state.run.reason === 'finished'", 90)


def step_reached(page: Page, step: int) -> None:
    """Waits for a step while the run goes on."""
    wait_until(page, f"document.querySelector('tabula-demo').flow.state.run.step >= {step}", 60)


def state(page: Page, path: str) -> Any:
    """What the page knows: state(page, "run.step")."""
    return page.evaluate(f"document.querySelector('tabula-demo').flow.state.{path}")


def losses(page: Page) -> dict[int, float]:
    """By step, as the chart has them, to the bit."""
    series = state(page, "run.series")
    return dict(zip(series["step"], series["loss"], strict=True))
