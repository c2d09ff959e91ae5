"""The browser's device: the trainer's plans on WebGPU, replayed by gpu.js.

The worker opens the GPU (`openGpu` of gpu.js) while Python loads, and hands it over:

    device = BrowserDevice(gpu)
    trainer = await Trainer.create(device, ...)

What Python tells gpu.js of a plan is one JSON text, once; what passes between them afterwards are names of
programs and bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from trainer import kernels
from trainer.devices import DeviceInfo, check_fits
from trainer.errors import DeviceError
from trainer.events import Progress, Reader
from trainer.plan import Dispatch, Plan, Tensor


class DeviceLost(DeviceError):
    """The GPU went away: the driver was reset, the browser took it back, memory ran out. What was on it is
    gone; another device may be opened, and a run continued from its last save.
    """


class BrowserDevice:
    """The GPU that gpu.js opened. Asks for no feature, and for no limit beyond the defaults."""

    def __init__(self, gpu: Any) -> None:
        self.gpu = gpu
        known = json.loads(gpu.describe())
        self.info = DeviceInfo(**{**known, "features": tuple(known["features"])})

    async def compile(self, plan: Plan, on_event: Reader | None = None) -> BrowserExecutable:
        check_fits(plan, self.info)

        def progress(done: int, total: int) -> None:
            if on_event:
                on_event(Progress("compile", done, total, "kernels"))

        with _typed_errors():
            replay = await self.gpu.compile(json.dumps(flatten(plan)), progress)
        return BrowserExecutable(plan, replay)

    async def lost(self) -> DeviceLost:
        """Waits until the GPU is lost, however long that takes, and says why. Nothing need be running."""
        error = await self.gpu.lost
        return DeviceLost(error.problem, error.remedy)


class BrowserExecutable:
    """A plan on the browser's GPU. After the GPU's loss, every call raises DeviceLost."""

    def __init__(self, plan: Plan, replay: Any) -> None:
        self.plan = plan
        self.replay = replay

    def run(self, programs: Iterable[str], submit_every: int = 0) -> None:
        with _typed_errors():
            self.replay.run(" ".join(programs), submit_every)

    async def write(self, tensor: Tensor, data: bytes | bytearray | memoryview) -> None:
        buffer, offset, size = self.plan.place(tensor)
        nbytes = memoryview(data).nbytes
        if nbytes != size:
            raise ValueError(f"{tensor.name} takes {size} bytes, not {nbytes}")
        with _typed_errors():
            self.replay.write(buffer, offset, data)

    async def read(self, tensor: Tensor) -> memoryview:
        buffer, offset, size = self.plan.place(tensor)
        data = bytearray(size)
        with _typed_errors():
            await self.replay.read(buffer, offset, data)
        return memoryview(data)

    async def finish(self) -> None:
        with _typed_errors():
            await self.replay.finish()

    def close(self) -> None:
        self.replay.close()


def flatten(plan: Plan) -> dict[str, Any]:
    """The plan as gpu.js takes it: sizes, shader modules, bind groups, and programs as flat lists of
    (pipeline, group, x, y, z), in which what several dispatches share is listed once.
    """
    pipelines: dict[tuple[str, str, str], int] = {}
    groups: dict[tuple[int, tuple[tuple[int, int, int, int], ...]], int] = {}
    programs: dict[str, list[int]] = {}
    for name, program in plan.programs.items():
        flat = programs[name] = []
        for dispatch in program.dispatches:
            pipeline = pipelines.setdefault(shader(dispatch), len(pipelines))
            group = groups.setdefault((pipeline, _entries(plan, dispatch)), len(groups))
            flat += (pipeline, group, *dispatch.grid)
    return {
        "buffers": plan.buffers,
        "pipelines": [{"kernel": k, "entry": entry, "code": code} for k, entry, code in pipelines],
        "groups": [{"pipeline": pipeline, "entries": entries} for pipeline, entries in groups],
        "programs": programs,
    }


def shader(dispatch: Dispatch) -> tuple[str, str, str]:
    """What a kernel is called in messages, its entry point, and its WGSL module."""
    entry = dispatch.kernel.split(".")[1]
    return f"{dispatch.variant}.{entry}", entry, kernels.module(dispatch.variant, entry, dispatch.constants)


def _entries(plan: Plan, dispatch: Dispatch) -> tuple[tuple[int, int, int, int], ...]:
    """(binding number, buffer, offset, size) of what a dispatch binds."""
    numbers = kernels.bindings(dispatch.variant, dispatch.kernel.split(".")[1])
    return tuple((numbers[name][0], *plan.place(t)) for name, t in dispatch.bindings.items())


@contextmanager
def _typed_errors() -> Iterator[None]:
    """Makes a GpuError of gpu.js, which Python sees as an exception with its fields, one of the trainer's."""
    try:
        yield
    except Exception as error:
        kind = getattr(error, "kind", None)
        if kind is None:
            raise
        cls = DeviceLost if kind == "lost" else DeviceError
        raise cls(getattr(error, "problem", ""), getattr(error, "remedy", "")) from error
