"""Whether a device's subgroups are what kernels take them for."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from trainer.devices import Device
from trainer.errors import DeviceError
from trainer.kernels import SUBGROUPS
from trainer.plan import Plan

THREADS, TEAM = 64, 8

Tried = TypeVar("Tried", bound=Device)


async def tried(device: Tried) -> Tried:
    """The device that was just opened, without SUBGROUPS among its features unless TEAM threads in a row
    reach each other: a renderer on the CPU may have subgroups of four.
    """
    if SUBGROUPS in device.info.enabled and not await _meet(device):
        enabled = tuple(name for name in device.info.enabled if name != SUBGROUPS)
        device.info = replace(device.info, enabled=enabled)
    return device


async def _meet(device: Device) -> bool:
    plan = Plan()
    met = plan.tensor("met", (THREADS, TEAM), "u32", "state")
    with plan.program("meet"):
        plan.dispatch("subgroups.meet", grid=(1, 1, 1), constants={}, met=met)
    plan.finish()
    try:
        executable = await device.compile(plan)
    except DeviceError:
        return False
    executable.run(["meet"])
    numbers = (await executable.read(met)).cast("B").cast("I")
    executable.close()
    return numbers.tolist() == [thread ^ other for thread in range(THREADS) for other in range(TEAM)]
