"""Models go from the built site's demo to the command line, and back, as a reader carries them."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from cli_tools import run
from page_site import TINY, demo, prepared, state, trained
from playwright.sync_api import Browser, expect
from ui_page import head, press, title

pytest_plugins = ("browser", "built_site")

# A model that has half learned a rhyme (Edward Lear's) goes through many tokens, and errs in its own way.
RHYME = b"""The owl and the pussy-cat went to sea in a beautiful pea-green boat: they took some honey, and \
plenty of money, wrapped up in a five-pound note.
"""
PROMPT = "The owl"
LENGTH = 48  # tokens


def test_a_run_from_the_page_is_evaluated_alike_by_the_command_line(
    chromium: Browser, base: str, tmp_path: Path
) -> None:
    with demo(chromium, base) as page:
        prepared(page, 20)
        press(page, "Start")
        trained(page, 20)
        with page.expect_download() as download:
            press(page, "Export")
        download.value.save_as(tmp_path / "run.zip")
        here = state(page, "report.text.bits_per_byte")
        page.watch.assert_clean()
    zipfile.ZipFile(tmp_path / "run.zip").extractall(tmp_path)
    folder = tmp_path / download.value.suggested_filename.removesuffix(".zip")
    result = run("eval", ".", "--out", "native.json", cwd=folder)
    assert (result.code, result.err) == (0, "")
    native = json.loads((folder / "native.json").read_text())
    assert native["text"]["bits_per_byte"] == pytest.approx(here, abs=1e-5)


def test_a_native_checkpoint_writes_in_the_page_what_it_writes_natively(
    chromium: Browser, base: str, tmp_path: Path
) -> None:
    (tmp_path / "rhyme.txt").write_bytes(200 * RHYME)
    settings = {
        **TINY, "vocab": 340, "steps": 200, "learning-rate": 0.008, "warmup": 10,
        "eval-every": 0, "sample-every": 0,
    }  # fmt: skip
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    result = run("train", "--sources", "rhyme.txt", "--out", "native", *flags, cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    choice = ("--temperature", "0", "--tokens", str(LENGTH))
    result = run("sample", "native", "--prompt", PROMPT, *choice, cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    packed = shutil.make_archive(str(tmp_path / "native"), "zip", tmp_path, "native")

    with demo(chromium, base) as page:
        page.get_by_role("button", name="Runs").click()
        page.locator('[data-t="import"]').set_input_files(packed)
        kept = page.locator('[data-t="runs"]')
        expect(kept.get_by_role("listitem")).to_have_count(1, timeout=60_000)
        kept.get_by_role("button", name="Open").click()
        expect(title(page)).to_contain_text("Trained: 200 steps")
        head(page, "infer").click()
        page.get_by_label("Begin a sentence").fill(PROMPT)
        for knob, value in {"temperature": 0, "tokens": LENGTH}.items():
            page.locator(f'[data-knob="{knob}"]').fill(str(value))
        page.get_by_role("button", name="Write").click()
        expect(page.locator('[data-t="out-note"]')).to_contain_text(f"{LENGTH} tokens, ")
        tokens = [token["text"] for token in state(page, "text.tokens")]
        assert len(set(tokens)) > LENGTH / 3, tokens
        written = "".join(tokens)
        assert written.strip() == result.out.strip()
        page.watch.assert_clean()
