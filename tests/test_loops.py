"""Attention over contexts so long that a software renderer would leave a thread's loops before their end: see
trainer.kernels.LOOP_LIMIT.
"""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from kernel_runs import Case, assert_arrays_close, assert_close, poisoned, run

from trainer.config import ModelConfig
from trainer.devices import Device
from trainer.errors import DeviceError
from trainer.kernels import SUBGROUPS, MatrixUnits, Tuning
from trainer.model import build
from trainer.ops import attention


@pytest.mark.parametrize(
    ("variant", "head_size", "context"),
    [  # measured with Mesa 22.3: where the first one is wrong
        ("attention", 127, 170),
        ("attention", 33, 636),
        ("attention_direct", 128, 2620),  # in its backward part
        ("attention_tiled", 128, 11_520),
        ("attention_tiled", 96, 13_888),
    ],
)
def test_a_context_that_is_computed_wrong_does_not_fit(variant: str, head_size: int, context: int) -> None:
    assert not attention.fitting(context, head_size, MatrixUnits(), software=True)[variant]
    assert attention.fitting(context * 7 // 10, head_size, MatrixUnits(), software=True)[variant]


@pytest.mark.parametrize(("head_size", "T"), [(127, 169), (33, 635)])
def test_the_longest_context_that_fits_is_computed_to_the_end(head_size: int, T: int, native: Device) -> None:
    def fits(context: int) -> bool:
        return attention.fitting(context, head_size, MatrixUnits(), software=True)["attention"]

    assert fits(T)
    assert not fits(T + 1)
    random = np.random.default_rng(7)
    q, k, v = random.standard_normal((3, T, head_size)).astype(np.float32)
    q[:], k[:, 0] = np.eye(head_size, dtype=np.float32)[0], np.arange(T) / 50  # each key is a new maximum
    case = Case(
        "attention.forward",
        f"{T}x{head_size}",
        {"B": 1, "T": T, "NH": 1, "HS": head_size, "SCALE": 1.0},
        {"qkv": np.concatenate([q, k, v], axis=1)},
        {"out": poisoned(T * head_size), "lse": poisoned(T)},
        lambda name: attention.grid(name, (1, T, 1), MatrixUnits()),
        ("attention",),
    )
    got = asyncio.run(run(native, case, "attention"))[0]["out"][: T * head_size]
    weights = np.exp(k[:, 0].astype(np.float64) - k[-1, 0])
    assert_arrays_close("the last row", got[-head_size:], weights / weights.sum() @ v)


def model_of(context: int, head_size: int, *, software: bool) -> None:
    config = ModelConfig(layers=1, width=head_size, heads=1, context=context, vocab=300)
    tuning = Tuning(software=software, features=frozenset({SUBGROUPS}))
    build(config, evaluation_batch=1, generate=True, tuning=tuning)


@pytest.mark.parametrize(("head_size", "context"), [(128, 16_384), (64, 50_000)], ids=["whole", "one"])
def test_a_context_for_a_gpu_is_refused_on_a_software_renderer(head_size: int, context: int) -> None:
    model_of(context, head_size, software=False)
    refused = rf"context of {context:,} with heads of {head_size} .* software .*: choose a smaller context"
    with pytest.raises(DeviceError, match=refused):
        model_of(context, head_size, software=True)


def test_the_longest_context_for_one_token_is_computed_to_the_end(
    native: Device, reference64: Device
) -> None:
    T, random = 49_152, np.random.default_rng(7)
    model_of(T, 64, software=True)
    with pytest.raises(DeviceError, match="software"):
        model_of(T + 1, 64, software=True)
    row, cache = (random.standard_normal((rows, 3 * 64)).astype(np.float32) for rows in (1, T))
    case = Case(
        "decode.forward_one",
        f"{T}",
        {"NH": 1, "HS": 64, "SCALE": 0.125},
        {"row": row, "position": np.array([T - 1], np.uint32)},
        {"cache": cache, "out": poisoned(64)},
        lambda name: (1, 1, 1),
        ("decode",),
    )
    expected = asyncio.run(run(reference64, case, "decode"))[0]
    assert_close(case, asyncio.run(run(native, case, "decode"))[0], expected)
