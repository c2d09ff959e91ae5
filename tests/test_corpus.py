"""Reading documents from files and folders, the bundled corpus, and splitting it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trainer import cleaning, corpus
from trainer.corpus import Document, fingerprint, load, read_path, split
from trainer.errors import ConfigError, CorpusError, TrainerError
from trainer.events import Event, Notice

FIXTURES = Path(__file__).parent / "fixtures" / "gutenberg"


def write(path: Path, body: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body.encode() if isinstance(body, str) else body)
    return path


def document(text: str, source: str = "here") -> Document:
    return Document("", text, source)


# Files and folders.


def test_a_text_file_is_taken_as_it_is(tmp_path: Path) -> None:
    text = "  Short lines\nof my own,\n\n\n\n\nwith «signs», <|endoftext|> and 日本語\n"
    path = write(tmp_path / "mine.txt", text)
    assert read_path(path) == [Document("mine", text, str(path))]
    assert read_path(str(path)) == read_path(path)
    assert read_path(write(tmp_path / "README", text))[0].text == text  # any suffix, when it is named


def test_bom_and_windows_line_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfcaf\xc3\xa9\r\nau lait\r\n")
    assert read_path(path)[0].text == "café\nau lait\n"


def test_an_own_gutenberg_file_is_cleaned(tmp_path: Path) -> None:
    body = (FIXTURES / "43-0.txt").read_bytes()
    (book,) = read_path(write(tmp_path / "jekyll.txt", body))
    assert book.title == "The Strange Case Of Dr. Jekyll And Mr. Hyde"
    assert book.author == "Robert Louis Stevenson"
    assert book.licence == "Public domain in the USA"
    assert book.text == cleaning.clean(cleaning.decode(body))


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.TXT", "a/notes.md", ".git/x.txt", "a/.y.txt", "c.png"):
        write(tmp_path / name, name)
    write(tmp_path / "d.jsonl", '{"text": "one"}\n\n{"text": "two"}\n')
    assert [d.text for d in read_path(tmp_path)] == ["a/z.TXT", "b.txt", "one", "two"]


def test_jsonl(tmp_path: Path) -> None:
    records = [
        {"title": "T", "author": "A", "licence": "CC BY 4.0", "source": "S", "text": "é\r\n"},
        {"license": "MIT", "text": "x", "title": None, "other": [1]},
    ]
    path = write(tmp_path / "s.jsonl", "\ufeff" + "\r\n".join(map(json.dumps, records)))
    assert read_path(path) == [
        Document("T", "é\n", "S", "CC BY 4.0", "A"),
        Document(f"{path}:2", "x", f"{path}:2", "MIT"),
    ]


BAD_FILES: list[tuple[str, bytes, str]] = [
    ("a.txt", b"", "is empty"),
    ("a.txt", b"\xef\xbb\xbf \r\n\n", "is empty"),
    ("a.txt", b"caf\xe9", r"is not UTF-8 \(byte 0xe9 at 3\).*iconv -f latin1 -t utf8"),
    ("a.txt", b"caf\xc3", r"is not UTF-8 \(byte 0xc3 at 3\)"),
    ("a.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is binary"),
    ("a.txt", "text".encode("utf-16"), "is UTF-16.*iconv -f utf16"),
    ("a.txt", b"*** START OF THE PROJECT GUTENBERG EBOOK X ***\n", "holds no text"),
    ("a.jsonl", b"", "is empty"),
    ("a.jsonl", b"\n\n", "is empty"),
    ("a.jsonl", b'{"text": "x"}\n{"text": ', ":2 is not JSON"),
    ("a.jsonl", b"[" * 100_000, ":1 is not JSON"),
    ("a.jsonl", b'"x"', ":1 has no text"),
    ("a.jsonl", b'{"title": "x"}', ":1 has no text"),
    ("a.jsonl", b'{"text": 3}', ":1 has no text"),
    ("a.jsonl", b'{"text": " "}', ":1 has no text"),
    ("a.jsonl", b'{"text": "\\ud800"}', ":1 holds half a surrogate pair"),
    ("a.jsonl", b'{"text": "x"}\n{"text": "caf\xe9"}', r":2 is not UTF-8"),
]


@pytest.mark.parametrize(("name", "body", "problem"), BAD_FILES)
def test_bad_files_are_named(tmp_path: Path, name: str, body: bytes, problem: str) -> None:
    path = write(tmp_path / name, body)
    for source in (path, tmp_path):
        with pytest.raises(CorpusError, match=problem) as caught:
            read_path(source)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.remedy


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nothing\.txt does not exist"):
        read_path(tmp_path / "nothing.txt")
    with pytest.raises(CorpusError, match=r"holds no \.txt or \.jsonl file"):
        read_path(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CorpusError, match="neither a file nor a folder"):
        read_path(tmp_path / "pipe")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied")

    text, jsonl = write(tmp_path / "a.txt", "x"), write(tmp_path / "a.jsonl", '{"text": "x"}')
    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    for path in (text, jsonl):
        with pytest.raises(CorpusError, match=r"cannot be read \(Permission denied\)"):
            read_path(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_text_or_a_corpus_error(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "a.txt"
    path.write_bytes(body)
    try:
        (read,) = read_path(path)
    except CorpusError:
        return
    assert read.text.strip()
    read.text.encode()


# Sources.


def sources(*names: str | Path) -> tuple[list[Document], list[str]]:
    events: list[Event] = []
    documents = asyncio.run(load([str(name) for name in names], on_event=events.append))
    return documents, [event.message for event in events if isinstance(event, Notice)]


def test_the_bundled_books() -> None:
    documents, notices = sources("books")
    assert len(documents) == 10
    assert notices == []
    assert 3e6 < sum(len(d.text) for d in documents) < 4e6
    for d in documents:
        assert d.title
        assert d.author
        assert d.licence == "Public domain in the USA"
        assert d.source.startswith("books/")
        assert "Gutenberg" not in d.text


def test_bundled_books_of_an_installed_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trainer" / "books").mkdir(parents=True)
    monkeypatch.setattr(corpus, "__file__", str(tmp_path / "trainer" / "corpus.py"))
    assert corpus.bundled() == tmp_path / "trainer" / "books"
    with pytest.raises(CorpusError, match="holds no book"):
        corpus.read_bundled()
    (tmp_path / "trainer" / "books").rmdir()
    with pytest.raises(CorpusError, match="bundled books are missing"):
        corpus.bundled()


def test_a_bundled_book_that_was_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oz = "The-Wonderful-Wizard-of-Oz_55/55.txt"
    body = (corpus.bundled() / oz).read_bytes()
    write(tmp_path / "trainer" / "books" / oz, body.replace(b"\r\n", b"\n"))
    monkeypatch.setattr(corpus, "__file__", str(tmp_path / "trainer" / "corpus.py"))
    with pytest.raises(CorpusError, match=r"55\.txt is not the file of the manifest"):
        corpus.read_bundled()


def test_provenance_names_every_bundled_book() -> None:
    provenance = (corpus.bundled() / "PROVENANCE.md").read_text(encoding="utf-8")
    for d in corpus.read_bundled():
        repo, file = d.source.split("/")[1:]
        assert f"https://raw.githubusercontent.com/GITenberg/{repo}/master/{file}" in provenance
        assert d.title in provenance
        assert d.author in provenance
    for book in corpus.manifest().values():
        bundled = (corpus.bundled() / book.repo).is_dir()
        assert (book.files[0].sha256 in provenance) == bundled  # type: ignore[operator]


def test_equal_texts_are_kept_once(tmp_path: Path) -> None:
    one = write(tmp_path / "one.txt", "Once upon a time.\n")
    write(tmp_path / "two.txt", "Twice.\n")
    copy = write(tmp_path / "copies" / "one.txt", "Once upon a time.\r\n")
    documents, notices = sources(one, tmp_path, copy)
    assert [d.text for d in documents] == ["Once upon a time.\n", "Twice.\n"]
    assert len(notices) == 1
    assert str(one) in notices[0]
    assert "and 2 more" in notices[0]


def test_no_source_and_bad_sources(tmp_path: Path) -> None:
    for names, problem in [
        ((), "no source"),
        (("gutenberg:",), "names no book"),
        (("gutenberg:123456",), "is not in the manifest"),
        ((tmp_path / "x",), "does not exist"),
    ]:
        with pytest.raises(CorpusError, match=problem):
            sources(*names)


def test_a_bad_source_is_found_before_anything_is_fetched() -> None:
    async def fetch(url: str) -> object:
        raise AssertionError("fetched")

    with pytest.raises(CorpusError, match="names no book"):
        asyncio.run(load(["gutenberg:84", "gutenberg:nonsense"], fetch=fetch))  # type: ignore[arg-type]


def test_summaries() -> None:
    d = Document("T", "Où est\nle chat?", "S", "CC0", "A")
    assert corpus.summarise([d]) == [corpus.Summary("T", 16, 4, "CC0", "S")]


# Splitting and fingerprints.

TEXTS = st.lists(st.text(min_size=1, max_size=300), min_size=2, max_size=20, unique=True)
SHARES = st.floats(0.01, 0.99)


@given(TEXTS, SHARES, st.integers(0, 2**32), st.randoms())
def test_split_is_a_deterministic_partition(
    texts: list[str], share: float, seed: int, random: object
) -> None:
    documents = [document(text, str(i)) for i, text in enumerate(texts)]
    training, validation = split(documents, share, seed)
    assert training
    assert validation
    assert sorted(training + validation, key=lambda d: int(d.source)) == documents
    assert training == [d for d in documents if d in training]  # in their order
    assert validation == [d for d in documents if d in validation]
    sizes = [len(d.text.encode()) for d in documents]
    held_out = sum(len(d.text.encode()) for d in validation)
    assert held_out <= share * sum(sizes) or (len(validation) == 1 and held_out == min(sizes))
    random.shuffle(documents)  # type: ignore[attr-defined]
    assert {d.source for d in split(documents, share, seed)[1]} == {d.source for d in validation}


def test_split_of_the_bundled_books() -> None:
    documents = corpus.read_bundled()
    total = sum(len(d.text) for d in documents)
    drawn = set()
    for seed in range(8):
        validation = split(documents, seed=seed)[1]
        assert 0.05 < sum(len(d.text) for d in validation) / total <= 0.1
        drawn.add(tuple(d.title for d in validation))
    assert len(drawn) > 1
    assert [d.title for d in split(documents)[1]] == [
        "Alice’s Adventures in Wonderland",
        "Through the Looking-Glass",
    ]  # as it was in the first release: runs stay comparable


def test_equal_documents_still_fill_both_sides() -> None:
    training, validation = split([document("same")] * 3, 0.9)
    assert len(training) == 1
    assert len(validation) == 2


def test_a_single_document_is_cut_at_a_paragraph() -> None:
    text = "\n\n".join(f"Paragraph {n} has\ntwo lines." for n in range(100)) + "\n"
    (training,), (validation,) = split([Document("T", text, "S", "L", "A")], 0.1)
    assert training.text + "\n" + validation.text == text
    assert validation.text.startswith("Paragraph 9")
    assert len(validation.text) == pytest.approx(0.1 * len(text), abs=40)
    assert (validation.title, validation.source, validation.licence, validation.author) == (
        "T",
        "S",
        "L",
        "A",
    )


@pytest.mark.parametrize(
    ("text", "training", "validation"),
    [
        ("one\ntwo three\nfour", "one\ntwo three\n", "four\n"),
        ("one two", "one\n", "two\n"),
        ("\n\none\n\ntwo\n\n", "one\n", "two\n"),
        ("Title\n\n" + "word " * 50, "Title\n\n" + "word " * 44 + "word\n", "word " * 4 + "word\n"),
        ("長い文章です。" * 10, ("長い文章です。" * 9) + "\n", "長い文章です。\n"),
    ],
)
def test_a_single_document_without_paragraphs(text: str, training: str, validation: str) -> None:
    left, right = split([document(text)])
    assert (left[0].text, right[0].text) == (training, validation)


@given(st.text("ab \n\u3000é", min_size=4, max_size=60), SHARES)
def test_cutting_loses_white_space_only(text: str, share: float) -> None:
    assume(len(text.strip()) > 1)
    (left,), (right,) = split([document(text)], share)
    assert left.text.strip()
    assert right.text.strip()
    assert "".join((left.text + right.text).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("documents", "share", "error"),
    [([], 0.1, CorpusError), ([document(" a ")], 0.1, CorpusError)]
    + [([document("a b")], share, ConfigError) for share in (0.0, 1.0, -1.0, float("nan"))],
)
def test_splits_that_cannot_be(documents: list[Document], share: float, error: type[TrainerError]) -> None:
    with pytest.raises(error):
        split(documents, share)


def test_fingerprint() -> None:
    one, two = document("one"), document("two")
    prints = {fingerprint(x) for x in ([], [one], [two], [one, two], [two, one], [document("onetwo")])}
    assert len(prints) == 6
    assert all(len(p) == 64 for p in prints)
    assert fingerprint([one]) == fingerprint([Document("another title", "one", "another place")])


def test_fingerprint_of_the_bundled_books() -> None:
    """Cleaning gives the same text on every machine. A change to cleaning changes this, and recorded runs."""
    expected = "22c52eee7bc249ed3a7fcaf1c6ceb2f9e2ff854b0346529c423e96be5bc88eaa"
    assert fingerprint(corpus.read_bundled()) == expected
