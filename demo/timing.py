"""Whole training steps of a benchmark's workload on the page's device, timed as `trainer bench` does."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from trainer.bench.steps import STEP, configured, open_training
from trainer.budget import estimate
from trainer.devices import Device
from trainer.model import RING
from trainer.runtime import Runtime, floats

SECONDS = 0.5  # of work in one timed batch: waiting for its end takes milliseconds
BATCHES = 3  # timed batches, of which the median counts


async def time_steps(device: Device, workload: str, precision: str, steps: int | None) -> dict[str, Any]:
    """Milliseconds of a step, in batches of `steps`, or of as many as take half a second; the rates that they
    make; and the losses of the first and the last step, which tell that one batch is being learned.

    Raises ConfigError for an unknown workload or precision, DeviceError for what the device cannot do.
    """
    model, train = configured(workload, precision, None)
    runtime = await open_training(device, model, train, windows=1)
    try:
        await _batch(runtime, 1)
        first = await _loss(runtime, 0)
        each = steps or 1
        seconds = await _batch(runtime, each)
        done = 1 + each
        if steps is None:
            each = min(1000, max(1, round(SECONDS / seconds)))
            times = [await _batch(runtime, each) for _ in range(BATCHES)]
            seconds, done = median(times), done + BATCHES * each
        budget = estimate(runtime.model, train, software=device.info.software)
        return {
            "workload": workload,
            "precision": precision,
            "batch": train.batch,
            "ms_per_step": 1e3 * seconds,
            "tokens_per_s": budget.tokens_per_step / seconds,
            "gflops": budget.flops_per_step / seconds / 1e9,
            "steps": done,
            "first_loss": first,
            "last_loss": await _loss(runtime, done - 1),
        }
    finally:
        runtime.close()


async def _batch(runtime: Runtime, steps: int) -> float:
    """Seconds a step, of so many sent at once."""
    began = time.perf_counter()
    runtime.executable.run(STEP * steps, submit_every=1000)
    await runtime.executable.finish()
    return max(time.perf_counter() - began, 1e-6) / steps


async def _loss(runtime: Runtime, step: int) -> float:
    """Of one of the last steps, in nats a token."""
    assert runtime.model.training is not None
    return floats(await runtime.executable.read(runtime.model.training.state.ring))[4 * (step % RING)]
