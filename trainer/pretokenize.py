"""GPT-2's pre-tokenization: text is cut into the words, numbers and marks that BPE never merges across.

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

(Radford et al. 2019, encoder.py). `re` knows no \\p{L}, and its \\s holds four control characters that
Unicode's White_Space does not; so the classes are spelled out, from the pinned table in unicode_ranges.py.

    split("It's  42!")  ->  ["It", "'s", " ", " 42", "!"]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from trainer.errors import TokenizerError
from trainer.unicode_ranges import LETTERS, NUMBERS, WHITE_SPACE

CHUNK = 1 << 16  # characters cut at a time: some milliseconds' work, and what a page can wait for
BMP = 0xFFFF  # the last code point that UTF-16 writes in one unit


def chunks(text: str) -> Iterator[list[str]]:
    """The pre-tokens of `text`, in order, a list for every 65,536 characters or a few more.

    Raises TokenizerError for a lone surrogate, which has no UTF-8.
    """
    start = 0
    while start < len(text):
        # A pre-token holds white space only in front, so none goes on from a mark or letter to white space.
        boundary = _boundary().search(text, start + CHUNK)
        end = boundary.end() if boundary else len(text)
        chunk = text[start:end]
        try:
            units = len(chunk.encode("utf-16-le")) // 2
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"the text has a lone surrogate, U+{ord(chunk[error.start]):04X}, "
                f"at character {start + error.start:,}",
                "decode the text as UTF-8, or replace the character",
            ) from None
        yield _pattern(BMP if units == len(chunk) else 0x10FFFF).findall(chunk)
        start = end


def split(text: str) -> list[str]:
    """The pre-tokens of `text`; joined, they are the text. Raises TokenizerError as `chunks` does."""
    return [word for words in chunks(text) for word in words]


@cache
def _boundary() -> re.Pattern[str]:
    S = _ranges(WHITE_SPACE, BMP)
    return re.compile(f"[^{S}](?=[{S}])")


@cache
def _pattern(last: int) -> re.Pattern[str]:
    """GPT-2's pattern for text without code points above `last`.

    `re` finds a code point up to BMP by one look-up; above, it tries range after range, also for each
    character that is in none. Text without such characters is cut four times faster without them.
    """
    L, N, S = (_ranges(table, last) for table in (LETTERS, NUMBERS, WHITE_SPACE))
    return re.compile(f"'(?:s|t|re|ve|m|ll|d)| ?(?:[{L}]+|[{N}]+|[^{S}{L}{N}]+)|[{S}]+(?![^{S}])|[{S}]+")


def _ranges(table: str, last: int) -> str:
    """The inside of a character class: `table`'s ranges, as far as they begin at or below `last`."""
    pairs = (word.partition("-") for word in table.split())
    bounds = [(int(first, 16), int(end or first, 16)) for first, _, end in pairs]
    return "".join(f"\\U{first:08x}-\\U{end:08x}" for first, end in bounds if first <= last)
