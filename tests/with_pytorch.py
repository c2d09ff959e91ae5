"""The comparison with PyTorch, where PyTorch is: that it trains the same model. Run by `make oracles`."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest

from trainer.bench.pytorch import gpt2, time_torch_steps
from trainer.bench.steps import workload

torch: Any = importlib.import_module("torch")


@pytest.mark.parametrize("name", ["nano", "TINY"])
def test_the_model_is_ours(name: str) -> None:
    config, _ = workload(name)
    torch.manual_seed(1)
    network = gpt2(torch, config)
    assert sum(parameter.numel() for parameter in network.parameters()) == config.parameters
    tokens = torch.randint(config.vocab, (4, config.context + 1))
    with torch.no_grad():
        first = network(tokens[:, :-1], tokens[:, 1:])
        assert first.item() == pytest.approx(math.log(config.vocab), rel=0.02)
        # Causal: the losses of the first half are the same without the second half's tokens.
        half = config.context // 2
        targets = tokens[:, 1:].clone()
        targets[:, half:] = -100  # counts for nothing
        alone = network(tokens[:, :half], targets[:, :half])
        assert network(tokens[:, :-1], targets).item() == pytest.approx(alone.item(), rel=1e-5)


@pytest.mark.parametrize("precision", ["f32", "mixed"])
def test_steps_are_timed_eager_and_compiled(precision: str) -> None:
    records = time_torch_steps("TINY", precision, 1, 2)
    assert records[0]["variant"] == "eager"
    for record in records:
        assert (record["impl"], record["workload"], record["precision"]) == ("torch", "TINY", precision)
        assert record["tokens_per_s"] == pytest.approx(64 / record["ms_per_step"] * 1e3, rel=0.01)
        assert {"device", "driver", "machine", "date", "commit", "command", "tflops"} <= set(record)
