"""How fast the device multiplies matrices: the peak that the page's compute meter is a share of."""

from __future__ import annotations

from trainer.devices import Device
from trainer.ops.matmul import matmul
from trainer.ops.random import normal
from trainer.plan import Plan

SIZE, SOFTWARE_SIZE = 1024, 128  # M = N = K; a processor needs no more to be busy
SECONDS = 0.1  # a batch that is believed; with the shorter ones before it, 0.4 s in all at most
MOST = 256  # products in a batch


async def measure(device: Device) -> float:
    """GFLOP/s of f32 matmul with the variant that training uses: of a batch that is long enough.

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
        repeats = 1
        while True:
            seconds = sum(await executable.times("multiply", repeats))  # of one product
            if repeats * seconds >= SECONDS or repeats >= MOST:
                return 2 * size**3 / seconds / 1e9 if seconds else 0.0
            repeats *= 2
    finally:
        executable.close()
