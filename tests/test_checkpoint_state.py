"""The state of a run in its checkpoint, and what of it may be damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import save_faults

from trainer import checkpoint
from trainer.errors import CheckpointError

TEXT = {"sources": ["books"], "validation_share": 0.1, "split_seed": 0}
TUNING = {"device": {"name": "a GPU"}, "answers": {"matmul NN": "tiled"}}


def with_state(**changes: Any) -> dict[str, bytes]:
    """A checkpoint whose run has other values in its state, `...` for none."""
    chunks = checkpoint.to_files(
        7,
        save_faults.MODEL,
        save_faults.tensors(7),
        state=save_faults.state(7),
        optimizer=save_faults.tensors(7, ("m.", "v.")),
    )
    files = {file: b"".join(parts) for file, parts in chunks.items()}
    data = json.loads(files["trainer_state.json"])
    data["state"] |= changes
    data["state"] = {name: value for name, value in data["state"].items() if value is not ...}
    return files | {"trainer_state.json": json.dumps(data).encode()}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "counters",
            [..., None, 7, [7, 7, 0], [7, 7, 0, 0, 0], [7, -1, 0, 0], [7, 7.5, 0, 0], [7, 2**32, 0, 0]],
        ),
        ("counters", [[True, 7, 0, 0], ["7", 7, 0, 0]]),
        ("seconds", [..., None, "1", True, float("nan"), float("inf"), [1.0]]),
        ("train", [..., None, [], "x"]),
        ("loss_scale", [None, 1.0, [], ["x"], [float("inf")], [1.0, 1.0]]),
        ("streak", [None, 1, [], [-1], [0.5]]),
        (
            "tuning",
            [None, {}, [], TUNING | {"answers": 3}, TUNING | {"answers": {"a": 3}}, TUNING | {"device": 1}],
        ),
        ("text", [None, {}, [], *(TEXT | {"sources": sources} for sources in (None, -1, [1], "books"))]),
        ("text", [TEXT | {"validation_share": share} for share in (None, "x", float("nan"))]),
    ],
)
def test_damaged_state_is_one_clear_error(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(CheckpointError) as caught:
            checkpoint.from_files(with_state(**{name: value}), Path("run/step-000007"), resume=True)
        assert str(caught.value).startswith(f"run/step-000007/trainer_state.json: {name} is "), value
        assert caught.value.remedy == "copy the checkpoint again"


def test_whole_state_is_read() -> None:
    parts = {"loss_scale": [65536.0], "streak": [3], "tuning": TUNING, "text": TEXT, "seconds": 2}
    found = checkpoint.from_files(with_state(**parts), resume=True).state
    assert found == save_faults.state(7) | parts
