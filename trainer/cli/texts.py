"""Where a run's text comes from: the flags for it, which checkpoints remember, and the loading."""

from __future__ import annotations

import argparse
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from trainer import checkpoint, corpus
from trainer.checkpoint import Checkpoint
from trainer.cli.options import check_utf8
from trainer.cli.parallel import encode_documents
from trainer.config import option
from trainer.corpus import BUNDLED, GUTENBERG, Document
from trainer.dataset import Dataset
from trainer.errors import CheckpointError, TokenizerError
from trainer.events import Reader
from trainer.tokenizer import Tokenizer

SOURCES_HELP = (
    f"text: files, folders of .txt and .jsonl, {GUTENBERG}84 (an id), {GUTENBERG}Frankenstein_84 "
    f"(a GITenberg repository) or {BUNDLED}, the ten books that come along"
)
GPT2_FILES = (
    ("vocab.json", "merges.txt"),
    ("encoder.json", "vocab.bpe"),
)  # as transformers and OpenAI name them


@dataclass(frozen=True)
class TextConfig:
    """What turns text into the tokens of a run. The same values give the same tokens."""

    sources: list[str] = field(default_factory=lambda: [BUNDLED], metadata={"help": SOURCES_HELP})
    validation_share: float = option(0.1, "share of the text that is kept for validation, by whole documents")
    split_seed: int = option(0, "seed of the choice of the documents for validation")


def add_sources(parser: argparse._ActionsContainer, *names: str, default: object = argparse.SUPPRESS) -> None:
    """The flag or argument, called `names`, that lists sources of text."""
    nargs = "+" if names[0].startswith("-") else "*"
    parser.add_argument(
        *names, nargs=nargs, metavar="SOURCE", default=default, help=f"{SOURCES_HELP} (default: {BUNDLED})"
    )


def absolute(sources: list[str]) -> list[str]:
    """`sources` with paths that hold wherever a run is resumed from. Raises ConfigError."""
    found = [
        source if source == BUNDLED or source.startswith(GUTENBERG) else str(Path(source).resolve())
        for source in sources
    ]
    for source in found:
        check_utf8(source)
    return found


async def load_split(config: TextConfig, on_event: Reader) -> tuple[list[Document], list[Document]]:
    """Documents for training and for validation. Raises CorpusError, FetchError and ConfigError."""
    documents = await corpus.load(config.sources, on_event=on_event)
    return corpus.split(documents, config.validation_share, config.split_seed)


def tokenize(
    tokenizer: Tokenizer, training: list[Document], validation: list[Document], on_event: Reader
) -> Dataset:
    """The tokens of both halves."""

    def tokens(documents: list[Document]) -> array[int]:
        return encode_documents(tokenizer, [document.text for document in documents], on_event)

    return Dataset(tokens(training), tokens(validation), text_bytes(training) + text_bytes(validation))


def text_bytes(documents: list[Document]) -> int:
    """Size of the texts in UTF-8."""
    return sum(len(document.text.encode()) for document in documents)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json, in a checkpoint or run folder, or in a folder of GPT-2's two files.

    Raises TokenizerError.
    """
    if not path.is_dir():
        return Tokenizer.load(path)
    tokenizer = _tokenizer_in(path)
    if tokenizer is None:
        raise TokenizerError(
            f"{path} holds no tokenizer", "give a tokenizer.json, or train one: trainer tokenizer"
        )
    return tokenizer


def _tokenizer_in(folder: Path) -> Tokenizer | None:
    pointer = folder / checkpoint.LATEST
    if pointer.is_file():
        folder = folder / pointer.read_text(errors="replace").strip()
    if (folder / checkpoint.TOKENIZER).is_file():
        return Tokenizer.load(folder / checkpoint.TOKENIZER)
    for vocab, merges in GPT2_FILES:
        if (folder / vocab).is_file() and (folder / merges).is_file():
            return Tokenizer.from_gpt2(folder / vocab, folder / merges)
    return None


def load_with_tokenizer(path: Path, tokenizer: Path | None) -> tuple[Checkpoint, Tokenizer]:
    """The checkpoint at `path`, and the tokenizer at `tokenizer` or, without one, the checkpoint's own.

    Raises CheckpointError where there is none or it has not as many tokens as the model.
    """
    loaded = checkpoint.load(path)
    found = load_tokenizer(tokenizer) if tokenizer else loaded.tokenizer or _tokenizer_in(loaded.folder)
    if found is None:
        raise CheckpointError(f"{loaded.folder} has no tokenizer", "name one with --tokenizer")
    if found.vocab_size != loaded.model.vocab:
        raise CheckpointError(
            f"the tokenizer has {found.vocab_size:,} tokens, {loaded.folder}'s model {loaded.model.vocab:,}",
            "use the tokenizer that the model was trained with",
        )
    return loaded, found
