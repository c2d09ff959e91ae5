"""The command line. `main` chooses a command, runs it and turns what went wrong into one line and a code.

Exit codes: 0 done; 1 something failed that is not the input's fault, or the user quit; 2 bad input.
A command is a module with `add_arguments(parser)` and `async main(args) -> int`, imported when it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from trainer import __version__
from trainer.cli.display import discard_output
from trainer.cli.interrupt import handled
from trainer.cli.options import Parser, check_utf8
from trainer.errors import ConfigError, TrainerError

DEBUG = "TRAINER_DEBUG"  # set it to see tracebacks

COMMANDS = {
    "corpus": ("trainer.cli.corpus", "fetch, clean, list and preview texts"),
    "tokenizer": ("trainer.cli.tokenizer", "train a tokenizer, or show how one cuts a text"),
    "train": ("trainer.cli.train", "train a model, or resume a run"),
    "tune": ("trainer.cli.tune", "measure which kernels are the fastest on this device"),
    "sample": ("trainer.cli.sample", "let a model write"),
    "export": ("trainer.cli.export", "write a checkpoint to hand on: half the size, in small files"),
    "eval": ("trainer.cli.evaluate", "measure how well a model predicts"),
    "budget": ("trainer.cli.budget", "tell what a training run takes, without a GPU"),
    "devices": ("trainer.cli.devices", "list the GPUs there are"),
    "bench": ("trainer.cli.bench", "time kernels, training steps and the tokenizer"),
}

EPILOG = """\
examples:
  trainer train --preset nano --sources books --out runs/nano
  trainer sample runs/nano --prompt "Once upon a time"
  trainer train --help

exit codes: 0 done; 1 failed, or interrupted before anything was saved; 2 bad input, in one line on stderr.
TRAINER_DEBUG=1 shows where an error came from.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `argv` is without the program's name."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (
        sys.stdout,
        sys.stderr,
    ):  # a terminal that lacks a character shows another instead of failing
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse has printed --help or --version
        return int(stop.code or 0)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        discard_output()
        return 1
    except KeyboardInterrupt:
        return _failed("interrupted", 1)
    except TrainerError as error:
        return _failed(str(error), 2)
    except MemoryError:
        return _failed("out of memory: choose a smaller model, batch or corpus", 1)
    except Exception as error:
        detail = " ".join(f"{type(error).__name__} {error}".split())
        return _failed(f"{detail}: not the input's fault; {DEBUG}=1 shows where it happened", 1)


def _run(argv: list[str]) -> int:
    for argument in argv:
        check_utf8(argument)
    name = argv[0] if argv else ""
    parser = Parser(
        "trainer",
        description="Trains GPT language models from scratch, on the GPU, from text.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"trainer {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command, (_, purpose) in COMMANDS.items():
        commands.add_parser(command, help=purpose)
    if name not in COMMANDS:
        parser.parse_args(argv)  # --help, --version or an error
        raise ConfigError("no command given", f"choose one of {', '.join(COMMANDS)}; see trainer --help")
    parser, command = parser_of(name)
    arguments = parser.parse_args(argv[1:])
    with handled():
        return asyncio.run(command.main(arguments))


def parser_of(name: str) -> tuple[Parser, ModuleType]:
    """The parser of a command's arguments, and its module; `name` is one of COMMANDS."""
    module, purpose = COMMANDS[name]
    command = importlib.import_module(module)
    parser = Parser(f"trainer {name}", description=f"{purpose[0].upper()}{purpose[1:]}.")
    command.add_arguments(parser)
    return parser, command


def _failed(message: str, code: int) -> int:
    """Say what went wrong in one line, or with the traceback where that is asked for."""
    if os.environ.get(DEBUG):
        import traceback

        traceback.print_exc()
    with contextlib.suppress(OSError):
        print(f"trainer: {message}", file=sys.stderr, flush=True)
    return code
