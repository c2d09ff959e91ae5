"""A model that is not being trained just now, and the text that it writes."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from demo.material import Material
from demo.training import Training
from trainer.checkpoint import Checkpoint
from trainer.config import SampleConfig
from trainer.devices import Device, check_fits
from trainer.errors import CheckpointError
from trainer.generate import Token, generate
from trainer.model import build
from trainer.runtime import Runtime
from trainer.tokenizer import Tokenizer

EVALUATION_BATCH = 8  # windows at a time
ALTERNATIVES = 5  # of each token that is written


@dataclass
class Model:
    """Weights with their tokenizer, and the run that they are of."""

    run: str
    title: str
    tokenizer: Tokenizer
    material: Material | None  # None where the text is not here
    weights: Callable[[], Any]  # () → awaitable Checkpoint
    checkpoint: Checkpoint | None = None
    log: list[str] = field(default_factory=list)  # lines of JSON, an event each
    runtime: Runtime | None = None

    @classmethod
    def of_training(cls, run: Training) -> Model:
        """What a run has on the device."""
        runtime = run.trainer.runtime
        return cls(
            run.run,
            run.title,
            run.trainer.tokenizer,
            run.material,
            run.checkpoint,
            log=run.log,
            runtime=runtime,
        )

    @classmethod
    def of_checkpoint(
        cls, run: str, title: str, found: Checkpoint, material: Material | None, log: list[str]
    ) -> Model:
        """What a save holds. Raises CheckpointError where it has no tokenizer."""
        if found.tokenizer is None:
            raise CheckpointError(f"“{title}” has no tokenizer", "export it with its tokenizer.json")

        async def weights() -> Checkpoint:
            return found

        return cls(run, title, found.tokenizer, material, weights, found, log)

    @property
    def weights_only(self) -> bool:
        """Whether it cannot go on as if it had never been stopped."""
        return self.checkpoint is not None and self.checkpoint.state is None

    async def put_on(self, device: Device) -> Runtime:
        """Compile the model and load its weights, once. Raises DeviceError."""
        if self.runtime is None:
            assert self.checkpoint is not None
            built = build(
                self.checkpoint.model,
                evaluation_batch=EVALUATION_BATCH,
                generate=True,
                tuning=device.info.tuning,
            )
            check_fits(built.plan, device.info)
            runtime = await Runtime.open(device, built)
            await runtime.load(self.checkpoint.weights)
            self.runtime = runtime
        return self.runtime

    def close(self) -> None:
        """Give the device's memory back."""
        if self.runtime:
            self.runtime.close()
            self.runtime = None


async def write(
    runtime: Runtime,
    tokenizer: Tokenizer,
    prompt: str,
    config: SampleConfig,
    post: Callable[[dict[str, Any]], None],
    stop: asyncio.Event,
) -> dict[str, Any]:
    """Continue `prompt`, as `trainer sample` does, and post each token, until the end or until `stop` is set.

    A character whose bytes are spread over several tokens is the text of the last of them.
    """
    ids = [tokenizer.end_of_text, *tokenizer.encode(prompt.encode(errors="replace").decode())]
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    count = 0
    async with aclosing(cast(AsyncGenerator[Token], generate(runtime, ids, config, ALTERNATIVES))) as tokens:
        async for token in tokens:
            if token.id == tokenizer.end_of_text:
                break
            count += 1
            text = decoder.decode(tokenizer.token_bytes(token.id))
            post(
                {
                    "event": "token",
                    "id": token.id,
                    "text": text,
                    "probability": token.probability,
                    "alternatives": [
                        {"text": tokenizer.decode([id]), "probability": probability}
                        for id, probability in token.alternatives
                    ],
                }
            )
            await asyncio.sleep(0)
            if stop.is_set():
                break
    return {"count": count, "stopped": stop.is_set()}
