"""The post's live figures: whole without JavaScript, right with it, in Chromium on software WebGPU.

Screenshots of three widths and both colour schemes go to the folder that TABULA_SHOTS names, if it is set.
"""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from figures_page import cells, figures, measure, module, seconds, without_javascript
from playwright.sync_api import Browser, Page, expect
from ui_page import AXE, shot

from demo.site import figures as markup
from demo.site.live import compute, curves, numbers, recordings, records
from demo.site.live.recordings import Recording
from trainer.config import PRESETS

pytest_plugins = ("browser", "figures_page")

ROOT = Path(__file__).parent.parent
MACHINES = json.loads((ROOT / "docs" / "data" / "machines.json").read_text())


def quantity(text: str) -> float:
    """5.20 M → 5,200,000."""
    number, _, unit = text.partition(" ")
    return float(number.replace(",", "")) * {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[unit]


# ---------------------------------------------------------------- without JavaScript


def test_every_figure_is_whole_without_javascript(chromium: Browser, figures_base: str) -> None:
    with without_javascript(chromium, figures_base) as page:
        for name in markup.FIGURES:
            figure = page.locator(f"tabula-{name} figure")
            expect(figure.locator("figcaption")).to_be_visible()
            expect(figure.locator(".live__source")).to_be_visible()
            expect(figure.locator(".live__controls")).to_be_hidden()
        compute = page.locator("tabula-compute")
        best = max(1e3 * record["tflops"] for record in records.products() if "H100" in record["device"])
        expect(compute.get_by_role("row", name="H100, tuned")).to_contain_text(numbers.figure(best))
        expect(compute.get_by_role("row", name="One CPU thread")).to_be_hidden()
        assert page.locator("tabula-compute rect").last.evaluate("(bar) => bar.getBBox().width") > 100
        expect(page.locator("tabula-gpt2-time")).to_contain_text("6 × 124 M × 10.0 B = 7.5 × 1018 FLOPs")
        expect(page.locator("tabula-gpt2-time").get_by_role("row", name="Apple M1")).to_contain_text(
            "96 days"
        )
        assert page.locator("tabula-hour tbody tr").count() == 6
        expect(page.locator("tabula-tokenizer")).to_contain_text("merges")
        assert page.locator("tabula-curves polyline").count() >= 2
        assert page.locator("tabula-curves circle").count() >= 5
        assert [url for url in page.watch.requests if "/figures/" in url and not url.endswith(".css")] == []


def test_recorded_bars_are_those_of_the_committed_records() -> None:
    committed = json.loads((ROOT / "docs" / "data" / "kernels.json").read_text())
    products = [
        r for r in committed if r["impl"] == "tabula" and " NN " in r["workload"] and r["precision"] == "f32"
    ]
    best: dict[str, float] = {}
    for r in products:
        best[r["device"]] = max(best.get(r["device"], 0), r["tflops"])
    shown = {r["device"]: r["tflops"] for r in records.products() if r["variant"] != "matmul"}
    assert shown == best
    assert all(r["commit"] and r["date"] for r in records.products())


def test_a_figure_that_there_is_not_is_an_error() -> None:
    assert markup.fill("<p>No figure.</p>", ".", "bundle", Path()) == "<p>No figure.</p>"
    with pytest.raises(markup.UnknownFigure, match="no figure 'nothing': use one of compute, gpt2-time"):
        markup.fill("<!-- figure: nothing -->", ".", "bundle", Path())


def test_pages_without_a_figure_load_none(chromium: Browser, figures_base: str) -> None:
    with figures(chromium, figures_base) as page:
        page.watch.requests.clear()
        page.goto(figures_base + "none/", wait_until="networkidle")
        assert [url for url in page.watch.requests if "/figures/" in url] == []
        page.get_by_role("link", name="Figures", exact=True).first.click()
        expect(page.get_by_role("button", name="Measure")).to_be_enabled()
        expect(page.locator("tabula-curves input").first).to_be_enabled()


# ---------------------------------------------------------------- compute


def test_compute_measures_what_a_click_asks_for(chromium: Browser, figures_base: str) -> None:
    with figures(chromium, figures_base) as page:
        assert not [url for url in page.watch.requests if "compute.worker" in url], "nothing runs by itself"
        heights = page.evaluate("[...document.querySelectorAll('.live')].map((f) => f.offsetHeight)")
        result = measure(page)
        for key in ("cpu", "naive", "tuned", "synced"):
            row = page.locator(f'tabula-compute [data-row="{key}"]')
            assert 0.005 < result[key] < 10_000, "GFLOP/s of two cores, give or take what else they do"
            assert cells(row)[-1] == numbers.figure(result[key])
            width = float((row.locator("rect").get_attribute("width") or "").removesuffix("%"))
            share = 100 * min(1, max(0.005, math.log10(10 * result[key]) / 6))
            assert width == pytest.approx(share, abs=0.1)
        assert result["tuned"] > result["naive"]
        assert result["size"] >= 128
        status = page.locator('tabula-compute [data-part="status"]')
        expect(status).to_contain_text(f"tuned kernel {numbers.figure(result['tuned'])}")
        expect(page.locator("tabula-compute .live__source")).to_contain_text("measured here")
        assert (
            page.evaluate("[...document.querySelectorAll('.live')].map((f) => f.offsetHeight)") == heights
        ), "nothing moves"
        page.reload(wait_until="networkidle")
        assert cells(page.locator('tabula-compute [data-row="tuned"]'))[-1] == numbers.figure(result["tuned"])


def test_the_plans_for_a_gpu_run_and_agree(chromium: Browser, figures_base: str) -> None:
    """Under the name of those for a renderer, which is what this Chromium asks for."""
    plans = compute.plans()
    assert [plan["size"] for plan in plans["gpu"]] == [256, 512, 1024, 2048]
    kernels = [k["kernel"] for plan in plans["gpu"] for k in plan["programs"]["pipelines"]]
    assert {"matmul.multiply", "matmul_tiled.multiply"} <= set(kernels)
    with figures(chromium, figures_base) as page:
        page.route("**/compute.json", lambda route: route.fulfill(json={"software": plans["gpu"][:1]}))
        result = measure(page)
        assert result["size"] == 256
        assert result["tuned"] > 0.005
        assert "problem" not in result


def test_kernels_that_differ_are_not_timed(chromium: Browser, figures_base: str) -> None:
    plans = compute.plans()["software"][:1]
    plans[0]["places"]["tuned"] = plans[0]["programs"]["groups"][0]["entries"][0][1:3]  # some other numbers
    with figures(chromium, figures_base) as page:
        page.route("**/compute.json", lambda route: route.fulfill(json={"software": plans}))
        result = measure(page)
        assert result["problem"] == "this GPU's results differ between the two kernels"
        assert "tuned" not in result
        expect(page.locator("tabula-compute .live__source")).to_contain_text("No GPU: this GPU's results")


def test_the_readers_own_rate_counts_in_the_other_figures(chromium: Browser, figures_base: str) -> None:
    with figures(chromium, figures_base) as page:
        rate = 1e9 * measure(page)["tuned"]
        own = page.locator('tabula-gpt2-time [data-row="own"]')
        expect(own).to_contain_text("This machine, as measured")
        assert seconds(cells(own)[1]) == pytest.approx(6 * 124_439_808 * 10e9 / rate, rel=0.01)
        expect(page.locator("tabula-hour select")).to_have_value("own")
        size = math.sqrt(rate * 3600 / 120)
        assert shown_size(page) == pytest.approx(size, rel=0.01)


# ---------------------------------------------------------------- GPT-2's time


def assert_times(page: Page, parameters: float, tokens: float, utilisation: float) -> None:
    """All rows against the formula, from machines.json alone."""
    for machine in MACHINES["machines"]:
        peak = machine.get("peak_tflops", 0) * utilisation
        rate = 1e12 * (peak or machine["measured_tflops"])
        took = 6 * parameters * tokens / rate
        tflops, time, rent = cells(page.locator(f'tabula-gpt2-time [data-row="{machine["id"]}"]'))
        assert float(tflops.replace(",", "")) == pytest.approx(rate / 1e12, rel=0.006)
        assert seconds(time) == pytest.approx(took, rel=0.02), machine["id"]  # 1.6 min would be "2 min"
        if "usd_per_hour" in machine:
            cost = took / 3600 * machine["usd_per_hour"]
            assert float(rent.strip("$").replace(",", "")) == pytest.approx(cost, abs=0.51)
        else:
            assert rent == "–"


def test_times_are_six_operations_a_parameter_and_token(chromium: Browser, figures_base: str) -> None:
    with figures(chromium, figures_base) as page:
        figure = page.locator("tabula-gpt2-time")
        assert_times(page, 124_439_808, 10e9, 0.4)
        figure.get_by_role("radio", name="GPT-2 1.5B").check()
        assert_times(page, 1_557_611_200, 100e9, 0.4)
        expect(figure.locator('[data-part="sum"]')).to_have_text("6 × 1.56 B × 100 B = 9.3 × 1020 FLOPs")
        figure.get_by_role("radio", name="124M, 2025 recipe").check()
        assert_times(page, 124_439_808, 0.73e9, 0.4)
        figure.get_by_label("Parameters, M").fill("350")
        assert_times(page, 350e6, 0.73e9, 0.4)
        expect(figure.get_by_role("radio", name="124M, 2025 recipe")).not_to_be_checked()
        figure.get_by_label("Utilisation, %").fill("60")
        assert_times(page, 350e6, 0.73e9, 0.6)
        figure.get_by_label("Tokens, B").fill("1e9")
        assert_times(page, 350e6, 0.73e9, 0.6)  # out of range: nothing changes
        expect(figure.locator('[data-part="status"]')).to_contain_text("FLOPs. Apple M1")


def test_sliders_and_fields_move_each_other(chromium: Browser, figures_base: str) -> None:
    with figures(chromium, figures_base) as page:
        figure = page.locator("tabula-gpt2-time")
        slider = figure.get_by_role("slider", name="Parameters")
        field = figure.get_by_label("Parameters, M")
        field.fill("100")
        assert float(slider.input_value()) == pytest.approx(0.5), "100 M is half way from 1 M to 10 B"
        slider.press("End")
        expect(field).to_have_value("10000")
        expect(slider).to_have_attribute("aria-valuetext", "10,000 M")
        assert_times(page, 10e9, 10e9, 0.4)


# ---------------------------------------------------------------- what an hour buys


def shown_size(page: Page) -> float:
    sum_ = page.locator('tabula-hour [data-part="sum"]').text_content() or ""
    found = re.search(r": ([\d.,]+ ?[KMB]?) parameters, trained on ([\d.,]+ ?[KMB]?) tokens", sum_)
    assert found, sum_
    size, tokens = quantity(found[1]), quantity(found[2])
    assert tokens == pytest.approx(20 * size, rel=0.02), "Chinchilla's rule"
    return size


def test_an_hour_buys_what_chinchillas_rule_says(chromium: Browser, figures_base: str) -> None:
    with figures(chromium, figures_base) as page:
        figure = page.locator("tabula-hour")
        assert shown_size(page) == pytest.approx(math.sqrt(0.9e12 * 3600 / 6 / 20), rel=0.01)
        figure.get_by_label("Time, minutes").fill("1440")
        assert shown_size(page) == pytest.approx(math.sqrt(0.9e12 * 86_400 / 6 / 20), rel=0.01)
        expect(figure.locator('[data-part="sum"]')).to_contain_text("1 day: ")
        figure.get_by_label("Machine").select_option("h100")
        rate = 0.4 * 990e12
        assert shown_size(page) == pytest.approx(math.sqrt(rate * 86_400 / 6 / 20), rel=0.01)
        for row in figure.locator("tbody tr").all():
            size, tokens, preset = cells(row)
            expected = math.sqrt(rate * float(row.get_attribute("data-seconds") or 0) / 6 / 20)
            assert quantity(size) == pytest.approx(expected, rel=0.01)
            assert quantity(tokens) == pytest.approx(20 * expected, rel=0.01)
            others = {name: abs(math.log(p.model.parameters / expected)) for name, p in PRESETS.items()}
            assert preset == min(others, key=others.__getitem__)


def test_a_time_that_pays_for_a_recorded_run_shows_what_it_wrote(
    chromium: Browser, figures_base: str
) -> None:
    with figures(chromium, figures_base) as page:
        page.evaluate("localStorage.setItem('tabula.compute', JSON.stringify({cpu: 1, tuned: 1}))")
        page.reload(wait_until="networkidle")
        figure = page.locator("tabula-hour")
        figure.get_by_label("Time, minutes").fill("10")  # 71 K parameters
        sample = figure.locator("[data-sample]:visible")
        expect(sample).to_have_attribute("data-sample", "nano")
        expect(sample.locator("blockquote")).to_contain_text("Once upon a time")


@pytest.mark.parametrize("width", [375, 1440])
def test_a_sample_of_any_length_moves_nothing(chromium: Browser, figures_base: str, width: int) -> None:
    with figures(chromium, figures_base, viewport={"width": width, "height": 900}) as page:
        page.evaluate("localStorage.setItem('tabula.compute', JSON.stringify({cpu: 1, tuned: 4}))")
        height = "document.querySelector('tabula-hour .live').offsetHeight"
        before, shown = page.evaluate(height), set()
        page.reload(wait_until="networkidle")
        figure = page.locator("tabula-hour")
        for minutes in ("1", "60", "10080"):
            for machine in ("own", "m1", "h100"):
                figure.get_by_label("Time, minutes").fill(minutes)
                figure.get_by_label("Machine").select_option(machine)
                shown.add(figure.locator("[data-sample]:visible").get_attribute("data-sample"))
                assert page.evaluate(height) == before, (minutes, machine)
        assert shown == {"nano", "micro", "small"}


# ---------------------------------------------------------------- curves

RUNS = [run.name for run in recordings.drawn()]


def drawn(page: Page) -> dict[str, Any]:
    return page.locator("tabula-curves .live__chart").evaluate(
        """(chart) => ({
          lines: [...chart.querySelectorAll("polyline")]
            .map((line) => line.getAttribute("points").split(/[ ,]/).map(Number)),
          texts: [...chart.querySelectorAll("text")].map((text) => text.textContent),
          dots: chart.querySelectorAll("circle").length,
        })"""
    )


def test_the_page_draws_the_curves_that_were_there(chromium: Browser, figures_base: str) -> None:
    with figures(chromium, figures_base) as page:
        figure = page.locator("tabula-curves")
        before = drawn(page)
        shot(page, "figures-curves")
        figure.get_by_role("radio", name="Time").check()
        expect(figure.locator('[data-part="status"]')).to_have_text(f"Drawn along time: {', '.join(RUNS)}.")
        assert {"1 s", "10 s"} <= set(drawn(page)["texts"])
        figure.get_by_role("radio", name="FLOPs").check()
        expect(figure.locator("svg text", has_text="10¹¹")).to_be_visible()
        figure.get_by_role("radio", name="Steps").check()
        expect(figure.locator('[data-part="status"]')).to_have_text(f"Drawn along steps: {', '.join(RUNS)}.")
        after = drawn(page)
        assert after["texts"] == before["texts"]
        assert after["dots"] == before["dots"]
        for ours, theirs in zip(after["lines"], before["lines"], strict=True):
            assert ours == pytest.approx(theirs, abs=0.011)


def test_a_run_can_be_left_out(chromium: Browser, figures_base: str) -> None:
    with figures(chromium, figures_base) as page:
        figure = page.locator("tabula-curves")
        for name in RUNS:
            figure.get_by_role("checkbox", name=name, exact=True).uncheck()
        expect(figure.locator('[data-part="status"]')).to_have_text("No run is drawn.")
        expect(figure.locator("polyline")).to_have_count(0)
        expect(figure.locator('[data-run="nano"]')).to_be_hidden()
        figure.get_by_role("checkbox", name="nano").check()
        expect(figure.locator("polyline")).to_have_count(2)


def made_up(name: str, steps: int, loss: float) -> Recording:
    """A recording of `steps` steps that ends at `loss`, 2 bits per byte for each nat."""
    start = {"event": "run_started", "tokens_per_step": 10, "flops_per_step": 1e6}
    events: list[dict[str, Any]] = [start]
    for step in range(1, steps + 1):
        value = loss + 1 - step / steps
        events.append({"event": "step", "step": step, "loss": value, "seconds": step / 2, "skipped": False})
    events.append({"event": "validation", "step": steps, "loss": loss, "bits_per_byte": 2 * loss})
    return Recording(name, events, False)


def test_several_runs_share_the_axes_and_their_names_do_not_touch() -> None:
    runs = [made_up("short", 10, 1.0), made_up("long", 1000, 0.99), made_up("twin", 900, 0.99)]
    chart = curves.chart(runs, "tokens")
    assert re.findall(r">(\d+(?: K)?)</text>", chart) == ["10", "100", "1 K", "10 K"]
    found = re.findall(r'<text x="([\d.]+)%" y="([\d.]+)%" dx=".6em" dy=".35em">(\w+)<', chart)
    ends = {name: (float(x), float(y)) for x, y, name in found}
    span = curves.RIGHT - curves.LEFT
    assert ends["short"][0] == pytest.approx(curves.LEFT + span / 3, abs=0.01), "1 decade of 3"
    assert ends["long"][0] == pytest.approx(curves.RIGHT, abs=0.01)
    assert abs(ends["long"][1] - ends["twin"][1]) == pytest.approx(curves.APART, abs=0.01)
    assert abs(ends["long"][1] - ends["short"][1]) < curves.APART, "far from the others: beside its line"
    lines = [line.split() for line in re.findall(r'points="([^"]+)" class="live__training"', chart)]
    assert [float(line[-1].split(",")[0]) for line in lines] == [ends[name][0] for name in names_of(runs)]
    assert "polyline" not in curves.chart([])


def test_the_page_draws_several_runs_as_the_build_does(chromium: Browser, figures_base: str) -> None:
    runs = [made_up("short", 10, 1.0), made_up("long", 1000, 0.99), made_up("twin", 900, 0.99)]
    box = "(box, name) => { const copy = box.cloneNode(true); const input = copy.querySelector('input');"
    box += " input.value = name; input.onchange = box.querySelector('input').onchange; box.after(copy); }"
    with figures(chromium, figures_base) as page:
        page.route("**/curves.json", lambda route: route.fulfill(json=curves.bundled(runs)))
        for name in names_of(runs):
            page.locator("tabula-curves .live__ticks label").first.evaluate(box, name)
        page.locator("tabula-curves").get_by_role("radio", name="FLOPs").check()
        expect(page.locator("tabula-curves polyline")).to_have_count(6)
        there = drawn(page)
        page.locator('tabula-curves [data-part="chart"]').evaluate(
            "(place, chart) => { place.innerHTML = chart; }", str(curves.chart(runs, "flops"))
        )
        here = drawn(page)
    assert there["texts"] == here["texts"]
    for ours, theirs in zip(there["lines"], here["lines"], strict=True):
        assert ours == pytest.approx(theirs, abs=0.011)


def names_of(runs: list[Recording]) -> list[str]:
    return [run.name for run in runs]


# ---------------------------------------------------------------- numbers, looks


def test_the_page_writes_numbers_as_the_build_does(chromium: Browser, figures_base: str) -> None:
    rng = random.Random(2)
    given = [0, 1, 9.994, 9.996, 99.94, 99.96, 999.4, 999.6, 0.0994, 0.0996, 1e3, 59.9, 90, 5399, 172_799]
    given += [10 ** rng.uniform(-4, 12) for _ in range(3000)]
    names = ("figure", "short", "duration", "dollars")
    with figures(chromium, figures_base) as page:
        script = """async ([url, names, given]) => {
          const numbers = await import(url);
          return names.map((name) => given.map((n) => numbers[name](n)));
        }"""
        written = page.evaluate(script, [module(figures_base, page, "numbers.js"), names, given])
    for name, column in zip(names, written, strict=True):
        expected = [getattr(numbers, name)(n) for n in given]
        assert [(n, a, b) for n, a, b in zip(given, column, expected, strict=True) if a != b] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 768, 1440])
def test_figures_are_accessible_and_fit(
    chromium: Browser, figures_base: str, scheme: Any, width: int
) -> None:
    viewport = {"width": width, "height": 1000}
    with figures(chromium, figures_base, color_scheme=scheme, viewport=viewport, bypass_csp=True) as page:
        page.evaluate("localStorage.setItem('tabula.compute', JSON.stringify({cpu: 2, naive: 50, tuned: 900,"
                      " synced: 300, device: 'Apple M1', size: 1024, date: '2026-11-25'}))")  # fmt: skip
        page.reload(wait_until="networkidle")
        page.add_script_tag(path=AXE)
        found = page.evaluate("axe.run('.live', {resultTypes: ['violations']}).then((r) => r.violations)")
        assert [f"{v['id']}: {node['html'][:200]}" for v in found for node in v["nodes"]] == []
        wide = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"
        assert page.evaluate(wide) <= 0, "no sideways scrolling"
        small = """[...document.querySelectorAll(".live :is(button, select, input[type=number], .seg label)")]
            .filter((b) => b.offsetParent && b.getBoundingClientRect().height < 24).map((b) => b.outerHTML)"""
        assert page.evaluate(small) == []
        shot(page, f"figures-{width}-{scheme}")
