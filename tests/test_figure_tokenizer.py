"""The tokenizer figure: ids of its JavaScript against those of the Python tokenizer; its chips and merges."""

from __future__ import annotations

import lzma
import random
import re
from pathlib import Path
from typing import Any

import pytest
from browser import wait_until
from figures_page import figures, module
from playwright.sync_api import Browser, expect

from demo.site.live import numbers
from trainer.corpus import read_bundled
from trainer.tokenizer import Tokenizer

pytest_plugins = ("browser", "figures_page")

GPT2 = Path(__file__).parent / "fixtures" / "tokenizer" / "gpt2"


def texts() -> list[str]:
    """Prose, code, scripts of all kinds, lone marks and spaces, and random code points."""
    rng = random.Random(1)
    points = [*range(0x20, 0x250), *range(0x370, 0x700), *range(0x900, 0xD00), *range(0x4E00, 0x4F00)]
    points += [*range(0x2000, 0x2070), *range(0x1F300, 0x1F700), 0x1C, 0x85, 0x0B, 0x0A, 0x0D, 0x09, 0x10FFFF]
    book = next(iter(read_bundled())).text
    places = [rng.randrange(len(book)) for _ in range(20)]
    return [
        "",
        " ",
        "  two  spaces\n\n\tand lines\r\n",
        "It's 42! We'll see; they'd've, I'M",
        "<|endoftext|> is text",
        "naïve Привет 你好 नमस्ते مرحبا 🦊👩‍👩‍👧 x²½",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "\ufeffmark\u200b\u2028line\u00a0end",
        *(book[place : place + 400] for place in places),
        *("".join(chr(rng.choice(points)) for _ in range(rng.randrange(1, 60))) for _ in range(200)),
    ]


ENCODE = """async ([bpe, books, gpt2, size, texts]) => {
  const { pattern, Tokenizer } = await import(bpe);
  const [ours, theirs] = await Promise.all([books, gpt2].map(async (url) => (await fetch(url)).json()));
  const words = pattern(ours.classes);
  const tokenizer = size === "gpt2" ? new Tokenizer(words, theirs) : new Tokenizer(words, ours, size);
  return texts.map((text) => {
    const ids = tokenizer.encode(text);
    return { ids, bytes: ids.flatMap((id) => tokenizer.bytesOf(id)) };
  });
}"""


@pytest.fixture(scope="module")
def python_tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Tokenizer]:
    """The trainer's own, trained here on the same books, and GPT-2's from OpenAI's two files."""
    folder = tmp_path_factory.mktemp("gpt2")
    for name in ("encoder.json", "vocab.bpe"):
        (folder / name).write_bytes(lzma.decompress((GPT2 / f"{name}.xz").read_bytes()))
    books = [document.text for document in read_bundled()]
    made: dict[Any, Tokenizer] = {size: Tokenizer.train(books, size) for size in (257, 1024, 8192)}
    return {**made, "gpt2": Tokenizer.from_gpt2(folder / "encoder.json", folder / "vocab.bpe")}


@pytest.mark.parametrize("size", [257, 1024, 8192, "gpt2"])
def test_the_page_gives_the_ids_of_the_python_tokenizer(
    chromium: Browser, figures_base: str, python_tokenizers: dict[Any, Tokenizer], size: Any
) -> None:
    given = texts()
    with figures(chromium, figures_base) as page:
        places = [
            module(figures_base, page, name) for name in ("bpe.js", "tokenizer.json", "tokenizer-gpt2.json")
        ]
        answers = page.evaluate(ENCODE, [*places, size, given])
    for text, answer in zip(given, answers, strict=True):
        assert answer["ids"] == python_tokenizers[size].encode(text), repr(text)
        assert bytes(answer["bytes"]) == text.encode(), repr(text)


def test_a_text_becomes_chips_and_a_chip_shows_its_merges(
    chromium: Browser, figures_base: str, python_tokenizers: dict[Any, Tokenizer]
) -> None:
    with figures(chromium, figures_base) as page:
        figure = page.locator("tabula-tokenizer")
        asked = [url for url in page.watch.requests if "tokenizer" in url and url.endswith(".json")]
        assert asked == [], "the worked example needs no vocabulary"
        text = "The <b>fox</b> sat\nnear naïve 你"
        figure.get_by_label("Any text").fill(text)
        chips = figure.locator(".live__chips button")
        for name, size in (("1,024", 1024), ("256 bytes", 257), ("8,192", 8192), ("GPT-2", "gpt2")):
            figure.get_by_role("radio", name=name).check()
            ids = python_tokenizers[size].encode(text)
            expect(chips).to_have_count(len(ids))
            wait_until(page, f"document.querySelector('.live__chips small').textContent === '{ids[0]}'")
            assert [int(id) for id in figure.locator(".live__chips small").all_text_contents()] == ids
        rate = numbers.figure(len(text.encode()) / len(ids))
        says = f"{len(text.encode())} bytes, {len(ids)} tokens: {rate} bytes a token"
        expect(figure.locator('[data-part="sum"]')).to_have_text(says)
        expect(figure.locator('[data-part="status"]')).to_have_text(says)
        figure.get_by_label("Any text").fill("the sea")
        expect(chips).to_have_count(2)
        chips.first.focus()
        page.keyboard.press("ArrowRight")
        expect(chips.nth(1)).to_be_focused()
        page.keyboard.press("Enter")
        expect(chips.nth(1)).to_have_attribute("aria-pressed", "true")
        expect(figure.locator('[data-part="which"]')).to_have_text("␣sea is made by 3 merges")
        merges = figure.locator(".live__merges li .book").all_text_contents()
        assert merges[-1].endswith("→ ␣sea")
        assert figure.locator("b").count() == 0, "the reader's text is text"


def test_the_worked_example_is_what_the_page_would_write(chromium: Browser, figures_base: str) -> None:
    with figures(chromium, figures_base) as page:
        figure = page.locator("tabula-tokenizer")
        before = figure.locator(".live__body").inner_html()
        pressed = figure.locator('[aria-pressed="true"] small').text_content()
        figure.get_by_label("Any text").press("End")
        figure.get_by_role("radio", name="8,192").check()
        figure.get_by_role("radio", name="1,024").check()
        expect(figure.locator('[data-part="which"]')).to_contain_text("Choose a token")
        figure.locator(".live__chips button", has=page.get_by_text(str(pressed), exact=True)).first.click()
        expect(figure.locator('[data-part="which"]')).to_contain_text("is made by")
        after = figure.locator(".live__body").inner_html()
        plain = [re.sub(r' (tabindex|disabled|type)="[^"]*"', "", html) for html in (before, after)]
        assert plain[0] == plain[1]
