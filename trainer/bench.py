"""`trainer bench`: how fast the kernels, the training step and the tokenizer are on this machine.

Prints a table and, with --out, merges JSON records into `kernels.json`, `train_steps.json` and
`tokenizer.json` of a folder: a record replaces the one of the same workload on the same device.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from array import array
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from trainer import corpus, storage
from trainer.budget import estimate
from trainer.config import PRESETS, ModelConfig, TrainConfig, preset
from trainer.devices import Device, Executable, open_device
from trainer.errors import ConfigError
from trainer.kernels import GPU_VARIANTS, Tuning
from trainer.model import build
from trainer.ops.matmul import matmul
from trainer.ops.random import dataset_parts, normal
from trainer.plan import Plan, Tensor
from trainer.provenance import commit, machine, today
from trainer.runtime import Runtime
from trainer.tokenizer import Tokenizer
from trainer.train import schedule

PARTS = ("matmul", "steps", "tokenizer")
MEASURE_SECONDS = 1.0  # of device work in one timed batch: waiting for its end takes milliseconds
BATCHES = 3  # timed batches, of which the median counts
BPE_BYTES = 10_000_000
BPE_VOCAB = 8192

Record = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `trainer bench`."""
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--device", default="auto", help="see `trainer devices` (default: auto)")
    parser.add_argument(
        "--size", type=int, nargs="+", default=[256, 512], help="matmul M = N = K (default: 256 512)"
    )
    parser.add_argument(
        "--preset", nargs="+", default=["nano"], metavar="NAME", help="training steps to time (default: nano)"
    )
    parser.add_argument("--batch", type=int, help="micro-batch of the training steps (default: the preset's)")
    parser.add_argument("--steps", type=int, default=20, help="training steps timed (default: 20)")
    parser.add_argument(
        "--sources", nargs="+", default=["books"], help="text for the tokenizer, the first 10 MB of it"
    )
    parser.add_argument(
        "--compare", action="store_true", help="time PyTorch's matmul too, if it is installed"
    )
    parser.add_argument("--out", type=Path, help="folder of JSON records to merge the results into")


async def main(args: argparse.Namespace) -> int:
    """Run the parts asked for; returns the exit code. Raises TrainerError for bad input."""
    parts = args.parts or PARTS
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ConfigError(f"nothing called {unknown[0]!r} can be timed", f"choose from {', '.join(PARTS)}")
    for name in args.preset:
        preset(name)
    device = await open_device(args.device) if {"matmul", "steps"} & set(parts) else None
    if device:
        print(f"{device.info.name} ({device.info.backend}), {machine()}")
    if device and "matmul" in parts:
        records = [r for size in args.size for r in await time_matmuls(device, size)]
        if args.compare:
            records += [r for size in args.size for r in time_torch_matmuls(size)]
        _keep(args.out, "kernels.json", records)
    if device and "steps" in parts:
        records = [await time_steps(device, name, args.batch, args.steps) for name in args.preset]
        _keep(args.out, "train_steps.json", records)
    if "tokenizer" in parts:
        _keep(args.out, "tokenizer.json", [await time_tokenizer(args.sources)])
    return 0


# -------------------------------------------------------------------- matmul


async def time_matmuls(device: Device, size: int) -> list[Record]:
    """f32 matmul at size³ in the three transposes, each variant, checked against the naive one first."""
    records = []
    for label, transposes in (("NN", (False, False)), ("NT", (False, True)), ("TN", (True, False))):
        expected = await _product(device, "matmul", min(size, 256), transposes)
        for variant in reversed(GPU_VARIANTS["matmul"]):
            _check(variant, await _product(device, variant, min(size, 256), transposes), expected)
            seconds = await _time_matmul(device, variant, size, transposes)
            tflops = 2 * size**3 / seconds / 1e12
            print(f"matmul {label} {size}³ {variant:16} {1e3 * seconds:9.3f} ms  {1e3 * tflops:9.1f} GFLOP/s")
            records.append(
                {
                    **_common(device),
                    "workload": f"matmul {label} {size}x{size}x{size}",
                    "variant": variant,
                    "precision": "f32",
                    "ms": round(1e3 * seconds, 5),
                    "tflops": float(f"{tflops:.4g}"),
                }
            )
    return records


def _matmul_plan(variant: str, size: int, transposes: tuple[bool, bool]) -> tuple[Plan, Tensor]:
    plan = Plan(Tuning(pinned={"matmul": variant}))
    a, b, out = (plan.tensor(name, (size, size), role="state") for name in ("a", "b", "out"))
    with plan.program("fill"):
        normal(plan, a, std=1.0, seed=1, stream=0)
        normal(plan, b, std=1.0, seed=1, stream=1)
    with plan.program("multiply"):
        transpose_a, transpose_b = transposes
        matmul(plan, a, b, out, (size, size, size), transpose_a=transpose_a, transpose_b=transpose_b)
    plan.finish()
    return plan, out


async def _product(device: Device, variant: str, size: int, transposes: tuple[bool, bool]) -> list[float]:
    plan, out = _matmul_plan(variant, size, transposes)
    executable = await device.compile(plan)
    executable.run(["fill", "multiply"])
    values = list((await executable.read(out)).cast("B").cast("f"))
    executable.close()
    return values


def _check(variant: str, values: list[float], expected: list[float]) -> None:
    error = sum((x - y) ** 2 for x, y in zip(values, expected, strict=True)) ** 0.5
    norm = sum(y * y for y in expected) ** 0.5
    if not error <= 1e-5 * norm:
        raise RuntimeError(f"{variant} differs from the naive variant by {error / norm:.1e}: not timed")


async def _time_matmul(device: Device, variant: str, size: int, transposes: tuple[bool, bool]) -> float:
    plan, _ = _matmul_plan(variant, size, transposes)
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


def time_torch_matmuls(size: int) -> list[Record]:
    """The same product through PyTorch (cuBLAS on NVIDIA), fp32 without TF32, on its best device."""
    import torch  # pyright: ignore[reportMissingImports]

    torch.backends.cuda.matmul.allow_tf32 = False
    cuda = torch.cuda.is_available()
    where = "cuda" if cuda else "cpu"
    a, b = (torch.randn(size, size, device=where) for _ in range(2))

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
    tflops = 2 * size**3 / seconds / 1e12
    print(f"matmul NN {size}³ {'torch':16} {1e3 * seconds:9.3f} ms  {1e3 * tflops:9.1f} GFLOP/s")
    name = torch.cuda.get_device_name() if cuda else machine()
    return [
        {
            **_provenance(name, f"torch {torch.__version__}"),
            "impl": "torch",
            "workload": f"matmul NN {size}x{size}x{size}",
            "variant": where,
            "precision": "f32",
            "ms": round(1e3 * seconds, 5),
            "tflops": float(f"{tflops:.4g}"),
        }
    ]


# -------------------------------------------------------------------- training steps


async def time_steps(device: Device, name: str, batch: int | None, steps: int) -> Record:
    """Whole training steps of a preset on random tokens: milliseconds, and the share that Python takes."""
    chosen = PRESETS[name]
    train = replace(chosen.train, batch=batch or chosen.train.batch, accumulate=1, steps=10_000)
    tokens = 64 * chosen.model.context
    built = build(chosen.model, train=train, tokens=tokens, tuning=device.info.tuning)
    budget = estimate(built, train, software=device.info.software)
    runtime = await Runtime.open(device, built)
    await _prepare(runtime, chosen.model, train, tokens)
    step = ["micro", "update"]
    for _ in range(3):  # compiles lazily, and raises the clocks
        runtime.executable.run(step)
    await runtime.executable.finish()
    encoding, began = 0.0, time.perf_counter()
    for _ in range(steps):
        start = time.thread_time()
        runtime.executable.run(step)
        encoding += time.thread_time() - start
    await runtime.executable.finish()
    seconds = (time.perf_counter() - began) / steps
    memory = peak_memory()
    runtime.close()
    record = {
        **_common(device),
        "workload": name,
        "precision": "f32",
        "batch": train.batch,
        "ms_per_step": round(1e3 * seconds, 4),
        "tokens_per_s": round(budget.tokens_per_step / seconds),
        "tflops": float(f"{budget.flops_per_step / seconds / 1e12:.4g}"),
        "python_share": round(encoding / steps / seconds, 4),
        "dispatches": sum(len(built.plan.programs[name].dispatches) for name in step),
        "device_memory_bytes": budget.device_memory,
        "peak_memory_bytes": memory,
        "estimated_memory_bytes": budget.host_memory,
    }
    print(
        f"step {name:8} {record['ms_per_step']:9.2f} ms  {record['tokens_per_s']:>9,} tokens/s  "
        f"{1e3 * record['tflops']:.1f} GFLOP/s  Python {100 * record['python_share']:.1f}%  "
        f"memory {memory >> 20:,} MiB (estimated {budget.host_memory >> 20:,})"
    )
    return record


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


# -------------------------------------------------------------------- tokenizer


async def time_tokenizer(sources: list[str]) -> Record:
    """Training BPE on the first 10 MB of `sources`, 8,192 tokens, and encoding the same text."""
    texts = _first_bytes((d.text for d in await corpus.load(sources, on_event=lambda _: None)), BPE_BYTES)
    size = sum(len(text.encode()) for text in texts)
    began = time.perf_counter()
    tokenizer = Tokenizer.train(texts, BPE_VOCAB)
    trained = time.perf_counter()
    ids = tokenizer.encode_documents(texts)
    encoded = time.perf_counter()
    print(
        f"BPE {size / 1e6:.1f} MB, {tokenizer.vocab_size:,} tokens: trained in {trained - began:.1f} s, "
        f"encoded in {encoded - trained:.1f} s, {size / len(ids):.2f} bytes a token"
    )
    return {
        **_provenance(machine(), f"Python {sys.version.split()[0]}"),
        "impl": "tabula",
        "workload": f"BPE {round(size / 1e6, 1)} MB {tokenizer.vocab_size}",
        "train_s": round(trained - began, 3),
        "encode_s": round(encoded - trained, 3),
        "bytes_per_token": round(size / len(ids), 4),
    }


def _first_bytes(texts: Iterable[str], most: int) -> list[str]:
    chosen: list[str] = []
    for text in texts:
        if most <= 0:
            break
        chosen.append(text[:most])
        most -= len(chosen[-1].encode())
    return chosen


# -------------------------------------------------------------------- records


def _common(device: Device) -> Record:
    return {**_provenance(device.info.name, device.info.driver), "impl": "tabula"}


def _provenance(device: str, driver: str) -> Record:
    return {
        "device": device,
        "driver": driver,
        "machine": machine(),
        "date": today(),
        "commit": commit(),
        "command": "trainer " + " ".join(sys.argv[1:]),
    }


def _keep(folder: Path | None, name: str, records: list[Record]) -> None:
    """Merge `records` into `folder/name`; one of the same workload, variant and device is replaced."""
    if folder is None:
        return
    path = folder / name
    with storage.storage_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text()) if path.exists() else []
    new = {_key(record) for record in records}
    merged = sorted([r for r in kept if _key(r) not in new] + records, key=_key)
    storage.write_file(path, [(json.dumps(merged, indent=1, ensure_ascii=False) + "\n").encode()])


def _key(record: Record) -> tuple[str, ...]:
    names = ("workload", "impl", "variant", "precision", "batch", "device", "machine")
    return tuple(str(record.get(name, "")) for name in names)
