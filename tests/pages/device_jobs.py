"""What the page of the device's tests can be told to do. Runs in Pyodide; arguments and results are JSON."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import pickle
import sys
from dataclasses import replace
from typing import Any

import device_measure
import device_training
import device_worker  # pyright: ignore[reportMissingImports]
from pyodide.ffi import create_proxy  # pyright: ignore[reportMissingImports]

from demo.device import BrowserDevice, BrowserExecutable, DeviceLost
from trainer.config import ModelConfig, TrainConfig
from trainer.devices.subgroups import tried
from trainer.errors import DeviceError
from trainer.events import Progress
from trainer.plan import Plan, Tensor
from trainer.tune import questions
from trainer.tune import tune as answer

device = BrowserDevice(device_worker.gpu)
executables: dict[int, BrowserExecutable] = {}


async def call(name: str, argument: str) -> str:
    """Run the job called `name`."""
    return json.dumps(await JOBS[name](**json.loads(argument)))


async def info() -> dict[str, Any]:
    await tried(device)
    known = {name: getattr(device.info, name) for name in ("features", "limits", "enabled", "clock")}
    return {**device.info.summary(), **known, "problems": list(device_worker.problems)}


async def train(**job: Any) -> dict[str, Any]:
    return await device_training.train(device, job)


async def measure(model: dict[str, Any], train: dict[str, Any], megabytes: int) -> dict[str, float]:
    return await device_measure.measure(device, ModelConfig(**model), TrainConfig(**train), megabytes)


async def tune(model: dict[str, Any], train: dict[str, Any], key: str) -> dict[str, Any]:
    """What the autotuner finds of a question, if it takes this device for a GPU."""
    tuning = replace(device.info.tuning, software=False)
    asked = questions(ModelConfig(**model), TrainConfig(**train), tuning)
    wanted = [one for one in asked if one.question.key == key]
    (finding,) = [finding async for finding in answer(device, wanted, 60.0)]
    return {
        "default": finding.default.variant,
        "winner": finding.winner.variant,
        "seconds": finding.seconds,
        "refused": finding.refused,
    }


# ---------------------------------------------------------------- plans that a test made natively


async def compile_plan(plan: str) -> int:
    """Compile a pickled plan; the number under which the other jobs find it."""
    handle = max(executables, default=0) + 1
    executables[handle] = await device.compile(pickle.loads(base64.b64decode(plan)))
    return handle


async def write(handle: int, tensor: str, data: str) -> None:
    executable = executables[handle]
    await executable.write(executable.plan.tensors[tensor], base64.b64decode(data))


async def run(handle: int, programs: list[str], submit_every: int) -> None:
    executables[handle].run(programs, submit_every)


async def read(handle: int, tensor: str) -> str:
    executable = executables[handle]
    return base64.b64encode(await executable.read(executable.plan.tensors[tensor])).decode()


async def times(handle: int, program: str, repeats: int) -> list[float]:
    return await executables[handle].times(program, repeats)


async def finish(handle: int) -> None:
    await executables[handle].finish()


async def close(handle: int) -> None:
    executables.pop(handle).close()


async def clock(there: bool) -> None:
    """Whether the GPU is to be timed by its own clock."""
    device_worker.gpu.info.clock = there


async def refusals(modules: list[dict[str, str]]) -> list[str]:
    """What the browser's compiler says against these kernels."""
    return json.loads(await device_worker.refusals(json.dumps(modules)))


# ---------------------------------------------------------------- bytes and their order


def fill(**programs: dict[str, Any]) -> tuple[Plan, Tensor]:
    """A plan of programs that each set a tensor of 64 numbers, by the constants of `random.fill`."""
    plan = Plan()
    out = plan.tensor("out", (64,), role="state")
    for name, constants in programs.items():
        with plan.program(name):
            plan.dispatch("random.fill", grid=(1, 1, 1), constants=constants, out=out)
    plan.finish()
    return plan, out


async def order() -> list[float]:
    """What reads find that are under way while more work is queued: what was queued before them."""
    programs = {f"fill{i}": {"N": 64, "VALUE": float(i)} for i in range(8)}
    plan, out = fill(**programs)
    executable = await device.compile(plan)
    readings = []
    for name in programs:
        executable.run([name])
        readings.append(asyncio.create_task(executable.read(out)))
        await asyncio.sleep(0)
    executable.run([])  # nothing, which is allowed
    values = [(await reading).cast("f")[63] for reading in readings]
    executable.close()
    return values


async def round_trip(size: int) -> bool:
    """Whether `size` bytes come back as they went, from each kind of bytes that the trainer writes."""
    plan = Plan()
    tensor = plan.tensor("tensor", (size // 4,), "u32", "state")
    plan.finish()
    executable = await device.compile(plan)
    pattern = bytes(i * 37 % 251 for i in range(4093))
    same = True
    for shift in range(3):
        data = (pattern[shift:] * (size // 4000 + 1))[:size]
        kinds = (data, bytearray(data), memoryview(data).cast("I"))
        await executable.write(tensor, kinds[shift])
        same = same and await executable.read(tensor) == data
    executable.close()
    return same


async def growth() -> int:
    """Blocks of Python's memory that 200 rounds of writing, running and reading leave behind."""
    plan, out = fill(fill={"N": 64, "VALUE": 1.0})
    executable = await device.compile(plan)
    values = bytes(256)

    async def rounds(count: int) -> int:
        for _ in range(count):
            await executable.write(out, values)
            executable.run(["fill"] * 3, submit_every=2)
            await executable.read(out)
        gc.collect()
        return sys.getallocatedblocks()

    before = await rounds(20)
    grown = await rounds(200) - before
    executable.close()
    return grown


# ---------------------------------------------------------------- what goes wrong


async def compile_errors() -> dict[str, str]:
    """What is said of a shader that does not compile, of a buffer over the limit, and of one over memory."""
    broken, _ = fill(fill={"VALUE": 1.0})  # N is missing
    huge, _ = fill(fill={"N": 64, "VALUE": 1.0})
    huge.buffers[0] = 1 << 40
    unlimited = BrowserDevice(device_worker.gpu)
    unlimited.info = replace(device.info, limits={})
    return {
        "shader": await _error(device.compile(broken)),
        "limit": await _error(device.compile(huge)),
        "memory": await _error(unlimited.compile(huge)),
    }


async def lose() -> dict[str, Any]:
    """What every call says once the device is lost, and one that is under way then; and a GPU opened anew."""
    other = BrowserDevice(await device_worker.openGpu())
    plan, out = fill(fill={"N": 64, "VALUE": 2.5})
    executable = await other.compile(plan)
    executable.run(["fill"])
    values = list((await executable.read(out)).cast("f"))
    reading = asyncio.create_task(executable.read(out))
    await asyncio.sleep(0)  # its copy is under way
    other.gpu.close()

    async def run() -> None:
        executable.run(["fill"])

    said = [await _error(reading, DeviceLost), (await other.lost()).problem]
    for coroutine in (run(), executable.read(out), executable.write(out, bytes(256)), executable.finish()):
        said.append(await _error(coroutine, DeviceLost))
    said.append(await _error(other.compile(plan), DeviceLost))
    executable.close()
    return {"values": values, "said": said}


async def go_wrong() -> dict[str, Any]:
    """An error that no call can throw: who hears of it, and what the next call says."""
    heard: list[str] = []
    listener = create_proxy(heard.append)
    gpu = await device_worker.openGpu(listener)
    plan, out = fill(fill={"N": 64, "VALUE": 1.0})
    executable = await BrowserDevice(gpu).compile(plan)
    executable.replay.write(0, 1 << 20, bytes(4))  # behind the buffer's end
    said = [await _error(executable.finish()), await _error(executable.read(out))]
    gpu.close()
    listener.destroy()
    return {"heard": heard, "said": said}


async def progress() -> list[list[Any]]:
    """The events of a compilation."""
    events: list[Progress] = []
    plan, _ = fill(fill={"N": 64, "VALUE": 1.0})
    (await device.compile(plan, events.append)).close()  # pyright: ignore[reportArgumentType]
    return [[event.stage, event.done, event.total] for event in events]


async def _error(coroutine: Any, kind: type[DeviceError] = DeviceError) -> str:
    try:
        await coroutine
    except kind as error:
        return str(error)
    return "no error"


_NATIVE = (compile_plan, write, run, read, times, clock, finish, close, refusals)
_OWN = (info, train, measure, tune, order, round_trip, growth, compile_errors, lose, go_wrong, progress)
JOBS = {job.__name__: job for job in (*_NATIVE, *_OWN)}
