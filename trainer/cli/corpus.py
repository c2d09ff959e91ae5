"""`trainer corpus`: what texts there are, what is in them, and the cleaned texts as files."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from trainer import storage
from trainer.cache import CACHE_VARIABLE
from trainer.cli.display import open_display
from trainer.cli.options import whole
from trainer.cli.texts import add_sources
from trainer.corpus import BUNDLED, Document, load, summarise
from trainer.errors import ConfigError
from trainer.gutenberg import BASE_VARIABLE, manifest

EPILOG = f"""\
examples:
  trainer corpus                                   (the ten books that come along)
  trainer corpus --list                            (the books whose content the project has verified)
  trainer corpus gutenberg:84 notes/ --preview 300
  trainer corpus books gutenberg:Dracula_345 --out texts

Books are fetched from github.com/GITenberg once, checked against the manifest and kept in a cache:
{BASE_VARIABLE} names another server, {CACHE_VARIABLE} another folder for the cache.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `trainer corpus`."""
    parser.epilog = EPILOG
    add_sources(parser, "sources", default=[BUNDLED])
    parser.add_argument(
        "--list", action="store_true", help="list the verified Gutenberg books, and fetch nothing"
    )
    parser.add_argument(
        "--preview",
        type=whole,
        default=0,
        metavar="N",
        help="show the first N characters of each text (default: 0)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write the cleaned texts into this new folder"
    )


async def main(args: argparse.Namespace) -> int:
    """List, preview or write texts. Raises CorpusError and StorageError."""
    if args.list:
        print("\n".join(_list()))
        return 0
    if args.out and args.out.exists():
        raise ConfigError(f"{args.out} exists already", "choose another --out")
    with open_display() as display:
        documents = await load(args.sources or [BUNDLED], on_event=display)
    if args.out:
        _write(documents, args.out)
    print("\n".join(_table(documents, args.preview)))
    if args.out:
        print(f"written to {args.out}")
    return 0


def _list() -> list[str]:
    books = manifest().values()
    lines = [f"gutenberg:{book.id:<6} {book.title} - {book.author} ({book.licence})" for book in books]
    return [*lines, f"{len(books)} books"]


def _table(documents: Sequence[Document], preview: int) -> list[str]:
    lines = [f"{'bytes':>12} {'words':>10}  title, licence, source"]
    summaries = summarise(documents)
    for document, row in zip(documents, summaries, strict=True):
        licence = row.licence or "licence unknown"
        lines.append(f"{row.bytes:>12,} {row.words:>10,}  {row.title}, {licence}, {row.source}")
        if preview:
            lines += [f"    {line}" for line in document.text[:preview].splitlines()]
    total = f"{sum(row.bytes for row in summaries):>12,} {sum(row.words for row in summaries):>10,}"
    return [*lines, f"{total}  {len(summaries)} texts"]


def _write(documents: Sequence[Document], folder: Path) -> None:
    """A .txt file for each document, named after its title; all of them or none."""
    files: dict[str, storage.Chunks] = {}
    for document in documents:
        stem = re.sub(r"[^\w-]+", "-", document.title).strip("-").lower()[:60] or "text"
        names = (f"{stem}{n}.txt" for n in ("", *(f"-{i}" for i in range(2, len(documents) + 2))))
        files[next(name for name in names if name not in files)] = [document.text.encode()]
    with storage.storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    storage.write_folder(folder, files)
