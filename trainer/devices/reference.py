"""The reference device: the same plan, interpreted with NumPy twins of the kernels.

In float64 it is the oracle of the kernel tests; in float32 the CPU baseline that the post talks about. It
keeps to the plan's placement of tensors, so a mistake in memory planning shows here too, but for one between
tensors of different dtypes: each dtype has memory of its own.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np

from trainer.devices import DeviceInfo, check_fits
from trainer.events import Reader
from trainer.kernels import HALF, NEEDS, binding_modes
from trainer.plan import ITEM_SIZE, Dispatch, Plan, Tensor

STORED: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "u32": np.uint32}


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
            enabled=tuple({HALF}.union(*(needs.features for needs in NEEDS.values()))),
        )

    async def compile(
        self, plan: Plan, on_event: Reader | None = None, programs: Iterable[str] | None = None
    ) -> ReferenceExecutable:
        check_fits(plan, self.info)
        executable = ReferenceExecutable(plan, np.float64 if self.bits == 64 else np.float32)
        await executable.compile(plan.programs if programs is None else programs)
        return executable


class ReferenceExecutable:
    """A plan's buffers as NumPy arrays: one of each dtype for each, made when first touched.

    f16 tensors hold float16; twins compute with a copy in the device's own precision, and what they write is
    rounded, as the kernels do it.
    """

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
        halves = {name: array for name, array in arrays.items() if array.dtype == np.float16}
        if not halves:
            return lambda: function(k, **arrays)
        modes = binding_modes(dispatch.variant, dispatch.entry)

        def call() -> None:
            wide = {name: array.astype(self.dtype) for name, array in halves.items()}
            function(k, **{**arrays, **wide})
            for name, array in halves.items():
                if modes[name] == "read_write":
                    array[:] = wide[name]

        return call

    def array(self, tensor: Tensor) -> np.ndarray:
        """The tensor's values, flat: a view, so that writing to it writes the tensor."""
        buffer, offset, _ = self.plan.place(tensor)
        key = (buffer, tensor.dtype)
        item = ITEM_SIZE[tensor.dtype]
        if key not in self._arrays:
            dtype = self.dtype if tensor.dtype == "f32" else STORED[tensor.dtype]
            self._arrays[key] = np.zeros(self.plan.buffers[buffer] // item, dtype)
        return self._arrays[key][offset // item : offset // item + tensor.size]

    def run(self, programs: Iterable[str], submit_every: int = 0) -> None:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for name in programs:
                for call in self._programs[name]:
                    call()

    async def times(self, program: str, repeats: int = 1) -> list[float]:
        seconds: list[float] = []
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for call in self._programs[program]:
                began = time.perf_counter()
                for _ in range(repeats):
                    call()
                seconds.append((time.perf_counter() - began) / repeats)
        return seconds

    async def write(self, tensor: Tensor, data: bytes | bytearray | memoryview) -> None:
        array = self.array(tensor)
        array[:] = np.frombuffer(data, STORED[tensor.dtype])[: array.size]

    async def read(self, tensor: Tensor) -> memoryview:
        data = self.array(tensor).astype(STORED[tensor.dtype]).tobytes()
        return memoryview(data.ljust(tensor.nbytes, b"\0"))

    async def finish(self) -> None:
        """Nothing is ever under way: `run` returns when the work is done."""

    def close(self) -> None:
        self._arrays, self._programs = {}, {}


@cache
def twin(kernel: str) -> Callable[..., None]:
    """The NumPy twin of a kernel: `trainer/devices/twins/<op>.py` has a function for each entry point."""
    op, entry = kernel.split(".")
    return getattr(import_module(f"trainer.devices.twins.{op}"), entry)
