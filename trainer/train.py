"""The training loop: submits steps, reads their losses later, validates, samples, saves, pauses, resumes.

Nothing here waits for the GPU step by step. Steps go out in chunks; the ring buffer of a chunk's losses is
read while the next chunk is already running.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainer import __version__
from trainer.answers import from_run, of_run
from trainer.budget import Budget, estimate
from trainer.checkpoint import Checkpoint
from trainer.config import ModelConfig, SampleConfig, TrainConfig, to_dict
from trainer.dataset import Dataset
from trainer.devices import Device, check_fits
from trainer.errors import CheckpointError, CorpusError
from trainer.events import Notice, Reader, RunEnded, RunStarted, Sample, Saved, Step, Validation, finite
from trainer.generate import complete
from trainer.model import RING, Model, Training, build, settled
from trainer.ops.random import dataset_parts
from trainer.runtime import Runtime, floats
from trainer.schedule import schedule
from trainer.snapshot import Save, Snapshot, restore, resumed_config, take
from trainer.tokenizer import Tokenizer

CHUNK_SECONDS = 0.5  # of work between two looks at the stop flag
SUBMIT_SECONDS = 0.05  # of work in one submit: a screen may share the GPU


class Trainer:
    """One training run on a device.

    trainer = await Trainer.create(device, model, train, tokenizer, dataset, on_event=print)
    reason = await trainer.run()      # "finished", or "stopped" after trainer.stop()
    """

    def __init__(
        self,
        runtime: Runtime,
        config: TrainConfig,
        tokenizer: Tokenizer,
        dataset: Dataset,
        *,
        on_event: Reader,
        save: Save | None = None,
        extra_state: dict[str, Any] | None = None,
    ) -> None:
        assert runtime.model.training is not None
        self.runtime = runtime
        self.config = config
        self.tokenizer = tokenizer
        self.dataset = dataset
        self.on_event = on_event
        self.save_snapshot = save
        self.extra_state = extra_state or {}
        self.training: Training = runtime.model.training
        self.step = 0
        self.seconds = 0.0  # of training, pauses left out
        self.step_seconds = 0.0  # of one step, lately
        self._stopping = False
        self._running = asyncio.Event()
        self._running.set()
        self._resting = asyncio.Event()  # no step is under way
        self._resting.set()
        self._saved_step = -1

    @classmethod
    async def create(
        cls,
        device: Device,
        model: ModelConfig,
        config: TrainConfig,
        tokenizer: Tokenizer,
        dataset: Dataset,
        *,
        on_event: Reader,
        save: Save | None = None,
        extra_state: dict[str, Any] | None = None,
        resume: Checkpoint | None = None,
        answers: Mapping[str, str] | None = None,
    ) -> Trainer:
        """Check that all fits, compile, and make or load the weights. Raises TrainerError: before any work
        where it can be known then, and in any case with nothing left on the device.

        `extra_state` is the caller's own JSON data (where the text came from, say), kept in checkpoints.
        `answers` are measured choices of kernels (trainer/answers.py); a run that goes on keeps its own where
        device and precision are the same.
        """
        if resume:
            check_same_tokens(resume, dataset)
        config = settled(config, device.info.tuning)
        own = from_run(resume.state, device.info, config) if resume else None
        built = plan_run(device, model, config, dataset, (answers or {}) if own is None else own)
        runtime = await Runtime.open(device, built, on_event)
        trainer = cls(
            runtime, config, tokenizer, dataset, on_event=on_event, save=save, extra_state=extra_state
        )
        try:
            await trainer._upload()
            if resume is None:
                await runtime.initialise()
            else:
                await trainer._restore(resume)
        except BaseException:
            runtime.close()
            raise
        return trainer

    @property
    def budget(self) -> Budget:
        """What the whole run takes."""
        software = self.runtime.device.info.software
        return estimate(
            self.runtime.model, self.config, software=software, text_bytes=self.dataset.text_bytes
        )

    # ---------------------------------------------------------------- control

    def stop(self) -> None:
        """Ask the run to save and end after the work under way."""
        self._stopping = True
        self._running.set()

    def pause(self) -> None:
        """Ask the run to hold after the work under way."""
        self._running.clear()

    async def hold(self) -> None:
        """Pause, and return when no step is under way: the device is free until `proceed`."""
        self.pause()
        await self._resting.wait()

    def proceed(self) -> None:
        """Go on after a pause."""
        self._running.set()

    async def run(self) -> str:
        """Train until the last step ("finished") or until `stop` ("stopped"). Saves at the end of both."""
        self.on_event(self._started())
        self._resting.clear()
        reason = "finished"
        try:
            if self.step == 0:
                await self._validate()
            while self.step < self.config.steps:
                await self._turn()
                if self._stopping:
                    reason = "stopped"
                    break
                await self._train_until(self._next_stop())
                await self._chores()
            await self.save()
        except BaseException as error:
            self.on_event(RunEnded(self.step, "failed", self.seconds, str(error) or type(error).__name__))
            raise
        finally:
            self._resting.set()
        self.on_event(RunEnded(self.step, reason, self.seconds))
        return reason

    async def save(self) -> None:
        """Write a checkpoint of this moment, if the run saves at all and has moved since the last one."""
        if self.save_snapshot is None or self._saved_step == self.step:
            return
        where = await self.save_snapshot(await self.snapshot())
        self._saved_step = self.step
        self.on_event(Saved(self.step, where))

    async def snapshot(self) -> Snapshot:
        """All that a checkpoint holds, read from the device."""
        state = {
            "train": to_dict(self.config),
            "seconds": self.seconds,
            "dataset": self.dataset.fingerprint,
            "tuning": of_run(self.runtime.model.plan, self.runtime.device.info),
            **self.extra_state,
        }
        return await take(self.runtime, self.step, self.tokenizer, state)

    # ---------------------------------------------------------------- the loop

    async def _turn(self) -> None:
        """Wait while the run is paused."""
        while not self._running.is_set():  # again where it was paused anew before this task came to run
            self._resting.set()
            await self._running.wait()
        self._resting.clear()

    def _next_stop(self) -> int:
        """The step at which something other than training is due."""
        periods = (self.config.eval_every, self.config.sample_every, self.config.save_every)
        return min([self.config.steps, *((self.step // p + 1) * p for p in periods if p)])

    def _programs(self) -> list[str]:
        """What one step runs."""
        return ["micro", *["micro_add"] * (self.config.accumulate - 1), "update"]

    async def _train_until(self, stop: int) -> None:
        """Run steps until `stop`, or until a pause or stop is asked for. Two chunks are under way at most."""
        began = time.perf_counter()
        submitted = self.step
        pending: asyncio.Task[memoryview] | None = None
        reading: asyncio.Task[memoryview] | None = None
        pending_until = self.step
        try:
            while True:
                free = self._running.is_set() and not self._stopping
                chunk = self._submit(submitted, min(stop, submitted + self._chunk())) if free else submitted
                reading = None
                if chunk > submitted:
                    reading = asyncio.create_task(self.runtime.executable.read(self.training.state.ring))
                    await asyncio.sleep(0)  # lets the task queue its copy before the next chunk is queued
                if pending is not None:
                    rows = floats(await pending)
                    now = time.perf_counter()
                    self._report(rows, pending_until, now - began)
                    began = now
                if reading is None:
                    return
                pending, pending_until, submitted = reading, chunk, chunk
        except BaseException:
            left = [task for task in (pending, reading) if task]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)  # so that none is under way without an owner
            raise

    def _chunk(self) -> int:
        """Steps that go out at once."""
        if not self.step_seconds:
            return 1
        return max(1, min(self.config.log_every, RING // 2, int(CHUNK_SECONDS / self.step_seconds)))

    def _submit(self, start: int, stop: int) -> int:
        """Submit steps start .. stop-1, in pieces of about SUBMIT_SECONDS of work."""
        programs = self._programs()
        dispatches = sum(len(self.runtime.model.plan.programs[name].dispatches) for name in programs)
        every = 0
        if self.step_seconds:
            every = max(1, round(dispatches * SUBMIT_SECONDS / self.step_seconds))
        self.runtime.executable.run(programs * (stop - start), submit_every=every)
        return stop

    def _report(self, ring: list[float], until: int, seconds: float) -> None:
        """Events of the steps up to `until`, which took `seconds` together."""
        each = seconds / (until - self.step)
        self.step_seconds = each if not self.step_seconds else 0.7 * self.step_seconds + 0.3 * each
        tokens = self.config.batch * self.config.accumulate * self.runtime.model.config.context
        while self.step < until:
            loss, norm, rate, skipped = ring[4 * (self.step % RING) :][:4]
            self.step += 1
            self.seconds += each
            self.on_event(
                Step(
                    self.step,
                    finite(loss),
                    rate,
                    finite(norm),
                    skipped != 0,
                    self.step * tokens,
                    round(self.seconds, 4),
                )
            )
            if skipped:
                effect = ", but halved the loss scale" if self.training.state.loss_scale else ""
                self.on_event(Notice(f"step {self.step} was not finite and changed nothing{effect}"))

    async def _chores(self) -> None:
        config, step = self.config, self.step
        last = step == config.steps
        if last or (config.eval_every and step % config.eval_every == 0):
            await self._validate()
        if config.sample_every and (last or step % config.sample_every == 0):
            await self._sample()
        if config.save_every and step % config.save_every == 0:
            await self.save()

    async def _validate(self) -> None:
        """Mean loss on windows spread evenly over the validation tokens, always the same ones."""
        tokens, T = self.dataset.validation, self.runtime.model.config.context
        evaluation = self.runtime.model.evaluation
        assert evaluation is not None
        batch = evaluation.inputs.shape[0]
        last_start = len(tokens) - T - 1
        count = min(self.config.eval_batches * batch, last_start + 1)
        starts = [i * last_start // max(1, count - 1) for i in range(count)]
        nats, positions, size = 0.0, 0, 0
        for i in range(0, count, batch):
            windows = [(tokens[s : s + T], tokens[s + 1 : s + T + 1]) for s in starts[i : i + batch]]
            for losses in await self.runtime.losses(windows):
                nats += math.fsum(losses)
                positions += len(losses)
            size += sum(self._token_sizes[id] for _, targets in windows for id in targets)
        bits = nats / math.log(2) / max(1, size)
        self.on_event(Validation(self.step, finite(nats / positions), finite(bits)))

    @property
    def _token_sizes(self) -> list[int]:
        """Bytes of text of each token; end_of_text is none."""
        if not hasattr(self, "_sizes"):
            sizes = [len(self.tokenizer.token_bytes(id)) for id in range(self.tokenizer.vocab_size)]
            sizes[self.tokenizer.end_of_text] = 0
            self._sizes = sizes
        return self._sizes

    async def _sample(self) -> None:
        config = SampleConfig(tokens=self.config.sample_tokens, seed=self.config.seed)
        prompt = self.config.sample_prompt
        self.on_event(Sample(self.step, prompt, await complete(self.runtime, self.tokenizer, prompt, config)))

    # ---------------------------------------------------------------- state

    def _started(self) -> RunStarted:
        budget = self.budget
        return RunStarted(
            step=self.step,
            steps=self.config.steps,
            parameters=budget.parameters,
            tokens_per_step=budget.tokens_per_step,
            flops_per_step=budget.flops_per_step,
            model=to_dict(self.runtime.model.config),
            train=to_dict(self.config),
            device=dict(self.runtime.device.info.summary()),
            train_tokens=len(self.dataset.train),
            validation_tokens=len(self.dataset.validation),
            version=__version__,
            time=time.time(),
        )

    async def _upload(self) -> None:
        executable, T = self.runtime.executable, self.runtime.model.config.context
        await executable.write(self.training.state.schedule, schedule(self.config))
        parts = dataset_parts(len(self.dataset.train), T)
        for (first, _, count), tensor in zip(parts, self.training.dataset, strict=True):
            tokens = self.dataset.train[first : first + count]
            if count % 2:
                tokens.append(0)
            await executable.write(tensor, tokens.tobytes())

    async def _restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this very run."""
        assert checkpoint.state is not None
        await restore(self.runtime, checkpoint)
        self.step = self._saved_step = checkpoint.state["counters"][0]
        self.seconds = checkpoint.state["seconds"]
        if resumed_config(checkpoint).precision != self.config.precision:
            before, now = "f32", "mixed precision, with a new loss scale"
            if self.config.precision == "f32":
                before, now = "mixed precision", "f32, without a loss scale"
            self.on_event(Notice(f"trained in {before} until step {self.step:,}; from there on in {now}"))


def check_same_tokens(checkpoint: Checkpoint, dataset: Dataset) -> None:
    """Raise CheckpointError if `checkpoint` is of a run on other tokens."""
    assert checkpoint.state is not None
    if checkpoint.state.get("dataset") != dataset.fingerprint:
        raise CheckpointError(
            f"{checkpoint.folder} was trained on other tokens", "resume with the same sources and tokenizer"
        )


def plan_run(
    device: Device, model: ModelConfig, config: TrainConfig, dataset: Dataset, answers: Mapping[str, str]
) -> Model:
    """The model's plan for training on `dataset`, checked against the device before anything is allocated.

    Raises CorpusError when the text is shorter than one window, DeviceError when the model does not fit.
    """
    T = model.context
    for name, tokens in (("training", dataset.train), ("validation", dataset.validation)):
        if len(tokens) < T + 1:
            raise CorpusError(
                f"the {name} text has {len(tokens)} tokens and one window takes {T + 1}",
                "use more text or a smaller --context",
            )
    built = build(
        model,
        train=config,
        tokens=len(dataset.train),
        evaluation_batch=config.batch,
        generate=True,
        tuning=replace(device.info.tuning, answers=answers),
    )
    check_fits(built.plan, device.info)
    return built
