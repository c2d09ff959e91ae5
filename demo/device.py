"""The browser's device: the trainer's plans on WebGPU, replayed by gpu.js.

The worker opens the GPU (`openGpu` of gpu.js) while Python loads, and hands it over:

    device = await tried(BrowserDevice(gpu))
    trainer = await Trainer.create(device, ...)

What Python tells gpu.js of a plan is one JSON text, once; what passes between them afterwards are names of
programs and bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from trainer import kernels
from trainer.devices import DeviceInfo, check_fits
from trainer.errors import DeviceError
from trainer.events import Progress, Reader
from trainer.plan import Dispatch, Plan, Tensor

Shader = tuple[str, str, str]  # what a kernel is called in messages, its entry point, its WGSL module
Group = tuple[int, tuple[tuple[int, int, int, int], ...]]  # pipeline, and its `_entries`


class DeviceLost(DeviceError):
    """The GPU went away: the driver was reset, the browser took it back, memory ran out. What was on it is
    gone; another device may be opened, and a run continued from its last save.
    """


class BrowserDevice:
    """The GPU that gpu.js opened: with f16, subgroups and a clock where it has them, and with no limit beyond
    the defaults.
    """

    def __init__(self, gpu: Any) -> None:
        self.gpu = gpu
        known = json.loads(gpu.describe())
        lists = {name: tuple(known[name]) for name in ("features", "enabled")}
        self.info = DeviceInfo(**{**known, **lists})

    async def compile(
        self, plan: Plan, on_event: Reader | None = None, programs: Iterable[str] | None = None
    ) -> BrowserExecutable:
        check_fits(plan, self.info)
        with _typed_errors():
            executable = BrowserExecutable(plan, await self.gpu.allocate(json.dumps(plan.buffers)))
        try:
            await executable.compile(plan.programs if programs is None else programs, on_event)
        except BaseException:
            executable.close()
            raise
        return executable

    async def lost(self) -> DeviceLost:
        """Waits until the GPU is lost, however long that takes, and says why. Nothing need be running."""
        error = await self.gpu.lost
        return DeviceLost(error.problem, error.remedy)


class BrowserExecutable:
    """A plan on the browser's GPU. After the GPU's loss, every call raises DeviceLost."""

    def __init__(self, plan: Plan, replay: Any) -> None:
        self.plan = plan
        self.replay = replay
        self.flat = FlatPlan(plan)

    async def compile(self, programs: Iterable[str], on_event: Reader | None = None) -> None:
        missing = [name for name in programs if name not in self.flat.programs]
        if not missing:
            return

        def progress(done: int, total: int) -> None:
            if on_event:
                on_event(Progress("compile", done, total, "kernels"))

        flat, lacking = self.flat.adding(missing)
        with _typed_errors():
            await self.replay.compile(json.dumps(lacking), progress)
        self.flat = flat

    def run(self, programs: Iterable[str], submit_every: int = 0) -> None:
        with _typed_errors():
            self.replay.run(" ".join(programs), submit_every)

    async def times(self, program: str, repeats: int = 1) -> list[float]:
        with _typed_errors():
            return json.loads(await self.replay.times(program, repeats))

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


@dataclass(frozen=True)
class FlatPlan:
    """Which programs of a plan gpu.js has, and under which numbers it has their pipelines and bind groups."""

    plan: Plan
    programs: frozenset[str] = frozenset()
    pipelines: Mapping[Shader, int] = field(default_factory=dict)
    groups: Mapping[Group, int] = field(default_factory=dict)

    def adding(self, programs: Iterable[str]) -> tuple[FlatPlan, dict[str, Any]]:
        """The flat plan with these programs, too, and what gpu.js lacks of them: shader modules, bind groups,
        and programs as lists of (pipeline, group, x, y, z). What several dispatches share is there once.
        """
        pipelines, groups = dict(self.pipelines), dict(self.groups)
        flat: dict[str, list[int]] = {name: [] for name in programs}
        for name, numbers in flat.items():
            for dispatch in self.plan.programs[name].dispatches:
                pipeline = pipelines.setdefault(shader(dispatch), len(pipelines))
                group = groups.setdefault((pipeline, _entries(self.plan, dispatch)), len(groups))
                numbers += (pipeline, group, *dispatch.grid)
        lacking = {
            "pipelines": [
                {"kernel": kernel, "entry": entry, "code": code}
                for kernel, entry, code in list(pipelines)[len(self.pipelines) :]
            ],
            "groups": [
                {"pipeline": pipeline, "entries": entries}
                for pipeline, entries in list(groups)[len(self.groups) :]
            ],
            "programs": flat,
        }
        return FlatPlan(self.plan, self.programs | set(flat), pipelines, groups), lacking


def shader(dispatch: Dispatch) -> Shader:
    """What a kernel is called in messages, its entry point, and its WGSL module."""
    return f"{dispatch.variant}.{dispatch.entry}", dispatch.entry, dispatch.code


def _entries(plan: Plan, dispatch: Dispatch) -> tuple[tuple[int, int, int, int], ...]:
    """(binding number, buffer, offset, size) of what a dispatch binds."""
    numbers = kernels.bindings(dispatch.variant, dispatch.entry)
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
