"""From sources to tokens, in steps that let the page's messages in between: what a run is made of.

Natively the same is done by trainer/cli/texts.py, from the same functions of the trainer; here each step
goes back to the event loop every few hundredths of a second, so that it can be cancelled.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from demo import trouble
from trainer import corpus
from trainer.bpe import FIRST_TOKENS, Learner, check_vocab
from trainer.cache import Cache
from trainer.corpus import BUNDLED, GUTENBERG, Document
from trainer.dataset import Dataset
from trainer.errors import ConfigError, CorpusError, FetchError
from trainer.evaluate import unigram_loss
from trainer.events import Notice, Progress, Reader
from trainer.gutenberg import Fetch, Retry, find
from trainer.pretokenize import chunks
from trainer.tokenizer import Tokenizer

LEAST_BYTES = 20_000  # of text, below which no preset learns anything
VALIDATION_SHARE = 0.1
SPLIT_SEED = 0
YIELD_SECONDS = 0.03  # of work between two looks at the messages
EVENT_SECONDS = 0.25  # between two events
WORDS = 1024  # counted words that are looked at in one go
COUNTED = 1 << 16  # tokens that are counted in one go
NEWEST = 12  # merges in one event
FREQUENT = 20
PREVIEW = 2000  # characters
DOCUMENTS = "documents.jsonl"
TRAIN_TOKENS, VALIDATION_TOKENS = "train.u16", "validation.u16"
TEXT_SUFFIX, RECORDS_SUFFIX = corpus.SUFFIXES


@dataclass(frozen=True)
class Material:
    """Text, and what was made of it so far."""

    documents: Sequence[Document]
    training: Sequence[Document]
    validation: Sequence[Document]
    sources: Sequence[str]  # as `trainer train --sources` takes them
    tokenizer: Tokenizer | None = None
    dataset: Dataset | None = None

    @classmethod
    def of(cls, documents: Sequence[Document], sources: Sequence[str]) -> Material:
        """Documents, split as the command line splits them. Raises CorpusError."""
        training, validation = corpus.split(documents, VALIDATION_SHARE, SPLIT_SEED)
        return cls(documents, training, validation, sources)

    @property
    def nbytes(self) -> int:
        """Of the text."""
        return sum(len(document.text.encode()) for document in self.documents)

    def text_config(self) -> dict[str, Any]:
        """What checkpoints remember of the text, so that the command line can resume the run."""
        return {
            "sources": list(self.sources),
            "validation_share": VALIDATION_SHARE,
            "split_seed": SPLIT_SEED,
        }

    def files(self) -> dict[str, list[bytes]]:
        """The text and the tokens, to be kept beside a run."""
        assert self.dataset is not None
        return {
            DOCUMENTS: [f"{json.dumps(asdict(d), ensure_ascii=False)}\n".encode() for d in self.documents],
            TRAIN_TOKENS: [self.dataset.train.tobytes()],
            VALIDATION_TOKENS: [self.dataset.validation.tobytes()],
        }

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], sources: Sequence[str], tokenizer: Tokenizer) -> Material:
        """What `files` wrote; the tokens may be missing."""
        lines = files[DOCUMENTS].decode().split("\n")
        material = cls.of([Document(**json.loads(line)) for line in lines if line], sources)
        if TRAIN_TOKENS not in files or VALIDATION_TOKENS not in files:
            return replace(material, tokenizer=tokenizer)
        train, validation = array("H", files[TRAIN_TOKENS]), array("H", files[VALIDATION_TOKENS])
        return replace(
            material, tokenizer=tokenizer, dataset=Dataset(train, validation, text_bytes=material.nbytes)
        )

    def summary(self) -> dict[str, Any]:
        """The documents, for the page."""
        held_out = {document.source for document in self.validation}
        rows = []
        for document, known in zip(self.documents, corpus.summarise(self.documents), strict=True):
            split = "held-out" if document in self.validation else "training"
            if len(self.documents) == 1 and held_out:
                split = "both"
            rows.append({**asdict(known), "author": document.author, "split": split})
        return {"documents": rows, "preview": self.documents[0].text[:PREVIEW]}

    async def tokens_summary(self) -> dict[str, Any]:
        """The tokens, for the page; cancellable."""
        assert self.tokenizer is not None
        assert self.dataset is not None
        train, validation = await _counted(self.dataset.train), await _counted(self.dataset.validation)
        held_out = Counter({id: n for id, n in validation.items() if id != self.tokenizer.end_of_text})
        count = train.total() + validation.total() - len(self.training) - len(self.validation)
        return {
            "train_tokens": train.total(),
            "validation_tokens": validation.total(),
            "bytes_per_token": self.dataset.text_bytes / max(1, count),
            "unigram_entropy": unigram_loss(held_out, self.tokenizer.vocab_size, train),
            "frequent": [
                {"text": shown(self.tokenizer.token_bytes(id)), "count": n}
                for id, n in train.most_common(FREQUENT)
            ],
        }


def shown(token: bytes) -> str:
    """A token as text, with a dot for bytes that are none."""
    return token.decode("utf-8", errors="replace").replace("\ufffd", "·")


class Breath:
    """Lets the event loop run when enough work was done since it ran last."""

    def __init__(self) -> None:
        self.due = time.monotonic() + YIELD_SECONDS

    async def __call__(self) -> None:
        if time.monotonic() >= self.due:
            await asyncio.sleep(0)
            self.due = time.monotonic() + YIELD_SECONDS


# -------------------------------------------------------------------- text


@dataclass(frozen=True)
class Loaded:
    """What came of the sources, and what did not: {name, title, problem}."""

    material: Material
    failed: list[dict[str, str]]
    troubles: list[trouble.Trouble]


async def load(
    wanted: Sequence[Mapping[str, Any]],
    *,
    fetch: Fetch | None,
    cache: Cache | None,
    base: str | None,
    retry: Retry | None,
    prepare_books: Callable[[], Any],
    on_event: Reader,
) -> Loaded:
    """The documents of the page's sources; a book that does not arrive is told, and the others are kept.

    Raises Trouble where too little text came, CorpusError for text that cannot be used.
    """
    books = [entry for entry in wanted if entry.get("kind") == "gutenberg"]
    documents: dict[str, Document] = {}  # by text: the same text counts once
    failed: list[dict[str, str]] = []
    lost: list[FetchError] = []  # and what did not arrive for another reason than its hash
    troubles: list[trouble.Trouble] = []
    asked = 0  # books
    for entry in wanted:
        if entry.get("kind") == "gutenberg":
            name = str(entry["name"])
            title = find(name).title
            on_event(Progress("fetch", asked, len(books), "books", title))
            asked += 1
            try:
                found = await corpus.load(
                    [GUTENBERG + name],
                    fetch=fetch,
                    cache=cache,
                    base=base,
                    retry=retry,
                    on_event=lambda event: None if isinstance(event, Progress) else on_event(event),
                )
            except FetchError as error:
                failed.append({"name": name, "title": title, "problem": error.problem})
                if error.kind == "hash":
                    troubles.append(trouble.wrong_hash(title, str(error)))
                else:
                    lost.append(error)
                continue
        elif entry.get("kind") == "books":
            await prepare_books()
            found = await corpus.load([BUNDLED])
        elif entry.get("kind") == "text":
            found = own_text(str(entry.get("title") or "Untitled"), str(entry.get("text", "")))
        else:
            raise ConfigError(f"unknown kind of source {entry.get('kind')!r}", "books, gutenberg or text")
        for document in found:
            documents.setdefault(document.text, document)
    if books:
        on_event(Progress("fetch", len(books), len(books), "books", ""))
    if lost:
        troubles.append(trouble.network(lost, len(books)))
    size = sum(len(text.encode()) for text in documents)
    if size < LEAST_BYTES:
        if troubles:
            raise troubles[-1]
        raise trouble.too_little(size, LEAST_BYTES)
    return Loaded(Material.of(list(documents.values()), _native_sources(wanted)), failed, troubles)


def own_text(title: str, text: str) -> list[Document]:
    """The documents of a text that the reader gave; read as the command line reads a file of that name."""
    name = "text" + (RECORDS_SUFFIX if title.lower().endswith(RECORDS_SUFFIX) else TEXT_SUFFIX)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(text.encode(errors="replace"))  # half surrogate pairs become question marks
        try:
            found = corpus.read_path(path)
        except CorpusError as error:
            raise CorpusError(error.problem.replace(str(path), f"“{title}”"), error.remedy) from error
    own = f"text:{title}"
    if len(found) == 1 and not name.endswith(RECORDS_SUFFIX):
        return [replace(found[0], title=title, source=own)]
    return [replace(d, title=d.title.replace(str(path), title), source=own) for d in found]


def _native_sources(wanted: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the command line would call these sources; with own text, the file that an exported run holds."""
    names = {"books": BUNDLED, "gutenberg": GUTENBERG}
    if any(entry["kind"] == "text" for entry in wanted):
        return [DOCUMENTS]
    return [names[entry["kind"]] + str(entry.get("name", "")) for entry in wanted]


# -------------------------------------------------------------------- tokenizer


async def train_tokenizer(
    texts: Iterable[str], vocab: int, post: Callable[[dict[str, Any]], None], on_event: Reader
) -> Tokenizer:
    """`Tokenizer.train`, cancellable: the same merges. They come as `merge` events as they are learned.

    Raises TokenizerError.
    """
    check_vocab(vocab)
    goal = vocab - len(FIRST_TOKENS)
    breathe = Breath()
    counts: Counter[str] = Counter()
    size = 0
    for text in texts:
        size += len(text.encode(errors="surrogatepass"))
        for words in chunks(text):
            counts.update(words)
            await breathe()
    tokens, merges = list(FIRST_TOKENS), list[tuple[int, int]]()
    left = size  # tokens that the text would take now
    newest: list[dict[str, str]] = []
    due = 0.0

    def tell() -> None:
        post(
            {
                "event": "merge",
                "count": len(merges),
                "total": goal,
                "newest": newest[-NEWEST:],
                "bytes_per_token": size / max(1, left),
            }
        )
        newest.clear()

    learner = Learner()
    entries = iter(counts.items())
    while part := list(islice(entries, WORDS)):
        learner.add(part)
        await breathe()
    for merge in learner.merges(vocab):
        merges.append((merge.left, merge.right))
        tokens.append(merge.content)
        left -= merge.occurrences
        pair = {"left": shown(tokens[merge.left]), "right": shown(tokens[merge.right])}
        newest.append({**pair, "token": shown(merge.content)})
        if (now := time.monotonic()) >= due:
            due = now + EVENT_SECONDS
            tell()
        await breathe()
    tell()
    if len(merges) < goal:
        have = len(FIRST_TOKENS) + len(merges)
        on_event(Notice(f"the text has no pairs for {vocab:,} tokens: the vocabulary is {have:,}"))
    return Tokenizer.from_merges(merges, learner.cut())


async def tokenize(material: Material, on_event: Reader) -> Dataset:
    """The tokens of both halves, as `Tokenizer.encode_documents` makes them, cancellable."""
    assert material.tokenizer is not None
    total = sum(len(d.text) for half in (material.training, material.validation) for d in half)
    done, due = 0, 0.0
    halves = []
    for half in (material.training, material.validation):
        ids = array("H")
        async for piece, characters in _encoded(material.tokenizer, [d.text for d in half]):
            ids += piece
            done += characters
            if (now := time.monotonic()) >= due:
                due = now + EVENT_SECONDS
                on_event(Progress("tokenize", done, total, "characters", f"{len(ids):,} tokens"))
        halves.append(ids)
    on_event(Progress("tokenize", total, total, "characters", f"{sum(map(len, halves)):,} tokens"))
    return Dataset(*halves, text_bytes=material.nbytes)


async def _counted(ids: array[int]) -> Counter[int]:
    """How often each token occurs."""
    breathe = Breath()
    counts = Counter[int]()
    for start in range(0, len(ids), COUNTED):
        counts.update(ids[start : start + COUNTED])
        await breathe()
    return counts


async def _encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> AsyncIterator[tuple[array[int], int]]:
    """(ids, characters) piece by piece, each text after an end_of_text."""
    breathe = Breath()
    for text in texts:
        yield array("H", [tokenizer.end_of_text]), 0
        done, pieces = 0, -(-len(text) // (1 << 16)) or 1
        for number, ids in enumerate(tokenizer.encode_chunks(text), 1):
            reached = min(len(text), len(text) * number // pieces)
            yield ids, reached - done
            done = reached
            await breathe()
