"""One training run of the page: it can be held at a step boundary, looked at and saved, and goes on as if
nothing had been; and what it told is kept, so that the charts come back with it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from demo import trouble
from demo.material import Material
from demo.store import Chunks, Full, RunStore, now
from trainer import checkpoint
from trainer.checkpoint import LOG, Checkpoint
from trainer.config import ModelConfig, TrainConfig, to_dict
from trainer.devices import Device
from trainer.errors import StorageError
from trainer.events import Event, Progress, RunEnded, Saved, Step, Validation, to_json
from trainer.snapshot import Snapshot
from trainer.train import Trainer

MOST_SKIPPED = 10  # steps in a row that were not finite, before a run is stopped

Post = Callable[[dict[str, Any]], None]


class Training:
    """A trainer at work, with the reader's wish to pause and everybody else's need of quiet."""

    def __init__(
        self,
        run: str,
        title: str,
        material: Material,
        post: Post,
        log: Sequence[str] = (),
        base: str = "",
    ) -> None:
        self.run = run
        self.title = title
        self.material = material
        self.post = post
        self.log = list(log)  # lines of JSON, an event each
        self.base = base  # the run whose weights this one began from
        self.paused = False
        self.lost = False  # the device
        self.foreign = False  # another tab has taken the run over
        self.saved = 0  # the last step that is safe
        self.full = False  # storage; told once
        self.skipped = 0  # steps in a row
        self.validation: float | None = None
        self.loss: float | None = None
        self._seconds: list[tuple[int, float]] = []  # of steps since the last save
        self._quiet = 0  # who needs it
        self._saving = asyncio.Lock()
        self.trainer: Trainer
        self.task: asyncio.Task[None]

    async def begin(
        self,
        device: Device,
        model: ModelConfig,
        config: TrainConfig,
        resume: Checkpoint | None,
        weights: Checkpoint | None,
        answers: Mapping[str, str],
    ) -> None:
        """Compile, and make or load the weights: all of the run to `resume`, or `weights` to begin from.

        `answers` say which kernels are the fastest (trainer/answers.py). Raises TrainerError.
        """
        self.model, self.config = model, config
        assert self.material.tokenizer is not None
        assert self.material.dataset is not None
        self.trainer = await Trainer.create(
            device,
            model,
            config,
            self.material.tokenizer,
            self.material.dataset,
            on_event=self.hear,
            extra_state={"text": self.material.text_config()},
            resume=resume,
            answers=answers,
        )
        if weights:
            await self.trainer.runtime.load(weights.weights)
        self.log = [line for line in self.log if json.loads(line).get("step", 0) <= self.trainer.step]

    @property
    def step(self) -> int:
        return self.trainer.step

    @property
    def active(self) -> bool:
        """Whether steps are still to come from this object."""
        return not self.task.done()

    def hear(self, event: Event) -> None:
        """Reads the trainer's events: keeps them, passes them on, and watches for a loss that is none."""
        if isinstance(event, RunEnded) and event.reason == "failed":
            return  # told as a trouble, with what to do; the run itself can go on
        data = to_json(event)
        if not isinstance(event, Progress):
            self.log.append(json.dumps({"time": round(time.time(), 3), **data}, ensure_ascii=False))
        if isinstance(event, Validation):
            self.validation = event.loss
        if isinstance(event, Step):
            self.loss = event.loss
            self.skipped = self.skipped + 1 if event.skipped else 0
            self._seconds.append((event.step, event.seconds))
            if self.skipped == MOST_SKIPPED:
                self._ask_to_stop()
        self.post(data)

    # ---------------------------------------------------------------- control

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """No step is under way within this context; training goes on after it, unless it was paused."""
        self._quiet += 1
        try:
            if self.active:
                await self.trainer.hold()
            yield
        finally:
            self._quiet -= 1
            self._go_on()

    def _go_on(self) -> None:
        if not self._quiet and not self.paused:
            self.trainer.proceed()

    async def pause(self) -> None:
        """Hold until `resume`; returns when no step is under way any more."""
        self.paused = True
        if self.active:
            await self.trainer.hold()

    def resume(self) -> None:
        self.paused = False
        self._go_on()

    async def stop(self) -> None:
        """End the run; returns when it has ended."""
        self._ask_to_stop()
        await asyncio.wait([self.task])

    def _ask_to_stop(self) -> None:
        self.paused = False  # or it would be held before it sees that it is to stop
        self.trainer.stop()

    async def abandon(self) -> None:
        """End the run without waiting for the device, which is lost, or is not to be used any more."""
        self.task.cancel()
        await asyncio.wait([self.task])

    # ---------------------------------------------------------------- saving

    async def save(self, store: RunStore) -> None:
        """Keep this moment. Where storage is full, training goes on and the page is told, once."""
        async with self._saving:
            if self.foreign or self.lost or self.saved == self.step > 0:
                return
            async with self.quiet():
                snapshot = await self.trainer.snapshot()
                log = "".join(f"{line}\n" for line in self.log)
            files = {**checkpoint_files(snapshot), LOG: [log.encode()]}
            try:
                await store.save(self.run, self.info(snapshot.step), files, self.material.files())
            except StorageError as error:
                if not self.full:
                    self.post(trouble.event(no_room(error)))
                self.full = True
                return
            self.full = False
            self.saved = snapshot.step
            self._seconds = [entry for entry in self._seconds if entry[0] >= snapshot.step]
            self.hear(Saved(snapshot.step, f"browser:{self.run}"))

    def info(self, step: int) -> dict[str, Any]:
        """What the list of runs shows."""
        return {
            "title": self.title,
            "step": step,
            "steps": self.config.steps,
            "loss": self.loss if self.validation is None else self.validation,
            "date": now(),
            "model": to_dict(self.model),
            "train": to_dict(self.config),
        }

    @property
    def unsaved_seconds(self) -> float:
        """Of training since the last save."""
        return self._seconds[-1][1] - self._seconds[0][1] if self._seconds else 0.0

    async def checkpoint(self) -> Checkpoint:
        """This moment, to go on from."""
        async with self.quiet():
            return as_checkpoint(self.run, await self.trainer.snapshot())


def as_checkpoint(run: str, snapshot: Snapshot) -> Checkpoint:
    """A snapshot as if it had been saved and loaded."""
    return Checkpoint(
        Path(run),
        snapshot.step,
        snapshot.model,
        snapshot.weights,
        snapshot.tokenizer,
        snapshot.state,
        snapshot.optimizer,
    )


def checkpoint_files(snapshot: Snapshot) -> dict[str, Chunks]:
    """A snapshot as the files of a checkpoint."""
    return dict(
        checkpoint.to_files(
            snapshot.step,
            snapshot.model,
            snapshot.weights,
            snapshot.tokenizer,
            snapshot.state,
            snapshot.optimizer,
        )
    )


def no_room(error: StorageError) -> trouble.Trouble:
    """A refused save, in the page's words."""
    if isinstance(error, Full):
        return trouble.quota(error.needed, error.left)
    return trouble.Trouble(
        "quota", "Storage refuses: not saving", "Training goes on. Export this run.", str(error)
    )
