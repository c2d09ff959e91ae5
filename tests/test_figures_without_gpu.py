"""The post's live figures in a Chromium that has no GPU to give."""

from __future__ import annotations

import pytest
from browser import launch
from figures_page import cells, figures, measure, seconds
from playwright.sync_api import expect

pytest_plugins = ("browser", "figures_page")


def test_without_webgpu_the_processor_is_measured_alone(figures_base: str) -> None:
    with launch(webgpu=False) as browser, figures(browser, figures_base) as page:
        result = measure(page)
        assert result["cpu"] > 0.005
        assert "tuned" not in result
        expect(page.locator("tabula-compute .live__source")).to_contain_text("No GPU: ")
        assert cells(page.locator('tabula-compute [data-row="tuned"]'))[-1] == "–"
        own = page.locator('tabula-gpt2-time [data-row="own"]')
        expect(own).to_contain_text("This machine, one CPU thread")
        assert seconds(cells(own)[1]) == pytest.approx(6 * 124_439_808 * 10 / result["cpu"], rel=0.01)
