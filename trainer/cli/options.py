"""Flags made from the configuration's dataclasses, so that each setting is described in one place."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any, NoReturn

from trainer.errors import ConfigError

Flag = tuple[argparse.Action, Field[Any]]


class Parser(argparse.ArgumentParser):
    """Reports bad arguments as a ConfigError, and takes flags by their full names alone."""

    def __init__(self, prog: str, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, f"see {self.prog} --help")


def check_utf8(text: str) -> None:
    """Raise ConfigError for text, or the name of a file, of bytes that no checkpoint or report could hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:  # Python keeps such bytes as lone surrogates
        raise ConfigError(f"{text!r} is not UTF-8", "give text in UTF-8, or rename the file") from error


def whole(text: str) -> int:
    """A whole number from 0 up, as every integer setting is; 10_000 may be written so."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 4,294,967,295")
    return value


def number(text: str) -> float:
    """A number from 0 up, as every other numeric setting is."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return value


KINDS = {"int": (whole, "N"), "float": (number, "X"), "str": (str, "TEXT")}


def add_flags(
    parser: argparse.ArgumentParser, title: str, config: Any, leave_out: Sequence[str] = ()
) -> list[Flag]:
    """A flag for each field of the dataclass instance `config`, whose values are the defaults shown.

    A flag that is not given leaves no attribute behind: `given` returns those that were.
    """
    group = parser.add_argument_group(title)
    flags = []
    for f in fields(config):
        if f.name not in leave_out:
            kind, metavar = KINDS[str(f.type)]
            action = group.add_argument(
                f"--{f.name.replace('_', '-')}", type=kind, metavar=metavar, default=argparse.SUPPRESS
            )
            flags.append((action, f))
    show_defaults(flags, config)
    return flags


def show_defaults(flags: Sequence[Flag], config: Any) -> None:
    """Let --help show the values of `config` as the defaults of `flags`."""
    for action, f in flags:
        value = getattr(config, f.name)
        default = value if value != "" else "none"
        action.help = f"{f.metadata['help']} (default: {default})".replace("%", "%%")


def given(args: argparse.Namespace, config: type) -> dict[str, Any]:
    """The fields of the dataclass `config` whose flags were given."""
    return {f.name: getattr(args, f.name) for f in fields(config) if hasattr(args, f.name)}


def flag_of(name: str) -> str:
    """--learning-rate for learning_rate."""
    return f"--{name.replace('_', '-')}"


def add_device(parser: argparse.ArgumentParser) -> None:
    """The flag --device."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto, reference (NumPy), dawn, or an adapter's number or name from `trainer devices` "
        "(default: auto)",
    )
