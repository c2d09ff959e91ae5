"""`trainer tune`: measures which kernels train a model the fastest on this device, and keeps that."""

from __future__ import annotations

import argparse
from dataclasses import replace

from trainer.answers import answers
from trainer.cache import FolderCache
from trainer.cli.display import open_display
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
first step on: `trainer train --resume` takes what the run began with.
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
    """Measure, keep and print what was found. Raises TrainerError for bad input."""
    chosen = preset(args.preset)
    train = replace(chosen.train, batch=args.batch or chosen.train.batch, precision=args.precision)
    with open_display() as display:
        device = await open_device(args.device)
        asked = {one.question.key for one in questions(chosen.model, train, device.info.tuning)}
        known, findings = await answers(
            device,
            chosen.model,
            train,
            kept_answers(),
            args.budget,
            force=args.force,
            on_event=display,
        )
        for line in table(findings):
            display.say(line)
        display.say(
            f"{len(findings)} of {len(asked)} questions measured on {device.info.name}, "
            f"{len(asked & set(known)) - len(findings)} known before, "
            f"{len(asked - set(known))} left for another time"
        )
    return 0


def kept_answers() -> FolderCache:
    """Where answers are kept from one command to the next."""
    return FolderCache("tuning")


def table(findings: list[Finding]) -> list[str]:
    """What was found, a question a line: what is asked, what is taken, times, and how much faster that is."""
    width = max([len(finding.question.key) for finding in findings], default=0)
    lines = []
    for finding in findings:
        times = finding.seconds
        default, winner = (times.get(str(choice)) for choice in (finding.default, finding.winner))
        took = f"{_ms(default)} -> {_ms(winner)} ms  {finding.speedup:5.2f}x"
        same = finding.winner == finding.default
        taken = str(finding.winner) if same else f"{finding.default} -> {finding.winner}"
        lines.append(f"{finding.question.key:{width}}  {took}  {taken}")
    return lines


def _ms(seconds: float | None) -> str:
    return f"{'refused':>9}" if seconds is None else f"{1e3 * seconds:9.4f}"
