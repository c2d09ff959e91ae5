"""Obeys the page: every command of demo/protocol.js, with the trainer's public functions.

A session knows nothing of the browser. It is given what opens a device, keeps runs, fetches books and posts
messages, so that the whole life of a run is tested natively. Commands may come while others are under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any

from demo import settings, shipped
from demo.measure import measure
from demo.session_base import Message
from demo.session_training import TrainingCommands
from demo.store import REPORT
from demo.timing import time_steps
from demo.writing import Model, write
from trainer import __version__, report
from trainer.benchmarks import blimp
from trainer.config import SampleConfig, to_dict
from trainer.errors import CheckpointError, ConfigError, DeviceError, StorageError
from trainer.evaluate import bits_per_byte


class Session(TrainingCommands):
    """One page's worker: all its commands."""

    async def do_boot(self, base: Any, manifest: Any) -> Message:
        device = None
        problem = ""
        try:
            info = (await self.device()).info
            device = {
                **info.summary(),
                "features": list(info.features),
                "enabled": list(info.enabled),
                "limits": dict(info.limits),
            }
        except DeviceError as error:
            problem = str(error)
        return {"version": __version__, "device": device, "problem": problem}

    async def do_measure(self) -> Message:
        device = await self.device()
        async with AsyncExitStack() as stack:
            if self.training:
                await stack.enter_async_context(self.training.quiet())
            return {"gflops": await measure(device)}

    async def do_bench(self, workload: str, precision: str, steps: int | None) -> Message:
        return await self._alone(self._bench(workload, precision, steps))

    async def _bench(self, workload: str, precision: str, steps: int | None) -> Message:
        device = await self.device()
        async with AsyncExitStack() as stack:
            if self.training:
                await stack.enter_async_context(self.training.quiet())
            return await time_steps(device, workload, precision, steps)

    async def _at_work(self, stack: AsyncExitStack) -> Model:
        """The current model, with training held as long as `stack` is open."""
        run = self.training
        if run and not run.lost and not run.foreign:
            await stack.enter_async_context(run.quiet())
            return Model.of_training(run)
        if self.model is None and run and await self.store.info(run.run):
            self.model = await self.shelf.open(run.run)
        if self.model is None:
            raise CheckpointError("there is no model yet", "train one, or open a run")
        await self.model.put_on(await self.device())
        return self.model

    async def do_generate(self, prompt: str, config: Mapping[str, Any] | None) -> Message:
        await self.do_stop_generating()
        chosen = settings.change(SampleConfig(), config or {})
        self._stop_writing = asyncio.Event()
        task = self._writing = self._start(self._write(prompt, chosen, self._stop_writing))
        return await task

    async def _write(self, prompt: str, config: SampleConfig, stop: asyncio.Event) -> Message:
        async with AsyncExitStack() as stack:
            model = await self._at_work(stack)
            assert model.runtime is not None
            return await write(model.runtime, model.tokenizer, prompt, config, self.post, stop)

    async def do_evaluate(self) -> Message:
        return await self._alone(self._evaluate())

    async def _evaluate(self) -> Message:
        async with AsyncExitStack() as stack:
            model = await self._at_work(stack)
            runtime, tokenizer = model.runtime, model.tokenizer
            assert runtime is not None
            text = await self._some_tokens(model)
            assert text.dataset is not None
            began = time.perf_counter()
            score = await bits_per_byte(
                runtime,
                tokenizer,
                [document.text for document in text.validation],
                unigram_counts=Counter(text.dataset.train),
                on_event=self.hear,
            )
            pairs = None
            if self.read_pairs:
                paradigms = await self.read_pairs()
                pairs = await blimp(runtime, tokenizer, paradigms, on_event=self.hear)
            weights = await model.weights()
            made = report.make(
                weights,
                tokenizer,
                runtime.device.info,
                seconds=time.perf_counter() - began,
                data=[report.document_facts("validation", text.validation)],
                text=score,
                blimp=pairs,
                seed=((weights.state or {}).get("train") or {}).get("seed"),
            )
        with contextlib.suppress(StorageError):  # it is on the page, and training tells of a full storage
            await self.store.attach(model.run, REPORT, made.to_json().encode())
        return asdict(made)

    async def do_runs(self) -> Message:
        return await self.shelf.list()

    async def do_open_run(self, run: str) -> Message:
        current = self.training
        if not (current and current.run == run and not current.lost and not current.foreign):
            opened = await self.shelf.open(run)
            await self._stop()
            await self._clear_device()
            if self._owned != run:
                self._disown()
            self.model = opened
        live = self.training
        model = Model.of_training(live) if live else self.model
        assert model is not None
        if model.material:
            self.material = model.material
        weights = model.checkpoint or await model.weights()
        kept = await self.store.attached(run, REPORT)
        text = model.material
        return {
            "run": run,
            "title": model.title,
            "step": weights.step,
            "steps": ((weights.state or {}).get("train") or {}).get("steps"),
            "model": to_dict(weights.model),
            "train": (weights.state or {}).get("train"),
            "documents": text.summary()["documents"] if text else None,
            "tokens": await text.tokens_summary() if text and text.dataset else None,
            "report": json.loads(kept) if kept else None,
            "events": [json.loads(line) for line in model.log],
        }

    async def do_rename_run(self, run: str, title: str) -> Message:
        title = " ".join(title.split())[:200]
        if not title:
            raise ConfigError("a run needs a name", "type one")
        for known in (self.training, self.model):
            if known and known.run == run:
                known.title = title
        if await self.store.info(run) or not self.training or self.training.run != run:
            await self.store.rename(run, title)
        return {}

    async def do_delete_run(self, run: str) -> Message:
        if self.training and self.training.run == run:
            self.training.foreign = True  # nothing of it is to be written again
            await self.training.stop()
            await self._clear_device()
        elif self.model and self.model.run == run:
            await self._clear_device()
        await self.shelf.delete(run, self._owned == run)
        self._owned = "" if self._owned == run else self._owned
        return {}

    async def do_export_run(self, run: str) -> Message:
        current = self.training
        live = current and current.run == run and not current.lost and not current.foreign
        return await self.shelf.export(run, current if live else None)

    async def do_import_run(self, zip: Any) -> Message:
        return await self.shelf.take_in(bytes(zip))

    async def do_open_shipped(self, address: str, entry: Mapping[str, Any]) -> Message:
        return await self._alone(self._open_shipped(address, entry))

    async def _open_shipped(self, address: str, entry: Mapping[str, Any]) -> Message:
        origin = shipped.identity(entry)
        for run in await self.store.runs():
            if run.get("shipped") == origin:
                return {"run": run["run"], "title": run["title"]}
        assert self.download is not None
        found = await shipped.fetch(address, entry, self.download, self.models, self.hear)
        return await self.shelf.keep(found, shipped=origin)
