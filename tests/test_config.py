"""What configurations refuse: values that the optimiser, its tables or a device could not work with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from demo.settings import change
from trainer.config import LEAST_EPSILON, MAX_STEPS, TrainConfig
from trainer.errors import ConfigError
from trainer.plan import MAX_BINDING
from trainer.schedule import schedule


@pytest.mark.parametrize("name", ["beta1", "beta2"])
def test_decays_end_below_one(name: str) -> None:
    """Of 1, the bias corrections would divide by zero."""
    with pytest.raises(ConfigError, match=f"{name} is 1.0: .* from 0 to below 1"):
        replace(TrainConfig(), **{name: 1.0})
    table = np.frombuffer(schedule(replace(TrainConfig(), **{name: float(np.nextafter(1.0, 0.0))})), "<f4")
    assert np.isfinite(table).all()


def test_the_longest_schedule_fills_a_binding() -> None:
    bytes_a_step = len(schedule(TrainConfig(steps=100))) // 100
    assert bytes_a_step * MAX_STEPS == MAX_BINDING
    assert TrainConfig(steps=MAX_STEPS).steps == MAX_STEPS
    with pytest.raises(ConfigError, match=r"steps is 8388609: .* to 8,388,608"):
        TrainConfig(steps=MAX_STEPS + 1)


def test_epsilon_is_a_number_in_f32() -> None:
    assert np.float32(LEAST_EPSILON) >= np.finfo(np.float32).smallest_normal
    with pytest.raises(ConfigError, match="epsilon is 1e-46"):
        TrainConfig(epsilon=1e-46)


def test_a_prompt_is_text() -> None:
    """A byte that is no UTF-8 comes from the command line as a lone surrogate, which no file takes."""
    assert TrainConfig(sample_prompt="Čapek 🦆").sample_prompt == "Čapek 🦆"
    with pytest.raises(ConfigError, match=r"sample-prompt is 'a\\udcff', which is no text: .* UTF-8"):
        TrainConfig(sample_prompt="a\udcff")


@pytest.mark.parametrize("value", [2.5, float("inf"), float("-inf"), float("nan"), True, "3", None])
def test_a_seed_from_the_page_is_a_whole_number(value: Any) -> None:
    assert change(TrainConfig(), {"seed": 3.0}).seed == 3
    with pytest.raises(ConfigError, match=r"seed is .*: give a whole number"):
        change(TrainConfig(), {"seed": value})
