"""`trainer export`: a checkpoint as a folder to hand on."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer import storage
from trainer.checkpoint import load
from trainer.cli.options import whole
from trainer.errors import ConfigError
from trainer.export import DTYPES, SHARD_BYTES, to_files

EPILOG = """\
examples:
  trainer export runs/small --out small
  trainer export runs/small --out small-f32 --dtype F32 --shard-mib 2000

The folder holds what `transformers`, `trainer sample`, `trainer eval` and `trainer train --from` load. It has
no optimiser state: a run is resumed from its own folder.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `trainer export`."""
    parser.epilog = EPILOG
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's or a model's folder")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="a folder that is not there yet"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default=DTYPES[0], help=f"of the weights (default: {DTYPES[0]})"
    )
    parser.add_argument(
        "--shard-mib",
        type=whole,
        default=SHARD_BYTES >> 20,
        metavar="N",
        help=f"MiB of weights in a file at most (default: {SHARD_BYTES >> 20})",
    )


async def main(args: argparse.Namespace) -> int:
    """Export. Raises CheckpointError, ConfigError and StorageError."""
    out: Path = args.out
    if out.exists():
        raise ConfigError(f"{out} exists already", "give another --out")
    files = to_files(load(args.checkpoint), args.dtype, args.shard_mib << 20)
    with storage.storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    storage.write_folder(out, files)
    for path in sorted(out.iterdir()):
        print(f"{path.stat().st_size:>12,}  {path}")
    return 0
