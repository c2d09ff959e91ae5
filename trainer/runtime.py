"""A model on a device: the plan compiled, weights in and out, numbers to and from bytes."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from trainer.devices import Device, Executable
from trainer.errors import CheckpointError
from trainer.events import Reader
from trainer.model import GENERATION, Evaluation, Model
from trainer.plan import Tensor
from trainer.safetensors import TensorData

if sys.byteorder != "little":
    raise ImportError("the trainer keeps numbers as little-endian machines do")

Number = TypeVar("Number", int, float)
Window = tuple[Sequence[int], Sequence[int]]  # inputs, and the target of each


def pack_floats(values: Iterable[float]) -> bytes:
    """`values` as little-endian f32."""
    return array("f", values).tobytes()


def pack_ints(values: Iterable[int]) -> bytes:
    """`values` as little-endian u32."""
    return array("I", values).tobytes()


def floats(data: memoryview) -> list[float]:
    """The numbers in little-endian f32 `data`."""
    return list(data.cast("B").cast("f"))


def ints(data: memoryview) -> list[int]:
    """The numbers in little-endian u32 `data`."""
    return list(data.cast("B").cast("I"))


@dataclass
class Runtime:
    """A model whose plan is compiled on a device. Buffers are zero until weights are made or loaded."""

    device: Device
    model: Model
    executable: Executable

    @classmethod
    async def open(cls, device: Device, model: Model, on_event: Reader | None = None) -> Runtime:
        """Compile `model`'s plan, but for the programs that write text: `generate` compiles them when the
        first is wanted. Raises DeviceError if it does not fit.
        """
        programs = [name for name in model.plan.programs if name not in GENERATION]
        return cls(device, model, await device.compile(model.plan, on_event, programs))

    async def initialise(self) -> None:
        """Make random weights from the seed that the model was built with."""
        self.executable.run(["init"])
        await self.halve()
        await self.executable.finish()

    async def load(self, weights: Mapping[str, TensorData]) -> None:
        """Copy F32 weights, by the names of GPT2LMHeadModel, to the device."""
        await self.write_all(self.model.parameters, weights)
        await self.halve()

    async def halve(self) -> None:
        """Bring the f16 copies of the weights up to date, where the model has them."""
        if "halve" in self.model.plan.programs:
            self.executable.run(["halve"])

    async def weights(self) -> dict[str, TensorData]:
        """The model's weights, F32."""
        return await self.read_all(self.model.parameters)

    async def write_all(self, tensors: Mapping[str, Tensor], values: Mapping[str, TensorData]) -> None:
        """Copy `values` to the tensors of the same names. Raises CheckpointError where they do not match."""
        for name, tensor in tensors.items():
            value = values.get(name)
            if value is None or value.dtype != "F32" or tuple(value.shape) != tensor.shape:
                found = "missing" if value is None else f"{value.dtype} {list(value.shape)}"
                raise CheckpointError(
                    f"weight {name} is {found}, not F32 {list(tensor.shape)}",
                    "use the model's own config.json",
                )
            await self.executable.write(tensor, value.data)

    async def read_all(self, tensors: Mapping[str, Tensor]) -> dict[str, TensorData]:
        """The values of tensors, by the same names."""
        return {
            name: TensorData("F32", tensor.shape, await self.executable.read(tensor))
            for name, tensor in tensors.items()
        }

    async def losses(self, windows: Sequence[Window]) -> list[list[float]]:
        """Loss in nats of each target of each (inputs, targets) window, in one batch.

        Windows may be shorter than the context and fewer than the batch; the rest is padding whose loss is
        computed and dropped. Needs a model that was built with `evaluation_batch`.
        """
        evaluation = await self._evaluate(windows)
        losses = floats(await self.executable.read(evaluation.losses))
        return _unpadded(losses, windows, evaluation)

    async def scores(self, windows: Sequence[Window]) -> tuple[list[list[float]], list[list[int]]]:
        """`losses`, and for each target 1 if it had the largest logit (the first of equals), else 0."""
        evaluation = await self._evaluate(windows)
        losses = floats(await self.executable.read(evaluation.losses))
        hits = ints(await self.executable.read(evaluation.hits))
        return _unpadded(losses, windows, evaluation), _unpadded(hits, windows, evaluation)

    async def _evaluate(self, windows: Sequence[Window]) -> Evaluation:
        """Run the program `evaluate` on one batch of windows."""
        evaluation = self.model.evaluation
        assert evaluation is not None, "build the model with evaluation_batch"
        B, T = evaluation.inputs.shape
        if len(windows) > B or any(len(i) != len(t) or len(i) > T for i, t in windows):
            raise ValueError(f"a batch is at most {B} windows of at most {T} tokens, each with its target")
        inputs, targets = array("I", bytes(4 * B * T)), array("I", bytes(4 * B * T))
        for b, (x, y) in enumerate(windows):
            inputs[b * T : b * T + len(x)] = array("I", x)
            targets[b * T : b * T + len(y)] = array("I", y)
        await self.executable.write(evaluation.inputs, inputs.tobytes())
        await self.executable.write(evaluation.targets, targets.tobytes())
        self.executable.run(["evaluate"])
        return evaluation

    def close(self) -> None:
        """Give the device's memory back."""
        self.executable.close()


def _unpadded(values: list[Number], windows: Sequence[Window], evaluation: Evaluation) -> list[list[Number]]:
    """The values (B·T) that belong to the windows, by window."""
    context = evaluation.inputs.shape[1]
    return [values[b * context : b * context + len(x)] for b, (x, _) in enumerate(windows)]
