"""The commands of training: it begins, pauses, goes on, is saved, and loses its device."""

from __future__ import annotations

import asyncio
import json
import secrets
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from demo import material, settings, training, trouble
from demo.device import DeviceLost
from demo.material import Material
from demo.session_base import FIRST_SAVE, Message
from demo.session_text import TextCommands
from demo.training import Training
from trainer.answers import answers
from trainer.cache import Cache
from trainer.checkpoint import Checkpoint
from trainer.config import ModelConfig, TrainConfig, from_dict
from trainer.devices import Device
from trainer.errors import CheckpointError, ConfigError, TrainerError

TUNE_SECONDS, TUNE_SECONDS_SOFTWARE = 3.0, 10.0  # of measuring kernels
BYTES_A_TOKEN = 3  # of text that was not tokenized yet
NUMBERS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")


class TrainingCommands(TextCommands):
    """Train."""

    async def device(self) -> Device:
        """The device, opened when it is first needed or was lost. Raises DeviceError."""
        async with self._opening:
            if self._device is None:
                self._device = await self.open_device()
                watch = getattr(self._device, "lost", None)
                if watch:
                    self._start(self._watch(self._device, watch))
            return self._device

    async def _watch(self, device: Device, lost: Callable[[], Awaitable[DeviceLost]]) -> None:
        await self._lost(device, await lost())

    async def _lost(self, device: Device | None, error: DeviceLost) -> None:
        """The device is gone, and what was on it: say so, once."""
        if device is not self._device or device is None:
            return
        self._device = self.model = None
        self.losses += 1
        run = self.training
        if run is None:
            self.post(
                trouble.event(trouble.Trouble("lost", "The GPU stopped", "Nothing is lost.", str(error)))
            )
            return
        run.lost = True
        step, again = run.step, self.losses > 1
        await run.abandon()
        told = trouble.lost(step, run.saved, run.unsaved_seconds, str(error), again=again)
        self.post(trouble.event(told))

    async def do_estimate(self, model: Mapping[str, Any] | None, train: Mapping[str, Any] | None) -> Message:
        try:
            sized, paced = settings.configs(model, train)
            dataset = self.material and self.material.dataset
            tokens = len(dataset.train) if dataset else 0
            if self.material and not dataset:
                tokens = self.material.nbytes // BYTES_A_TOKEN
            return settings.budget(sized, paced, tokens, self._device.info if self._device else None)
        except TrainerError as error:
            return {"error": str(error)}

    async def do_tune(
        self, model: Mapping[str, Any] | None, train: Mapping[str, Any] | None, force: bool
    ) -> Message:
        sized, paced = settings.configs(model, train)
        device = await self.device()
        if self.measured is None or (device.info.software and not force):
            return {"measured": 0, "faster": 0}
        task = self._tuning = self._start(self._tune(device, self.measured, sized, paced, force))
        return await task

    async def _tune(
        self, device: Device, measured: Cache, model: ModelConfig, train: TrainConfig, force: bool
    ) -> Message:
        seconds = TUNE_SECONDS_SOFTWARE if device.info.software else TUNE_SECONDS
        async with AsyncExitStack() as stack:
            if self.training and not self.training.lost:
                await stack.enter_async_context(self.training.quiet())
            _, findings = await answers(
                device, model, train, measured, seconds, force=force, on_event=self.hear
            )
        faster = sum(finding.winner != finding.default for finding in findings)
        return {"measured": len(findings), "faster": faster}

    async def _answers(self, device: Device, model: ModelConfig, train: TrainConfig) -> dict[str, str]:
        """What is known of the fastest kernels, once what is being measured is."""
        if self._tuning and not self._tuning.done():
            await asyncio.wait([self._tuning])
        return (await answers(device, model, train, self.measured, 0))[0] if self.measured else {}

    async def do_train(
        self,
        model: Mapping[str, Any] | None,
        train: Mapping[str, Any] | None,
        run: str | None,
        base: str | None,
    ) -> Message:
        """Begin or continue a run; `do_stop` may come while its kernels are still compiled."""
        await self._end_beginning()
        self._beginning = self._start(self._train(model, train, run, base))
        return await self._beginning

    async def _train(
        self,
        model: Mapping[str, Any] | None,
        train: Mapping[str, Any] | None,
        run: str | None,
        base: str | None,
    ) -> Message:
        if self.training and self.training.active:
            if self.training.run == run and not train:
                self.training.resume()
                return {"run": run, "step": self.training.step}
            await self._stop()
        begun = await (self._continue(run, train or {}) if run else self._begin(model, train, base or ""))
        self.losses = 0 if not run else self.losses
        begun.task = self._start(self._run(begun))
        self._start(self._save_now_and_then(begun))
        return {"run": begun.run, "step": begun.step}

    async def _begin(
        self, model: Mapping[str, Any] | None, train: Mapping[str, Any] | None, base: str
    ) -> Training:
        """A new run on the text at hand, from nothing or from the weights of the run `base`."""
        text = self._text()
        if text.tokenizer is None or text.dataset is None:
            raise ConfigError("the text has no tokens yet", "train a tokenizer and tokenize first")
        sized, paced = settings.configs(model, train)
        if base:
            before = await self._kept(base)
            if before.tokenizer.to_json() != text.tokenizer.to_json():
                raise ConfigError(f"the text is not in the tokens of “{before.title}”", "tokenize it again")
            title = f"{before.title}, then {_title(text)}"
            begun = Training(secrets.token_hex(6), title, text, self.post, base=base)
            weights = await before.weights()
            return await self._put_on_device(begun, weights.model, paced, None, weights)
        sized = replace(sized, vocab=text.tokenizer.vocab_size)
        size = (model or {}).get("preset") or f"{sized.parameters / 1e6:.1f}M"
        begun = Training(secrets.token_hex(6), f"{_title(text)}, {size}", text, self.post)
        return await self._put_on_device(begun, sized, paced, None)

    async def _continue(self, run: str, changes: Mapping[str, Any]) -> Training:
        """A run as it goes on: from the device, else from its last save, else from its beginning."""
        before = self.training if self.training and self.training.run == run else None
        if before and not before.lost and not before.foreign:
            start = await before.checkpoint()
            log, text, title = before.log, before.material, before.title
            saved = before.saved
        elif await self.store.info(run):
            opened = await self._kept(run)
            start, log, title = await opened.weights(), opened.log, opened.title
            if opened.weights_only:
                raise CheckpointError(
                    f"“{title}” has weights but no training state", "begin a new run from it, on a text"
                )
            text = await self._with_tokens(opened)
            saved = start.step or 0
        elif before:
            again = Training(run, before.title, before.material, self.post, base=before.base)
            weights = await (await self._kept(before.base)).weights() if before.base else None
            config = settings.change(before.config, changes)
            return await self._put_on_device(again, before.model, config, None, weights)
        else:
            raise CheckpointError(f"there is no run {run!r} here", "it may have been deleted in another tab")
        assert start.state is not None
        config = settings.change(from_dict(TrainConfig, start.state["train"]), changes)
        begun = Training(run, title, text, self.post, log)
        begun.saved = saved
        return await self._put_on_device(begun, start.model, config, start)

    async def _put_on_device(
        self,
        begun: Training,
        model: ModelConfig,
        config: TrainConfig,
        resume: Checkpoint | None,
        weights: Checkpoint | None = None,
    ) -> Training:
        """Begin a run, or go on with it from `resume`; with `weights`, from these and a fresh optimiser."""
        device = await self.device()
        await self._own(begun.run)
        await self._clear_device()
        known = await self._answers(device, model, config)
        await begun.begin(device, model, config, resume, weights, known)
        self.training, self.material = begun, begun.material
        return begun

    async def _own(self, run: str, *, steal: bool = False) -> None:
        """Become the only tab that trains a run. Raises Trouble."""
        if self._owned == run:
            return
        if not await self.locks.take(run, lambda: self._taken_over(run), steal=steal):
            raise trouble.other_tab()
        self._disown()
        self._owned = run

    def _disown(self) -> None:
        if self._owned:
            self.locks.give_back(self._owned)
        self._owned = ""

    def _taken_over(self, run: str) -> None:
        """Another tab trains the run now: this one stops, and writes nothing more of it."""
        self._owned = "" if self._owned == run else self._owned
        if self.training and self.training.run == run:
            self.training.foreign = True
            self._start(self.training.abandon())
        self.post(trouble.event(trouble.other_tab()))

    async def do_look_on(self, run: str) -> Message:
        return {"events": [json.loads(line) for line in await self.shelf.log(run)]}

    async def do_take_over(self, run: str) -> Message:
        await self._own(run, steal=True)
        if self.model and self.model.run == run:  # of a save that the other tab may have replaced
            await self.do_stop_generating()
            self.model.close()
            self.model = None
        return {}

    async def _clear_device(self) -> None:
        """Give the memory of the model before back, which nobody uses any more."""
        await self.do_stop_generating()
        await self._end_job()
        if self.training and not self.training.lost:
            self.training.trainer.runtime.close()
        if self.model:
            self.model.close()
        self.training = self.model = None

    async def _run(self, run: Training) -> None:
        """Train to the end, and tell what ended it."""
        device = self._device
        try:
            await run.trainer.run()
        except DeviceLost as error:
            self._start(self._lost(device, error))
        except asyncio.CancelledError:
            return
        except Exception as error:
            details = traceback.format_exc()
            told = trouble.of(error, details) if isinstance(error, TrainerError) else None
            self.post(trouble.event(told or trouble.crash(run.saved, details)))
        else:
            if run.skipped >= training.MOST_SKIPPED:
                self.post(
                    trouble.event(trouble.not_finite(run.step - run.skipped + 1, training.MOST_SKIPPED))
                )

    async def _save_now_and_then(self, run: Training) -> None:
        """Save a run soon after it has begun, every so often while it is trained, and when it has ended."""
        pause = self.autosave if run.saved else min(FIRST_SAVE, self.autosave)
        while run.active:
            await asyncio.wait([run.task], timeout=pause)
            pause = self.autosave
            try:
                await run.save(self.store)
            except DeviceLost as error:
                await self._lost(self._device, error)
            except Exception:
                self.post(trouble.event(trouble.crash(run.saved, traceback.format_exc())))

    async def do_pause(self) -> Message:
        run = self.training
        if run is None:
            return {"step": None}
        await run.pause()
        step = run.step
        await run.save(self.store)
        return {"step": step}

    async def do_resume(self) -> Message:
        if self.training:
            self.training.resume()
        return {"step": self.training.step if self.training else None}

    async def do_stop(self) -> Message:
        await self._end_beginning()
        await self._end_job()
        await self._stop()
        return {"step": self.training.step if self.training else None}

    async def _stop(self) -> None:
        if self.training and self.training.active:
            await self.training.stop()
            await self.training.save(self.store)

    async def do_save(self) -> Message:
        if self.training:
            await self.training.save(self.store)
        return {"step": self.training.saved if self.training else None}


def _title(text: Material) -> str:
    """What a run on this text is called at first."""
    count = len(text.documents)
    if count == 1:
        return text.documents[0].title
    what = "texts" if material.DOCUMENTS in text.sources else "books"
    return f"{NUMBERS[count] if count < len(NUMBERS) else count} {what}"
