"""The page's settings: those of the trainer, their rules, and links that bring some."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, expect
from ui_page import demo, head, shot, title

from trainer.budget import estimate
from trainer.config import MAX_STEPS, PRESETS
from trainer.kernels import Tuning
from trainer.model import build

pytest_plugins = ("browser", "ui_page")


def test_settings_are_those_of_the_trainer_and_say_their_rules(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base) as page:
        presets = page.evaluate("import('./bundle/page/presets.js').then((m) => m.PRESETS)")
        assert list(presets) == list(PRESETS)
        for name, preset in PRESETS.items():
            for part in ("model", "train"):
                ours = vars(getattr(preset, part))
                assert presets[name][part] == {key: ours[key] for key in presets[name][part]}
            counted = page.evaluate(
                "(m) => import('./bundle/page/presets.js').then((p) => p.parameters(m))",
                presets[name]["model"],
            )
            assert counted == preset.model.parameters
            if name == "gpt2":
                continue
            planned = build(preset.model, train=preset.train, tokens=10_000, generate=True, tuning=Tuning())
            taken = page.evaluate(
                "([m, t]) => import('./bundle/page/presets.js').then((p) => p.memory(m, t))",
                [presets[name]["model"], presets[name]["train"]],
            )
            needed = estimate(planned, preset.train, software=False).device_memory
            assert taken == pytest.approx(needed, rel=0.1), name
        page.get_by_text("Advanced", exact=True).click()
        page.get_by_label("Width", exact=True).fill("130")
        expect(page.locator('[data-t="rule"]')).to_have_text("Width must be a multiple of heads, 4")
        expect(page.locator(".run__actions").get_by_role("button", name="Start")).to_be_disabled()
        page.get_by_label("Width", exact=True).fill("128")
        expect(page.locator('[data-t="rule"]')).to_have_text("")
        head(page, "tokenizer").click()  # where the rule is not in sight
        page.get_by_label("Vocabulary, tokens").fill("100")
        expect(page.locator('.run [data-t="note"]')).to_have_text("Vocabulary must be from 257 to 65,535.")
        shot(page, "rule")


def test_a_link_brings_settings(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, gpu="software") as page:
        page.get_by_text("Advanced", exact=True).click()
        page.get_by_label("Width", exact=True).fill("64")
        page.locator('[data-field="seed"]').fill("5")
        page.get_by_label("Heads", exact=True).fill("2")
        page.get_by_role("button", name="Runs").click()
        page.get_by_role("button", name="Share settings").click()
        note = page.locator('[data-t="share-note"]')
        expect(note).to_contain_text("#settings=")
        (link,) = re.findall(r"http\S+", note.inner_text())
        other = page.context.new_page()
        other.goto(link)
        expect(title(other)).to_have_text("Training on the processor, not a GPU")
        for name, value in {"width": "64", "heads": "2", "seed": "5", "layers": "2"}.items():
            expect(other.locator(f'[data-field="{name}"]')).to_have_value(value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"accumulate": -3}, "Accumulation must be a whole number above 0."),
        ({"accumulate": 0.5}, "Accumulation must be a whole number above 0."),
        ({"warmup": -5}, "Warm-up must be a whole number from 0 up."),
        ({"steps": 10**9}, f"Steps must be at most {MAX_STEPS:,}."),
        ({"layers": 10**6, "width": 10**5, "heads": 1000}, "These settings take 1,9"),
    ],
)
def test_a_link_brings_no_settings_that_cannot_be(
    chromium: Browser, ui_base: str, given: dict[str, float], says: str
) -> None:
    with demo(chromium, ui_base) as page:
        page.goto(f"{page.url}#settings={quote(json.dumps(given))}")
        page.reload()
        expect(page.locator('.run [data-t="note"]')).to_contain_text(says)
        expect(page.locator(".run__actions").get_by_role("button", name="Start")).to_be_disabled()


def test_mixed_precision_is_offered_where_the_gpu_has_16_bit_numbers(chromium: Browser, ui_base: str) -> None:
    with demo(chromium, ui_base, features=("shader-f16",)) as page:
        page.get_by_text("Advanced", exact=True).click()
        precision = page.get_by_label("Precision")
        expect(precision).to_have_value("f32")
        expect(page.locator('[data-t="precision"]')).to_contain_text("keeps weights and sums in 32")
        precision.select_option("mixed")
        page.get_by_role("button", name="Runs").click()
        page.get_by_role("button", name="Share settings").click()
        note = page.locator('[data-t="share-note"]')
        expect(note).to_contain_text("#settings=")
        (link,) = re.findall(r"http\S+", note.inner_text())
        page.goto(link)
        page.reload()
        page.get_by_text("Advanced", exact=True).click()
        expect(precision).to_have_value("mixed")
    with demo(chromium, ui_base) as page:
        page.goto(link)
        page.get_by_text("Advanced", exact=True).click()
        expect(page.get_by_label("Precision")).to_be_disabled()
        expect(page.get_by_label("Precision")).to_have_value("f32")
        expect(page.locator('[data-t="precision"]')).to_contain_text("this GPU does not offer")
