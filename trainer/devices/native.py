"""The native device: WebGPU through wgpu-py, or through `wgpudawn`, the same API on Dawn."""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from trainer import kernels
from trainer.devices import DeviceInfo, check_fits
from trainer.devices.subgroups import tried
from trainer.errors import DeviceError
from trainer.events import Progress, Reader
from trainer.kernels import HALF, MATRIX_UNITS, SUBGROUPS, Constant, MatrixUnits, needs
from trainer.plan import MAX_BINDING, MAX_BINDINGS, MAX_BUFFER, MAX_GRID, Dispatch, Plan, Tensor

KINDS = {"DiscreteGPU": 0, "IntegratedGPU": 1, "Unknown": 2, "CPU": 3}  # in order of preference
WRITE_CHUNK = 64 << 20  # bytes of one queue.write_buffer
CLOCK = "timestamp-query"  # the feature that times work on the GPU
CLOCKED = 2048  # dispatches that are timed at once: WebGPU's most queries of a set, two a dispatch

Ready = tuple[Any, Any, int, int, int]  # the library's handles of pipeline and bind group, and the grid
Kernel = tuple[str, str, tuple[tuple[str, Constant], ...], tuple[tuple[str, str], ...]]


def list_adapters(dawn: bool = False) -> list[Any]:
    """All adapters, the one that "auto" means first. Raises DeviceError when wgpu itself cannot start."""
    wgpu = _wgpu(dawn)
    try:
        adapters = wgpu.gpu.enumerate_adapters_sync()
    except Exception as error:
        raise DeviceError(f"wgpu cannot list GPUs ({error})", _driver_remedy()) from error
    adapters = [adapter for adapter in adapters if adapter.info["backend_type"] not in ("OpenGL", "OpenGLES")]
    return sorted(adapters, key=lambda adapter: KINDS.get(adapter.info["adapter_type"], 2))


def describe(adapter: Any, dawn: bool = False) -> DeviceInfo:
    """What is known of an adapter, and the features that NativeDevice opens it with."""
    info = adapter.info
    software = info["adapter_type"] == "CPU"
    units = _matrix_units(adapter) if dawn else None
    wanted = {HALF, SUBGROUPS} | (needs("matmul_units").features if units else set())
    features = set(map(_webgpu_name, adapter.features))
    return DeviceInfo(
        name=info["device"],
        backend=info["backend_type"],
        kind=info["adapter_type"],
        software=software,
        driver=info["description"],
        features=tuple(sorted(features)),
        limits={name: int(value) for name, value in adapter.limits.items()},
        memory=_free_memory() if software else None,
        enabled=tuple(sorted(wanted & features)),
        units=units or MatrixUnits(),
        clock=CLOCK in adapter.features,
    )


def _webgpu_name(feature: str) -> str:
    """What WebGPU calls a feature of wgpu-native or Dawn."""
    return SUBGROUPS if feature == "subgroup" else feature


async def open_native(name: str = "auto") -> NativeDevice:
    """The adapter called `name` (see `trainer.devices.open_device`)."""
    dawn = name == "dawn"
    return await tried(NativeDevice(_adapter(name, list_adapters(dawn)), dawn))


def _adapter(name: str, adapters: list[Any]) -> Any:
    """The one of `adapters` that is called `name`. Raises DeviceError if there is none."""
    if not adapters:
        raise DeviceError("no GPU adapter was found", _driver_remedy())
    if name in ("auto", "dawn"):
        return adapters[0]
    if name.isdecimal() and int(name) < len(adapters):
        return adapters[int(name)]
    for adapter in adapters:
        if not name.isdecimal() and name.lower() in adapter.info["device"].lower():
            return adapter
    known = ", ".join(f"{i} ({adapter.info['device']})" for i, adapter in enumerate(adapters))
    raise DeviceError(f"no device {name!r}", f"choose auto, reference, dawn, or one of {known}")


# WebGPU's default limits: asked for by name, since wgpu-py otherwise gives all that the adapter has. What a
# plan needs here it then needs in a page, too.
DEFAULT_LIMITS = {
    "max-buffer-size": MAX_BUFFER,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-compute-workgroup-size-y": 256,
    "max-compute-workgroup-size-z": 64,
    "max-compute-workgroup-storage-size": 16 << 10,
    "max-compute-workgroups-per-dimension": MAX_GRID,
    "max-storage-buffer-binding-size": MAX_BINDING,
    "max-storage-buffers-per-shader-stage": MAX_BINDINGS,
}


UNITS_WORKGROUP_BYTES = 24 << 10  # what the kernels on matrix units may take of workgroup memory


# naga has subgroups without the line that asks for them, which it refuses, and does not analyse uniformity.
NAGA_LACKS = re.compile(r"^(?:enable subgroups|diagnostic\(off, subgroup_uniformity\));\n", re.MULTILINE)


class NativeDevice:
    """A WebGPU device. Asks for f16, subgroups, matrix units and a clock where there are some, and for no
    limit beyond the defaults but what matrix units take.
    """

    def __init__(self, adapter: Any, dawn: bool = False) -> None:
        self.wgpu = _wgpu(dawn)
        self.dawn = dawn
        backend: Any = importlib.import_module(
            "wgpudawn.backends.dawn._api" if dawn else "wgpu.backends.wgpu_native._api"
        )
        self.lib, self.ffi = backend.lib, backend.ffi
        self.info = describe(adapter, dawn)
        limits = dict(DEFAULT_LIMITS)
        if MATRIX_UNITS in self.info.enabled:
            limits["max-compute-workgroup-storage-size"] = UNITS_WORKGROUP_BYTES
        wanted = {*self.info.enabled, *([CLOCK] if self.info.clock else [])}
        try:
            self.device = adapter.request_device_sync(
                required_features=[name for name in adapter.features if _webgpu_name(name) in wanted],
                required_limits=limits,
            )
        except Exception as error:
            raise DeviceError(f"{self.info.name} gives no device ({error})", "try another") from error

    @property
    def tick(self) -> float:
        """Seconds of the GPU's clock: Dawn has made nanoseconds of its own unit."""
        return 1e-9 * (1 if self.dawn else self.lib.wgpuQueueGetTimestampPeriod(self.device.queue._internal))

    async def compile(
        self, plan: Plan, on_event: Reader | None = None, programs: Iterable[str] | None = None
    ) -> NativeExecutable:
        check_fits(plan, self.info)
        executable = NativeExecutable(self, plan)
        await executable.compile(plan.programs if programs is None else programs, on_event)
        return executable

    def module(self, code: str) -> Any:
        """A shader module. Where wgpu-native allows it, without the bounds checks that it would write into
        the code (14% of a matmul on an H100): the kernels are ours, are tested, and the driver still checks.
        """
        if self.dawn:
            return self.device.create_shader_module(code=code)
        code = NAGA_LACKS.sub("", code)
        _api: Any = importlib.import_module("wgpu.backends.wgpu_native._api")
        ffi, lib = _api.ffi, _api.lib
        source: Any = _api.new_struct_p("WGPUShaderSourceWGSL *", code=_api.to_c_string_view(code))
        source[0].chain.next = ffi.NULL
        source[0].chain.sType = lib.WGPUSType_ShaderSourceWGSL
        descriptor = _api.new_struct_p(
            "WGPUShaderModuleDescriptor *",
            nextInChain=ffi.cast("WGPUChainedStruct *", source),
            label=_api.to_c_string_view("kernel"),
        )
        module = _api.libf.wgpuDeviceCreateShaderModuleTrusted(self.device._internal, descriptor, 0)
        return _api.GPUShaderModule("kernel", module, self.device)


def _encode(lib: Any, encoding: Any, ready: list[Ready], no_offsets: Any = None) -> None:
    """Dispatches into a compute pass. They go to the library itself: wgpu-py's methods take three times as
    long, and what they would check is checked when the encoder finishes.
    """
    set_pipeline = lib.wgpuComputePassEncoderSetPipeline
    set_bind_group = lib.wgpuComputePassEncoderSetBindGroup
    dispatch_workgroups = lib.wgpuComputePassEncoderDispatchWorkgroups
    current = None
    for pipeline, group, x, y, z in ready:
        if pipeline is not current:
            set_pipeline(encoding, pipeline)
            current = pipeline
        set_bind_group(encoding, 0, group, 0, no_offsets)
        dispatch_workgroups(encoding, x, y, z)  # as *grid, the loop takes 1.4 times as long


def _kernel(dispatch: Dispatch) -> Kernel:
    """What dispatches have in common that one compiled kernel serves."""
    dtypes = tuple(sorted((name, tensor.dtype) for name, tensor in dispatch.bindings.items()))
    return dispatch.variant, dispatch.entry, tuple(sorted(dispatch.constants.items())), dtypes


class _Nothing:
    """In place of the library: all its functions, which do nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


class NativeExecutable:
    """A plan on a WebGPU device: buffers, pipelines and bind groups are made once and replayed."""

    def __init__(self, device: NativeDevice, plan: Plan) -> None:
        self.plan = plan
        self.device = device
        self.gpu = device.device
        usage = device.wgpu.BufferUsage
        flags = usage.STORAGE | usage.COPY_SRC | usage.COPY_DST
        try:
            self.buffers = [self.gpu.create_buffer(size=size, usage=flags) for size in plan.buffers]
        except Exception as error:
            raise DeviceError(
                f"{device.info.name} cannot hold {plan.nbytes / 2**20:,.0f} MiB ({error})",
                "choose a smaller preset, --batch or --context",
            ) from error
        self._pipelines: dict[Kernel, Any] = {}
        self._groups: dict[Any, Any] = {}
        self._programs: dict[str, list[Ready]] = {}

    async def compile(self, programs: Iterable[str], on_event: Reader | None = None) -> None:
        missing = {
            name: [(_kernel(dispatch), dispatch) for dispatch in self.plan.programs[name].dispatches]
            for name in programs
            if name not in self._programs
        }
        self._compile(dict(pair for pairs in missing.values() for pair in pairs), on_event)
        for name, pairs in missing.items():
            ready: list[Ready] = []
            for kernel, dispatch in pairs:
                pipeline = self._pipelines[kernel]
                group = self._group(dispatch, pipeline)
                ready.append((pipeline._internal, group._internal, *dispatch.grid))
            self._programs[name] = ready

    def _compile(self, dispatches: dict[Kernel, Dispatch], on_event: Reader | None) -> None:
        """The kernels that are not compiled yet, several at once: a driver may take half a second for one.
        With Dawn one by one, which wants only one thread at a time to have its device.
        """
        wanted = {kernel: one for kernel, one in dispatches.items() if kernel not in self._pipelines}
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            made = (map if self.device.dawn else pool.map)(self._pipeline, wanted.values())
            for done, (kernel, pipeline) in enumerate(zip(wanted, made, strict=True), 1):
                self._pipelines[kernel] = pipeline
                if on_event:
                    on_event(Progress("compile", done, len(wanted), "kernels"))
        finally:
            pool.shutdown(cancel_futures=True)

    def _pipeline(self, dispatch: Dispatch) -> Any:
        try:
            return self.gpu.create_compute_pipeline(
                layout="auto",
                compute={"module": self.device.module(dispatch.code), "entry_point": dispatch.entry},
            )
        except self.device.wgpu.GPUError as error:
            kernel = f"{dispatch.variant}.{dispatch.entry}"
            raise DeviceError(
                f"{self.device.info.name} refuses the kernel {kernel} ({error})",
                "update the graphics driver, or use --device reference",
            ) from error

    def _group(self, dispatch: Dispatch, pipeline: Any) -> Any:
        numbers = kernels.bindings(dispatch.variant, dispatch.entry)
        places = tuple((numbers[name][0], *self.plan.place(t)) for name, t in dispatch.bindings.items())
        key = (id(pipeline), places)
        if key not in self._groups:
            self._groups[key] = self.gpu.create_bind_group(
                layout=pipeline.get_bind_group_layout(0),
                entries=[
                    {"binding": n, "resource": {"buffer": self.buffers[b], "offset": offset, "size": size}}
                    for n, b, offset, size in places
                ],
            )
        return self._groups[key]

    def run(self, programs: Iterable[str], submit_every: int = 0) -> None:
        ready = [dispatch for name in programs for dispatch in self._programs[name]]
        every = submit_every or max(1, len(ready))
        for start in range(0, len(ready), every):
            self._submit(ready[start : start + every])

    def python_seconds(self, programs: Iterable[str]) -> float:
        """Seconds that `run` keeps Python itself busy with these programs, the library's part left out."""
        began = time.thread_time()
        _encode(_Nothing(), None, [dispatch for name in programs for dispatch in self._programs[name]])
        return time.thread_time() - began

    def _submit(self, ready: list[Ready], timestamps: dict[str, Any] | None = None) -> None:
        encoder = self.gpu.create_command_encoder()
        compute = encoder.begin_compute_pass(timestamp_writes=timestamps)
        _encode(self.device.lib, compute._internal, ready, self.device.ffi.NULL)
        compute.end()
        self.gpu.queue.submit([encoder.finish()])

    async def times(self, program: str, repeats: int = 1) -> list[float]:
        ready = self._programs[program]
        if not self.device.info.clock:
            return [await self._wall_time([dispatch] * repeats) / repeats for dispatch in ready]
        seconds: list[float] = []
        for start in range(0, len(ready), CLOCKED):
            seconds += await self._clock_times(ready[start : start + CLOCKED], repeats)
        return seconds

    async def _wall_time(self, ready: list[Ready]) -> float:
        await self.finish()
        began = time.perf_counter()
        self._submit(ready)
        await self.finish()
        return time.perf_counter() - began

    async def _clock_times(self, ready: list[Ready], repeats: int) -> list[float]:
        """A pass, and a submit, for each dispatch: the GPU's clock is read where a pass begins and ends."""
        count, usage = 2 * len(ready), self.device.wgpu.BufferUsage
        queries = self.gpu.create_query_set(type="timestamp", count=count)
        for i, dispatch in enumerate(ready):
            places = {"beginning_of_pass_write_index": 2 * i, "end_of_pass_write_index": 2 * i + 1}
            self._submit([dispatch] * repeats, {"query_set": queries, **places})
        resolved = self.gpu.create_buffer(size=8 * count, usage=usage.QUERY_RESOLVE | usage.COPY_SRC)
        encoder = self.gpu.create_command_encoder()
        encoder.resolve_query_set(queries, 0, count, resolved, 0)
        self.gpu.queue.submit([encoder.finish()])
        ticks = (await self._copy(resolved, 0, 8 * count)).cast("Q")
        resolved.destroy()
        each = self.device.tick / repeats
        return [(end - begin) * each for begin, end in zip(ticks[::2], ticks[1::2], strict=True)]

    async def write(self, tensor: Tensor, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        buffer, offset, size = self.plan.place(tensor)
        if len(view) != size:
            raise ValueError(f"{tensor.name} takes {size} bytes, not {len(view)}")
        for start in range(0, size, WRITE_CHUNK):
            chunk = view[start : start + WRITE_CHUNK]
            self.gpu.queue.write_buffer(self.buffers[buffer], offset + start, chunk)

    async def read(self, tensor: Tensor) -> memoryview:
        buffer, offset, size = self.plan.place(tensor)
        return await self._copy(self.buffers[buffer], offset, size)

    async def _copy(self, buffer: Any, offset: int, size: int) -> memoryview:
        usage = self.device.wgpu.BufferUsage
        staging = self.gpu.create_buffer(size=size, usage=usage.COPY_DST | usage.MAP_READ)
        encoder = self.gpu.create_command_encoder()
        encoder.copy_buffer_to_buffer(buffer, offset, staging, 0, size)
        self.gpu.queue.submit([encoder.finish()])
        mapping = staging.map_async("READ")
        try:
            await mapping
            return staging.read_mapped(copy=True)
        finally:
            staging.destroy()
            with suppress(RuntimeError):  # where a cancelled read ends: while there is a loop to tell
                mapping.sync_wait()

    async def finish(self) -> None:
        # The queue works in order, and wgpu-py 0.32's own way raises a TypeError.
        await self._copy(self.buffers[0], 0, 4)

    def close(self) -> None:
        for buffer in self.buffers:
            buffer.destroy()
        self.buffers, self._pipelines, self._groups, self._programs = [], {}, {}, {}


def _wgpu(dawn: bool) -> Any:
    if dawn:
        try:
            wgpu: Any = importlib.import_module("wgpudawn")
        except ImportError as error:
            raise DeviceError(
                f"Dawn cannot be loaded ({error})", "pip install wgpudawn, or leave out --device dawn"
            ) from error
        _prepare(importlib.import_module("wgpudawn.backends.dawn.extras"), **DAWN_TOGGLES)
        return wgpu
    try:
        import wgpu
        from wgpu.backends.wgpu_native import extras
    except ImportError as error:
        raise DeviceError(
            f"wgpu cannot be loaded ({error})", "pip install wgpu, or use --device reference"
        ) from error
    _prepare(extras)
    return wgpu


# Experimental features (matrix units are one), f16 where Dawn still holds it back, and no bounds checks in
# the shaders, as for wgpu-native: see NativeDevice.module. And the GPU's clock is not rounded to 0.1 ms.
DAWN_TOGGLES = {
    "enable_toggles": ["allow_unsafe_apis", "vulkan_enable_f16_on_nvidia", "disable_robustness"],
    "disable_toggles": ["timestamp_quantization"],
}

_prepared: set[str] = set()


def _prepare(extras: Any, **settings: Any) -> None:
    """Leave OpenGL out, which lacks what the kernels need. Once a process, before the first adapter."""
    if extras.__name__ not in _prepared:
        if sys.platform == "linux":  # without it, Mesa's drivers write to stderr while they look for a screen
            os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
        extras.set_instance_extras(backends=["Vulkan", "Metal", "DX12"], **settings)
        _prepared.add(extras.__name__)


def _matrix_units(adapter: Any) -> MatrixUnits | None:
    """The largest fragments that Dawn's adapter multiplies in f16 and matmul_units.wgsl is made for."""
    if not needs("matmul_units").features <= set(adapter.features):
        return None
    if adapter.limits["max-compute-workgroup-storage-size"] < UNITS_WORKGROUP_BYTES:
        return None
    extras: Any = importlib.import_module("wgpudawn.backends.dawn.extras")
    fragments = [
        MatrixUnits(shape["m"], shape["max_subgroup_size"])
        for shape in extras.get_adapter_properties(adapter).get("subgroup_matrix_configs", ())
        if (shape["component_type"], shape["result_component_type"]) == ("f16", "f32")
        and shape["m"] == shape["n"] == shape["k"]
        and shape["m"] ** 2 == 8 * shape["max_subgroup_size"]
    ]
    return max(fragments, key=lambda units: units.side, default=None)


def _driver_remedy() -> str:
    if sys.platform == "linux":
        return (
            "install a Vulkan driver (Debian and Ubuntu: apt-get install libvulkan1 mesa-vulkan-drivers), "
            "or use --device reference"
        )
    return "update the graphics driver, or use --device reference"


def _free_memory() -> int | None:
    """Bytes of main memory that are free, where the system tells."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
