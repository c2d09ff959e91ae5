"""What `trainer bench` measures and keeps: the records' form, not how fast anything is."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import struct
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_tools import Cli, start, wait_for

from trainer.bench import curves, matmul, profile, pytorch, records
from trainer.bench.learn import smoothed, thinned
from trainer.bench.matmul import Product, products
from trainer.bench.records import keep
from trainer.bench.steps import configured, open_training
from trainer.config import ModelConfig
from trainer.devices import open_device
from trainer.errors import DeviceError
from trainer.runtime import ints

pytest_plugins = ("cli_fixtures",)

ORIGIN = {"device", "driver", "machine", "date", "commit", "command"}
TINY = ("--preset", "TINY", "--batch", "1", "--device", "reference")


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((folder / name).read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_at_once_and_nothing_is_kept(number: int, tmp_path: Path) -> None:
    """Also amid steps, which never return to the event loop on NumPy."""
    process = start("bench", "steps", *TINY, "--steps", "100000", "--out", tmp_path / "data")
    wait_for(process, "NumPy")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "trainer: interrupted\n")
    assert not (tmp_path / "data").exists()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures for moments: the figures are noise."""
    monkeypatch.setattr(matmul, "MEASURE_SECONDS", 0.001)
    monkeypatch.setattr(matmul, "BURST_SECONDS", 0.001)
    monkeypatch.setattr(matmul, "REST_SECONDS", 0.0)
    monkeypatch.setattr(profile, "PRODUCT_SOFTWARE", 16)
    monkeypatch.setattr(profile, "COPIED_SOFTWARE", 64)
    monkeypatch.setattr(profile, "ROUNDS", 1)
    monkeypatch.setattr(curves, "MEASURED_SECONDS", 0.001)


@pytest.mark.parametrize("precision", ["f32", "mixed"])
def test_records(precision: str, cli: Cli, tmp_path: Path, quick: None) -> None:
    shapes = ["--size", "NN:16x8x24", "8", "--preset", "TINY", "--batch", "1", "--steps", "2"]
    options = ["--precision", precision, "--device", "reference", "--out", tmp_path]
    parts = ("matmul", "steps", "waiting")
    cli.done("bench", *parts, *shapes, *options)
    assert "dispatches" in cli.done("bench", *parts, *shapes, *options)  # and replaces the records
    kernels = json.loads((tmp_path / "kernels.json").read_text())
    labels = ["matmul NN 16x8x24", "matmul NN 8x8x8", "matmul NT 8x8x8", "matmul TN 8x8x8"]
    assert sorted({record["workload"] for record in kernels}) == labels
    variants = [record["variant"] for record in kernels if record["workload"] == labels[0]]
    units = ["matmul_units"] if precision == "mixed" else []
    assert variants == ["matmul", "matmul_direct", "matmul_tiled", *units]
    assert all(min(record[of] for of in ("ms", "tflops", "burst_tflops")) > 0 for record in kernels)
    (steps,) = json.loads((tmp_path / "train_steps.json").read_text())
    assert (steps["workload"], steps["precision"], steps["impl"]) == ("TINY", precision, "tabula")
    assert steps["dispatches"] > 50
    assert steps["python_share"] == steps["encoding_share"] > 0, "where there is no graphics library"
    (waiting,) = json.loads((tmp_path / "waiting.json").read_text())
    assert waiting["ms_per_step"] > 0
    assert waiting["ms_per_step_waiting"] > 0
    for record in (*kernels, steps, waiting):
        assert record["precision"] == precision
        assert set(record) >= ORIGIN


def test_python_s_own_part_of_a_step_is_less_than_its_library_s_and_its_own(
    cli: Cli, tmp_path: Path, quick: None
) -> None:
    cli.done("bench", "steps", *TINY[:4], "--steps", "20", "--out", tmp_path)
    (steps,) = json.loads((tmp_path / "train_steps.json").read_text())
    assert 0 < steps["python_share"] < steps["encoding_share"] < 1


def test_a_busy_moment_counts_little_for_the_tokenizer(
    cli: Cli, story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five rounds of learning, which take 2, 2, 90, 3 and 2 s by this clock, and five of encoding."""
    seconds = iter([2, 2, 90, 3, 2, 0.5, 0.25, 80, 0.5, 70])
    ends = (end for span in seconds for end in (0.0, span))
    monkeypatch.setattr("trainer.bench.tokenizer.time", SimpleNamespace(perf_counter=lambda: next(ends)))
    printed = cli.done("bench", "tokenizer", "--sources", story, "--out", tmp_path)
    assert ": trained in 2.00 s, encoded in 0.50 s, " in printed
    (record,) = read(tmp_path, "tokenizer.json")
    assert (record["train_s"], record["encode_s"]) == (2, 0.5)
    assert 1 < record["bytes_per_token"] < 8
    assert set(record) >= ORIGIN


def test_products() -> None:
    assert products("8") == [Product(name, (8, 8, 8)) for name in ("NN", "NT", "TN")]
    assert products("NT:64x32x16") == [Product("NT", (64, 32, 16))]
    for text in ("", "8x8", "0", "TT:8", "NN:", "8x8x8x8"):
        with pytest.raises(ValueError):  # noqa: PT011  (its text is the argument itself)
            products(text)


@pytest.mark.parametrize("precision", ["f32", "mixed"])
def test_a_profile_tells_of_every_launch(precision: str, cli: Cli, tmp_path: Path, quick: None) -> None:
    cli.done(
        "bench", "profile", "kernels", *TINY, "--precision", precision, "--steps", "2", "--out", tmp_path
    )
    (record,) = read(tmp_path, "profile.json")
    assert set(record) >= ORIGIN
    *rows, rest = record["kernels"]
    assert sum(row["launches"] for row in rows) == record["dispatches"] > 50
    assert rest["kernel"] == profile.REST
    assert sum(row["ms"] for row in (*rows, rest)) == pytest.approx(record["ms_per_step"], abs=0.01)
    assert [row["ms"] for row in rows] == sorted((row["ms"] for row in rows), reverse=True)
    products = [row for row in rows if "multiply" in row["kernel"]]
    assert {row["kernel"].split()[1] for row in products} == {"NN", "NT", "TN"}
    assert all(row["tflops"] > 0 for row in products)
    for row in rows:
        roofs = [row["gb_per_s"] / record["copy_gb_per_s"]]
        roofs += [row["tflops"] / record["matmul_tflops"]] if "tflops" in row else []
        assert row["roof_share"] == pytest.approx(max(roofs), rel=0.01, abs=1e-4)
    kernels = {r["workload"]: r for r in read(tmp_path, "kernels.json")}
    assert set(kernels) == {f"{label} TINY" for label in profile.KERNELS}
    assert all(set(r) >= ORIGIN and r["ms"] > 0 for r in kernels.values())
    backward, forward = kernels["attention backward TINY"], kernels["attention forward TINY"]
    work = [r["tflops"] * r["ms"] for r in (backward, forward)]
    assert work[0] / work[1] == pytest.approx(5 / 2, rel=0.01)  # products


def test_a_step_that_overflows_is_not_in_a_profile(quick: None) -> None:
    """AdamW has nothing to do there, and would seem fast. A model that has diverged has no other steps."""

    async def profiled(precision: str, tensor: str, value: float) -> int:
        device = await open_device("reference")
        runtime = await open_training(device, *configured("TINY", precision, 1))
        training = runtime.model.training
        assert training is not None
        tensors = {"scale": training.state.loss_scale, **runtime.model.parameters}
        await runtime.executable.write(tensors[tensor], struct.pack("<f", value) * tensors[tensor].size)
        await profile.time_kernels(device, runtime)
        return ints(await runtime.executable.read(training.state.counters))[1]

    assert asyncio.run(profiled("mixed", "scale", 2.0**30)) > 0, "updates"
    with pytest.raises(DeviceError, match="diverged while it was timed: try again"):
        asyncio.run(profiled("f32", "transformer.ln_f.bias", float("nan")))


def test_learning_is_compared_with_the_first_precision(cli: Cli, tmp_path: Path) -> None:
    for name in ("sea", "hill", "wood"):
        (tmp_path / f"{name}.txt").write_text(f"The {name} was calm, and the old ship came home. " * 60)
    options = ("--preset", "nano", "--precision", "f32", "mixed", "--steps", "6", "--device", "reference")
    sources = [tmp_path / f"{name}.txt" for name in ("sea", "hill", "wood")]
    cli.done("bench", "learn", *options, "--sources", *sources, "--out", tmp_path)
    records = {(r["precision"], r["seed"]): r for r in read(tmp_path, "learning.json")}
    assert set(records) == {("f32", 1337), ("f32", 1338), ("mixed", 1337)}
    first, other, mixed = (records[key] for key in (("f32", 1337), ("f32", 1338), ("mixed", 1337)))
    for record in records.values():
        assert set(record) >= ORIGIN
        assert record["training_steps"] == [1, 2, 3, 4, 5, 6]
        assert record["validation_steps"] == [0, 1, 2, 3, 4, 5, 6]
        assert record["validation_losses"][-1] == record["validation_loss"] < record["validation_losses"][0]
        assert record["tokens"] == 6 * 8 * 64
    assert (first["training_difference_loss"], first["validation_difference_loss"]) == (0, 0)
    late = [4, 5, 6]  # of 6 steps
    apart = [abs(other["validation_losses"][i] - first["validation_losses"][i]) for i in late]
    assert other["validation_difference_loss"] == pytest.approx(sum(apart) / len(apart), abs=2e-5)
    assert other["validation_difference_loss"] > mixed["validation_difference_loss"]
    assert "no preset 'TINY'" in cli.refused("bench", "learn", "--preset", "TINY", "--device", "reference")


def test_curves_leave_out_what_does_not_fit(
    cli: Cli, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "SIZES", ((1, 64), (2, 64)))
    monkeypatch.setattr(curves, "CONTEXTS", (16, 128))
    monkeypatch.setattr(curves, "VOCABULARIES", (64, 512))
    monkeypatch.setattr(
        curves, "MICRO_BATCHES", (1, 2000)
    )  # 128,000 tokens: over a software renderer's loops
    printed = cli.done("bench", "curves", *TINY, "--seconds", "1e9", "--out", tmp_path)
    assert "batch size 2,000: left out, a batch of 128,000 tokens" in printed
    records = {r["axis"]: r for r in read(tmp_path, "curves.json")}
    assert all(set(r) >= ORIGIN for r in records.values())
    found = {axis: [(p["at"], p["batch"]) for p in record["points"]] for axis, record in records.items()}
    small, large = (ModelConfig(layers=n, width=64, heads=1, context=64, vocab=512) for n in (1, 2))
    assert found == {
        "parameters": [(small.parameters, 1), (large.parameters, 1)],
        "context": [(16, 4), (128, 1)],
        "vocabulary": [(64, 1), (512, 1)],
        "batch size": [(1, 1)],
    }
    assert all(p["tokens_per_s"] > 0 for record in records.values() for p in record["points"])
    printed = cli.done("bench", "curves", *TINY, "--seconds", "0")
    assert printed.count("tokens/s") == 1  # the first point is what the others are judged by
    assert printed.count("left out, a step would take about") == 7


def test_the_comparison_needs_pytorch(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch, "find_spec", lambda name: None)
    assert "PyTorch is not installed: pip install torch" in cli.refused("bench", "steps", "--compare", *TINY)


def test_bad_requests_are_refused(cli: Cli) -> None:
    assert "nothing called 'speed'" in cli.refused("bench", "speed")
    assert "no workload 'huge'" in cli.refused("bench", "steps", "--preset", "huge")
    assert "0 is too few" in cli.refused("bench", "steps", "--steps", "0")
    assert "not a size" in cli.refused("bench", "matmul", "--size", "8x8")
    line = cli.refused("bench", "matmul", "--variant", "matmul", "zzz")
    assert line.startswith("matmul has no variant 'zzz': choose from matmul_units, matmul_tiled, ")


def test_a_variant_that_is_asked_for_and_cannot_be_timed_is_told(cli: Cli, quick: None) -> None:
    flags = ("--size", "NN:8", "--device", "reference")
    printed = cli.done("bench", "matmul", *flags, "--variant", "matmul_units")
    assert re.search(r"^matmul NN 8x8x8 f32 +matmul_units +left out: ", printed, re.MULTILINE)
    assert "left out" not in cli.done("bench", "matmul", *flags)


# -------------------------------------------------------------------- what is kept


@pytest.mark.parametrize("held", ['{"broken', "[1, 2]", "{}", b"\xff", None])
def test_what_records_cannot_join_is_refused_before_anything_is_measured(
    held: str | bytes | None, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.cli.bench.open_device", None)
    path = tmp_path / "train_steps.json"
    if held is None:
        path.mkdir()
    else:
        path.write_bytes(held if isinstance(held, bytes) else held.encode())
    line = cli.refused("bench", "steps", *TINY, "--out", tmp_path)
    assert str(path) in line
    assert line.endswith("give another --out, or move the file")
    if held is not None:
        assert cli.refused("bench", "steps", *TINY, "--out", path).startswith(f"cannot write {path}")


def test_a_list_of_numbers_is_a_line(tmp_path: Path) -> None:
    record = {"workload": "a [1, 2] b", "steps": [1, 2, 3], "losses": [0.5, -1e-05, 2], "rows": [{"ms": 1}]}
    keep(tmp_path, "x.json", [record])
    assert json.loads((tmp_path / "x.json").read_text()) == [record]
    assert '  "losses": [ 0.5, -1e-05, 2 ],\n' in (tmp_path / "x.json").read_text()


def test_all_records_of_a_command_are_of_the_checkout_that_it_began_with(
    cli: Cli, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "commit", lambda: "a-dirty" if any(tmp_path.iterdir()) else "a")
    records.checkout.cache_clear()
    try:
        cli.done("bench", "matmul", "waiting", "--size", "NN:8", *TINY, "--steps", "1", "--out", tmp_path)
    finally:
        records.checkout.cache_clear()
    found = [*read(tmp_path, "kernels.json"), *read(tmp_path, "waiting.json")]
    assert {record["commit"] for record in found} == {"a"}


def test_losses_are_smoothed_over_a_hundredth_to_either_side() -> None:
    assert smoothed([1.0, 2.0, 6.0, 4.0]) == [1.5, 3.0, 4.0, 5.0]
    assert smoothed([float(i % 2) for i in range(1000)])[500] == pytest.approx(10 / 21)  # 490 to 510
    assert smoothed([7.0]) == [7.0]


def test_losses_are_thinned_evenly() -> None:
    losses = [float(i) for i in range(1, 2001)]
    kept = thinned(losses, 200)
    assert (len(kept), kept[0], kept[-1]) == (200, (1, 1.0), (2000, 2000.0))
    assert {b - a for (a, _), (b, _) in pairwise(kept)} == {10, 11}
    assert thinned([3.0, 2.0], 200) == [(1, 3.0), (2, 2.0)]
    assert thinned([3.0], 200) == [(1, 3.0)]
