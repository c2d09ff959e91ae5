"""The page's form as the trainer's configurations, and what they will take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, TypeVar

from trainer.budget import BYTES_A_PARAMETER, estimate
from trainer.config import ModelConfig, SampleConfig, TrainConfig, preset
from trainer.devices import DeviceInfo, check_fits
from trainer.errors import ConfigError, DeviceError
from trainer.kernels import Tuning
from trainer.model import build

DEFAULT = "nano"
MOST_MEMORY = 16 << 30  # bytes; beyond it no browser gives memory, and planning would only take long

Config = TypeVar("Config", ModelConfig, TrainConfig, SampleConfig)


def configs(
    model: Mapping[str, Any] | None, train: Mapping[str, Any] | None
) -> tuple[ModelConfig, TrainConfig]:
    """Both configurations, from {preset} or fields or both. Raises ConfigError for anything else."""
    model, train = dict(model or {}), dict(train or {})
    size = model.pop("preset", None) or train.get("preset") or DEFAULT
    pace = train.pop("preset", None) or size
    return change(preset(size).model, model), change(preset(pace).train, train)


def change(config: Config, fields: Mapping[str, Any]) -> Config:
    """`config` with other values in `fields`; JavaScript's numbers become what each field is."""
    known = asdict(config)
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in known:
            raise ConfigError(f"unknown setting {name!r}", f"there are {', '.join(known)}")
        kind = type(known[name])
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is str and isinstance(value, str):
            values[name] = value
        elif kind is float and number:
            values[name] = float(value)
        elif kind is int and number and value % 1 == 0:  # of no infinity, and not of NaN
            values[name] = int(value)
        else:
            what = {int: "a whole number", float: "a number", str: "text"}[kind]
            raise ConfigError(f"{name.replace('_', ' ')} is {value!r}", f"give {what}")
    return replace(config, **values)


def budget(model: ModelConfig, train: TrainConfig, tokens: int, info: DeviceInfo | None) -> dict[str, Any]:
    """What training takes, as the page shows it. Raises DeviceError where it does not fit."""
    if BYTES_A_PARAMETER * model.parameters > MOST_MEMORY:
        raise DeviceError(
            f"{model.parameters:,} parameters take more than {MOST_MEMORY >> 30} GB to train",
            "choose a smaller width, fewer layers or a smaller vocabulary",
        )
    planned = build(
        model,
        train=train,
        tokens=max(tokens, model.context + 1),
        evaluation_batch=train.batch,
        generate=True,
        tuning=info.tuning if info else Tuning(),
    )
    if info:
        check_fits(planned.plan, info)
    return asdict(estimate(planned, train, software=bool(info and info.software)))
