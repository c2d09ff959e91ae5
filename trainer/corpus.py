"""Documents to train on: from files and folders, from Project Gutenberg, or the books that come along.

documents = await load(["books", "gutenberg:84", "my/notes", "stories.jsonl"])
training, validation = split(documents)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer import cleaning
from trainer.cache import Cache
from trainer.errors import ConfigError, CorpusError
from trainer.events import Notice, Progress, Reader
from trainer.gutenberg import Book, Fetch, Library, Retry, find, licence_of, manifest

BUNDLED = "books"  # the source that stands for the bundled books
GUTENBERG = "gutenberg:"  # prefix of a source that is a Gutenberg id or a GITenberg repository
SUFFIXES = (".txt", ".jsonl")  # the files of a folder that are read


@dataclass(frozen=True)
class Document:
    """A text that stands by itself: a book, a story, an article."""

    title: str
    text: str
    source: str  # where it came from: a path, path:line, or an address
    licence: str = ""
    author: str = ""


@dataclass(frozen=True)
class Summary:
    """What a list of the corpus shows of a document; `bytes` counts the UTF-8 text after cleaning."""

    title: str
    bytes: int
    words: int
    licence: str
    source: str


def summarise(documents: Sequence[Document]) -> list[Summary]:
    """One line for each of `documents`, in their order."""
    return [
        Summary(d.title, len(d.text.encode()), len(d.text.split()), d.licence, d.source) for d in documents
    ]


async def load(
    sources: Sequence[str],
    *,
    fetch: Fetch | None = None,
    cache: Cache | None = None,
    base: str | None = None,
    retry: Retry | None = None,
    on_event: Reader | None = None,
) -> list[Document]:
    """The documents of all `sources`, in order; of equal texts, the first.

    A source is "books" (the bundled ones; write ./books for a folder of that name), "gutenberg:84",
    "gutenberg:Frankenstein_84", or a path. The rest is for `gutenberg.Library`. `on_event` gets Progress
    (stage "fetch", in books) and Notice. Raises CorpusError, FetchError among them, and StorageError.
    """
    on_event = on_event or (lambda event: None)
    if not sources:
        raise CorpusError("no source of text given", f"name a file, a folder, {GUTENBERG}84 or {BUNDLED}")
    books = {
        source: find(source.removeprefix(GUTENBERG)) for source in sources if source.startswith(GUTENBERG)
    }
    total = sum(source in books for source in sources)
    library = Library(fetch, cache, base, retry, on_event) if books else None
    documents: list[Document] = []
    fetched = 0
    for source in sources:
        if library and source in books:
            on_event(Progress("fetch", fetched, total, "books", books[source].title))
            body, url = await library.get(books[source])
            documents.append(_book(books[source], body, url))
            fetched += 1
            on_event(Progress("fetch", fetched, total, "books", books[source].title))
        elif source == BUNDLED:
            documents += read_bundled()
        else:
            documents += read_path(source)
    return _without_duplicates(documents, on_event)


def _without_duplicates(documents: Sequence[Document], on_event: Reader) -> list[Document]:
    first: dict[bytes, Document] = {}
    repeated: list[Document] = []
    for document in documents:
        if first.setdefault(_digest(document), document) is not document:
            repeated.append(document)
    if repeated:
        original = first[_digest(repeated[0])]
        more = f", and {len(repeated) - 1} more" if len(repeated) > 1 else ""
        on_event(
            Notice(f"left out as repeated: {repeated[0].source} (the same text as {original.source}){more}")
        )
    return list(first.values())


def bundled() -> Path:
    """The folder of the bundled books, in an installed wheel or in a checkout. Raises CorpusError."""
    package = Path(__file__).parent
    for folder in (package / "books", package.parent / "docs" / "books"):
        if folder.is_dir():
            return folder
    raise CorpusError("the bundled books are missing from this installation", "name other sources of text")


def read_bundled() -> list[Document]:
    """The bundled books, checked against the manifest. Raises CorpusError if one has been changed."""
    folder = bundled()
    documents = []
    for book in manifest().values():
        for file in book.files:
            path = folder / book.repo / file.name
            if not path.is_file():
                continue
            body = _read(path)
            if hashlib.sha256(body).hexdigest() != file.sha256:
                raise CorpusError(f"{path} is not the file of the manifest", "restore it, or name it by path")
            documents.append(_book(book, body, f"{BUNDLED}/{book.repo}/{file.name}"))
    if not documents:
        raise CorpusError(f"{folder} holds no book of the manifest", "reinstall, or name other sources")
    return documents


def _book(book: Book, body: bytes, source: str) -> Document:
    """A fetched book, cleaned; what the manifest does not say about it, its own header may."""
    raw = cleaning.normalise_newlines(cleaning.decode(body))
    text = cleaning.clean(raw)
    if not text:
        raise CorpusError(
            f"{source} holds no text between its Project Gutenberg markers", "choose another book"
        )
    header = cleaning.header_fields(raw)
    return Document(
        title=book.title if book.licence else header.get("title", book.title),
        text=text,
        source=source,
        licence=book.licence or licence_of(raw),
        author=book.author or header.get("author", ""),
    )


def read_path(path: str | os.PathLike[str]) -> list[Document]:
    """The documents at `path`: a text file, a JSONL file, or a folder's .txt and .jsonl files at any depth.

    Text must be UTF-8, with or without a BOM, and is taken as it is but for LF line ends; a file with
    Project Gutenberg's markers is cleaned like a fetched one. JSONL holds an object a line with `text` and,
    if known, `title`, `author`, `licence` (or `license`) and `source`. Names that start with a dot are
    passed over. Raises CorpusError for what is missing, empty, binary or not UTF-8.
    """
    path = Path(path)
    if not path.is_dir():
        return _read_file(path)
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        raise CorpusError(f"folder {path} holds no {' or '.join(SUFFIXES)} file", "put text into it")
    return [document for file in files for document in _read_file(file)]


def _read_file(path: Path) -> list[Document]:
    if path.suffix.lower() == ".jsonl":
        documents = list(_read_jsonl(path))
        if not documents:
            raise CorpusError(f"{path} is empty", "give a file with text in it")
        return documents
    text = cleaning.normalise_newlines(_decode(_read(path), str(path)))
    if not text.strip():
        raise CorpusError(f"{path} is empty", "give a file with text in it")
    if cleaning.is_gutenberg(text):
        return [_book(Book(0, "", path.stem), text.encode(), str(path))]
    return [Document(path.stem, text, str(path))]


def _read_jsonl(path: Path) -> Iterator[Document]:
    for number, line in enumerate(_lines(path), 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            record = json.loads(_decode(line, where))
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where} is not JSON ({error})", "write one JSON object a line") from error
        text = record.get("text") if isinstance(record, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise CorpusError(f"{where} has no text", 'write objects like {"title": "...", "text": "..."}')
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CorpusError(f"{where} holds half a surrogate pair", "remove that \\ud... escape") from error
        yield Document(
            title=_string(record, "title") or where,
            text=cleaning.normalise_newlines(text),
            source=_string(record, "source") or where,
            licence=_string(record, "licence") or _string(record, "license"),
            author=_string(record, "author"),
        )


def _string(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, one at a time: JSONL corpora are larger than they need to be in memory."""
    _check_file(path)
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(path: Path) -> bytes:
    _check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _check_file(path: Path) -> None:
    if not path.exists():
        raise CorpusError(f"{path} does not exist", "check the path")
    if not path.is_file():
        raise CorpusError(f"{path} is neither a file nor a folder", "copy its content into a file")


def _unreadable(path: Path, error: OSError) -> CorpusError:
    return CorpusError(f"{path} cannot be read ({error.strerror or error})", "check its permissions")


def _decode(body: bytes, name: str) -> str:
    """`body` as UTF-8. Other encodings are not guessed: a wrong guess would train on garbage unnoticed."""
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CorpusError(f"{name} is UTF-16", "convert it: iconv -f utf16 -t utf8 OLD > NEW")
    if b"\0" in body:
        raise CorpusError(f"{name} is binary, not text", "give text files: .txt, or .jsonl with a text field")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{name} is not UTF-8 (byte 0x{body[error.start]:02x} at {error.start:,})",
            "if it is Latin-1, convert it: iconv -f latin1 -t utf8 OLD > NEW",
        ) from error


def split(
    documents: Sequence[Document], share: float = 0.1, seed: int = 0
) -> tuple[list[Document], list[Document]]:
    """`documents` as (training, validation), by whole documents, about `share` of the text for validation.

    Documents are drawn in an order that depends on their text and the seed alone, and taken for validation
    while they fit into its share of the bytes; if none fits, the smallest is taken. So neither side is ever
    empty, and the order in which documents were listed does not matter. A single document is cut in two
    near where its last `share` begins: at a paragraph break, else at a line break, a space, or anywhere.

    Raises ConfigError for a share outside 0 to 1, CorpusError for no document or a single one of one letter.
    """
    if not 0 < share < 1:
        raise ConfigError(f"validation share is {share}", "choose a share between 0 and 1, such as 0.1")
    if not documents:
        raise CorpusError("there is no document to split", "name at least one source of text")
    if len(documents) == 1:
        return _cut(documents[0], share)
    sizes = [len(document.text.encode()) for document in documents]
    order = sorted(range(len(documents)), key=lambda i: _digest(documents[i], f"{seed}:"))
    room = share * sum(sizes)
    chosen: set[int] = set()
    for i in order:
        if sizes[i] <= room:
            chosen.add(i)
            room -= sizes[i]
    if not chosen:
        chosen = {min(order, key=lambda i: sizes[i])}
    return (
        [document for i, document in enumerate(documents) if i not in chosen],
        [document for i, document in enumerate(documents) if i in chosen],
    )


def _cut(document: Document, share: float) -> tuple[list[Document], list[Document]]:
    text = document.text.strip()
    if len(text) < 2:
        raise CorpusError(f"{document.source} is too short to split", "add text, or a second document")
    target = min(max(round(len(text) * (1 - share)), 1), len(text) - 1)

    def distance(at: int) -> int:
        return abs(at - target)

    breaks: list[int] = []
    for gap in ("\n\n", "\n", " "):
        found = {text.rfind(gap, 0, target), text.find(gap, target)} - {-1}
        breaks += sorted(found, key=distance)
    tolerance = min(target, len(text) - target) / 2  # a break further off would change the share too much
    near = (at for at in breaks if distance(at) <= tolerance)
    at = next(near, min(breaks, key=distance, default=target))
    head, tail = text[:at].rstrip() + "\n", text[at:].lstrip() + "\n"
    return [replace(document, text=head)], [replace(document, text=tail)]


def fingerprint(documents: Sequence[Document]) -> str:
    """SHA-256 of the texts in their order, as 64 hexadecimal digits: the same for the same training data."""
    total = hashlib.sha256()
    for document in documents:
        total.update(_digest(document))
    return total.hexdigest()


def _digest(document: Document, prefix: str = "") -> bytes:
    return hashlib.sha256((prefix + document.text).encode()).digest()
