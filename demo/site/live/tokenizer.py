"""The figure "tokenizer": a text as chips, with the ids and the merges of each.

The page encodes by itself (demo/figures/bpe.js, which a test holds against trainer/tokenizer.py), because an
answer to every key is what makes it a playground: Python would first be six megabytes on their way.
Vocabularies are merges alone, as JSON that any host compresses: ours is learned here, from the bundled books,
and its first merges are a smaller vocabulary; GPT-2's are those that OpenAI published (MIT,
demo/site/live/gpt2).
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

from demo.site.live.frame import Figure
from demo.site.live.markup import Markup, join, tag
from demo.site.live.numbers import count, figure
from trainer.bpe import BYTES, FIRST_TOKENS
from trainer.corpus import read_bundled
from trainer.tokenizer import Tokenizer
from trainer.tokenizer_json import CHARACTERS
from trainer.unicode_ranges import LETTERS, NUMBERS, WHITE_SPACE

BOOKS, GPT2 = "figures/tokenizer.json", "figures/tokenizer-gpt2.json"  # in the bundle
VOCAB = 8192
VOCABULARIES = {"257": "256 bytes", "1024": "1,024", "8192": "8,192", "gpt2": "GPT-2"}
SHOWN = 1024  # the vocabulary of the worked example
EXAMPLE = "The little old woman wondered whether anybody was there: “Whoever are you?” 42 naïve foxes 🦊"
MOST = 1000  # characters of the reader's text


def bundled() -> dict[str, Any]:
    """The vocabularies as bpe.js takes them: path in the bundle → data."""
    learned = Tokenizer.train((document.text for document in read_bundled()), VOCAB)
    books = {
        "classes": {"letters": LETTERS.split(), "numbers": NUMBERS.split(), "spaces": WHITE_SPACE.split()},
        "byte_ids": [FIRST_TOKENS.index(bytes([byte])) for byte in range(256)],
        "first": len(FIRST_TOKENS),
        "merges": [id for pair in learned.merges for id in pair],
    }
    gpt2 = {
        "byte_ids": [BYTES.index(byte) for byte in range(256)],
        "first": len(BYTES),
        "merges": [id for pair in gpt2_merges() for id in pair],
    }
    return {BOOKS: books, GPT2: gpt2}


def gpt2_merges() -> list[tuple[int, int]]:
    """GPT-2's merges as pairs of ids. Its ids are the bytes, in the order of their characters, and then the
    merges.
    """
    packed = (Path(__file__).parent / "gpt2" / "vocab.bpe.xz").read_bytes()
    _, *lines = lzma.decompress(packed).decode().rstrip("\n").split("\n")
    ids = {CHARACTERS[byte]: id for id, byte in enumerate(BYTES)}
    merges = []
    for line in lines:
        left, right = line.split(" ")
        merges.append((ids[left], ids[right]))
        ids[left + right] = len(ids)
    return merges


def _tokenizer(bundle: Path) -> Tokenizer:
    """The one of the worked example, from the bundle's file."""
    flat = json.loads((bundle / BOOKS).read_text(encoding="utf-8"))["merges"][
        : 2 * (SHOWN - len(FIRST_TOKENS))
    ]
    return Tokenizer.from_merges(zip(flat[::2], flat[1::2], strict=True))


def shown(content: bytes) -> str:
    """A token's bytes so that blanks are seen; what is no text alone, in hexadecimal."""
    try:
        return content.decode().replace(" ", "␣").replace("\n", "↵")
    except UnicodeDecodeError:
        return content.hex(" ")


def history(tokenizer: Tokenizer, token: int) -> list[tuple[int, int, int]]:
    """The merges that made a token, in the order in which they were learned: (number, left, right)."""
    number = token - len(FIRST_TOKENS)
    if number < 0:
        return []
    left, right = tokenizer.merges[number]
    parts = {*history(tokenizer, left), *history(tokenizer, right), (number + 1, left, right)}
    return sorted(parts)


def _controls() -> Markup:
    choices = [
        tag(
            "label",
            tag(
                "input", type="radio", name="vocabulary", value=key, checked=key == str(SHOWN), disabled=True
            ),
            tag("span", name),
        )
        for key, name in VOCABULARIES.items()
    ]
    text = tag("textarea", EXAMPLE, rows="3", maxlength=MOST, spellcheck="false", disabled=True)
    return join(
        tag("label", tag("span", "Any text"), text, class_="field live__text"),
        tag("fieldset", tag("legend", "Vocabulary", class_="hidden"), *choices, class_="seg live__presets"),
    )


def _body(bundle: Path) -> Markup:
    tokenizer = _tokenizer(bundle)
    ids = tokenizer.encode(EXAMPLE)
    chosen = max(range(len(ids)), key=lambda i: len(history(tokenizer, ids[i])))
    chips = [_chip(tokenizer, id, i == chosen) for i, id in enumerate(ids)]
    size = len(EXAMPLE.encode())
    return join(
        tag(
            "p",
            f"{count(size, 'byte')}, {count(len(ids), 'token')}: {figure(size / len(ids))} bytes a token",
            class_="live__sum num",
            data_part="sum",
        ),
        tag("ol", *chips, class_="live__chips", aria_label="Tokens", data_part="chips"),
        tag("p", _heading(tokenizer, ids[chosen]), class_="sub", data_part="which"),
        tag("ol", *_merges(tokenizer, ids[chosen]), class_="live__merges", data_part="merges"),
    )


def _chip(tokenizer: Tokenizer, id: int, pressed: bool) -> Markup:
    name = shown(tokenizer.token_bytes(id))
    button = tag(
        "button",
        tag("span", name, class_="book"),
        tag("small", str(id)),
        type="button",
        aria_pressed=str(pressed).lower(),
        tabindex="0" if pressed else "-1",
        disabled=True,
    )
    return tag("li", button)


def _heading(tokenizer: Tokenizer, id: int) -> str:
    merges = len(history(tokenizer, id))
    made = f"made by {count(merges, 'merge')}" if merges else "a byte: no merge made it"
    return f"{shown(tokenizer.token_bytes(id))} is {made}"


def _merges(tokenizer: Tokenizer, id: int) -> list[Markup]:
    said = []
    for number, left, right in history(tokenizer, id):
        a, b = (tokenizer.token_bytes(part) for part in (left, right))
        said.append(
            tag(
                "li",
                tag("span", f"{shown(a)} + {shown(b)} → {shown(a + b)}", class_="book"),
                tag("small", f"merge {number:,}"),
            )
        )
    return said


def _source(data: str) -> Markup:
    return join(
        "Vocabularies up to 8,192: learned by this project’s tokenizer from the ten bundled books, when the ",
        "site was built. GPT-2’s: as OpenAI published it. Encoded in this page: your text goes nowhere.",
    )


FIGURE = Figure("A larger vocabulary says the same in fewer tokens", _controls, _body, _source)
