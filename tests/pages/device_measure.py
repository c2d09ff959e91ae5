"""How fast the page's device is: what Python's replay of a plan costs, a training step, copies. Milliseconds
and MB/s, medians of a few runs; the test that calls it checks that it runs, not how fast.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Awaitable, Callable
from statistics import median

from demo.device import BrowserDevice
from trainer.config import ModelConfig, TrainConfig
from trainer.kernels import Tuning
from trainer.model import build
from trainer.ops.random import dataset_parts
from trainer.plan import Plan
from trainer.runtime import Runtime
from trainer.schedule import schedule


async def measure(
    device: BrowserDevice, model: ModelConfig, train: TrainConfig, megabytes: int
) -> dict[str, float]:
    """All figures; the step is one of `train` of `model` on made-up tokens."""
    figures = await copies(device, megabytes << 20)
    figures["replay_300_dispatches_ms"] = await replay(device, 300)
    return figures | await step(device, model, train)


async def _median(times: int, work: Callable[[], Awaitable[None]]) -> float:
    """Milliseconds that `work` takes."""
    taken: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        await work()
        taken.append(1000 * (time.perf_counter() - began))
    return median(taken)


async def replay(device: BrowserDevice, dispatches: int) -> float:
    """Milliseconds of the worker's time to submit a program of small dispatches, of several kernels."""
    plan = Plan()
    outs = [plan.tensor(f"out{i}", (64,), role="state") for i in range(8)]
    with plan.program("many"):
        for i in range(dispatches):
            constants = {"N": 64, "VALUE": float(i % 4)}
            plan.dispatch("random.fill", grid=(1, 1, 1), constants=constants, out=outs[i % 8])
    plan.finish()
    executable = await device.compile(plan)
    taken: list[float] = []
    for _ in range(20):
        began = time.perf_counter()
        executable.run(["many"])
        taken.append(1000 * (time.perf_counter() - began))
        await executable.finish()
    executable.close()
    return median(taken)


async def copies(device: BrowserDevice, size: int) -> dict[str, float]:
    """MB/s to and from the GPU, to the end of the copy."""
    plan = Plan()
    tensor = plan.tensor("tensor", (size // 4,), role="state")
    plan.finish()
    executable = await device.compile(plan)
    data = bytes(size)

    async def upload() -> None:
        await executable.write(tensor, data)
        await executable.finish()

    async def download() -> None:
        await executable.read(tensor)

    up, down = await _median(5, upload), await _median(5, download)
    executable.close()
    return {"upload_mb_per_s": size / up / 1000, "download_mb_per_s": size / down / 1000}


async def step(device: BrowserDevice, model: ModelConfig, train: TrainConfig) -> dict[str, float]:
    """Milliseconds to compile a run, of one step, and of one step's dispatches op by op."""
    tokens = 20_000
    built = build(model, train=train, tokens=tokens, tuning=Tuning(software=device.info.software))
    began = time.perf_counter()
    runtime = await Runtime.open(device, built)
    figures = {"compile_ms": 1000 * (time.perf_counter() - began)}
    assert built.training is not None
    executable = runtime.executable
    await executable.write(built.training.state.schedule, schedule(train))
    values = array("H", (i * i % model.vocab for i in range(tokens)))
    parts = dataset_parts(tokens, model.context)
    for (first, _, count), tensor in zip(parts, built.training.dataset, strict=True):
        await executable.write(tensor, values[first : first + count].tobytes())
    await runtime.initialise()

    async def two_steps() -> None:
        executable.run(["micro", "update"] * 2)
        await executable.finish()

    figures["step_ms"] = await _median(7, two_steps) / 2
    runtime.close()
    return figures | {f"{name}_ms": value for name, value in (await _by_kernel(device, built.plan)).items()}


async def _by_kernel(device: BrowserDevice, plan: Plan) -> dict[str, float]:
    """Milliseconds of a step's dispatches of each kernel, run by themselves (on zeros)."""
    alone = Plan(plan.tuning)
    alone.tensors, alone.places, alone.buffers = plan.tensors, plan.places, plan.buffers
    for name in ("micro", "update"):
        for dispatch in plan.programs[name].dispatches:
            kernel = f"{dispatch.variant}.{dispatch.kernel.split('.')[1]}"
            program = alone.programs.setdefault(kernel, type(plan.programs[name])(kernel))
            program.dispatches.append(dispatch)
    executable = await device.compile(alone)
    figures: dict[str, float] = {}
    for kernel in alone.programs:

        async def work(kernel: str = kernel) -> None:
            executable.run([kernel])
            await executable.finish()

        figures[kernel] = await _median(5, work)
    executable.close()
    return dict(sorted(figures.items(), key=lambda item: -item[1]))
