"""The page's device in Chromium, on its software renderer: kernels, errors, loss, and a run as natively."""

from __future__ import annotations

import math
from collections.abc import Iterator
from shutil import which
from typing import Any

import pytest
from browser import launch
from dispatch_times import check_times
from kernel_cases import CASES
from kernel_runs import Case, assert_close, features, run
from native_swiftshader import train_natively
from pages.device_page import Jobs, PageDevice, drive, open_jobs

from demo.device import FlatPlan, shader
from trainer.config import PRESETS
from trainer.corpus import read_bundled
from trainer.devices.reference import ReferenceDevice
from trainer.kernels import SUBGROUPS, Tuning
from trainer.model import build
from trainer.plan import Plan

JOB = {
    "model": {"layers": 2, "width": 32, "heads": 2, "context": 32, "vocab": 257},
    "train": {
        "steps": 50,
        "batch": 4,
        "warmup": 5,
        "learning_rate": 3e-3,
        "eval_every": 25,
        "eval_batches": 2,
        "sample_every": 0,
        "save_every": 0,
        "log_every": 10,
        "seed": 7,
    },
    "text": next(book.text for book in read_bundled() if "Alice" in book.title)[:20_000],
}

# The first and the last case of each kernel in each variant: a small shape and a large one. The page asks for
# no feature, so f16 is not for it.
PLAIN = [(case, variant) for case in CASES for variant in case.variants if not features(case, variant)]
LAST = {(case.kernel, variant): case for case, variant in PLAIN}
FIRST = {(case.kernel, variant): case for case, variant in reversed(PLAIN)}
RUNS = [
    pytest.param(case, variant, id=f"{case.name}-{variant}")
    for kernel, variant in FIRST
    for case in (FIRST[kernel, variant], LAST[kernel, variant])
]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with launch() as chromium, open_jobs(chromium, tmp_path_factory.mktemp("sources")) as jobs:
        yield jobs


@pytest.fixture(scope="module")
def page_device(jobs: Jobs) -> PageDevice:
    return PageDevice(jobs)


def test_a_software_renderer_is_known_as_one_and_has_the_default_limits(page_device: PageDevice) -> None:
    info = page_device.info
    assert (info.backend, info.kind, info.software) == ("WebGPU", "CPU", True)
    assert "swiftshader" in info.name
    assert SUBGROUPS in info.features
    assert info.enabled == (), "it has no f16, and its subgroups are of four threads"
    assert info.tuning == Tuning(software=True)
    assert info.limits["max-buffer-size"] == 256 << 20
    assert info.limits["max-storage-buffer-binding-size"] == 128 << 20
    assert info.limits["max-compute-workgroup-storage-size"] == 16 << 10


# ---------------------------------------------------------------- kernels


@pytest.mark.parametrize(
    "tuning",
    [Tuning(software=True), Tuning(software=False), Tuning(software=False, features=frozenset({SUBGROUPS}))],
    ids=["software", "gpu", "subgroups"],
)
def test_the_browser_takes_every_kernel_of_every_preset(tuning: Tuning, jobs: Jobs) -> None:
    """Chromium's compiler is stricter than the native one."""
    shaders: set[tuple[str, str, str]] = set()
    for preset in PRESETS.values():
        plan = build(
            preset.model,
            train=preset.train,
            tokens=100_000,
            evaluation_batch=preset.train.batch,
            generate=True,
            tuning=tuning,
        ).plan
        shaders |= {shader(dispatch) for program in plan.programs.values() for dispatch in program.dispatches}
    assert len(shaders) > 100
    modules = [{"kernel": kernel, "code": code} for kernel, _, code in sorted(shaders)]
    assert jobs("refusals", modules=modules) == []


def test_a_refused_kernel_is_noticed(jobs: Jobs) -> None:
    (refusal,) = jobs(
        "refusals", modules=[{"kernel": "some.kernel", "code": "fn f() -> u32 {\n return 1.5; }"}]
    )
    assert refusal.startswith("some.kernel, line 2: ")


@pytest.mark.parametrize(("case", "variant"), RUNS)
def test_kernels_agree_with_their_twins(case: Case, variant: str, page_device: PageDevice) -> None:
    expected = drive(run(ReferenceDevice(64), case, variant))[0]
    assert_close(case, drive(run(page_device, case, variant))[0], expected)


# ---------------------------------------------------------------- the protocol


def test_what_dispatches_share_is_made_once() -> None:
    plan = Plan()
    a, b, c = (plan.tensor(name, (64,), role="state") for name in "abc")
    for program, outs in (("twice", (a, b, a)), ("once", (b, c))):
        with plan.program(program):
            for out in outs:
                plan.dispatch("random.fill", grid=(1, 1, 1), constants={"N": 64, "VALUE": 1.0}, out=out)
    plan.finish()
    flat, first = FlatPlan(plan).adding(["twice"])
    assert [pipeline["kernel"] for pipeline in first["pipelines"]] == ["random.fill"]
    assert [group["entries"][0][1:] for group in first["groups"]] == [(0, 0, 256), (1, 0, 256)]
    assert first["programs"] == {"twice": [0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1]}
    later = flat.adding(["once"])[1]
    assert later["pipelines"] == []
    assert [group["entries"][0][1:] for group in later["groups"]] == [(2, 0, 256)]
    assert later["programs"] == {"once": [0, 1, 1, 1, 1, 0, 2, 1, 1, 1]}


def test_reads_find_what_was_queued_before_them(jobs: Jobs) -> None:
    assert jobs("order") == list(range(8))


@pytest.mark.parametrize("size", [4, 1000, 20 << 20])
def test_bytes_come_back_as_they_went(size: int, jobs: Jobs) -> None:
    assert jobs("round_trip", size=size)


def test_dispatches_are_timed_by_the_gpus_clock(page_device: PageDevice) -> None:
    assert page_device.info.clock
    drive(check_times(page_device))


def test_without_a_clock_on_the_gpu_the_wall_clock_serves(jobs: Jobs, page_device: PageDevice) -> None:
    jobs("clock", there=False)
    try:
        drive(check_times(page_device))
    finally:
        jobs("clock", there=True)


def test_nothing_in_python_grows_with_the_steps(jobs: Jobs) -> None:
    assert jobs("growth") < 100  # blocks, after 200 rounds


def test_compilation_tells_how_far_it_is(jobs: Jobs) -> None:
    assert jobs("progress") == [["compile", 1, 1]]


def test_what_cannot_be_compiled_says_why(jobs: Jobs) -> None:
    said = jobs("compile_errors")
    assert said["shader"].startswith("the GPU refuses the kernel random.fill (line ")
    assert "unresolved value 'N'" in said["shader"]
    assert "needs a buffer of 1,048,576 MiB" in said["limit"]
    assert "cannot hold 1,048,576 MiB" in said["memory"]
    assert said["memory"].endswith("choose a smaller preset, batch or context")


# Opens a GPU on a stand-in for navigator.gpu whose adapters are: null, "refusing", or "software".
OPEN = """async (kinds) => {
  const asked = [];
  const adapter = async (kind) => {
    if (kind === "refusing") {
      return { features: new Set(), requestDevice: () => Promise.reject(new Error("not today")) };
    }
    return kind && real.requestAdapter();
  };
  const requestAdapter = (options) => adapter(kinds[asked.push(Object.keys(options).join()) - 1]);
  const real = navigator.gpu;
  Object.defineProperty(navigator, "gpu", { value: kinds && { requestAdapter }, configurable: true });
  try {
    const { openGpu } = await import("./demo/gpu.js");
    const gpu = await openGpu();
    gpu.close();
    return { asked, name: gpu.info.name };
  } catch (error) {
    return { asked, kind: error.kind, said: error.message };
  } finally {
    delete navigator.gpu;
  }
}"""


def test_the_first_adapter_that_gives_a_device_is_taken(jobs: Jobs) -> None:
    opened = jobs.page.evaluate(OPEN, [None, "refusing", "software"])
    assert opened["asked"] == ["powerPreference", "", "forceFallbackAdapter"]
    assert "swiftshader" in opened["name"]
    assert jobs.page.evaluate(OPEN, ["software"])["asked"] == ["powerPreference"]


def test_where_there_is_no_gpu_it_says_why(jobs: Jobs) -> None:
    without = jobs.page.evaluate(OPEN, None)
    assert (without["kind"], without["asked"]) == ("none", [])
    assert without["said"].startswith("this browser has no WebGPU: use ")
    nothing = jobs.page.evaluate(OPEN, [None, None, None])
    assert nothing["kind"] == "none"
    assert nothing["said"].startswith("the browser offers no GPU to this page: ")
    refused = jobs.page.evaluate(OPEN, [None, "refusing", None])
    assert refused["said"].startswith("the GPU gives no device (not today): ")


def test_after_the_loss_of_the_device_every_call_says_so(jobs: Jobs) -> None:
    result = jobs("lose")
    assert result["values"] == [2.5] * 64
    assert len(result["said"]) == 7
    assert all(said.startswith("the GPU was lost (") for said in result["said"])


def test_errors_outside_any_call_are_told_and_stop_the_next_one(jobs: Jobs) -> None:
    result = jobs("go_wrong")
    assert len(result["heard"]) == 1
    assert "Write range" in result["heard"][0]
    assert all(said.startswith("the GPU reports an error (Write range") for said in result["said"])
    assert jobs("info")["problems"] == []  # of the device that all other tests use


def test_the_device_can_be_measured(jobs: Jobs) -> None:
    figures = jobs("measure", model=JOB["model"], train={"steps": 50, "batch": 2}, megabytes=1)
    assert {"upload_mb_per_s", "download_mb_per_s", "compile_ms", "step_ms"} < set(figures)
    assert {"replay_300_dispatches_ms", "matmul_direct.multiply_ms", "adamw.update_ms"} < set(figures)
    assert all(math.isfinite(value) and value >= 0 for value in figures.values())


def test_the_autotuner_finds_kernels_without_barriers(jobs: Jobs) -> None:
    """On SwiftShader a barrier costs about as much as the columns that are multiplied between two of them."""
    train = {"steps": 50, "batch": 4, "warmup": 5}
    key = "matmul NN 128x96x32 f32 f32 f32 bias:f32"
    found = jobs("tune", model=JOB["model"], train=train, key=key)
    assert (found["default"], found["winner"], found["refused"]) == ("matmul_tiled", "matmul_direct", {})
    seconds = {name.split()[0]: value for name, value in found["seconds"].items()}
    assert seconds["matmul_tiled"] > 2 * seconds["matmul_direct"] > 0


# ---------------------------------------------------------------- one trainer, two hosts


def test_a_run_in_the_page_equals_the_native_one_to_the_bit(jobs: Jobs) -> None:
    """On one renderer, SwiftShader, although Chromium's compiler (Tint) and the native one (naga) translate
    the kernels each in its own way: so no tolerance. Between renderers equality is not to be had: on Mesa's
    lavapipe this run begins with the same weights, and 9 of its 50 losses are up to 2.4e-7 away.
    """
    browser = jobs.page.context.browser
    assert browser is not None
    native = train_natively(JOB, which("chromium") or browser.browser_type.executable_path)
    page: dict[str, Any] = jobs("train", **JOB)
    assert "SwiftShader" in native["device"]["name"]
    assert page["before"] == native["before"]
    for what in ("losses", "norms", "rates", "validation", "counters", "after"):
        assert page[what] == native[what], what
    assert len(page["losses"]) == 50
    assert page["before"] != page["after"]
    assert page["validation"][0] == pytest.approx(math.log(257), abs=0.1)
    assert page["validation"][-1] < 0.7 * page["validation"][0]
