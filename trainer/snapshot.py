"""The state of a run: read from the device for a checkpoint, and put back to go on from one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from trainer.checkpoint import Checkpoint
from trainer.config import ModelConfig, TrainConfig, from_dict
from trainer.errors import CheckpointError
from trainer.ops.adamw import FIRST_LOSS_SCALE
from trainer.runtime import Runtime, floats, ints, pack_floats, pack_ints
from trainer.safetensors import TensorData
from trainer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds."""

    step: int
    model: ModelConfig
    weights: dict[str, TensorData]
    tokenizer: Tokenizer
    state: dict[str, Any]
    optimizer: dict[str, TensorData]


Save = Callable[[Snapshot], Awaitable[str]]  # writes a snapshot somewhere and says where


async def take(runtime: Runtime, step: int, tokenizer: Tokenizer, state: dict[str, Any]) -> Snapshot:
    """Weights, optimiser, counters and, in mixed precision, the loss scale, beside other `state`."""
    training = runtime.model.training
    assert training is not None
    read = runtime.executable.read
    optimizer: dict[str, TensorData] = {}
    for prefix, tensors in (("m", training.means), ("v", training.variances)):
        named = await runtime.read_all(tensors)
        optimizer.update({f"{prefix}.{name}": data for name, data in named.items()})
    state = {"counters": ints(await read(training.state.counters)), **state}
    if training.state.loss_scale and training.state.streak:
        state["loss_scale"] = floats(await read(training.state.loss_scale))
        state["streak"] = ints(await read(training.state.streak))
    return Snapshot(step, runtime.model.config, await runtime.weights(), tokenizer, state, optimizer)


async def restore(runtime: Runtime, checkpoint: Checkpoint) -> None:
    """Put what `take` read of this very run back. A run that goes on in mixed precision and was f32 so far
    gets the loss scale of one that begins. Raises CheckpointError where the weights are others.
    """
    training = runtime.model.training
    assert training is not None
    assert checkpoint.state is not None
    assert checkpoint.optimizer is not None
    await runtime.load(checkpoint.weights)
    for prefix, tensors in (("m", training.means), ("v", training.variances)):
        values = {name: checkpoint.optimizer[f"{prefix}.{name}"] for name in tensors}
        await runtime.write_all(tensors, values)
    write = runtime.executable.write
    await write(training.state.counters, pack_ints(checkpoint.state["counters"]))
    if training.state.loss_scale and training.state.streak:
        begun = {"loss_scale": [FIRST_LOSS_SCALE], "streak": [0], **checkpoint.state}
        await write(training.state.loss_scale, pack_floats(begun["loss_scale"]))
        await write(training.state.streak, pack_ints(begun["streak"]))


def resumed_config(checkpoint: Checkpoint, **changes: Any) -> TrainConfig:
    """The training configuration of a checkpoint, with changes that leave the steps done as they were."""
    if checkpoint.state is None or "train" not in checkpoint.state:
        raise CheckpointError(
            f"{checkpoint.folder} has no training state", "start a new run from its weights"
        )
    return replace(from_dict(TrainConfig, checkpoint.state["train"]), **changes)
