"""`trainer bench`: how fast the kernels, the training step and the tokenizer are on this machine.

Prints a table and, with --out, merges JSON records into a folder's files, a file for each part: a record
replaces the one of the same measurement on the same device.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import product
from pathlib import Path

from trainer.answers import answers
from trainer.bench.curves import time_curves
from trainer.bench.learn import compare_learning
from trainer.bench.matmul import Product, check_size, check_variants, products, time_matmuls
from trainer.bench.profile import profile_kernels, profile_step
from trainer.bench.pytorch import check_installed, time_torch_matmul, time_torch_steps
from trainer.bench.records import Record, checkout, keep, read
from trainer.bench.steps import WORKLOADS, configured, time_steps, time_waiting, workload
from trainer.bench.tokenizer import time_tokenizer
from trainer.cli.options import add_device, number, whole
from trainer.cli.run_folder import created
from trainer.cli.texts import add_sources
from trainer.cli.tune import kept_answers, row
from trainer.config import PRECISIONS
from trainer.devices import Device, open_device
from trainer.errors import ConfigError
from trainer.provenance import machine

# What is measured, and the file of --out that the records go to
PARTS = {
    "matmul": ("products of matrices, by each variant", "kernels.json"),
    "kernels": ("attention, cross-entropy, LayerNorm and AdamW beside the device's roofs", "kernels.json"),
    "steps": ("training steps", "train_steps.json"),
    "waiting": ("training steps with every loss read, and without", "waiting.json"),
    "profile": ("a training step, kernel by kernel", "profile.json"),
    "learn": ("losses of whole runs in each precision, and with another seed", "learning.json"),
    "curves": ("tokens/s against the model's size, context, vocabulary and batch", "curves.json"),
    "tokenizer": ("learning BPE, and encoding", "tokenizer.json"),
}
LONG = ("learn", "curves")  # minutes: done when asked for
STEPS, LEARNING_STEPS = 20, 2000

EPILOG = """\
parts:
{parts}

examples:
  trainer bench                                    (all parts but {long}, on the smallest model)
  trainer bench steps --preset small --precision f32 mixed --compare
  trainer bench profile --preset GPT-2 --precision mixed --device dawn --out docs/data
  trainer bench learn --preset micro --steps 2000 --precision f32 mixed --out docs/data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `trainer bench`."""
    parser.epilog = EPILOG.format(
        parts="\n".join(f"  {name:9} {what}" for name, (what, _) in PARTS.items()), long=" and ".join(LONG)
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"what to measure (default: all but {', '.join(LONG)})"
    )
    add_device(parser)
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
        help=f"models: presets, or {', '.join(WORKLOADS)} (default: nano)",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        default=["f32"],
        help=f"{', '.join(PRECISIONS)}; `learn` compares the others with the first (default: f32)",
    )
    parser.add_argument(
        "--batch", type=count, metavar="N", help="micro-batch of the training steps (default: the model's)"
    )
    parser.add_argument(
        "--steps",
        type=count,
        metavar="N",
        help=f"training steps of each of the timed batches (default: {STEPS}), or of a run of `learn` "
        f"(default: {LEARNING_STEPS})",
    )
    parser.add_argument(
        "--seconds",
        type=number,
        default=30.0,
        metavar="X",
        help="curves: a point whose steps would take longer is left out (default: 30)",
    )
    parser.add_argument(
        "--tune",
        type=number,
        default=0.0,
        metavar="SECONDS",
        help="first measure, for so long a model, which kernels train it the fastest, and take these for all "
        "parts (default: 0, those that are usually the fastest)",
    )
    add_sources(parser, "--sources", default=["books"])
    parser.add_argument(
        "--compare", action="store_true", help="time PyTorch on the same products and steps, too"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of JSON records to merge the results into"
    )


def sizes(text: str) -> list[Product]:
    """The products that a value of --size asks for."""
    try:
        return products(text)
    except ValueError as error:
        message = f"{text!r} is not a size such as 256, 512x48x192 or NT:256"
        raise argparse.ArgumentTypeError(message) from error


def count(text: str) -> int:
    """A whole number from 1 up."""
    if value := whole(text):
        return value
    raise argparse.ArgumentTypeError("0 is too few: give a number from 1 up")


async def main(args: argparse.Namespace) -> int:
    """Run the parts asked for; returns the exit code. Raises TrainerError for bad input."""
    parts = args.parts or [name for name in PARTS if name not in LONG]
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ConfigError(f"nothing called {unknown[0]!r} can be timed", f"choose from {', '.join(PARTS)}")
    for name in args.preset:
        workload(name)
    check_variants(args.variant)
    for which in _sized(args) if "matmul" in parts else []:
        check_size(*which)
    if args.compare:
        check_installed()
    checkout()  # before anything is written into it
    with created(args.out) if args.out else contextlib.nullcontext():
        for part in parts if args.out else []:  # what is measured must not be lost for where it is to go
            read(args.out / PARTS[part][1])
        await _run(parts, args)
    return 0


async def _run(parts: list[str], args: argparse.Namespace) -> None:
    """Measure the parts, and keep what is found."""
    device = await open_device(args.device) if set(parts) != {"tokenizer"} else None
    if device:
        print(f"{device.info.name} ({device.info.backend}), {machine()}")
        if args.tune:
            for run in product(args.preset, args.precision):
                await _tune(device, *run, args.batch, args.tune)
    for part in (name for name in PARTS if name in parts):
        async for records in _measure(device, part, args):  # kept at once: what comes after may fail
            keep(args.out, PARTS[part][1], records)


def _sized(args: argparse.Namespace) -> list[tuple[Product, str]]:
    """The products to time, and the precision of each."""
    return [(p, precision) for size in args.size for p in size for precision in args.precision]


async def _tune(device: Device, name: str, precision: str, batch: int | None, seconds: float) -> None:
    """Let the device's plans take the kernels that are measured to be the fastest, here or before."""
    known, findings = await answers(device, *configured(name, precision, batch), kept_answers(), seconds)
    device.info = replace(device.info, answers=known)
    width = max([len(finding.question.key) for finding in findings], default=0)
    for finding in findings:
        print(row(finding, width))


async def _measure(device: Device | None, part: str, args: argparse.Namespace) -> AsyncIterator[list[Record]]:
    """The records of a part, as they are made."""
    if part == "tokenizer":
        yield [await time_tokenizer(args.sources)]
        return
    assert device is not None
    steps = args.steps or STEPS
    runs = list(product(args.preset, args.precision))
    match part:
        case "matmul":
            for which in _sized(args):
                yield await time_matmuls(device, *which, args.variant)
                if args.compare:
                    yield [time_torch_matmul(*which)]
        case "steps":
            for run in runs:
                yield [await time_steps(device, *run, args.batch, steps)]
            for run in runs if args.compare else []:
                yield time_torch_steps(*run, args.batch, steps)
        case "waiting":
            for run in runs:
                yield [await time_waiting(device, *run, args.batch, steps)]
        case "profile":
            for run in runs:
                yield [await profile_step(device, *run, args.batch, steps)]
        case "kernels":
            for run in runs:
                yield await profile_kernels(device, *run, args.batch)
        case "curves":
            for run in runs:
                async for record in time_curves(device, *run, args.batch, args.seconds):
                    yield [record]
        case _:
            for name in args.preset:
                yield await compare_learning(
                    device, name, args.precision, args.steps or LEARNING_STEPS, args.sources
                )
