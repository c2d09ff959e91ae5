"""How fast the device multiplies matrices: the peak that the page's compute meter is a share of."""

from __future__ import annotations

import time

from trainer.devices import Device
from trainer.ops.matmul import matmul
from trainer.ops.random import normal
from trainer.plan import Plan

SIZE, SOFTWARE_SIZE = 1024, 128  # M = N = K; a processor needs no more to be busy
SECONDS = 0.1  # a timed batch; with the shorter ones before it, about 0.3 s in all
MOST = 256  # products in a batch


async def measure(device: Device) -> float:
    """GFLOP/s of f32 matmul with the variant that training uses: the best of batches that grow."""
    size = SOFTWARE_SIZE if device.info.software else SIZE
    plan = Plan(device.info.tuning)
    a, b, out = (plan.tensor(name, (size, size), role="state") for name in ("a", "b", "out"))
    with plan.program("fill"):
        normal(plan, a, std=1.0, seed=1, stream=0)
        normal(plan, b, std=1.0, seed=1, stream=1)
    with plan.program("multiply"):
        matmul(plan, a, b, out, (size, size, size))
    plan.finish()
    executable = await device.compile(plan)
    try:
        executable.run(["fill", "multiply"])
        await executable.finish()
        repeats, best = 1, 0.0
        while True:
            began = time.perf_counter()
            executable.run(["multiply"] * repeats, submit_every=8)
            await executable.finish()
            seconds = max(time.perf_counter() - began, 1e-6)
            best = max(best, repeats * 2 * size**3 / seconds / 1e9)
            if seconds >= SECONDS or repeats >= MOST:
                return best
            repeats *= 4
    finally:
        executable.close()
