"""What demo/gpu.js asks of a browser's GPU, and what it keeps of it: with a stand-in adapter, in Node.js."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from trainer.devices import DeviceInfo
from trainer.kernels import HALF, SUBGROUPS

ROOT = Path(__file__).parent.parent
# An adapter that has `features`, and whose device counts what is compiled on it.
STAND_IN = """
const { Gpu, openGpu } = await import("./demo/gpu.js");
globalThis.GPUBufferUsage = { STORAGE: 1, COPY_SRC: 2, COPY_DST: 4 };
const [features, userAgent] = JSON.parse(process.argv[1]);
const asked = [], compiled = [];
const adapter = {
  info: { vendor: "apple", architecture: "m1" },
  features: new Set(features),
  async requestDevice(wanted) {
    asked.push(wanted);
    return {
      limits: { maxBufferSize: 268435456 },
      features: new Set(wanted.requiredFeatures),
      lost: new Promise(() => {}),
      addEventListener() {},
      pushErrorScope() {},
      popErrorScope: async () => null,
      createBuffer: () => ({ destroy() {} }),
      createShaderModule: ({ code }) => code,
      createComputePipelineAsync: async ({ compute }) => void compiled.push(compute.module),
      createBindGroup: () => ({}),
    };
  },
};
const gpus = { requestAdapter: async () => adapter };
Object.defineProperty(globalThis, "navigator", { value: { gpu: gpus, userAgent } });
const gpu = await openGpu();
const kernel = (code) => ({ kernel: code, entry: "main", code });
async function plan(...codes) {
  const replay = await gpu.allocate("[4]");
  await replay.compile(JSON.stringify({ pipelines: codes.map(kernel), groups: [], programs: {} }), () => {});
  return replay;
}
"""


def run(script: str, features: list[str], browser: str = "Chrome/153.0") -> Any:
    """What `script` leaves in `result`."""
    code = f"{STAND_IN}\nlet result;\n{script}\nconsole.log(JSON.stringify(result));"
    command = ["node", "--input-type=module", "-e", code, json.dumps([features, browser])]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize(
    ("features", "asked", "enabled"),
    [
        (["bgra8unorm-storage", HALF, "timestamp-query"], [HALF, "timestamp-query"], [HALF]),
        ([SUBGROUPS, HALF], [HALF, SUBGROUPS], [HALF, SUBGROUPS]),
        (["bgra8unorm-storage", "timestamp-query"], ["timestamp-query"], []),
        (["bgra8unorm-storage"], [], []),
    ],
)
def test_f16_subgroups_and_a_clock_are_asked_for_where_the_adapter_has_them(
    features: list[str], asked: list[str], enabled: list[str]
) -> None:
    wanted, described = run("result = [asked, JSON.parse(gpu.describe())];", features)
    assert wanted == [{"requiredFeatures": asked}]
    info = DeviceInfo(**{**described, "enabled": tuple(described["enabled"])})
    assert info.tuning.features == frozenset(enabled)
    assert info.clock == ("timestamp-query" in asked)


def test_kernels_of_open_plans_and_of_the_last_run_stay_compiled() -> None:
    script = """
    const first = await plan("a", "b");
    gpu.kept = gpu.latest;
    first.close();
    const second = await plan("b", "c");       // b is there still: of the last run
    const other = await plan("d");
    other.close();                             // d is let go of; b and c are in use
    gpu.kept = gpu.latest = [kernel("b")];
    second.close();                            // a and c are let go of
    await plan("a", "b", "c", "d");
    result = compiled;
    """
    assert run(script, []) == ["a", "b", "c", "d", "a", "c", "d"]


def test_a_plan_that_is_closed_while_it_compiles_stays_closed() -> None:
    script = """
    const told = [];
    const replay = await gpu.allocate("[4]");
    const lacking = { pipelines: [kernel("a")], groups: [{ pipeline: 0, entries: [] }], programs: { p: [] } };
    const compiling = replay.compile(JSON.stringify(lacking), (...progress) => told.push(progress));
    replay.close();
    await compiling;
    result = [told, replay.groups.length, replay.programs.size, gpu.compiled.size];
    """
    assert run(script, []) == [[], 0, 0, 0]


@pytest.mark.parametrize("browser", ["Chrome/153.0", "Firefox/153.0"])
def test_firefox_is_asked_often_whether_the_gpu_has_done_its_work(browser: str) -> None:
    script = """
    const submitted = [], told = [];
    gpu.device.queue = {
      submit: (list) => { submitted.push(list); if (submitted.length === 3) told.forEach((tell) => tell()); },
      onSubmittedWorkDone: () => new Promise((tell) => told.push(tell)),
    };
    const replay = await plan("a");
    await Promise.race([replay.finish(), new Promise((resolve) => setTimeout(resolve, 500))]);
    const during = submitted.length;
    await new Promise((resolve) => setTimeout(resolve, 50));
    result = [submitted, during, submitted.length];
    """
    submitted, during, after = run(script, [], browser)
    assert during == after  # nobody is asked any more once all is done
    assert submitted == ([[], [], []] if "Firefox" in browser else [])


@pytest.mark.parametrize(
    ("info", "name", "software"),
    [
        ({"vendor": "apple", "architecture": "m1"}, "apple m1", False),
        ({"vendor": "", "architecture": "", "description": ""}, "unnamed GPU", False),
        ({"vendor": "", "description": "", "isFallbackAdapter": True}, "software renderer", True),
        ({"vendor": "google", "architecture": "swiftshader"}, "google swiftshader", True),
        (
            {"vendor": "microsoft", "description": "Microsoft Basic Render Driver"},
            "Microsoft Basic Render Driver",
            True,
        ),
    ],
)
def test_the_name_of_a_gpu(info: dict[str, Any], name: str, software: bool) -> None:
    script = f"adapter.info = {json.dumps(info)};\nresult = JSON.parse((await openGpu()).describe());"
    described = run(script, [])
    assert (described["name"], described["software"]) == (name, software)
