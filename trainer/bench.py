"""`trainer bench`: how fast the kernels, the training step and the tokenizer are on this machine.

Prints a table and, with --out, merges JSON records into `kernels.json`, `train_steps.json`, `waiting.json`
and `tokenizer.json` of a folder: a record replaces the one of the same workload on the same device.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from trainer import corpus, storage
from trainer.bench_gpu import (
    WORKLOADS,
    Product,
    Record,
    products,
    provenance,
    time_matmuls,
    time_steps,
    time_torch_matmul,
    time_waiting,
    workload,
)
from trainer.cli.tune import FOLDER
from trainer.config import PRECISIONS
from trainer.devices import open_device
from trainer.errors import ConfigError
from trainer.gutenberg import FolderCache
from trainer.provenance import machine
from trainer.tokenizer import Tokenizer

PARTS = ("matmul", "steps", "waiting", "tokenizer")
ON_DEVICE = {"matmul", "steps", "waiting"}
BPE_BYTES = 10_000_000
BPE_VOCAB = 8192


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `trainer bench`."""
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--device", default="auto", help="see `trainer devices` (default: auto)")
    parser.add_argument(
        "--size",
        type=sizes,
        nargs="+",
        default=[products("256"), products("512")],
        metavar="SIZE",
        help="matmul: 256 (M = N = K), 512x48x192 (M, N, K), NT:256 (b transposed, only) (default: 256 512)",
    )
    parser.add_argument(
        "--variant", nargs="+", default=[], metavar="NAME", help="matmul's variants (default: all that fit)"
    )
    parser.add_argument(
        "--preset",
        nargs="+",
        default=["nano"],
        metavar="NAME",
        help=f"training steps to time: presets, or {', '.join(WORKLOADS)} (default: nano)",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="f32", help=f"{' or '.join(PRECISIONS)} (default: f32)"
    )
    parser.add_argument("--batch", type=int, help="micro-batch of the training steps (default: the preset's)")
    parser.add_argument("--steps", type=int, default=20, help="training steps timed (default: 20)")
    parser.add_argument(
        "--tune", action="store_true", help="training steps with the kernels that `trainer tune` found"
    )
    parser.add_argument(
        "--sources", nargs="+", default=["books"], help="text for the tokenizer, the first 10 MB of it"
    )
    parser.add_argument(
        "--compare", action="store_true", help="time PyTorch's matmul too, if it is installed"
    )
    parser.add_argument("--out", type=Path, help="folder of JSON records to merge the results into")


def sizes(text: str) -> list[Product]:
    """The products that a value of --size asks for."""
    try:
        return products(text)
    except ValueError as error:
        message = f"{text!r} is not a size such as 256, 512x48x192 or NT:256"
        raise argparse.ArgumentTypeError(message) from error


async def main(args: argparse.Namespace) -> int:
    """Run the parts asked for; returns the exit code. Raises TrainerError for bad input."""
    parts = args.parts or PARTS
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ConfigError(f"nothing called {unknown[0]!r} can be timed", f"choose from {', '.join(PARTS)}")
    for name in args.preset:
        workload(name)
    device = await open_device(args.device) if ON_DEVICE & set(parts) else None
    if device:
        print(f"{device.info.name} ({device.info.backend}), {machine()}")
    if device and "matmul" in parts:
        asked: list[Product] = [product for size in args.size for product in size]
        records = [
            r for product in asked for r in await time_matmuls(device, product, args.precision, args.variant)
        ]
        if args.compare:
            records += [time_torch_matmul(product, args.precision) for product in asked]
        _keep(args.out, "kernels.json", records)
    if device and "steps" in parts:
        cache = FolderCache(name=FOLDER) if args.tune else None
        records = [
            await time_steps(device, name, args.precision, args.batch, args.steps, cache)
            for name in args.preset
        ]
        _keep(args.out, "train_steps.json", records)
    if device and "waiting" in parts:
        records = [
            await time_waiting(device, name, args.precision, args.batch, args.steps) for name in args.preset
        ]
        _keep(args.out, "waiting.json", records)
    if "tokenizer" in parts:
        _keep(args.out, "tokenizer.json", [await time_tokenizer(args.sources)])
    return 0


# -------------------------------------------------------------------- tokenizer


async def time_tokenizer(sources: list[str]) -> Record:
    """Training BPE on the first 10 MB of `sources`, 8,192 tokens, and encoding the same text."""
    texts = _first_bytes((d.text for d in await corpus.load(sources, on_event=lambda _: None)), BPE_BYTES)
    size = sum(len(text.encode()) for text in texts)
    began = time.perf_counter()
    tokenizer = Tokenizer.train(texts, BPE_VOCAB)
    trained = time.perf_counter()
    ids = tokenizer.encode_documents(texts)
    encoded = time.perf_counter()
    print(
        f"BPE {size / 1e6:.1f} MB, {tokenizer.vocab_size:,} tokens: trained in {trained - began:.1f} s, "
        f"encoded in {encoded - trained:.1f} s, {size / len(ids):.2f} bytes a token"
    )
    return {
        **provenance(machine(), f"Python {sys.version.split()[0]}"),
        "impl": "tabula",
        "workload": f"BPE {round(size / 1e6, 1)} MB {tokenizer.vocab_size}",
        "train_s": round(trained - began, 3),
        "encode_s": round(encoded - trained, 3),
        "bytes_per_token": round(size / len(ids), 4),
    }


def _first_bytes(texts: Iterable[str], most: int) -> list[str]:
    chosen: list[str] = []
    for text in texts:
        if most <= 0:
            break
        chosen.append(text[:most])
        most -= len(chosen[-1].encode())
    return chosen


# -------------------------------------------------------------------- records


def _keep(folder: Path | None, name: str, records: list[Record]) -> None:
    """Merge `records` into `folder/name`; one of the same workload, variant and device is replaced."""
    if folder is None:
        return
    path = folder / name
    with storage.storage_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text()) if path.exists() else []
    new = {_key(record) for record in records}
    merged = sorted([r for r in kept if _key(r) not in new] + records, key=_key)
    storage.write_file(path, [(json.dumps(merged, indent=1, ensure_ascii=False) + "\n").encode()])


def _key(record: Record) -> tuple[str, ...]:
    names = ("workload", "impl", "variant", "precision", "batch", "device", "machine")
    return tuple(str(record.get(name, "")) for name in names)
