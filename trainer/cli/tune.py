"""`trainer tune`: measures which kernels train a model the fastest on this device, and keeps that."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace

from trainer.answers import answers_in, load, measure
from trainer.cache import FolderCache
from trainer.cli.display import open_display
from trainer.cli.interrupt import handled
from trainer.cli.options import add_device, number, whole
from trainer.config import PRECISIONS, PRESETS, preset
from trainer.devices import open_device
from trainer.tune import Finding, questions

SECONDS = 60.0

EPILOG = """\
examples:
  trainer tune --preset small
  trainer tune --preset gpt2 --precision mixed --device dawn --budget 120
  trainer train --preset small ...             (takes what was found)

A plan asks which way to run each op on its shapes; every way is checked against the naive kernel, then
timed. The times are of one run of the op, forward and backward. What is found is kept for this device, its
driver and these kernels in ~/.cache/tabula ($XDG_CACHE_HOME, or $TABULA_CACHE), and is part of a run from its
first step on: `trainer train --resume` takes what the run began with. Ctrl-C ends it, and loses nothing of
what was found.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `trainer tune`."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--preset", default="nano", metavar="NAME", help=f"{', '.join(PRESETS)} (default: nano)"
    )
    parser.add_argument("--batch", type=whole, metavar="N", help="micro-batch (default: the preset's)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="f32", help=f"{' or '.join(PRECISIONS)} (default: f32)"
    )
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
    chosen = preset(args.preset)
    train = replace(chosen.train, batch=args.batch or chosen.train.batch, precision=args.precision)
    with open_display() as display, handled() as interrupt:
        device = await open_device(args.device)
        asked = questions(chosen.model, train, device.info.tuning)
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
