"""Timing what the GPU does: products of matrices, and whole training steps."""

from __future__ import annotations

import random
import struct
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from trainer.answers import answers
from trainer.budget import estimate
from trainer.config import PRESETS, ModelConfig, TrainConfig
from trainer.devices import Device, Executable
from trainer.errors import ConfigError
from trainer.gutenberg import Cache
from trainer.kernels import GPU_VARIANTS, needs
from trainer.model import build
from trainer.ops.cast import cast
from trainer.ops.matmul import fitting, matmul
from trainer.ops.random import dataset_parts, normal
from trainer.plan import Plan, Tensor
from trainer.provenance import commit, machine, today
from trainer.runtime import Runtime
from trainer.schedule import schedule

MEASURE_SECONDS = 0.5  # of device work in one timed batch: waiting for its end takes milliseconds
BATCHES = 3  # timed batches, of which the median counts
STEP = ("micro", "update")  # the programs of a training step
CHUNK = 10  # training steps that go out at once, as in training, where the loss is read every ten

# Models that other trainers were measured on, too, with the batch each was given: beside the presets
WORKLOADS = {
    "TINY": (ModelConfig(layers=2, width=64, heads=4, context=64, vocab=512), 8),
    "SMALL": (ModelConfig(layers=4, width=128, heads=4, context=128, vocab=2048), 8),
    "MEDIUM": (ModelConfig(layers=6, width=384, heads=6, context=256, vocab=4096), 16),
    "LARGE": (ModelConfig(layers=6, width=384, heads=6, context=256, vocab=8192), 64),
    "GPT-2": (ModelConfig(layers=12, width=768, heads=12, context=1024, vocab=50304), 8),
}

Record = dict[str, Any]
TRANSPOSES = {"NN": (False, False), "NT": (False, True), "TN": (True, False)}


@dataclass(frozen=True)
class Product:
    """op(a) (M, K) · op(b) (K, N), `transposes` saying by N or T how each is stored."""

    transposes: str
    size: tuple[int, int, int]  # M, N, K

    @property
    def flags(self) -> tuple[bool, bool]:
        """Whether a is stored transposed, and whether b is."""
        return TRANSPOSES[self.transposes]

    @property
    def label(self) -> str:
        """What records call it."""
        return f"matmul {self.transposes} {'x'.join(map(str, self.size))}"


def products(text: str) -> list[Product]:
    """The products that `text` asks for: 4096 (M = N = K) or 8192x768x3072 (M, N, K) in all three transposes,
    or in one, as in NT:4096. Raises ValueError for anything else.
    """
    transposes, colon, size = text.rpartition(":")
    numbers = [int(number) for number in size.split("x")]
    if len(numbers) not in (1, 3) or min(numbers) < 1 or (colon and transposes not in TRANSPOSES):
        raise ValueError(text)
    M, N, K = numbers * 3 if len(numbers) == 1 else numbers
    return [Product(name, (M, N, K)) for name in ([transposes] if colon else TRANSPOSES)]


def _common(device: Device) -> Record:
    return {**provenance(device.info.name, device.info.driver), "impl": "tabula"}


def provenance(device: str, driver: str) -> Record:
    """What every record says of where its figures come from."""
    return {
        "device": device,
        "driver": driver,
        "machine": machine(),
        "date": today(),
        "commit": commit(),
        "command": "trainer " + " ".join(sys.argv[1:]),
    }


# -------------------------------------------------------------------- matmul


async def time_matmuls(
    device: Device, product: Product, precision: str, variants: Sequence[str] = ()
) -> list[Record]:
    """A product of matrices by each variant that can make it (or by those named), checked against the naive
    one first. In mixed precision a, b and out are f16; out of TN, a gradient of weights, is f32.
    """
    label, (M, N, K), half = product.label, product.size, precision == "mixed"
    small = Product(product.transposes, (min(M, 256), min(N, 256), min(K, 256)))
    expected = await _values(device, "matmul", small, half)
    records = []
    for variant in reversed(GPU_VARIANTS["matmul"]):
        fits = _fits(product, half).get(variant, True) and needs(variant).features <= set(device.info.enabled)
        if not fits or (variants and variant not in variants):
            continue
        _check(variant, await _values(device, variant, small, half), expected, half)
        seconds = await _time_matmul(device, variant, product, half)
        tflops = 2 * M * N * K / seconds / 1e12
        print(f"{label} {precision:5} {variant:14} {1e3 * seconds:9.3f} ms  {1e3 * tflops:10.1f} GFLOP/s")
        records.append(
            {
                **_common(device),
                "workload": label,
                "variant": variant,
                "precision": precision,
                "ms": round(1e3 * seconds, 5),
                "tflops": float(f"{tflops:.4g}"),
            }
        )
    return records


def _fits(product: Product, half: bool) -> dict[str, bool]:
    M, N, K = product.size
    transpose_a, transpose_b = product.flags
    lda, ldb = M if transpose_a else K, K if transpose_b else N
    return fitting(M, N, K, lda, ldb, N, transpose_a, transpose_b, half=half)


def _matmul_plan(device: Device, variant: str, product: Product, half: bool) -> tuple[Plan, Tensor]:
    """A plan with the programs `fill` and `multiply`, and the tensor that the product goes to."""
    plan = Plan(replace(device.info.tuning, pinned={"matmul": variant}))
    M, N, K = product.size
    transpose_a, transpose_b = product.flags
    shapes = {"a": (K, M) if transpose_a else (M, K), "b": (N, K) if transpose_b else (K, N)}
    operands = {name: plan.tensor(name, shape, role="state") for name, shape in shapes.items()}
    out = plan.tensor("out", (M, N), "f16" if half and not transpose_a else "f32", "state")
    with plan.program("fill"):
        for stream, (name, tensor) in enumerate(operands.items()):
            normal(plan, tensor, std=1.0, seed=1, stream=stream)
            if half:
                operands[name] = plan.tensor(f"{name}.half", tensor.shape, "f16", "state")
                cast(plan, tensor, operands[name])
    with plan.program("multiply"):
        a, b = operands.values()
        matmul(plan, a, b, out, product.size, transpose_a=transpose_a, transpose_b=transpose_b)
    plan.finish()
    return plan, out


async def _values(device: Device, variant: str, product: Product, half: bool) -> list[float]:
    plan, out = _matmul_plan(device, variant, product, half)
    executable = await device.compile(plan)
    executable.run(["fill", "multiply"])
    data = (await executable.read(out)).cast("B")
    executable.close()
    return list(struct.unpack_from(f"{out.size}{'f' if out.dtype == 'f32' else 'e'}", data))


def _check(variant: str, values: list[float], expected: list[float], half: bool) -> None:
    error = sum((x - y) ** 2 for x, y in zip(values, expected, strict=True)) ** 0.5
    norm = sum(y * y for y in expected) ** 0.5
    if not error <= (1e-3 if half else 1e-5) * norm:
        raise RuntimeError(f"{variant} differs from the naive variant by {error / norm:.1e}: not timed")


async def _time_matmul(device: Device, variant: str, product: Product, half: bool) -> float:
    plan, _ = _matmul_plan(device, variant, product, half)
    executable = await device.compile(plan)
    executable.run(["fill"])
    seconds = await _time(executable, ["multiply"])
    executable.close()
    return seconds


async def _time(executable: Executable, programs: list[str]) -> float:
    """Seconds of one run of `programs`: the median of batches long enough to drown what surrounds them."""

    async def batch(repeats: int) -> float:
        began = time.perf_counter()
        executable.run(programs * repeats, submit_every=100)
        await executable.finish()
        return (time.perf_counter() - began) / repeats

    await executable.finish()
    await batch(1)
    repeats = 1
    while (each := await batch(repeats)) * repeats < MEASURE_SECONDS:
        repeats = max(2 * repeats, min(20_000, int(MEASURE_SECONDS / each)))
    return median([await batch(repeats) for _ in range(BATCHES)])


def time_torch_matmul(product: Product, precision: str) -> Record:
    """The same product through PyTorch (cuBLAS on NVIDIA), on its best device: f32 without TF32, or f16."""
    import torch  # pyright: ignore[reportMissingImports]

    torch.backends.cuda.matmul.allow_tf32 = False
    cuda = torch.cuda.is_available()
    where = "cuda" if cuda else "cpu"
    M, N, K = product.size
    dtype = torch.float16 if precision == "mixed" else torch.float32
    transpose_a, transpose_b = product.flags
    a, b = torch.randn(M, K, device=where, dtype=dtype), torch.randn(K, N, device=where, dtype=dtype)
    a = a.T.contiguous().T if transpose_a else a
    b = b.T.contiguous().T if transpose_b else b

    def batch(repeats: int) -> float:
        began = time.perf_counter()
        for _ in range(repeats):
            torch.matmul(a, b)
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / repeats

    batch(3)
    repeats = max(1, int(MEASURE_SECONDS / batch(3)))
    seconds = median([batch(repeats) for _ in range(BATCHES)])
    tflops = 2 * M * N * K / seconds / 1e12
    print(f"{product.label} {precision:5} {'torch':14} {1e3 * seconds:9.3f} ms  {1e3 * tflops:10.1f} GFLOP/s")
    name = torch.cuda.get_device_name() if cuda else machine()
    return {
        **provenance(name, f"torch {torch.__version__}"),
        "impl": "torch",
        "workload": product.label,
        "variant": where,
        "precision": precision,
        "ms": round(1e3 * seconds, 5),
        "tflops": float(f"{tflops:.4g}"),
    }


# -------------------------------------------------------------------- training steps


def workload(name: str) -> tuple[ModelConfig, TrainConfig]:
    """A preset, or one of WORKLOADS. Raises ConfigError with the names there are."""
    if name in WORKLOADS:
        model, batch = WORKLOADS[name]
        return model, TrainConfig(batch=batch)
    if name not in PRESETS:
        names = ", ".join((*PRESETS, *WORKLOADS))
        raise ConfigError(f"there is no workload {name!r}", f"choose from {names}")
    return PRESETS[name].model, PRESETS[name].train


async def time_steps(
    device: Device,
    name: str,
    precision: str,
    batch: int | None,
    steps: int,
    cache: Cache | None = None,
) -> Record:
    """Whole training steps of a workload on random tokens: milliseconds, and the share that Python takes. The
    kernels are those that `cache` keeps as the fastest, where it is given.
    """
    runtime, train = await _training(device, name, precision, batch, cache)
    built = runtime.model
    budget = estimate(built, train, software=device.info.software)
    encoding, began = 0.0, time.perf_counter()
    for done in range(0, steps, CHUNK):
        start = time.thread_time()
        runtime.executable.run(STEP * min(CHUNK, steps - done))
        encoding += time.thread_time() - start
    await runtime.executable.finish()
    seconds = (time.perf_counter() - began) / steps
    memory = peak_memory()
    runtime.close()
    record = {
        **_common(device),
        "workload": name,
        "precision": precision,
        **({"tuned": True} if cache else {}),
        "batch": train.batch,
        "ms_per_step": round(1e3 * seconds, 4),
        "tokens_per_s": round(budget.tokens_per_step / seconds),
        "tflops": float(f"{budget.flops_per_step / seconds / 1e12:.4g}"),
        "python_share": round(encoding / steps / seconds, 4),
        "dispatches": sum(len(built.plan.programs[name].dispatches) for name in STEP),
        "device_memory_bytes": budget.device_memory,
        "peak_memory_bytes": memory,
        "estimated_memory_bytes": budget.host_memory,
    }
    print(
        f"step {name:8} {precision:5} {record['ms_per_step']:9.2f} ms  "
        f"{record['tokens_per_s']:>9,} tokens/s  {1e3 * record['tflops']:.1f} GFLOP/s  "
        f"{record['dispatches']} dispatches  Python {100 * record['python_share']:.1f}%  "
        f"memory {memory >> 20:,} MiB (estimated {budget.host_memory >> 20:,})"
    )
    return record


async def time_waiting(device: Device, name: str, precision: str, batch: int | None, steps: int) -> Record:
    """What reading the loss after every step costs: milliseconds of such steps, and of steps sent ahead."""
    runtime, train = await _training(device, name, precision, batch)
    training = runtime.model.training
    assert training is not None

    async def each(waiting: bool) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            runtime.executable.run(STEP)
            if waiting:
                await runtime.executable.read(training.state.ring)
        await runtime.executable.finish()
        return (time.perf_counter() - began) / steps

    # In turns, so that a machine that is busy for a while is so for both.
    pairs = [(await each(waiting=False), await each(waiting=True)) for _ in range(BATCHES)]
    runtime.close()
    ahead, waiting = (median(column) for column in zip(*pairs, strict=True))
    print(f"step {name:8} {1e3 * ahead:9.2f} ms sent ahead  {1e3 * waiting:9.2f} ms with every loss read")
    return {
        **_common(device),
        "workload": name,
        "precision": precision,
        "batch": train.batch,
        "ms_per_step": round(1e3 * ahead, 4),
        "ms_per_step_waiting": round(1e3 * waiting, 4),
    }


async def _training(
    device: Device, name: str, precision: str, batch: int | None, cache: Cache | None = None
) -> tuple[Runtime, TrainConfig]:
    """A workload's model on random tokens, compiled, with its first steps behind it."""
    model, settings = workload(name)
    train = replace(settings, batch=batch or settings.batch, accumulate=1, steps=10_000, precision=precision)
    tokens = 64 * model.context
    known = (await answers(device, model, train, cache, seconds=0))[0] if cache else {}
    tuning = replace(device.info.tuning, answers=known)
    built = build(model, train=train, tokens=tokens, tuning=tuning)
    runtime = await Runtime.open(device, built)
    await _prepare(runtime, model, train, tokens)
    for _ in range(3):  # compiles lazily, and raises the clocks
        runtime.executable.run(STEP)
    await runtime.executable.finish()
    return runtime, train


async def _prepare(runtime: Runtime, model: ModelConfig, train: TrainConfig, tokens: int) -> None:
    training = runtime.model.training
    assert training is not None
    rng = random.Random(1)
    ids = array("H", (rng.randrange(model.vocab) for _ in range(tokens + tokens % 2)))
    for (first, _, count), tensor in zip(dataset_parts(tokens, model.context), training.dataset, strict=True):
        await runtime.executable.write(tensor, ids[first : first + count + count % 2].tobytes())
    await runtime.executable.write(training.state.schedule, schedule(train))
    await runtime.initialise()


def peak_memory() -> int:
    """Bytes of main memory that this process has held at most; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
