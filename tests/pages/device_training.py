"""One training run, as both hosts make it: in the page and natively. Needs the standard library alone."""

from __future__ import annotations

import hashlib
from array import array
from typing import Any

from trainer.config import ModelConfig, TrainConfig, from_dict
from trainer.dataset import Dataset
from trainer.devices import Device
from trainer.events import Event, Step, Validation
from trainer.tokenizer import Tokenizer
from trainer.train import Trainer


async def train(device: Device, job: dict[str, Any]) -> dict[str, Any]:
    """Train `job["model"]` as `job["train"]` says on the bytes of `job["text"]`."""
    tokenizer = Tokenizer.from_merges([])
    tokens = tokenizer.encode(job["text"])
    cut = len(tokens) * 9 // 10
    events: list[Event] = []
    trainer = await Trainer.create(
        device,
        from_dict(ModelConfig, job["model"]),
        from_dict(TrainConfig, job["train"]),
        tokenizer,
        Dataset(array("H", tokens[:cut]), array("H", tokens[cut:]), text_bytes=len(tokens)),
        on_event=events.append,
    )
    before = await trainer.snapshot()
    await trainer.run()
    after = await trainer.snapshot()
    trainer.runtime.close()
    steps = [event for event in events if isinstance(event, Step)]
    return {
        "device": device.info.summary(),
        "before": {name: digest(tensor.data) for name, tensor in before.weights.items()},
        "after": {name: digest(tensor.data) for name, tensor in after.weights.items()},
        "losses": [step.loss for step in steps],
        "norms": [step.gradient_norm for step in steps],
        "rates": [step.learning_rate for step in steps],
        "validation": [event.loss for event in events if isinstance(event, Validation)],
        "counters": after.state["counters"],
    }


def digest(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()
