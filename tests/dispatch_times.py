"""What `Executable.times` has to be on every device, natively and in the page."""

from __future__ import annotations

import time

from trainer.devices import Device
from trainer.kernels import Tuning
from trainer.ops.matmul import matmul
from trainer.ops.random import fill
from trainer.plan import Plan

SIZE = 192  # M = N = K of a product that takes longer than setting 64 numbers does
LONG = 0.2  # seconds


async def check_times(device: Device) -> None:
    """A second for each dispatch, in their order, of one launch, and no more of them than have passed."""
    plan = Plan(Tuning(pinned={"matmul": "matmul"}))
    a, b, out = (plan.tensor(name, (SIZE, SIZE), role="state") for name in ("a", "b", "out"))
    few = plan.tensor("few", (64,), role="state")
    with plan.program("mixed"):
        fill(plan, few, 1.0)
        matmul(plan, a, b, out, (SIZE, SIZE, SIZE), add=True)
        fill(plan, few, 2.0)
    with plan.program("ones"):
        fill(plan, a, 1.0)
        fill(plan, b, 1.0)
    plan.finish()
    executable = await device.compile(plan)
    executable.run(["ones"])
    await executable.finish()
    repeats, launched, passed = 8, 0, 0.0
    first = product = last = 0.0
    while passed < LONG:  # so that on a GPU, too, the work is more than what surrounds it
        repeats *= 2
        began = time.perf_counter()
        first, product, last = await executable.times("mixed", repeats)
        passed = time.perf_counter() - began
        launched += repeats
    assert min(first, last) >= 0
    assert product > max(first, last)
    assert passed / 20 < repeats * (first + product + last) < passed  # the wall clock saw them, too
    assert (await executable.read(few)).cast("f")[0] == 2.0
    assert (await executable.read(out)).cast("f")[0] == launched * SIZE  # as often as it was to be launched
    executable.close()
