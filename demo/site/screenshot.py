"""The picture in README.md: the built site's demo in the middle of a run, on Chromium's software WebGPU.

make screenshot        writes docs/assets/screenshot.png
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from shutil import which

from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

from demo.bench import ARGUMENTS, SITE
from demo.bench_server import serve
from trainer import storage

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "assets" / "screenshot.png"
SIZE = ViewportSize(width=1280, height=860)
STEP = 200  # of 300: the curve has crossed its yardstick, and there are samples
TIMEOUT = 600_000  # ms; a processor is slow


def take(page: Page, address: str) -> bytes:
    """Trains the smallest model at `address` as far as STEP; a PNG of what the page shows then."""
    page.goto(f"{address}demo/#start")
    step = "document.querySelector('tabula-demo').flow?.state.run.step ?? 0"
    waited = 0
    while page.evaluate(step) < STEP:
        page.wait_for_timeout(200)
        waited += 200
        if waited > TIMEOUT:
            raise TimeoutError(f"step {STEP} was not reached within {TIMEOUT // 60_000} minutes")
    return page.screenshot()


def main() -> int:
    system = which("chromium") or which("chromium-browser") or which("google-chrome")
    with serve(SITE) as (address, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=system, args=list(ARGUMENTS))
        picture = take(browser.new_page(viewport=SIZE, color_scheme="light"), address)
        browser.close()
    small = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(96).save(small, "PNG", optimize=True)
    storage.write_file(PICTURE, [small.getvalue()])
    print(f"{PICTURE}: {len(small.getvalue()) // 1000} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
