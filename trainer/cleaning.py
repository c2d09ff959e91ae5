"""Turning a Project Gutenberg text file into prose that a language model can learn from.

    text = clean(decode(body))    # header, footer and credits dropped; one line a paragraph

Every function is pure and deterministic. `unwrap` changes white space only: no letter of the book is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

PROSE_WIDTH = 40  # mean length of a paragraph's lines, in characters, from which they count as hard-wrapped
VERSE_WIDTH = 50  # below this mean length, lines that start with capitals count as verse
INDENTED_VERSE_WIDTH = 62  # the same for a block that is indented as a whole
VERSE_CAPITALS = 0.75  # share of a verse's lines that start with a capital
INDENT = "  "  # what is left of the indentation that a whole block shares
FIRST_LINE_INDENTS = range(2, 9)  # spaces in front of a paragraph's first line, where a book indents them
CREDIT_PARAGRAPHS = 12  # how far into the book the transcribers' credits are looked for

_GAP = re.compile(r"(\n(?:[^\S\n]*\n)+)")  # one or more blank lines
_BLANKS = r"[^\S\n]*"
_GUTENBERG = r"(?:COPYRIGHTED\s+)?PROJECT\s+GUTENBERG"

# "*** START OF THIS PROJECT GUTENBERG EBOOK EMMA ***"; a long title continues on the next line or two.
_START = re.compile(
    rf"^{_BLANKS}\*+\s*START\s+OF\s+(?:THE|THIS)\s+{_GUTENBERG}"
    rf"(?:(?:[^\n]*\S[^\n]*\n){{0,2}}?[^\n]*\*{{3}}{_BLANKS}|[^\n]*)$",
    re.I | re.M,
)
# "***END OF THE PROJECT GUTENBERG EBOOK EMMA***", "End of Project Gutenberg's Emma, by Jane Austen"
_END = re.compile(rf"^{_BLANKS}(?:\*+\s*)?END\s+OF\s+(?:(?:THE|THIS)\s+)?{_GUTENBERG}", re.I | re.M)
# Until about 2003 a legal notice stood between these two, in front of the book or behind it.
_SMALL_PRINT = re.compile(rf"^{_BLANKS}\*+{_BLANKS}START\W*THE\s+SMALL\s+PRINT", re.I | re.M)
_SMALL_PRINT_END = re.compile(rf"^{_BLANKS}\*END\W*THE\s+SMALL\s+PRINT[^\n]*$", re.I | re.M)

_CREDIT = re.compile(
    r"""\W*(?:
        produced\ by\b | scanned\ (?:and\ \w+\ )?by\b | prepared\ by\b | transcribed\ (?:from|by)\b
      | html\ version\ by\b | e-?text\ (?:prepared|produced|scanned)\b
      | special\ thanks\ are\ due\ to\b | this\ text\ is\ a\ combination\ of\ etexts\b
      | this\ (?:e-?text|e-?book)\ (?:was|is)\b
      | (?:original\ |project\ gutenberg\ )?(?:transcriber|editor|preparer)['’]s\ notes?:
      | note:\ [^]]*\be-?(?:text|book)\b
    )""",
    re.I | re.X,
)
_CREDIT_HEADING = re.compile(r"\W*(?:transcriber|preparer)['’]s\ notes?\W*", re.I)

_ERRATA = re.compile(
    r"\n[^\S\n]*\n\W{0,9}(?:(?:original )?transcriber['’]s notes?\W*\n|typographical errors corrected by\b)",
    re.I,
)

_OPEN_END = re.compile(r"(?:\w-|\S--|[^\s—]—)$")
_HEADER_FIELD = re.compile(r"^(Title|Author|Language):[ \t]*(\S.*)$", re.M)


def decode(body: bytes) -> str:
    """The text of a Project Gutenberg file: UTF-8 with or without BOM, else Windows-1252 or Latin-1.

    The two single-byte sets differ in 0x80-0x9f only, where Latin-1 has nothing that a book would hold.
    """
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return body.decode(encoding)
        except UnicodeDecodeError:
            continue
    return body.decode("latin-1")


def clean(text: str) -> str:
    """`text` without Project Gutenberg's wrapping, one line a paragraph, ending in one line feed.

    Empty if nothing stands between the markers. A text without markers is only unwrapped.
    """
    return unwrap(strip_gutenberg(normalise_newlines(text)))


def is_gutenberg(text: str) -> bool:
    """Whether `text` carries the markers that Project Gutenberg puts around a book."""
    return bool(_START.search(text) or _SMALL_PRINT_END.search(text))


def header_fields(text: str) -> dict[str, str]:
    """The `Title`, `Author` and `Language` lines of a Project Gutenberg header; those that are there."""
    start = _START.search(text)
    header = text[: start.start()] if start else text[:4000]
    return {m[1].lower(): " ".join(m[2].split()) for m in reversed(list(_HEADER_FIELD.finditer(header)))}


def normalise_newlines(text: str) -> str:
    """`text` with LF line ends and without a BOM; form feeds and no-break spaces become LF and space."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\f", "\n").replace("\xa0", " ")


def strip_gutenberg(text: str) -> str:
    """The book alone: what stands between the markers, in all parts of a file that joins several books.

    The credits of the people who prepared the file go too. A text without markers is returned as it is.
    """
    stripped = _strip_small_print(text)
    markers = sorted([*_START.finditer(stripped), *_END.finditer(stripped)], key=lambda m: m.start())
    books: list[str] = []
    position = 0
    inside = not any(marker.re is _START for marker in markers)
    for marker in markers:
        if inside:
            books.append(stripped[position : marker.start()])
        position = marker.end()
        inside = marker.re is _START
    if inside:
        books.append(stripped[position:])
    return text if books == [text] else "\n\n".join(_strip_credits(book) for book in books)


def _strip_small_print(text: str) -> str:
    """`text` without the old legal notice and what is on its far side, seen from the book."""
    end = _SMALL_PRINT_END.search(text)
    if end is None:
        return text
    if end.end() <= len(text) - end.end():
        return text[end.end() :]
    start = _SMALL_PRINT.search(text)
    return text[: (start or end).start()]


def _strip_credits(book: str) -> str:
    """`book` without the paragraphs near its start that say who prepared the file, and their errata."""
    errata = _ERRATA.search(book, len(book) * 9 // 10)
    book = book[: errata.start() if errata else None].lstrip("\n")
    pieces = _GAP.split(book, maxsplit=CREDIT_PARAGRAPHS)
    kept: list[str] = []
    drop_next = False
    for paragraph, gap in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        heading = _CREDIT_HEADING.fullmatch(paragraph) is not None
        credit = _CREDIT.match(paragraph) is not None
        if not (heading or credit or drop_next):
            kept += paragraph, gap
        drop_next = heading
    return "".join(kept)


def unwrap(text: str) -> str:
    """`text` with each hard-wrapped paragraph on one line; verse, tables and letter heads keep their lines.

    Only white space changes: line breaks inside prose become spaces (nothing beside a dash or hyphen), spaces
    in prose are single, a block that is indented as a whole keeps two spaces, and three or more blank lines
    become two. Applied to its own result it changes nothing.
    """
    pieces = _GAP.split(text.strip("\n"))
    out: list[str] = []
    for block, gap in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        lines = [line.expandtabs().rstrip() for line in block.split("\n") if line.strip()]
        if lines:
            out += "\n\n".join(_unwrap_block(lines)), "\n" * min(gap.count("\n"), 3)
    return "".join(out).rstrip("\n") + "\n" if out else ""


def _unwrap_block(lines: list[str]) -> list[str]:
    """The paragraphs, and the groups of lines that keep their breaks, of lines without blank ones."""
    indents = [_indent(line) for line in lines]
    if len(lines) == 1:
        return [_join(lines)]
    if min(indents) > 0:
        if len(set(indents[1:])) == 1 and _is_prose(lines, verse_width=INDENTED_VERSE_WIDTH):
            return [_join(lines)]
        return ["\n".join(INDENT + line[min(indents) :] for line in lines)]
    if indents[0] in FIRST_LINE_INDENTS:
        paragraphs = _runs(lines, lambda line: _indent(line) == indents[0])
        prose = [_is_prose(paragraph) for paragraph in paragraphs]
        flush = all(_indent(line) <= 1 for paragraph in paragraphs for line in paragraph[1:])
        if (
            flush
            and any(prose)
            and all(p or len(lines) == 1 for p, lines in zip(prose, paragraphs, strict=True))
        ):
            return [_join(paragraph) for paragraph in paragraphs]
        return ["\n".join(lines)]
    flush = [indent <= 1 for indent in indents]  # one space is how some editions mark a reply
    changes = iter([False, *(a != b for a, b in pairwise(flush))])
    runs = _runs(lines, lambda _: next(changes))
    return ["\n".join(_unwrap_run(run) for run in runs)]


def _unwrap_run(run: list[str]) -> str:
    """Neighbouring lines of one block that are all flush left, or all indented."""
    prose = _indent(run[0]) <= 1 and (len(run) == 1 or _is_prose(run))
    return _join(run) if prose else "\n".join(run)


def _runs(lines: list[str], starts: Callable[[str], bool]) -> list[list[str]]:
    """`lines` cut in front of each line that `starts` a new run."""
    runs: list[list[str]] = []
    for line in lines:
        if starts(line) or not runs:
            runs.append([])
        runs[-1].append(line)
    return runs


def _is_prose(lines: list[str], verse_width: int = VERSE_WIDTH) -> bool:
    """Whether `lines` were broken because they were full; the last one says nothing about that."""
    widths = [len(line.strip()) for line in lines[:-1]]
    if not widths or sum(widths) < PROSE_WIDTH * len(widths):
        return False
    if len(lines) == 2 and lines[0][0] != " ":  # a reply of two lines: capitals there are chance
        return True
    capitals = sum(_starts_with_capital(line) for line in lines) / len(lines)
    return capitals <= VERSE_CAPITALS or sum(widths) >= verse_width * len(widths)


def _starts_with_capital(line: str) -> bool:
    letter = re.search(r"[^\W\d_]", line)
    return letter is None or not letter[0].islower()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _join(lines: list[str]) -> str:
    """`lines` as one, with single spaces; a dash or hyphen at a line's edge touches its neighbours."""
    text = lines[0].strip()
    for line in lines[1:]:
        line = line.strip()
        glued = _OPEN_END.search(text[-3:]) or line.startswith(("--", "—"))
        text += line if glued else f" {line}"
    return " ".join(text.split())
