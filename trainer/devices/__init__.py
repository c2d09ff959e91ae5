"""Devices run plans. All of them speak one asynchronous protocol; natively `asyncio.run` drives it.

native     wgpu-py on Vulkan, Metal or DX12, or `wgpudawn`, the same API on Dawn
reference  the same plan interpreted by NumPy twins of the kernels, in float32 or float64
(the page brings its own: the browser's WebGPU)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from trainer.errors import DeviceError
from trainer.events import Reader
from trainer.kernels import HALF, MatrixUnits, Tuning, needs
from trainer.plan import Plan, Tensor


@dataclass(frozen=True)
class DeviceInfo:
    """What is known of a device. `software` means that a CPU does the work of the GPU."""

    name: str
    backend: str  # "Vulkan", "Metal", "D3D12", "numpy", ...
    kind: str  # "DiscreteGPU", "IntegratedGPU", "CPU", ...
    software: bool
    driver: str = ""
    features: tuple[str, ...] = ()
    limits: dict[str, int] = field(default_factory=dict)
    memory: int | None = None  # bytes that a model may take, where that is known
    enabled: tuple[str, ...] = ()  # features that it is opened with: what kernels may use
    units: MatrixUnits = field(default_factory=MatrixUnits)  # of its matrix units, if they are among them
    answers: Mapping[str, str] = field(default_factory=dict)  # measured choices of kernels, for its plans
    clock: bool = False  # whether `Executable.times` asks the GPU's own clock, by timestamp queries

    @property
    def tuning(self) -> Tuning:
        """Which kernel variants suit this device."""
        return Tuning(
            software=self.software,
            features=frozenset(self.enabled),
            units=self.units,
            answers=self.answers,
        )

    def summary(self) -> dict[str, str | bool]:
        """The part that reports and logs keep."""
        return {
            "name": self.name,
            "backend": self.backend,
            "kind": self.kind,
            "driver": self.driver,
            "software": self.software,
        }


class Executable(Protocol):
    """A plan on a device: its buffers exist (zeroed), and the programs that were compiled can be run."""

    plan: Plan

    async def compile(self, programs: Iterable[str], on_event: Reader | None = None) -> None:
        """Make the pipelines of these programs, where that was not done yet. Raises DeviceError."""
        ...

    async def write(self, tensor: Tensor, data: bytes | bytearray | memoryview) -> None:
        """Copy `data`, little-endian f32, f16 or u32 of the tensor's size, into the tensor."""
        ...

    async def read(self, tensor: Tensor) -> memoryview:
        """The tensor's bytes, once all work submitted so far is done. Work submitted later goes on."""
        ...

    def run(self, programs: Iterable[str], submit_every: int = 0) -> None:
        """Submit these programs and return at once; in pieces of `submit_every` dispatches, if given."""
        ...

    async def times(self, program: str, repeats: int = 1) -> list[float]:
        """Seconds that each dispatch of a compiled program takes, in their order: `repeats` launches of it,
        one after the other, divided. By the GPU's own clock where `info.clock` says so, else by the wall
        clock, the wait for the device included. A browser rounds the GPU's clock to 0.1 ms, so give it
        enough repeats. The launches change tensors as those of `run` do.
        """
        ...

    async def finish(self) -> None:
        """Wait until all submitted work is done."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


class Device(Protocol):
    """Something that compiles plans."""

    info: DeviceInfo

    async def compile(
        self, plan: Plan, on_event: Reader | None = None, programs: Iterable[str] | None = None
    ) -> Executable:
        """Make buffers, and the pipelines of `programs`: without any named, of all that the plan has.

        Raises DeviceError when the device cannot hold them.
        """
        ...


async def open_device(name: str = "auto") -> Device:
    """The device called `name`.

    "auto" is the best GPU: discrete before integrated before software. "reference" and "reference64" are
    NumPy in float32 and float64. "dawn" is the best GPU through Dawn. A number is an adapter as
    `trainer devices` counts them, other text a part of an adapter's name. Raises DeviceError.
    """
    if name in ("reference", "reference64"):
        from trainer.devices.reference import ReferenceDevice

        return ReferenceDevice(64 if name.endswith("64") else 32)
    from trainer.devices.native import open_native

    return await open_native(name)


def check_fits(plan: Plan, info: DeviceInfo) -> None:
    """Raise DeviceError, before anything is allocated, when `info`'s device cannot hold the plan."""
    asked = {kernel: features - set(info.enabled) for kernel, features in _features(plan).items()}
    for kernel, missing in asked.items():
        if missing:
            raise DeviceError(
                f"{kernel} takes {', '.join(sorted(missing))}, which {info.name} does not give",
                "use precision f32, or another device",
            )
    largest = max(plan.buffers, default=0)
    limit = info.limits.get("max-buffer-size", largest)
    if largest > limit:
        raise DeviceError(
            f"the model needs a buffer of {largest >> 20:,} MiB, {info.name} allows {limit >> 20:,}",
            "choose a smaller model or batch",
        )
    if info.memory is not None and plan.nbytes > info.memory:
        raise DeviceError(
            f"the model needs {plan.nbytes >> 20:,} MiB, {info.name} has {info.memory >> 20:,} MiB free",
            "choose a smaller preset, --batch or --context",
        )


def _features(plan: Plan) -> dict[str, frozenset[str]]:
    """Kernel → the features that its dispatches take."""
    found: dict[str, frozenset[str]] = {}
    for program in plan.programs.values():
        for dispatch in program.dispatches:
            half = any(tensor.dtype == "f16" for tensor in dispatch.bindings.values())
            features = needs(dispatch.variant).features | ({HALF} if half else set())
            name = f"{dispatch.variant}.{dispatch.entry}"
            found[name] = found.get(name, frozenset()) | features
    return found
