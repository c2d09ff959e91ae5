"""What `trainer bench` measures and keeps: the records' form, not how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_tools import Cli

from trainer.bench import matmul
from trainer.bench.matmul import Product, products

pytest_plugins = ("cli_fixtures",)


@pytest.mark.parametrize("precision", ["f32", "mixed"])
def test_records(precision: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "MEASURE_SECONDS", 0.001)
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
    assert all(record["ms"] > 0 and record["tflops"] > 0 for record in kernels)
    (steps,) = json.loads((tmp_path / "train_steps.json").read_text())
    assert (steps["workload"], steps["precision"], steps["impl"]) == ("TINY", precision, "tabula")
    assert steps["dispatches"] > 50
    (waiting,) = json.loads((tmp_path / "waiting.json").read_text())
    assert waiting["ms_per_step"] > 0
    assert waiting["ms_per_step_waiting"] > 0
    for record in (*kernels, steps, waiting):
        assert record["precision"] == precision
        assert {"device", "driver", "machine", "date", "commit", "command"} <= set(record)


def test_products() -> None:
    assert products("8") == [Product(name, (8, 8, 8)) for name in ("NN", "NT", "TN")]
    assert products("NT:64x32x16") == [Product("NT", (64, 32, 16))]
    for text in ("", "8x8", "0", "TT:8", "NN:", "8x8x8x8"):
        with pytest.raises(ValueError):  # noqa: PT011  (its text is the argument itself)
            products(text)
