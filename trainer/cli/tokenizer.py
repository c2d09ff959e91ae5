"""`trainer tokenizer`: train one, or show how one cuts a text."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.cli.display import open_display
from trainer.cli.options import whole
from trainer.cli.run_folder import created
from trainer.cli.texts import add_sources, load_tokenizer
from trainer.corpus import BUNDLED, load
from trainer.errors import ConfigError
from trainer.tokenizer import Tokenizer

EPILOG = """\
examples:
  trainer tokenizer --sources books --vocab 1024 --out tokenizer.json
  trainer tokenizer --tokenizer tokenizer.json --show "Once upon a time"
  trainer tokenizer --tokenizer runs/nano --show "Once upon a time"

A vocabulary holds 256 bytes, <|endoftext|> and what training merges: 257 to 65,535 tokens.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `trainer tokenizer`."""
    parser.epilog = EPILOG
    add_sources(parser, "--sources", default=[BUNDLED])
    parser.add_argument(
        "--vocab", type=whole, default=1024, metavar="N", help="tokens to train (default: 1024)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="train, and write this tokenizer.json")
    parser.add_argument("--overwrite", action="store_true", help="replace the file --out")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="a tokenizer.json, or a folder that holds one, to --show with",
    )
    parser.add_argument("--show", metavar="TEXT", help="show the tokens of a text, one a line: id and bytes")


async def main(args: argparse.Namespace) -> int:
    """Train or show. Raises TokenizerError, CorpusError and StorageError."""
    if bool(args.out) == bool(args.tokenizer):
        raise ConfigError("give one of --out and --tokenizer", "--out FILE trains, --tokenizer FILE shows")
    if args.tokenizer and args.show is None:
        raise ConfigError("--tokenizer without --show", 'give a text: --show "Once upon a time"')
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else await _train(args)
    if args.show is not None:
        ids = tokenizer.encode(args.show)
        for id in ids:
            print(f"{id:>6}  {tokenizer.token_bytes(id)!r}")
        print(f"{len(ids)} tokens, {len(args.show.encode())} bytes")
    return 0


async def _train(args: argparse.Namespace) -> Tokenizer:
    out: Path = args.out
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder", "name a file")
    if out.exists() and not args.overwrite:
        raise ConfigError(f"{out} exists already", "give --overwrite or another --out")
    with open_display() as display, created(out.parent):
        documents = await load(args.sources, on_event=display)
        tokenizer = Tokenizer.train([document.text for document in documents], args.vocab, display)
        tokenizer.save(out)
    print(f"{tokenizer.vocab_size:,} tokens written to {out}")
    return tokenizer
