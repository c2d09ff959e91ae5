"""What a training run leaves behind when something fails: nothing on the device, and no task under way."""

from __future__ import annotations

import asyncio
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainer.checkpoint import Checkpoint
from trainer.config import ModelConfig, TrainConfig
from trainer.dataset import Dataset
from trainer.devices import Device
from trainer.devices.reference import ReferenceDevice, ReferenceExecutable
from trainer.errors import CheckpointError, DeviceError
from trainer.plan import Tensor
from trainer.tokenizer import Tokenizer
from trainer.train import Trainer

MODEL = ModelConfig(layers=1, width=8, heads=2, context=8, vocab=258)
CONFIG = TrainConfig(steps=40, batch=1, warmup=2, eval_every=0, eval_batches=1, sample_every=0, log_every=2)
DATASET = Dataset(array("H", range(200)), array("H", range(50)))


class Watched(ReferenceDevice):
    """Notes what it compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled: list[ReferenceExecutable] = []

    async def compile(self, *arguments: Any, **named: Any) -> ReferenceExecutable:
        self.compiled.append(await super().compile(*arguments, **named))
        return self.compiled[-1]


async def created(device: Device, resume: Checkpoint | None = None, dataset: Dataset = DATASET) -> Trainer:
    tokenizer = Tokenizer.train(["to be or not to be"], MODEL.vocab)
    return await Trainer.create(
        device, MODEL, CONFIG, tokenizer, dataset, on_event=lambda event: None, resume=resume
    )


async def begun(device: Device) -> Checkpoint:
    """A checkpoint of a run's first moment."""
    trainer = await created(device)
    taken = await trainer.snapshot()
    trainer.runtime.close()
    return Checkpoint(Path("run"), taken.step, taken.model, taken.weights, None, taken.state, taken.optimizer)


def test_a_run_that_cannot_be_restored_leaves_nothing_on_the_device() -> None:
    async def fail() -> Watched:
        whole = await begun(ReferenceDevice())
        device, name = Watched(), next(iter(whole.weights))
        less = {key: tensor for key, tensor in whole.weights.items() if key != name}
        with pytest.raises((CheckpointError, KeyError)):
            await created(device, replace(whole, weights=less))
        return device

    (compiled,) = asyncio.run(fail()).compiled
    assert not compiled._arrays


def test_other_tokens_are_refused_before_anything_is_compiled() -> None:
    async def fail() -> Watched:
        device, other = Watched(), Dataset(DATASET.train[1:], DATASET.validation)
        with pytest.raises(CheckpointError, match="run was trained on other tokens: resume with"):
            await created(device, await begun(ReferenceDevice()), other)
        return device

    assert not asyncio.run(fail()).compiled


def test_a_read_that_fails_leaves_no_other_under_way() -> None:
    async def fail() -> set[asyncio.Task[Any]]:
        trainer = await created(ReferenceDevice())
        reads = 0

        async def read(tensor: Tensor) -> memoryview:
            nonlocal reads
            reads += 1
            await asyncio.sleep(0.01 if reads == 1 else 60)
            raise DeviceError("the GPU was lost", "start again")

        trainer.runtime.executable.read = read  # type: ignore[method-assign]
        with pytest.raises(DeviceError, match="lost"):
            await trainer._train_until(CONFIG.steps)
        assert reads == 2
        return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]

    assert not asyncio.run(fail())
