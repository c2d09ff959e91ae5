"""Timing whole training steps: those of a preset, or of a model that other trainers were measured on, too."""

from __future__ import annotations

import random
import time
from array import array
from dataclasses import replace
from statistics import median, median_low

from trainer.bench.records import Record, digits, ours, peak_memory
from trainer.budget import estimate
from trainer.config import PRESETS, ModelConfig, TrainConfig
from trainer.devices import Device, Executable
from trainer.errors import ConfigError
from trainer.model import build
from trainer.ops.random import dataset_parts
from trainer.runtime import Runtime
from trainer.schedule import schedule

BATCHES = 3  # of steps, of which the median counts: the first may find a device that is not yet at full speed
PYTHON_ROUNDS = 20  # in which Python's own part is timed: a round takes no millisecond
STEP = ("micro", "update")  # the programs of a training step
WARM_UP = 3  # steps
CHUNK = 10  # training steps that go out at once, as in training, where the loss is read every ten

# Models that other trainers were measured on, too, with the batch each was given: beside the presets
WORKLOADS = {
    "TINY": (ModelConfig(layers=2, width=64, heads=4, context=64, vocab=512), 8),
    "SMALL": (ModelConfig(layers=4, width=128, heads=4, context=128, vocab=2048), 8),
    "MEDIUM": (ModelConfig(layers=6, width=384, heads=6, context=256, vocab=4096), 16),
    "LARGE": (ModelConfig(layers=6, width=384, heads=6, context=256, vocab=8192), 64),
    "GPT-2": (ModelConfig(layers=12, width=768, heads=12, context=1024, vocab=50304), 8),
}


def workload(name: str) -> tuple[ModelConfig, TrainConfig]:
    """A preset, or one of WORKLOADS. Raises ConfigError with the names there are."""
    if name in WORKLOADS:
        model, batch = WORKLOADS[name]
        return model, TrainConfig(batch=batch)
    if name not in PRESETS:
        names = ", ".join((*PRESETS, *WORKLOADS))
        raise ConfigError(f"there is no workload {name!r}", f"choose from {names}")
    return PRESETS[name].model, PRESETS[name].train


def configured(name: str, precision: str, batch: int | None) -> tuple[ModelConfig, TrainConfig]:
    """A workload with one micro-batch a step, and its own batch where none is given."""
    model, train = workload(name)
    return model, replace(train, batch=batch or train.batch, accumulate=1, steps=10_000, precision=precision)


async def time_steps(device: Device, name: str, precision: str, batch: int | None, steps: int) -> Record:
    """Whole training steps of a workload on random tokens: milliseconds, and what the CPU is busy for."""
    model, train = configured(name, precision, batch)
    runtime = await warmed_up(device, model, train)
    built = runtime.model
    budget = estimate(built, train, software=device.info.software)
    timed = [await run_steps(runtime, steps) for _ in range(BATCHES)]
    seconds, encoding = median_low(timed)
    python = python_seconds(runtime.executable, encoding)
    memory = peak_memory()
    runtime.close()
    record = {
        **ours(device),
        "workload": name,
        "precision": precision,
        "batch": train.batch,
        "ms_per_step": round(1e3 * seconds, 4),
        "tokens_per_s": round(budget.tokens_per_step / seconds),
        "tflops": digits(budget.flops_per_step / seconds / 1e12),
        "encoding_share": digits(encoding / seconds),
        "python_share": digits(python / seconds),
        "dispatches": sum(len(built.plan.programs[name].dispatches) for name in STEP),
        "device_memory_bytes": budget.device_memory,
        "peak_memory_bytes": memory,
        "estimated_memory_bytes": budget.host_memory,
    }
    print(
        f"step {name:8} {precision:5} {record['ms_per_step']:9.2f} ms  "
        f"{record['tokens_per_s']:>9,} tokens/s  {1e3 * record['tflops']:.1f} GFLOP/s  "
        f"{record['dispatches']} dispatches  CPU {100 * record['encoding_share']:.1f}%, "
        f"Python {100 * record['python_share']:.1f}%  "
        f"memory {memory >> 20:,} MiB (estimated {budget.host_memory >> 20:,})"
    )
    return record


async def time_waiting(device: Device, name: str, precision: str, batch: int | None, steps: int) -> Record:
    """What reading the loss after every step costs: milliseconds of such steps, and of steps sent ahead."""
    model, train = configured(name, precision, batch)
    runtime = await warmed_up(device, model, train)
    training = runtime.model.training
    assert training is not None

    async def each(waiting: bool) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            runtime.executable.run(STEP)
            if waiting:
                await runtime.executable.read(training.state.ring)
        await runtime.executable.finish()
        return (time.perf_counter() - began) / steps

    # In turns, so that a machine that is busy for a while is so for both.
    pairs = [(await each(waiting=False), await each(waiting=True)) for _ in range(BATCHES)]
    runtime.close()
    ahead, waiting = (median(column) for column in zip(*pairs, strict=True))
    print(f"step {name:8} {1e3 * ahead:9.2f} ms sent ahead  {1e3 * waiting:9.2f} ms with every loss read")
    return {
        **ours(device),
        "workload": name,
        "precision": precision,
        "batch": train.batch,
        "ms_per_step": round(1e3 * ahead, 4),
        "ms_per_step_waiting": round(1e3 * waiting, 4),
    }


async def run_steps(runtime: Runtime, steps: int) -> tuple[float, float]:
    """Seconds of one of `steps` training steps, sent ahead as in training, and those that sending it took
    the thread of Python and of the library under it.
    """
    encoding, done, chunk = 0.0, 0, 1  # few steps at first: the device waits while they are sent
    began = time.perf_counter()
    while done < steps:
        count = min(chunk, steps - done)
        start = time.thread_time()
        runtime.executable.run(STEP * count)
        encoding += time.thread_time() - start
        done, chunk = done + count, min(2 * chunk, CHUNK)
    await runtime.executable.finish()
    return (time.perf_counter() - began) / steps, encoding / steps


def python_seconds(executable: Executable, encoding: float) -> float:
    """Seconds of a training step that Python itself takes of the `encoding`, which is all its own without a
    graphics library: the least of several measurements, which other work on the machine disturbs least.
    """
    # Not above: the page, which times steps too, is without it.
    from trainer.devices.native import NativeExecutable

    if not isinstance(executable, NativeExecutable):
        return encoding
    return min(executable.python_seconds(STEP * CHUNK) for _ in range(PYTHON_ROUNDS)) / CHUNK


async def warmed_up(device: Device, model: ModelConfig, train: TrainConfig) -> Runtime:
    """A model on random tokens with its first steps behind it, which compile lazily and raise the clocks."""
    runtime = await open_training(device, model, train)
    await run_steps(runtime, WARM_UP)
    return runtime


async def open_training(device: Device, model: ModelConfig, train: TrainConfig, windows: int = 64) -> Runtime:
    """A model at its first step, compiled, on random tokens: `windows` of them. Of one window, every batch is
    alike and soon known by heart. Raises DeviceError for what the device cannot hold or compute.
    """
    tokens = windows * model.context + 1
    built = build(model, train=train, tokens=tokens, tuning=device.info.tuning)
    runtime = await Runtime.open(device, built)
    await _prepare(runtime, model, train, tokens)
    return runtime


async def _prepare(runtime: Runtime, model: ModelConfig, train: TrainConfig, tokens: int) -> None:
    training = runtime.model.training
    assert training is not None
    rng = random.Random(1)
    ids = array("H", (rng.randrange(model.vocab) for _ in range(tokens + tokens % 2)))
    for (first, _, count), tensor in zip(dataset_parts(tokens, model.context), training.dataset, strict=True):
        await runtime.executable.write(tensor, ids[first : first + count + count % 2].tobytes())
    await runtime.executable.write(training.state.schedule, schedule(train))
    await runtime.initialise()
