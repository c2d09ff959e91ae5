"""`trainer budget`: what a training run takes, told before it begins and without a GPU."""

from __future__ import annotations

import argparse
from datetime import timedelta

from trainer.budget import BYTES_A_PARAMETER, Budget, dispatches, estimate, least_dispatches, op_of
from trainer.cli.options import number, whole
from trainer.cli.settings import add_settings, described
from trainer.config import ModelConfig, TrainConfig
from trainer.errors import ConfigError, DeviceError
from trainer.kernels import HALF, NEEDS, Tuning
from trainer.model import Model, build

CHINCHILLA = 20  # tokens a parameter that make the best of a budget (Hoffmann et al., arXiv 2203.15556)
MOST_MEMORY = 1 << 40  # bytes; where no device says how much it has

EPILOG = """\
examples:
  trainer budget --preset small
  trainer budget --preset gpt2 --gflops 40000          (how long it takes at 40 TFLOP/s)
  trainer budget --preset nano --steps 3000 --software --gflops 3.5

`trainer train` shows the rate that a device reaches, and so does `trainer bench`. A multiply-add counts as
two floating-point operations; the backward pass takes twice what the forward pass takes.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `trainer budget`."""
    parser.epilog = EPILOG
    add_settings(parser)
    parser.add_argument(
        "--tokens",
        type=whole,
        default=1_000_000,
        metavar="N",
        help="tokens of the training text (default: 1000000)",
    )
    parser.add_argument(
        "--gflops", type=number, metavar="X", help="rate of the device, in GFLOP/s, to tell the time"
    )
    parser.add_argument(
        "--software", action="store_true", help="for a software renderer, whose memory is main memory"
    )


async def main(args: argparse.Namespace) -> int:
    """Print the budget. Raises ConfigError, and DeviceError for a model that no WebGPU device can hold."""
    model, train = described(args)
    if args.tokens <= model.context:
        raise ConfigError(
            f"--tokens {args.tokens} is less than one window", f"give more than {model.context}"
        )
    if args.gflops == 0:
        raise ConfigError("--gflops is 0", "give a rate above 0")
    check_size(model, MOST_MEMORY, "a device has at most")
    features = {HALF} if args.software else {HALF}.union(*(needs.features for needs in NEEDS.values()))
    built = build(
        model,
        train=train,
        tokens=args.tokens,
        evaluation_batch=train.batch,
        generate=True,
        tuning=Tuning(software=args.software, features=frozenset(features)),
    )
    budget = estimate(built, train, software=args.software)
    print("\n".join(budget_lines(budget, train, args.tokens)))
    if args.gflops:
        seconds = budget.seconds(1e9 * args.gflops)
        print(f"time        {timedelta(seconds=round(seconds))} at {args.gflops:,g} GFLOP/s")
    print("\n".join(dispatch_lines(built, train)))
    return 0


def check_size(model: ModelConfig, memory: int, has: str) -> None:
    """Raises DeviceError for a model that does not fit `memory` bytes, whatever its plan: that of a billion
    layers need never be built. `has` says whose memory it is.
    """
    least = BYTES_A_PARAMETER * model.parameters
    if least > memory:
        raise DeviceError(
            f"the model needs more than {least >> 20:,} MiB, {has} {memory >> 20:,}",
            "choose a smaller --layers, --width or --vocab",
        )


def budget_lines(budget: Budget, train: TrainConfig, dataset_tokens: int) -> list[str]:
    """The budget as lines of text; `dataset_tokens` is the size of the training text."""
    share = budget.total_tokens / (CHINCHILLA * budget.parameters)
    epochs = budget.total_tokens / dataset_tokens
    return [
        f"parameters  {budget.parameters:,}",
        f"memory      {size(budget.device_memory)} on the device, {size(budget.host_memory)} of the process",
        f"tokens      {budget.total_tokens:,} in {train.steps:,} steps of {budget.tokens_per_step:,}: "
        f"{epochs:,.2f} times the text's {dataset_tokens:,}, "
        f"{share:,.2f} times Chinchilla's {CHINCHILLA} a parameter",
        f"operations  {operations(budget.flops_per_step)} a step, {operations(budget.total_flops)} in all",
    ]


def dispatch_lines(model: Model, train: TrainConfig) -> list[str]:
    """The dispatches of a step as lines of text: each op's, in brackets the least, and by kernel."""
    found, least = dispatches(model, train), least_dispatches(model.config, train)
    lines = [
        f"dispatches  {found.total():,} a step; if each op were one forward and one backward, "
        f"{sum(least.values()):,} (in brackets):"
    ]
    for op, fewest in least.items():
        kernels = {name.split(".")[1]: n for name, n in found.items() if op_of(name) == op}
        parts = ", ".join(f"{name} {n:,}" for name, n in kernels.items())
        lines.append(f"  {op:15}{sum(kernels.values()):5,} ({fewest:,}): {parts}")
    return lines


def size(nbytes: float) -> str:
    """Bytes in MiB or GiB."""
    return f"{nbytes / 2**30:,.2f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:,.1f} MiB"


def operations(flops: float) -> str:
    """Floating-point operations with the prefix that suits them."""
    for unit, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T")):
        if flops >= unit:
            return f"{flops / unit:,.3g} {prefix}FLOP"
    return f"{flops / 1e9:,.3g} GFLOP"
