"""A training step by kernel: what each takes, and how near it comes to what the device can do at all."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.bench.matmul import Product, seconds_of, time_product
from trainer.bench.records import Record, digits, ours, peak_memory
from trainer.bench.steps import STEP, configured, run_steps, warmed_up
from trainer.bench.work import Work, work
from trainer.config import ModelConfig
from trainer.devices import Device
from trainer.errors import DeviceError
from trainer.ops.cast import cast
from trainer.plan import Dispatch, Plan
from trainer.runtime import Runtime, floats

ROUNDS = 5  # in which steps and their dispatches are timed: the least counts, which others disturb least
# Launches of a dispatch that are timed together: a GPU's clock may tick too slowly for one
REPEATS, REPEATS_SOFTWARE = 10, 1
# What the roofs are measured with: a product of N × N matrices, and a copy of so many numbers (f32)
PRODUCT, PRODUCT_SOFTWARE = 4096, 512
COPIED, COPIED_SOFTWARE = 32 << 20, 8 << 20
REST = "between kernels"  # what a step takes beside them

# What `trainer bench kernels` tells of, and what makes up each
KERNELS = {
    "attention forward": ("attention.forward",),
    "attention backward": (
        "attention.backward",
        "attention.backward_query",
        "attention.backward_key_value",
    ),
    "cross-entropy": ("cross_entropy.forward_backward",),
    "LayerNorm forward": ("layernorm.forward",),
    "LayerNorm backward": (
        "layernorm.backward",
        "layernorm.backward_parameters",
        "layernorm.backward_fused",
    ),
    "AdamW": ("adamw.update",),
}


@dataclass(frozen=True)
class Roofs:
    """The most that a device does in a second, of what this project measures on it."""

    flops: float
    nbytes: float

    def share(self, done: Work, seconds: float) -> float:
        """How near `done` in `seconds` is to the roof that it would reach first."""
        return max(done.flops / self.flops, done.nbytes / self.nbytes) / seconds


@dataclass(frozen=True)
class Timed:
    """Launches of one kernel in a step, together."""

    kernel: str  # "<op>.<entry point>"
    variant: str
    transposes: str  # of a product of matrices
    launches: int
    seconds: float
    done: Work

    @property
    def name(self) -> str:
        """What a table calls it."""
        return f"{self.variant}.{self.kernel.split('.')[1]} {self.transposes}".strip()


async def profile_step(device: Device, name: str, precision: str, batch: int | None, steps: int) -> Record:
    """A step of a workload by kernel, the slowest first, and what it takes beside them: a record with a row a
    kernel. Each dispatch is timed alone: in the step it may find less in the caches, and overlap with its
    neighbours.
    """
    model, train = configured(name, precision, batch)
    roofs = await measure_roofs(device, precision)
    runtime = await warmed_up(device, model, train)
    step = min([(await run_steps(runtime, steps))[0] for _ in range(ROUNDS)])
    timed = await time_kernels(device, runtime)
    memory = runtime.model.plan.nbytes
    runtime.close()
    rest = step - sum(line.seconds for line in timed)
    rows = [
        *(_row(line.name, line, roofs, step) for line in timed),
        {"kernel": REST, "ms": round(1e3 * rest, 4), "step_share": round(rest / step, 4)},
    ]
    for row in rows:
        print(
            f"profile {name:8} {precision:5} {row['kernel']:40} {row.get('launches', ''):>4} "
            f"{row['ms']:10.3f} ms  {100 * row['step_share']:5.1f}% of the step  "
            f"{100 * row.get('roof_share', 0):5.1f}% of the roof"
        )
    return {
        **ours(device),
        "workload": name,
        "precision": precision,
        "batch": train.batch,
        "ms_per_step": round(1e3 * step, 4),
        "tokens_per_s": round(train.batch * model.context / step),
        "dispatches": sum(line.launches for line in timed),
        "matmul_tflops": digits(roofs.flops / 1e12),
        "copy_gb_per_s": digits(roofs.nbytes / 1e9),
        "device_memory_bytes": memory,
        "peak_memory_bytes": peak_memory(),
        "kernels": rows,
    }


async def profile_kernels(device: Device, name: str, precision: str, batch: int | None) -> list[Record]:
    """Attention and the kernels that do little but move bytes, at a workload's shapes, beside the roofs."""
    model, train = configured(name, precision, batch)
    roofs = await measure_roofs(device, precision)
    runtime = await warmed_up(device, model, train)
    timed = await time_kernels(device, runtime)
    runtime.close()
    records = []
    for label, kernels in KERNELS.items():
        lines = [line for line in timed if line.kernel in kernels]
        launches = max(line.launches for line in lines)  # of what is one launch, or one of each
        seconds = sum(line.seconds for line in lines) / launches
        done = sum((line.done for line in lines), Work())
        done = Work(done.flops / launches, done.nbytes / launches)
        if label == "attention backward":
            done = Work(_attention_backward(model, train.batch), done.nbytes)
        record = {
            **ours(device),
            "workload": f"{label} {name}",
            "variant": max(lines, key=lambda line: line.seconds).variant,
            "precision": precision,
            "batch": train.batch,
            "ms": round(1e3 * seconds, 5),
            **_rates(done, seconds),
            "roof_share": round(roofs.share(done, seconds), 4),
        }
        rate = f"{1e3 * record['tflops']:,.1f} GFLOP/s" if done.flops else f"{record['gb_per_s']:,.1f} GB/s"
        print(
            f"{record['workload']:28} {precision:5} {record['variant']:20} {record['ms']:9.3f} ms  "
            f"{rate:>18}  {100 * record['roof_share']:.1f}% of the roof"
        )
        records.append(record)
    return records


def _attention_backward(model: ModelConfig, batch: int) -> float:
    """Operations of five products over the causal half, as FlashAttention (arXiv 2205.14135) counts them: the
    scores are made once. Kernels that make them anew have more work, and no more to show for it.
    """
    return 5 * 2.0 * batch * model.context**2 * model.width / 2


async def time_kernels(device: Device, runtime: Runtime) -> list[Timed]:
    """The kernels of a training step, the slowest first."""
    repeats = REPEATS_SOFTWARE if device.info.software else REPEATS
    dispatches: list[Dispatch] = []
    columns: list[list[float]] = []  # of each round, the dispatches' seconds
    for program in STEP:
        dispatches += runtime.model.plan.programs[program].dispatches
    while len(columns) < ROUNDS:
        column: list[float] = []
        for i, program in enumerate(STEP):
            # Launched repeatedly, what adds up gradients leaves none that are finite, and there is no update.
            runtime.executable.run(STEP[:i])
            column += await runtime.executable.times(program, repeats)
        if await _updated(runtime):
            columns.append(column)
    groups: dict[tuple[str, str, str], list[int]] = {}
    for i, dispatch in enumerate(dispatches):
        groups.setdefault((dispatch.kernel, dispatch.variant, _transposes(dispatch)), []).append(i)
    timed = [
        Timed(
            *which,
            len(places),
            min(sum(column[i] for i in places) for column in columns),
            sum((work(dispatches[i]) for i in places), Work()),
        )
        for which, places in groups.items()
    ]
    return sorted(timed, key=lambda line: -line.seconds)


async def _updated(runtime: Runtime) -> bool:
    """Whether the last step changed the weights. In mixed precision one may overflow: then AdamW had nothing
    to do, and the loss scale is halved. Raises DeviceError where that no longer helps.
    """
    training = runtime.model.training
    assert training is not None
    read, scale = runtime.executable.read, training.state.loss_scale
    finite = floats(await read(training.state.scalars))[3]
    if not finite and (not scale or floats(await read(scale)) == [1.0]):
        raise DeviceError("the model diverged while it was timed", "try again, or another --precision")
    return bool(finite)


def _transposes(dispatch: Dispatch) -> str:
    if dispatch.kernel != "matmul.multiply":
        return ""
    return "".join("T" if dispatch.constants[f"TRANSPOSE_{x}"] else "N" for x in "AB")


def _row(name: str, line: Timed, roofs: Roofs, step: float) -> Record:
    return {
        "kernel": name,
        "launches": line.launches,
        "ms": round(1e3 * line.seconds, 4),
        "step_share": round(line.seconds / step, 4),
        **_rates(line.done, line.seconds),
        "roof_share": round(roofs.share(line.done, line.seconds), 4),
    }


def _rates(done: Work, seconds: float) -> dict[str, float]:
    """FLOP/s where there are some, and bytes moved a second."""
    rates = {"tflops": digits(done.flops / seconds / 1e12)} if done.flops else {}
    return {**rates, "gb_per_s": digits(done.nbytes / seconds / 1e9)}


async def measure_roofs(device: Device, precision: str) -> Roofs:
    """The best rates of a large product, by the variant that the device is given, and of a long copy."""
    software, half = device.info.software, precision == "mixed"
    side = PRODUCT_SOFTWARE if software else PRODUCT
    product = Product("NN", (side, side, side))
    seconds = await time_product(device, "", product, half, min)
    roofs = Roofs(2 * side**3 / seconds, await _copy_rate(device, COPIED_SOFTWARE if software else COPIED))
    print(f"roofs in {precision}: {roofs.flops / 1e12:.3g} TFLOP/s, {roofs.nbytes / 1e9:.4g} GB/s")
    return roofs


async def _copy_rate(device: Device, numbers: int) -> float:
    plan = Plan(device.info.tuning)
    x, out = (plan.tensor(name, (numbers,), role="state") for name in ("x", "out"))
    with plan.program("copy"):
        cast(plan, x, out)
    plan.finish()
    executable = await device.compile(plan)
    seconds = await seconds_of(executable, ["copy"], min)
    executable.close()
    return (x.nbytes + out.nbytes) / seconds
