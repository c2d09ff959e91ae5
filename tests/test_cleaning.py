"""Cleaning, on the ten bundled books, on excerpts with other markers and encodings, and on generated text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import cleaning, corpus

FIXTURES = Path(__file__).parent / "fixtures" / "gutenberg"
BOOKS = sorted(corpus.bundled().glob("*/*.txt"))
FILES = [*BOOKS, *sorted(FIXTURES.glob("*.txt"))]
HEADER_WORDS = re.compile(r"Gutenberg|\be-?text\b|\bebook|^Produced by|www\.", re.I | re.M)


def raw(path: Path) -> str:
    return cleaning.normalise_newlines(cleaning.decode(path.read_bytes()))


def letters(text: str) -> str:
    """`text` without any white space."""
    return "".join(text.split())


def test_there_are_books_to_look_at() -> None:
    assert len(BOOKS) == 10
    assert len(FILES) == 14


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_real_files_come_out_clean(path: Path) -> None:
    text = cleaning.clean(raw(path))
    assert not HEADER_WORDS.search(text)
    assert letters(text) == letters(cleaning.strip_gutenberg(raw(path)))
    assert letters(text)[1000:] in letters(raw(path))  # credits are taken out of the first pages
    assert cleaning.clean(text) == text
    assert text.endswith("\n")
    assert not text.startswith("\n")
    assert not re.search(r"\r|\n{4}|[ \t]\n|\ufeff", text)


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.name)
def test_prose_is_unwrapped_and_nothing_of_the_book_is_missing(path: Path) -> None:
    text = cleaning.clean(raw(path))
    lines = [line for line in text.split("\n") if line]
    prose = sum(len(line) for line in lines if len(line) > 80)
    assert prose > 0.6 * len(text)  # a hard-wrapped book has no line that long
    assert len(text) > 0.9 * (len(raw(path)) - 21_000)  # header, credits and licence


ENDS = {
    "11-0.txt": ("ALICE’S ADVENTURES IN WONDERLAND", "THE END"),
    "12-0.txt": ("THROUGH THE LOOKING-GLASS", "THE END"),
    "45-0.txt": ("ANNE OF GREEN GABLES", "with the world,’” whispered Anne softly."),
    "55.txt": ("The Wonderful Wizard of Oz", "I'm so glad to be at home again!\""),
    "113-0.txt": ("THE SECRET GARDEN", "THE END"),
    "120-0.txt": ("TREASURE ISLAND", "still ringing in my ears: “Pieces of eight! Pieces of eight!”"),
    "236-0.txt": ("THE JUNGLE BOOK", "     Pack and harness, pad and load!"),
    "271-0.txt": ("BLACK BEAUTY", "standing with my old friends under the apple-trees."),
    "289-0.txt": ("THE WIND IN THE WILLOWS", "but it never failed to have its full effect."),
    "2591-0.txt": ("FAIRY TALES", "an essential ingredient of children’s reading ever since."),
    "35-0.txt": ("The Time Machine", "a mutual tenderness still lived on in the heart of man."),
    "43-0.txt": ("THE STRANGE CASE OF DR. JEKYLL AND MR. HYDE", "that unhappy Henry Jekyll to an end."),
    "1661-8.txt": ("THE ADVENTURES OF SHERLOCK HOLMES", "she has met with considerable success."),
    "smallprint.txt": ("YKCOWREBBAJ", "walking again in the natural way."),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_book_starts_and_ends_where_it_should(path: Path) -> None:
    lines = cleaning.clean(raw(path)).splitlines()
    first, last = ENDS[path.name]
    assert lines[0] == first
    assert lines[-1].endswith(last)


# Passages as they must come out, from the bundled books.
PASSAGES = {
    "12-0.txt": """JABBERWOCKY

  ‘Twas brillig, and the slithy toves
   Did gyre and gimble in the wabe;
  All mimsy were the borogoves,
   And the mome raths outgrabe.

  ‘Beware the Jabberwock, my son!
   The jaws that bite, the claws that catch!
""",
    "11-0.txt": """
Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: \
once or twice she had peeped into the book her sister was reading, but it had no pictures or conversations \
in it, ‘and what is the use of a book,’ thought Alice ‘without pictures or conversations?’

""",
    "113-0.txt": """
‘Mistress Mary, quite contrary,
    How does your garden grow?
With silver bells, and cockle shells,
    And marigolds all in a row.’
""",
    "236-0.txt": """
  Good luck to every sergeant, then, that lets us pick our road;
  Bad luck to all the driver-men that cannot pack a load:
""",
    "120-0.txt": """
  23.  THE EBB-TIDE RUNS  . . . . . . . . . . . 138
  24.  THE CRUISE OF THE CORACLE  . . . . . . . 143
""",
    "2591-0.txt": """
  ‘Round about, round about,
     Lo and behold!
   Reel away, reel away,
     Straw into gold!’
""",
}


@pytest.mark.parametrize("name", PASSAGES)
def test_passages_read_as_they_should(name: str) -> None:
    text = cleaning.clean(raw(next(path for path in BOOKS if path.name == name)))
    assert PASSAGES[name] in text


@pytest.mark.parametrize(
    "start",
    [
        "*** START OF THIS PROJECT GUTENBERG EBOOK EMMA ***",
        "***START OF THE PROJECT GUTENBERG EBOOK JANE EYRE***",
        "*** START OF THE PROJECT GUTENBERG EBOOK FRANKENSTEIN; OR, THE MODERN PROMETHEUS ***",
        "*** START OF THE COPYRIGHTED PROJECT GUTENBERG EBOOK PETER PAN ***",
        "*** START OF THIS PROJECT GUTENBERG EBOOK\nTHE STRANGE CASE OF DR. JEKYLL AND MR. HYDE ***",
        "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*",
        "*END THE SMALL PRINT! FOR PUBLIC DOMAIN EBOOKS*Ver.02/11/02*END*",
    ],
)
@pytest.mark.parametrize(
    "end",
    [
        "End of the Project Gutenberg EBook of Emma, by Jane Austen\n\n"
        "*** END OF THIS PROJECT GUTENBERG EBOOK EMMA ***",
        "***END OF THE PROJECT GUTENBERG EBOOK JANE EYRE***",
        "End of The Project Gutenberg Etext of The Secret Garden by Frances Hodgson Burnett",
        "End of the Project Gutenberg EBook of Metamorphosis, by Franz Kafka\nTranslated by David Wyllie.",
        "*** END OF THIS PROJECT GUTENBERG EBOOK\nTHE STRANGE CASE OF DR. JEKYLL AND MR. HYDE ***",
    ],
)
@pytest.mark.parametrize("credit", ["", "Produced by Judith Boss, and\nDavid Widger\n\n\n"])
def test_every_form_of_the_markers_is_cut(start: str, end: str, credit: str) -> None:
    body = "CHAPTER I\n\nIt was a dark night.\n\n" * 9 + "The End"
    text = f"Title: X\n\n{start}\n\n\n{credit}{body}\n\n\n{end}\n\nUpdated editions\n"
    assert cleaning.clean(text) == body + "\n"


def test_small_print_behind_the_book_is_cut() -> None:
    small = "***START**THE SMALL PRINT!**START***\nYou know: lawyers.\n*END*THE SMALL PRINT!*END*\n"
    assert cleaning.clean("It was a dark night.\n\n" * 9 + small) == ("It was a dark night.\n\n" * 9)[:-1]


def test_books_joined_in_one_file_all_stay() -> None:
    one = raw(FIXTURES / "43-0.txt")
    two = raw(FIXTURES / "35-0.txt")
    both = cleaning.clean(one + two)
    assert letters(both) == letters(cleaning.clean(one)) + letters(cleaning.clean(two))


def test_text_without_markers_loses_nothing() -> None:
    text = "Produced by hand in Naples.\n\nThe end of the Project was near.\n"
    assert cleaning.clean(text) == text


def test_errata_at_the_end_are_cut_and_the_last_chapter_is_not() -> None:
    start, end = "*** START OF THIS PROJECT GUTENBERG EBOOK X ***", "End of Project Gutenberg's X"
    story = "It was a dark night.\n\n" * 99
    errata = "Typographical errors corrected by the etext transcriber:\n\nteh=> the {pg 3}\n\n"
    assert cleaning.clean(f"{start}\n\n{story}{errata}{end}") == cleaning.clean(story)
    assert "teh=> the" in cleaning.clean(f"{start}\n\n{errata}{story}{end}")  # not at the end: not touched


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\xef\xbb\xbfcaf\xc3\xa9", "café"),
        (b"caf\xc3\xa9", "café"),
        (b"caf\xe9", "café"),
        (b"\x93caf\xe9\x94", "“café”"),
        (b"caf\xe9 \x81", "café \x81"),
    ],
    ids=["bom", "utf-8", "latin-1", "windows-1252", "undefined in windows-1252"],
)
def test_decode(body: bytes, text: str) -> None:
    assert cleaning.decode(body) == text


def test_latin_1_book() -> None:
    assert "née ADLER" in cleaning.decode((FIXTURES / "1661-8.txt").read_bytes())


def test_header_fields() -> None:
    assert cleaning.header_fields(raw(FIXTURES / "1661-8.txt")) == {
        "title": "The Adventures of Sherlock Holmes",
        "author": "Arthur Conan Doyle",
        "language": "English",
    }


def fill(lines: int, width: int = 65) -> list[str]:
    return [("word and " * 20)[:width].rstrip() for _ in range(lines)]


AT_EDGE = "He took the big lantern down from the long mantel"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([*fill(2), "end."], " ".join([*fill(2), "end."])),
        (["    " + line for line in [*fill(2), "end."]], " ".join([*fill(2), "end."])),
        (["    He said:  I", *fill(2)], "    He said:  I\n" + "\n".join(fill(2))),
        ([f"   {fill(1)[0]}", "end.", f"   {fill(1)[0]}", "end."], f"{fill(1)[0]} end.\n\n{fill(1)[0]} end."),
        ([f"{AT_EDGE}--", "and went."], f"{AT_EDGE}--and went."),
        ([f"{AT_EDGE}-", "piece."], f"{AT_EDGE}-piece."),
        ([AT_EDGE, "--gone."], f"{AT_EDGE}--gone."),
        (["Your friend,", "          C. D.", "In 1843."], "Your friend,\n          C. D.\nIn 1843."),
        (["        THE END"], "THE END"),
        (["        One", "          two"], "  One\n    two"),
    ],
    ids=[
        "prose", "indented prose", "letter", "first lines indented", "dash", "hyphen", "dash in front",
        "signature", "heading", "verse",
    ],
)  # fmt: skip
def test_blocks(lines: list[str], expected: str) -> None:
    text = "\n".join(lines)
    assert cleaning.unwrap(f"Before.\n\n{text}\n\n\n\n\nAfter.") == f"Before.\n\n{expected}\n\n\nAfter.\n"


WORDS = st.sampled_from(
    ["a", "The", "lantern", "‘twas", "and—", "well-", "--", "“O", "étude,", "12", "*", "END OF"]
)
LINES = st.builds(
    lambda indent, words: " " * indent + "  ".join(words),
    st.sampled_from([0, 0, 0, 1, 2, 4, 9, 30]),
    st.lists(WORDS, max_size=16),
)
TEXTS = st.lists(LINES, max_size=30).map("\n".join) | st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS)
def test_unwrap_changes_white_space_only_and_is_idempotent(text: str) -> None:
    once = cleaning.unwrap(cleaning.normalise_newlines(text))
    assert letters(once) == letters(text.removeprefix("\ufeff"))
    assert cleaning.unwrap(once) == once


MARKERS = st.sampled_from(
    [
        "*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***",
        "***",
        "End of Project Gutenberg's Emma",
        "Produced by X",
    ]
)


@given(st.lists(LINES | MARKERS, max_size=30).map("\n".join))
def test_clean_is_idempotent(text: str) -> None:
    once = cleaning.clean(text)
    assert cleaning.clean(once) == once
