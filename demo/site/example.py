"""The worked example of byte pair encoding, made by the trainer's own tokenizer while the site is built."""

from __future__ import annotations

from collections import Counter
from functools import cache
from html import escape

from trainer.bpe import FIRST_TOKENS, Learner
from trainer.corpus import bundled, read_path
from trainer.pretokenize import chunks
from trainer.tokenizer import Tokenizer

BOOK = "Alice-s-Adventures-in-Wonderland_11/11-0.txt"
VOCAB = 1024


def merges(text: str, count: int) -> str:
    """The first merges that BPE learns from `text`, and how it is cut after each: an HTML table."""
    words = [word for piece in chunks(text) for word in piece]
    rows = [_row("–", "", "", pieces(Tokenizer.from_merges([]), text))]
    pairs: list[tuple[int, int]] = []
    tokens = list(FIRST_TOKENS)
    learner = Learner()
    learner.add(Counter(words).items())
    for merge in learner.merges(len(FIRST_TOKENS) + count):
        pairs.append((merge.left, merge.right))
        tokens.append(merge.content)
        pair = f"{piece(tokens[merge.left])} + {piece(tokens[merge.right])}"
        cut = pieces(Tokenizer.from_merges(pairs), text)
        rows.append(_row(str(len(pairs)), pair, str(merge.occurrences), cut))
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Merge", "Pair", "Seen", "The text, cut"))
    table = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return (
        '<div class="tb-scroll" tabindex="0" role="region" aria-label="The first merges">'
        f'<table class="tb-table tb-merges">{table}</table></div>'
    )


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def pieces(tokenizer: Tokenizer, text: str) -> str:
    """A text as the tokenizer cuts it, one box a token."""
    boxes = "".join(piece(tokenizer.token_bytes(token)) for token in tokenizer.encode(text))
    return f'<span class="tb-pieces">{boxes}</span>'


def piece(content: bytes) -> str:
    """One token in a box; its spaces are shown."""
    return f"<span>{escape(content.decode('utf-8', 'replace').replace(' ', '␣'))}</span>"


@cache
def trained() -> tuple[Tokenizer, int]:
    """A tokenizer of VOCAB tokens trained on one bundled book, and the book's length in bytes."""
    (book,) = read_path(bundled() / BOOK)
    return Tokenizer.train([book.text], VOCAB), len(book.text.encode())


def cut(text: str) -> str:
    """A text as the tokenizer of one book cuts it."""
    return pieces(trained()[0], text)
