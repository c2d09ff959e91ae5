"""Tokens a second as work grows: along the model's size, its context, its vocabulary, and the batch.

One thing changes at a time, from a base workload; along the context the batch shrinks, so that a step has the
base's number of tokens as far as that goes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from trainer.bench.records import Record, digits, ours
from trainer.bench.steps import BATCHES, configured, open_training, run_steps
from trainer.budget import estimate, flops_per_token
from trainer.config import ModelConfig, TrainConfig
from trainer.devices import Device
from trainer.errors import TrainerError
from trainer.runtime import Runtime

HEAD_SIZE = 64
# (layers, width): from 1.3M to 123M parameters with a vocabulary of 8,192 and a context of 256
SIZES = ((1, 128), (2, 192), (4, 256), (6, 384), (8, 512), (12, 640), (12, 768), (12, 896))
CONTEXTS = (128, 256, 512, 1024, 2048)
VOCABULARIES = (1024, 2048, 4096, 8192, 16_384, 32_768, 50_304)
MICRO_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
MEASURED_SECONDS = 0.5  # of steps in one timed batch, where a step takes less
MOST_STEPS = 200  # in it

Point = tuple[float, ModelConfig, TrainConfig]  # where on its axis, and what is trained there


def points(model: ModelConfig, train: TrainConfig) -> dict[str, list[Point]]:
    """What is trained along each axis, from a base."""
    tokens = train.batch * model.context
    sized = [replace(model, layers=n, width=C, heads=C // HEAD_SIZE) for n, C in SIZES]
    contexts = [(T, replace(model, context=T), max(1, tokens // T)) for T in CONTEXTS]
    return {
        "parameters": [(sizes.parameters, sizes, train) for sizes in sized],
        "context": [(T, longer, replace(train, batch=B)) for T, longer, B in contexts],
        "vocabulary": [(V, replace(model, vocab=V), train) for V in VOCABULARIES],
        "batch size": [(B, model, replace(train, batch=B)) for B in MICRO_BATCHES],
    }


async def time_curves(
    device: Device, name: str, precision: str, batch: int | None, seconds: float
) -> AsyncIterator[Record]:
    """A record an axis, with its points. A point whose step would take over `seconds`, at the best rate so
    far, is told and left out, and so is one that the device cannot hold.
    """
    model, train = configured(name, precision, batch)
    rate = 0.0  # operations a second, the most so far
    for axis, places in points(model, train).items():
        found: list[dict[str, Any]] = []
        for where, config, training in places:
            label = f"curve {name} {precision} {axis} {where:,}"
            work = 3 * flops_per_token(config) * training.batch * config.context
            if rate and work / rate > seconds:
                print(f"{label}: left out, a step would take about {work / rate:,.0f} s (see --seconds)")
                continue
            try:
                point = await _point(device, config, training)
            except TrainerError as error:
                print(f"{label}: left out, {error}")
                continue
            rate = max(rate, 1e12 * point["tflops"])
            took = f"{point['ms_per_step']:12.2f} ms"
            print(f"{label:44} {took}  {point['tokens_per_s']:>11,} tokens/s", flush=True)
            found.append({"at": where, **point})
        yield {
            **ours(device),
            "workload": name,
            "axis": axis,
            "precision": precision,
            "batch": train.batch,
            "points": found,
        }


async def _point(device: Device, model: ModelConfig, train: TrainConfig) -> dict[str, Any]:
    runtime = await open_training(device, model, train)
    budget = estimate(runtime.model, train, software=device.info.software)
    try:
        seconds = await _seconds(runtime)
    finally:
        runtime.close()
    return {
        "batch": train.batch,
        "parameters": model.parameters,
        "ms_per_step": round(1e3 * seconds, 4),
        "tokens_per_s": round(budget.tokens_per_step / seconds),
        "tflops": digits(budget.flops_per_step / seconds / 1e12),
        "device_memory_bytes": budget.device_memory,
    }


async def _seconds(runtime: Runtime) -> float:
    """Of one step: the least of several measurements, which other work on the machine disturbs least. What is
    drawn is how the points compare.
    """
    await run_steps(runtime, 1)  # compiles
    second, _ = await run_steps(runtime, 1)
    steps = max(1, min(MOST_STEPS, int(MEASURED_SECONDS / second)))
    return min([(await run_steps(runtime, steps))[0] for _ in range(BATCHES)])
