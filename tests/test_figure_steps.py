"""The live figure "steps": it times steps with the demo's worker, and stops when told."""

from __future__ import annotations

import json
from typing import Any

from figures_page import figures
from playwright.sync_api import Browser, expect

from demo.bench_peers import made_records
from demo.site.live.numbers import figure
from demo.site.live.steps import TIMED, name, recorded

pytest_plugins = ("browser", "figures_page")


def test_recorded_rows_are_all_records_of_both_workloads() -> None:
    for workload in TIMED:
        names = [name(record) for record in recorded(workload)]
        assert "Tabula, H100" in names
        assert len(names) == len(set(names))
        for peer in ("Tabula in Chromium", "jax-js", "TensorFlow.js"):
            assert [found for found in names if found.startswith(peer)], peer


def test_steps_are_timed_on_a_click_and_a_second_click_stops(chromium: Browser, figures_base: str) -> None:
    with figures(chromium, figures_base) as page:
        steps = page.locator("tabula-steps")
        own = steps.locator('[data-row="TINY"] td')
        source = steps.locator('[data-part="source"]')
        expect(source).to_have_text("Not timed here yet. ")
        steps.get_by_role("button", name="Time steps here").click()
        expect(source).to_contain_text("Timing SMALL", timeout=90_000)
        (record,) = json.loads(steps.locator('[data-part="json"]').text_content() or "")
        expect(own).to_have_text([figure(record["ms_per_step"]), figure(record["tokens_per_s"])])
        assert abs(record["tokens_per_s"] - 1000 * 8 * 64 / record["ms_per_step"]) <= 1
        about: dict[str, Any] = dict.fromkeys(
            ("device", "browser", "machine", "date", "commit", "command"), ""
        )
        (shape,) = made_records({"TINY": {"tabula": [1.0]}}, about)
        assert list(record) == list(shape)
        assert "swiftshader" in record["device"]
        steps.get_by_role("button", name="Stop").click()
        expect(source).to_have_text("Stopped. ")
        expect(steps.locator('[data-row="SMALL"] td').first).to_have_text("–")
        expect(steps.get_by_role("button", name="Time steps here")).to_be_enabled()
        for _ in range(100):  # until the browser has ended the worker
            if not any(worker.url.endswith("/worker.js") for worker in page.workers):
                return
            page.wait_for_timeout(200)
        raise AssertionError("the worker goes on after Stop")
