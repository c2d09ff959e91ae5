"""`trainer bench`: how fast the kernels, the training step and the tokenizer are on this machine.

Prints a table and, with --out, merges JSON records into `kernels.json`, `train_steps.json`, `waiting.json`
and `tokenizer.json` of a folder: a record replaces the one of the same workload on the same device.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.bench.matmul import Product, products, time_matmuls, time_torch_matmul
from trainer.bench.records import keep
from trainer.bench.steps import WORKLOADS, time_steps, time_waiting, workload
from trainer.bench.tokenizer import time_tokenizer
from trainer.config import PRECISIONS
from trainer.devices import open_device
from trainer.errors import ConfigError
from trainer.provenance import machine

PARTS = ("matmul", "steps", "waiting", "tokenizer")
ON_DEVICE = {"matmul", "steps", "waiting"}


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
        keep(args.out, "kernels.json", records)
    if device and "steps" in parts:
        records = [
            await time_steps(device, name, args.precision, args.batch, args.steps) for name in args.preset
        ]
        keep(args.out, "train_steps.json", records)
    if device and "waiting" in parts:
        records = [
            await time_waiting(device, name, args.precision, args.batch, args.steps) for name in args.preset
        ]
        keep(args.out, "waiting.json", records)
    if "tokenizer" in parts:
        keep(args.out, "tokenizer.json", [await time_tokenizer(args.sources)])
    return 0
