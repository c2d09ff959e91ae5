"""Writes trainer/unicode_ranges.py: what `tokenizers` takes for letters, numbers and white space.

    python tests/make_unicode_ranges.py

Every code point is put to Hugging Face's own pre-tokenizer, so that our ids and its ids agree on all of them.
tokenizers 0.23.3 answers as Unicode 16.0.0 does. A package that follows a later version gives other ranges,
and with them other tokens for the letters that are new in it: change the table on purpose or not at all.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

UNICODE_VERSION = "16.0.0"
TARGET = Path(__file__).parent.parent / "trainer" / "unicode_ranges.py"

HEADER = f'''"""The letters, numbers and White_Space of Unicode {UNICODE_VERSION}, as hexadecimal ranges.

Pinned, because Python's own tables differ from version to version, and so would the tokens.
Written by tests/make_unicode_ranges.py; the data is Unicode's (https://www.unicode.org/license.txt).
"""
'''

# A piece of text is never split inside a class, so `probe + c` stays whole only if c is in the probe's class.
PROBES = {"L": "a", "N": "1", "O": "!"}


def classes() -> Iterator[tuple[int, str]]:
    """Every code point but the surrogates, with L, N, O (other) or S (white space)."""
    split = ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str
    points = [i for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    for start in range(0, len(points), 256):
        block = points[start : start + 256]
        text = "".join(probe + chr(i) for i in block for probe in PROBES.values())
        starts = {first for _, (first, _) in split(text)}
        for position, i in enumerate(block):
            at = 2 * len(PROBES) * position + 1
            whole = [name for k, name in enumerate(PROBES) if at + 2 * k not in starts]
            yield i, whole[0] if whole else "S"


def render() -> str:
    """The module's text."""
    ranges: dict[str, list[list[int]]] = {"L": [], "N": [], "S": [], "O": []}
    for i, name in classes():
        found = ranges[name]
        if found and found[-1][1] == i - 1:
            found[-1][1] = i
        else:
            found.append([i, i])
    parts = [HEADER, f'UNICODE_VERSION = "{UNICODE_VERSION}"\n']
    for title, name in (("LETTERS", "L"), ("NUMBERS", "N"), ("WHITE_SPACE", "S")):
        words = " ".join(f"{a:x}-{b:x}" if a < b else f"{a:x}" for a, b in ranges[name])
        lines = textwrap.fill(words, 110, break_on_hyphens=False, break_long_words=False)
        parts.append(f'{title} = """\n{lines}\n"""\n')
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
