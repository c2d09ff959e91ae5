"""Models go from the built site's demo to the command line, and back, as a reader carries them."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from cli_tools import run
from page_site import TALE, TINY, VOCAB, demo, prepared, state, trained
from playwright.sync_api import Browser, expect
from ui_page import head, press, title

pytest_plugins = ("browser", "page_site")

PROMPT = "Alice was"
LENGTH = 16  # tokens


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
    (tmp_path / "tale.txt").write_bytes(TALE)
    settings = [text for name, value in TINY.items() for text in (f"--{name}", str(value))]
    length = (
        "--vocab",
        str(VOCAB),
        "--steps",
        "20",
        "--warmup",
        "2",
        "--eval-every",
        "0",
        "--sample-every",
        "0",
    )
    result = run("train", "--sources", "tale.txt", "--out", "native", *settings, *length, cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    choice = ("--temperature", "0", "--tokens", str(LENGTH))
    result = run("sample", "native", "--prompt", PROMPT, *choice, cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    packed = shutil.make_archive(str(tmp_path / "native"), "zip", tmp_path, "native")

    with demo(chromium, base) as page:
        page.get_by_role("button", name="Runs").click()
        page.locator('[data-t="import"]').set_input_files(packed)
        sheet = page.locator('[data-sheet="runs"]')
        expect(sheet.get_by_role("listitem")).to_have_count(1, timeout=60_000)
        sheet.get_by_role("button", name="Open").click()
        expect(title(page)).to_contain_text("Trained: 20 steps")
        head(page, "infer").click()
        page.get_by_label("Begin a sentence").fill(PROMPT)
        for knob, value in {"temperature": 0, "tokens": LENGTH}.items():
            page.locator(f'[data-knob="{knob}"]').fill(str(value))
        page.get_by_role("button", name="Write").click()
        expect(page.locator('[data-t="out-note"]')).to_contain_text(f"{LENGTH} tokens, ")
        written = "".join(token["text"] for token in state(page, "text.tokens"))
        assert written.strip() == result.out.strip()
        page.watch.assert_clean()
