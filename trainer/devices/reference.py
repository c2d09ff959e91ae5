"""The reference device: the same plan, interpreted with NumPy twins of the kernels.

In float64 it is the oracle of the kernel tests; in float32 the CPU baseline that the post talks about. It
keeps to the plan's placement of tensors, so a mistake in memory planning shows here too.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np

from trainer.devices import DeviceInfo, check_fits
from trainer.events import Reader
from trainer.plan import Dispatch, Plan, Tensor


class ReferenceDevice:
    """NumPy on this computer, with `bits` (32 or 64) a float."""

    def __init__(self, bits: int = 64) -> None:
        self.bits = bits
        self.info = DeviceInfo(
            name=f"NumPy float{bits} on {platform.processor() or platform.machine()}",
            backend="numpy",
            kind="CPU",
            software=True,
            driver=f"numpy {np.__version__}",
        )

    async def compile(
        self, plan: Plan, on_event: Reader | None = None, programs: Iterable[str] | None = None
    ) -> ReferenceExecutable:
        check_fits(plan, self.info)
        executable = ReferenceExecutable(plan, np.float64 if self.bits == 64 else np.float32)
        await executable.compile(plan.programs if programs is None else programs)
        return executable


class ReferenceExecutable:
    """A plan's buffers as NumPy arrays: one of floats and one of u32 for each, made when first touched."""

    def __init__(self, plan: Plan, dtype: Any) -> None:
        self.plan = plan
        self.dtype = dtype
        self._arrays: dict[tuple[int, str], np.ndarray] = {}
        self._programs: dict[str, list[Callable[[], None]]] = {}

    async def compile(self, programs: Iterable[str], on_event: Reader | None = None) -> None:
        for name in programs:
            self._programs[name] = [self._bind(dispatch) for dispatch in self.plan.programs[name].dispatches]

    def _bind(self, dispatch: Dispatch) -> Callable[[], None]:
        function = twin(dispatch.kernel)
        arrays = {name: self.array(tensor) for name, tensor in dispatch.bindings.items()}
        k = SimpleNamespace(**dispatch.constants)
        return lambda: function(k, **arrays)

    def array(self, tensor: Tensor) -> np.ndarray:
        """The tensor's values, flat: a view, so that writing to it writes the tensor."""
        buffer, offset, size = self.plan.place(tensor)
        key = (buffer, tensor.dtype)
        if key not in self._arrays:
            dtype = self.dtype if tensor.dtype == "f32" else np.uint32
            self._arrays[key] = np.zeros(self.plan.buffers[buffer] // 4, dtype)
        return self._arrays[key][offset // 4 : (offset + size) // 4]

    def run(self, programs: Iterable[str], submit_every: int = 0) -> None:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for name in programs:
                for call in self._programs[name]:
                    call()

    async def write(self, tensor: Tensor, data: bytes | bytearray | memoryview) -> None:
        array = self.array(tensor)
        array[:] = np.frombuffer(data, np.float32 if tensor.dtype == "f32" else np.uint32)

    async def read(self, tensor: Tensor) -> memoryview:
        array = self.array(tensor)
        return memoryview(array.astype(np.float32 if tensor.dtype == "f32" else np.uint32).tobytes())

    async def finish(self) -> None:
        """Nothing is ever under way: `run` returns when the work is done."""

    def close(self) -> None:
        self._arrays, self._programs = {}, {}


@cache
def twin(kernel: str) -> Callable[..., None]:
    """The NumPy twin of a kernel: `trainer/devices/twins/<op>.py` has a function for each entry point."""
    op, entry = kernel.split(".")
    return getattr(import_module(f"trainer.devices.twins.{op}"), entry)
