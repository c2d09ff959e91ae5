"""Timing products of matrices by each variant, and how fast a device is at most."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from trainer.bench.records import Record, digits, ours
from trainer.devices import Device, Executable
from trainer.errors import ConfigError
from trainer.kernels import GPU_VARIANTS, needs
from trainer.ops.cast import cast
from trainer.ops.matmul import fitting, matmul
from trainer.ops.random import normal
from trainer.plan import ITEM_SIZE, MAX_BINDING, Plan, Tensor

MEASURE_SECONDS = 0.5  # of device work in one timed batch: waiting for its end takes milliseconds
BATCHES = 3  # timed batches, of which the median counts
# A burst is so much work after a rest: a card does not come to the limit of its power, at which it slows.
BURST_SECONDS, REST_SECONDS = 0.02, 0.3
BURSTS = 5  # of which the median counts
Of = Callable[[Sequence[float]], float]  # which of several measurements counts
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


def check_size(product: Product, precision: str) -> None:
    """Raises ConfigError for a product with a matrix that no kernel can bind as a whole."""
    M, N, K = product.size
    made, out = ITEM_SIZE["f32"], ITEM_SIZE[_stored(product, precision == "mixed")]
    for name, nbytes in {"a": made * M * K, "b": made * K * N, "product": out * M * N}.items():
        if nbytes > MAX_BINDING:
            raise ConfigError(
                f"the {name} of {product.label} takes {nbytes / 2**20:,.0f} MiB, over a binding's "
                f"{MAX_BINDING >> 20} MiB",
                "give a smaller --size",
            )


def check_variants(names: Sequence[str]) -> None:
    """Raises ConfigError for a name that no variant has."""
    known = GPU_VARIANTS["matmul"]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"matmul has no variant {unknown[0]!r}", f"choose from {', '.join(known)}")


async def time_matmuls(
    device: Device, product: Product, precision: str, variants: Sequence[str] = ()
) -> list[Record]:
    """A product of matrices by each variant that can make it (or by those named), checked against the naive
    one first. In mixed precision a and b are f16. Each is timed under load, and in bursts.
    """
    label, (M, N, K), half = product.label, product.size, precision == "mixed"
    small = Product(product.transposes, (min(M, 256), min(N, 256), min(K, 256)))
    expected = await _values(device, "matmul", small, half)
    records = []
    for variant in reversed(GPU_VARIANTS["matmul"]):
        fits = _fits(product, half).get(variant, True) and needs(variant).features <= set(device.info.enabled)
        if variants and variant not in variants:
            continue
        if not fits:
            if variants:
                print(f"{label} {precision:5} {variant:14} left out: not for this product, or this device")
            continue
        _check(variant, await _values(device, variant, small, half), expected, half)
        executable = await _filled(device, variant, product, half)
        seconds = await seconds_of(executable, ["multiply"])
        burst = await burst_seconds(executable, "multiply")
        executable.close()
        records.append(
            {
                **ours(device),
                "workload": label,
                "variant": variant,
                "precision": precision,
                **told(product, precision, variant, seconds, burst),
            }
        )
    return records


def told(product: Product, precision: str, by: str, seconds: float, burst: float) -> Record:
    """What a record tells of a product that takes `seconds` under load, `burst` in bursts; printed, too."""
    M, N, K = product.size
    tflops, burst_tflops = (2 * M * N * K / each / 1e12 for each in (seconds, burst))
    print(
        f"{product.label} {precision:5} {by:14} {1e3 * seconds:9.3f} ms  {1e3 * tflops:10.1f} GFLOP/s  "
        f"in bursts {1e3 * burst_tflops:10.1f}"
    )
    return {
        "ms": round(1e3 * seconds, 5),
        "tflops": digits(tflops),
        "burst_tflops": digits(burst_tflops),
    }


def _stored(product: Product, half: bool) -> str:
    """What the product is stored as: in mixed precision f16, but f32 of TN, a gradient of weights."""
    return "f16" if half and product.transposes != "TN" else "f32"


def _fits(product: Product, half: bool) -> dict[str, bool]:
    M, N, K = product.size
    transpose_a, transpose_b = product.flags
    lda, ldb = M if transpose_a else K, K if transpose_b else N
    return fitting(M, N, K, lda, ldb, N, transpose_a, transpose_b, half=half)


def _matmul_plan(device: Device, variant: str, product: Product, half: bool) -> tuple[Plan, Tensor]:
    """A plan with the programs `fill` and `multiply`, and the tensor that the product goes to."""
    plan = Plan(replace(device.info.tuning, pinned={"matmul": variant} if variant else {}))
    M, N, K = product.size
    transpose_a, transpose_b = product.flags
    shapes = {"a": (K, M) if transpose_a else (M, K), "b": (N, K) if transpose_b else (K, N)}
    operands = {name: plan.tensor(name, shape, role="state") for name, shape in shapes.items()}
    out = plan.tensor("out", (M, N), _stored(product, half), "state")
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


async def time_product(device: Device, variant: str, product: Product, half: bool, of: Of = median) -> float:
    """Seconds of a product by a variant, or by the device's own where that is ""; see `seconds_of`."""
    executable = await _filled(device, variant, product, half)
    seconds = await seconds_of(executable, ["multiply"], of)
    executable.close()
    return seconds


async def _filled(device: Device, variant: str, product: Product, half: bool) -> Executable:
    """The program `multiply` of a product by a variant, over random numbers."""
    plan, _ = _matmul_plan(device, variant, product, half)
    executable = await device.compile(plan)
    executable.run(["fill"])
    return executable


async def burst_seconds(executable: Executable, program: str) -> float:
    """Seconds of one run of `program` in bursts, by the device's own clock where it has one: the median."""
    each = sum(await executable.times(program))
    repeats = max(1, int(BURST_SECONDS / each))
    bursts = []
    for _ in range(BURSTS):
        await asyncio.sleep(REST_SECONDS)
        bursts.append(sum(await executable.times(program, repeats)))
    return median(bursts)


async def seconds_of(executable: Executable, programs: list[str], of: Of = median) -> float:
    """Seconds of one run of `programs`: the median, or what is asked for, of batches that are long enough to
    drown what surrounds them.
    """

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
    return of([await batch(repeats) for _ in range(BATCHES)])
