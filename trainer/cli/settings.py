"""The flags that say what is trained and how, for each command that asks: a preset with other values, or a
run that goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from trainer.checkpoint import Checkpoint
from trainer.cli.options import Flag, add_flags, flag_of, given, show_defaults
from trainer.config import PRESETS, ModelConfig, TrainConfig, preset
from trainer.errors import ConfigError
from trainer.snapshot import resumed_config

DEFAULT_PRESET = "nano"
ALL = tuple(f.name for f in fields(TrainConfig))
KEPT = ("batch", "accumulate", "seed")  # what makes the steps of a run what they are


def add_settings(parser: argparse.ArgumentParser, training: Sequence[str] = ALL) -> None:
    """--preset, and a flag for each field of its model and for those of its training called so."""
    model_flags: list[Flag] = []
    train_flags: list[Flag] = []

    class PresetAction(argparse.Action):
        """Keeps the preset's name, and lets a --help that follows show its values."""

        def __call__(
            self, parser: Any, namespace: argparse.Namespace, values: Any, option: Any = None
        ) -> None:
            namespace.preset = values
            if values in PRESETS:
                show_defaults(model_flags, PRESETS[values].model)
                show_defaults(train_flags, PRESETS[values].train)

    parser.add_argument(
        "--preset",
        action=PresetAction,
        metavar="NAME",
        help=f"{', '.join(PRESETS)}; other flags override its values (default: {DEFAULT_PRESET})",
    )
    default = PRESETS[DEFAULT_PRESET]
    model_flags += add_flags(parser, "model", default.model)
    others = [name for name in ALL if name not in training]
    train_flags += add_flags(parser, "training", default.train, leave_out=others)


def add_resume(parser: argparse.ArgumentParser, help: str) -> None:
    """The flag --resume."""
    parser.add_argument("--resume", type=Path, metavar="RUN", help=help)


def described(args: argparse.Namespace) -> tuple[ModelConfig, TrainConfig]:
    """The preset with the values of the flags that were given. Raises ConfigError."""
    chosen = preset(args.preset or DEFAULT_PRESET)
    model = replace(chosen.model, **given(args, ModelConfig))
    return model, replace(chosen.train, **given(args, TrainConfig))


def resumed(args: argparse.Namespace, run: Checkpoint) -> TrainConfig:
    """How `run` goes on, with the values of the flags that were given. Raises ConfigError for those that
    would change what was done, CheckpointError where it has no training state.
    """
    exclude(args, "resume", "preset")
    refuse(args, ModelConfig, "the model of a run stays as it is")
    changes = given(args, TrainConfig)
    for name in KEPT:
        if name in changes:
            raise ConfigError(f"--resume and {flag_of(name)} exclude each other", "begin a new run for that")
    return resumed_config(run, **changes)


def exclude(args: argparse.Namespace, name: str, *others: str) -> None:
    """Raise ConfigError if one of `others` was given beside the flag called `name`."""
    for other in others:
        if getattr(args, other):
            raise ConfigError(f"{flag_of(name)} and {flag_of(other)} exclude each other", "leave one out")


def refuse(args: argparse.Namespace, config: type, why: str) -> None:
    """Raise ConfigError if a flag of `config` was given."""
    for name in given(args, config):
        raise ConfigError(f"{flag_of(name)} cannot be changed here: {why}", f"leave {flag_of(name)} out")
