"""How fast the device multiplies matrices: the peak that the page's compute meter is a share of."""

from __future__ import annotations

from trainer.devices import Device
from trainer.ops.matmul import matmul
from trainer.ops.random import normal
from trainer.plan import Plan

SIZE, SOFTWARE_SIZE = 1024, 128  # M = N = K; a processor needs no more to be busy
SECONDS = 0.1  # the longest batch; with the shorter ones before it, 0.4 s in all at most
LEAST = 0.005  # a shorter one is not believed: a browser rounds the GPU's clock to 0.1 ms
MOST = 256  # products in a batch


async def measure(device: Device) -> float:
    """GFLOP/s of f32 matmul with the variant that training uses: the best of batches that grow.

    By the GPU's own clock where it has one: the wait for the browser to say that the work is done is no part
    of it. 0 where that clock stands still.
    """
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
            seconds = repeats * sum(await executable.times("multiply", repeats))
            if seconds >= LEAST:
                best = max(best, repeats * 2 * size**3 / seconds / 1e9)
            if seconds >= SECONDS or repeats >= MOST:
                return best
            repeats *= 2
    finally:
        executable.close()
