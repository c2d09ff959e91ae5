"""`trainer export`: what is handed on is the model, rounded, in files of the asked size."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from cli_tools import Cli
from safetensors.numpy import load_file

from trainer import checkpoint, export
from trainer.checkpoint import Checkpoint
from trainer.errors import CheckpointError
from trainer.safetensors import TensorData, f16_to_f32, f32_to_f16

pytest_plugins = ("cli_fixtures",)


def test_exported_folder_is_the_model_in_half_the_size(cli: Cli, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "handed-on"
    printed = cli.done("export", finished, "--out", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert "model.safetensors" in printed
    before, after = checkpoint.load(finished), checkpoint.load(out)
    assert (after.step, after.model) == (before.step, before.model)
    for name, array in load_file(out / "model.safetensors").items():
        expected = (
            np.frombuffer(before.weights[name].data, np.float32).reshape(array.shape).astype(np.float16)
        )
        assert array.dtype == np.float16
        assert np.array_equal(array, expected), name
    assert cli("sample", out, "--tokens", "4", "--device", "reference")


def test_shards_are_listed_and_read_back(finished: Path) -> None:
    loaded = checkpoint.load(finished)
    files = {name: b"".join(chunks) for name, chunks in export.to_files(loaded, "F32", 2000).items()}
    shards = sorted(name for name in files if name.endswith(".safetensors"))
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert len(shards) > 2
    index = json.loads(files["model.safetensors.index.json"])
    assert set(index["weight_map"]) == set(loaded.weights)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in loaded.weights.values())
    again = checkpoint.from_files(files)
    assert {n: bytes(t.data) for n, t in again.weights.items()} == {
        n: bytes(t.data) for n, t in loaded.weights.items()
    }


def test_what_f16_cannot_hold_is_refused(finished: Path) -> None:
    loaded = checkpoint.load(finished)
    name = "transformer.ln_f.bias"
    large = TensorData("F32", loaded.weights[name].shape, struct.pack("<8f", *[70_000.0] * 8))
    changed = Checkpoint(
        loaded.folder, 10, loaded.model, {**loaded.weights, name: large}, loaded.tokenizer, None, None
    )
    with pytest.raises(CheckpointError, match="too large for F16: export it as F32"):
        export.to_files(changed)


def test_rounding_is_that_of_numpy() -> None:
    values = np.random.default_rng(0).normal(0, 1e-3, 70_000).astype(np.float32)
    values[:4] = 0.0, -0.0, 1e-8, 65_519.0
    halves = f32_to_f16(values.tobytes())
    expected = values.astype(np.float16)
    assert halves == expected.tobytes()
    assert f16_to_f32(halves) == expected.astype(np.float32).tobytes()


def test_an_existing_folder_stays_as_it_is(cli: Cli, finished: Path, tmp_path: Path) -> None:
    refused = cli.refused("export", finished, "--out", tmp_path)
    assert "exists already: give another --out" in refused
    assert not list(tmp_path.iterdir())
