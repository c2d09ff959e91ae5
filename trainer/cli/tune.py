"""`trainer tune`: measures which kernels train a model the fastest on this device, and keeps that."""

from __future__ import annotations

import argparse
import asyncio

from trainer import checkpoint
from trainer.answers import answers_in, load, measure
from trainer.cache import FolderCache
from trainer.cli.display import open_display
from trainer.cli.interrupt import handled
from trainer.cli.options import add_device, number
from trainer.cli.settings import add_resume, add_settings, described, resumed
from trainer.config import ModelConfig, TrainConfig
from trainer.devices import open_device
from trainer.tune import Finding, questions

SECONDS = 60.0
TIMED = ("batch", "accumulate", "precision")  # what of training a step takes longer for

EPILOG = """\
examples:
  trainer tune --preset small
  trainer tune --preset gpt2 --precision mixed --device dawn --budget 120
  trainer tune --preset micro --layers 6 --batch 32      (as it will be trained)
  trainer train --preset small ...             (takes what was found)

A plan asks which way to run each op on its shapes; every way is checked against the naive kernel, then
timed. The times are of one run of the op, forward and backward. What is found is kept for this device, its
driver and these kernels in ~/.cache/tabula ($XDG_CACHE_HOME, or $TABULA_CACHE), and is part of a run from its
first step on: on the device where it began, `trainer train --resume` takes what the run began with. Ctrl-C
ends it, and loses nothing of what was found.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `trainer tune`."""
    parser.epilog = EPILOG
    add_settings(parser, TIMED)
    add_resume(parser, "measure for the run in this folder, which may have begun on another device")
    add_device(parser)
    parser.add_argument(
        "--budget",
        type=number,
        default=SECONDS,
        metavar="SECONDS",
        help=f"the largest products come first, until the time is up (default: {SECONDS:g})",
    )
    parser.add_argument("--force", action="store_true", help="measure also what is known already")


async def main(args: argparse.Namespace) -> int:
    """Measure, keep and print what is found. Raises TrainerError for bad input, and KeyboardInterrupt where
    an interrupt came before anything was found.
    """
    model, train = wanted(args)
    with open_display() as display, handled() as interrupt:
        device = await open_device(args.device)
        asked = questions(model, train, device.info.tuning)
        cache = kept_answers()
        kept = await load(cache, device.info, display)
        known = answers_in(kept, asked)
        missing = [one for one in asked if args.force or one.question.key not in known]
        width = max([len(one.question.key) for one in missing], default=0)
        found: set[str] = set()

        async def work() -> None:
            async for finding in measure(device, missing, cache, kept, args.budget, display):
                found.add(finding.question.key)
                display.say(row(finding, width))

        measuring = asyncio.create_task(work())
        interrupt.stop = measuring.cancel
        try:
            await measuring
        except asyncio.CancelledError:
            if not found:
                raise KeyboardInterrupt from None
            again = "the same command without --force" if args.force else "the same command"
            display.say(f"stopped: what was found is kept, and {again} goes on")
        before = known.keys() - found
        display.say(
            f"{len(found)} of {len(asked)} questions measured on {device.info.name}, "
            f"{len(before)} known before, {len(asked) - len(found | before)} left for another time"
        )
    return 0


def wanted(args: argparse.Namespace) -> tuple[ModelConfig, TrainConfig]:
    """What is trained, and how. Raises ConfigError, and CheckpointError for a run that cannot go on."""
    if not args.resume:
        return described(args)
    run = checkpoint.load(args.resume, resume=True)
    return run.model, resumed(args, run)


def kept_answers() -> FolderCache:
    """Where answers are kept from one command to the next."""
    return FolderCache("tuning")


def row(finding: Finding, width: int = 0) -> str:
    """A finding in a line: what is asked, in `width` columns, times, how much faster it is, what is taken."""
    default, winner = (finding.seconds.get(str(choice)) for choice in (finding.default, finding.winner))
    took = f"{_ms(default)} -> {_ms(winner)} ms  {finding.speedup:5.2f}x"
    same = finding.winner == finding.default
    taken = str(finding.winner) if same else f"{finding.default} -> {finding.winner}"
    return f"{finding.question.key:{width}}  {took}  {taken}"


def _ms(seconds: float | None) -> str:
    return f"{'refused':>9}" if seconds is None else f"{1e3 * seconds:9.4f}"
