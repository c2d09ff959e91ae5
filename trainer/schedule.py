"""The learning rate of every step, and the table of it that the optimiser's kernels look into."""

from __future__ import annotations

import math

from trainer.config import TrainConfig
from trainer.runtime import pack_floats


def learning_rate(config: TrainConfig, step: int) -> float:
    """Of step 0, 1, ...: linear warm-up to the peak, then a cosine down to its `min_learning_rate` share."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    share = config.min_learning_rate
    return config.learning_rate * (share + (1 - share) * 0.5 * (1 + math.cos(math.pi * progress)))


def schedule(config: TrainConfig) -> bytes:
    """The table that the optimiser's kernels look into; see shaders/adamw.wgsl."""
    rows = (
        (learning_rate(config, s), 1 / (1 - config.beta1 ** (s + 1)), 1 / (1 - config.beta2 ** (s + 1)), 0.0)
        for s in range(config.steps)
    )
    return pack_floats(value for row in rows for value in row)
