"""How many dispatches a training step has, and that no op gains one unnoticed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainer.budget import dispatches, least_dispatches
from trainer.config import ModelConfig, TrainConfig
from trainer.kernels import HALF, Tuning
from trainer.model import build

MODEL = ModelConfig(layers=3, width=48, heads=3, context=32, vocab=300)


@pytest.mark.parametrize("precision", ["f32", "mixed"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_dispatches_of_a_step(layers: int, precision: str, accumulate: int) -> None:
    model = replace(MODEL, layers=layers)
    train = TrainConfig(batch=2, precision=precision, accumulate=accumulate)
    built = build(model, train=train, tokens=1000, tuning=Tuning(features=frozenset({HALF})))
    of_micro_batch = {
        "random.windows": 1,
        "embedding.forward": 1,
        "embedding.chain": 1,
        "embedding.backward_tokens": 1,
        "embedding.backward_positions": 1,
        "layernorm.forward": 2 * layers + 1,
        "layernorm.backward": 2 * layers + 1,
        "layernorm.backward_parameters": 2 * layers + 1,
        "matmul.multiply": 3 * (4 * layers + 1),  # forward, and the gradients of both operands
        "attention.forward": layers,
        "attention.backward_delta": layers,
        "attention.backward_query": layers,
        "attention.backward_key_value": layers,
        "column_sum.partial": 4 * layers,  # a bias each
        "column_sum.total": 1,  # of all biases and LayerNorms
        "cross_entropy.forward_backward": 1,
        "cross_entropy.mean": 1,
    }
    of_update = {"adamw.norm_partial": 1, "adamw.settle": 1, "adamw.update": 1}
    assert dispatches(built, train) == {**{k: accumulate * n for k, n in of_micro_batch.items()}, **of_update}

    least = least_dispatches(model, train)
    assert sum(least.values()) == (14 * layers + 8) * accumulate + 1
    by_op = dict.fromkeys(least, 0)
    for kernel, count in dispatches(built, train).items():
        by_op[kernel.split(".")[0]] += count
    assert all(by_op[op] >= fewest for op, fewest in least.items())
