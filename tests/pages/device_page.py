"""The page of the device's tests, natively: its jobs as calls, and its GPU as a device of the trainer."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import zipfile
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from browser import WatchedPage, serve, watched
from playwright.sync_api import Browser

from trainer.devices import DeviceInfo
from trainer.events import Reader
from trainer.plan import Plan, Program, Tensor

T = TypeVar("T")

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


class Jobs:
    """What device_jobs.py can do, called from here."""

    def __init__(self, page: WatchedPage) -> None:
        self.page = page

    def __call__(self, name: str, **argument: Any) -> Any:
        request = [name, json.dumps(argument)]
        return json.loads(self.page.evaluate("([name, argument]) => call(name, argument)", request))


@contextmanager
def open_jobs(browser: Browser, folder: Path) -> Iterator[Jobs]:
    """The page, open; `folder` is an empty one. What the console says against it is an error at the end."""
    with zipfile.ZipFile(folder / "sources.zip", "w") as archive:
        for pattern in ("trainer/**/*.py", "demo/*.py", "shaders/*.wgsl"):
            for path in ROOT.glob(pattern):
                archive.write(path, path.relative_to(ROOT))
        for name in ("device_jobs.py", "device_measure.py", "device_training.py"):
            archive.write(HERE / name, name)
    modules = {"pyodide/": ROOT / "node_modules" / "pyodide", "demo/": ROOT / "demo", "sources/": folder}
    with serve(HERE, folders=modules) as base, watched(browser) as page:
        page.goto(base + "device.html")
        yield Jobs(page)
        page.watch.assert_clean()


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing. (asyncio.run fails while Playwright's loop runs.)"""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")


class PageDevice:
    """The page's GPU behind the trainer's protocol, so that a test of native devices runs on it as it is."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        known = {name: value for name, value in jobs("info").items() if name != "problems"}
        self.info = DeviceInfo(**{**known, "enabled": tuple(known["enabled"])})

    async def compile(
        self, plan: Plan, on_event: Reader | None = None, programs: Iterable[str] | None = None
    ) -> PageExecutable:
        """Compiles all programs, whichever are named."""
        data = copy.copy(plan)  # without what it asked of its tuning: functions cannot be sent
        data.programs = {name: Program(name, program.dispatches) for name, program in plan.programs.items()}
        handle = self.jobs("compile_plan", plan=base64.b64encode(pickle.dumps(data)).decode())
        return PageExecutable(self.jobs, plan, handle)


class PageExecutable:
    def __init__(self, jobs: Jobs, plan: Plan, handle: int) -> None:
        self.jobs = jobs
        self.plan = plan
        self.handle = handle

    async def compile(self, programs: Iterable[str], on_event: Reader | None = None) -> None:
        """Everything is compiled from the beginning."""

    async def write(self, tensor: Tensor, data: bytes | bytearray | memoryview) -> None:
        self.jobs("write", handle=self.handle, tensor=tensor.name, data=base64.b64encode(data).decode())

    async def read(self, tensor: Tensor) -> memoryview:
        data = self.jobs("read", handle=self.handle, tensor=tensor.name)
        return memoryview(base64.b64decode(data))

    def run(self, programs: Iterable[str], submit_every: int = 0) -> None:
        self.jobs("run", handle=self.handle, programs=list(programs), submit_every=submit_every)

    async def times(self, program: str, repeats: int = 1) -> list[float]:
        return self.jobs("times", handle=self.handle, program=program, repeats=repeats)

    async def finish(self) -> None:
        self.jobs("finish", handle=self.handle)

    def close(self) -> None:
        self.jobs("close", handle=self.handle)
