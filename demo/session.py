"""Obeys the page: every command of demo/protocol.js, with the trainer's public functions.

A session knows nothing of the browser. It is given what opens a device, keeps runs, fetches books and posts
messages, so that the whole life of a run is tested natively. Commands may come while others are under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from typing import Any

from demo import material, protocol, settings, training, trouble
from demo.device import DeviceLost
from demo.material import Material
from demo.measure import measure
from demo.shelf import Shelf
from demo.store import REPORT, Locks, RunStore
from demo.training import Training
from demo.writing import Model, write
from trainer import __version__, report
from trainer.benchmarks import Paradigm, blimp
from trainer.config import SampleConfig, TrainConfig, from_dict, to_dict
from trainer.corpus import BUNDLED, GUTENBERG
from trainer.devices import Device
from trainer.errors import CheckpointError, ConfigError, CorpusError, DeviceError, StorageError, TrainerError
from trainer.evaluate import bits_per_byte
from trainer.events import Event, to_json
from trainer.gutenberg import Cache, Fetch, Retry, manifest

AUTOSAVE = 30.0  # seconds
BYTES_A_TOKEN = 3  # of text that was not tokenized yet
NUMBERS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")

Message = dict[str, Any]


async def nothing() -> None:
    """What a host does that has nothing to prepare."""


class Session:
    """One page's worker. `receive` takes its messages."""

    def __init__(
        self,
        *,
        open_device: Callable[[], Awaitable[Device]],
        store: RunStore,
        locks: Locks,
        post: Callable[[Message], None],
        fetch: Fetch | None = None,
        cache: Cache | None = None,
        base: str | None = None,
        retry: Retry | None = None,
        prepare_books: Callable[[], Awaitable[None]] = nothing,
        read_pairs: Callable[[], Awaitable[Sequence[Paradigm]]] | None = None,
        autosave: float = AUTOSAVE,
    ) -> None:
        self.open_device = open_device
        self.store = store
        self.locks = locks
        self.shelf = Shelf(store, locks)
        self.post = post
        self.fetching: dict[str, Any] = {"fetch": fetch, "cache": cache, "base": base, "retry": retry}
        self.prepare_books = prepare_books
        self.read_pairs = read_pairs
        self.autosave = autosave
        self.material: Material | None = None
        self.training: Training | None = None
        self.model: Model | None = None  # a run that was opened and is not being trained
        self.losses = 0  # of the device
        self._owned = ""  # the run that this tab may train
        self._device: Device | None = None
        self._opening = asyncio.Lock()
        self._job: asyncio.Task[Any] | None = None
        self._writing: asyncio.Task[Any] | None = None
        self._stop_writing = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    # ---------------------------------------------------------------- messages

    async def receive(self, message: Message) -> None:
        """Obey a command and post its reply."""
        name = message.get("command", "")
        try:
            if name not in protocol.COMMANDS:
                raise ConfigError(f"unknown command {name!r}", "reload the page")
            fields = {field: message.get(field) for field in protocol.COMMANDS[name]}
            result = await getattr(self, f"do_{name}")(**fields)
            self.post({"reply": message.get("id"), "result": result or {}})
        except asyncio.CancelledError:
            self.post({"reply": message.get("id"), "error": trouble.stopped().fields()})
        except Exception as error:
            told = trouble.of(error, traceback.format_exc())
            self.post({"reply": message.get("id"), "error": told.fields()})

    def hear(self, event: Event) -> None:
        """Passes an event of the trainer on to the page."""
        self.post({name: training.finite(value) for name, value in to_json(event).items()})

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin a task, and keep it from being forgotten while it runs."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _alone(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do a stage's work; the stage before, if it is still at it, is ended first."""
        await self._end_job()
        task = self._job = self._start(work)
        return await task

    async def _end_job(self) -> None:
        if self._job and not self._job.done():
            self._job.cancel()
            await asyncio.wait([self._job])

    async def close(self) -> None:
        """End everything; what was not saved is lost."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # ---------------------------------------------------------------- device

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

    async def do_boot(self, base: Any, manifest: Any) -> Message:
        device = None
        problem = ""
        try:
            info = (await self.device()).info
            device = {**info.summary(), "features": list(info.features), "limits": dict(info.limits)}
        except DeviceError as error:
            problem = str(error)
        return {"version": __version__, "device": device, "problem": problem}

    async def do_measure(self) -> Message:
        device = await self.device()
        async with AsyncExitStack() as stack:
            if self.training:
                await stack.enter_async_context(self.training.quiet())
            return {"gflops": await measure(device)}

    # ---------------------------------------------------------------- from text to tokens

    async def do_load(self, sources: Sequence[Mapping[str, Any]]) -> Message:
        loaded: material.Loaded = await self._alone(self._read(sources))
        self.material = loaded.material
        for told in loaded.troubles:
            self.post(trouble.event(told))
        return {**loaded.material.summary(), "failed": loaded.failed}

    async def _read(self, sources: Sequence[Mapping[str, Any]]) -> material.Loaded:
        return await material.load(
            sources, **self.fetching, prepare_books=self.prepare_books, on_event=self.hear
        )

    def _text(self) -> Material:
        if self.material is None:
            raise CorpusError("there is no text yet", "choose some in Data")
        return self.material

    async def do_preview(self, index: int) -> Message:
        documents = self._text().documents
        if not 0 <= index < len(documents):
            raise ConfigError(f"there is no document {index}", "choose one of the list")
        return {"text": documents[index].text[: material.PREVIEW]}

    async def do_library(self) -> Message:
        return {
            "books": [
                {
                    "id": book.id,
                    "repo": book.repo,
                    "title": book.title,
                    "author": book.author,
                    "bytes": book.files[0].bytes,
                }
                for book in manifest().values()
            ]
        }

    async def do_train_tokenizer(self, vocab: int) -> Message:
        text = self._text()
        began = time.perf_counter()
        texts = [document.text for document in text.training]
        tokenizer = await self._alone(material.train_tokenizer(texts, int(vocab), self.post, self.hear))
        self.material = replace(text, tokenizer=tokenizer, dataset=None)
        return {"vocab": tokenizer.vocab_size, "seconds": time.perf_counter() - began}

    async def do_try_tokenizer(self, text: str) -> Message:
        tokenizer = self.material and self.material.tokenizer
        if tokenizer is None:
            raise ConfigError("there is no tokenizer yet", "train one first")
        ids = tokenizer.encode(text.encode(errors="replace").decode())
        return {"tokens": [{"id": id, "text": material.shown(tokenizer.token_bytes(id))} for id in ids]}

    async def do_tokenize(self) -> Message:
        text = self._text()
        if text.tokenizer is None:
            raise ConfigError("there is no tokenizer yet", "train one first")
        dataset = await self._alone(material.tokenize(text, self.hear))
        self.material = replace(text, dataset=dataset)
        return self.material.tokens_summary()

    # ---------------------------------------------------------------- training

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

    async def do_train(
        self, model: Mapping[str, Any] | None, train: Mapping[str, Any] | None, run: str | None
    ) -> Message:
        if self.training and self.training.active:
            if self.training.run == run and not train:
                self.training.resume()
                return {"run": run, "step": self.training.step}
            await self._stop()
        begun = await (self._continue(run, train or {}) if run else self._begin(model, train))
        self.losses = 0 if not run else self.losses
        begun.task = self._start(self._run(begun))
        self._start(self._save_now_and_then(begun))
        return {"run": begun.run, "step": begun.step}

    async def _begin(self, model: Mapping[str, Any] | None, train: Mapping[str, Any] | None) -> Training:
        """A new run on the text at hand."""
        text = self._text()
        if text.tokenizer is None or text.dataset is None:
            raise ConfigError("the text has no tokens yet", "train a tokenizer and tokenize first")
        sized, paced = settings.configs(model, train)
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
            opened = self.model if self.model and self.model.run == run else await self.shelf.open(run)
            start, log, title = await opened.weights(), opened.log, opened.title
            text = await self._with_tokens(opened)
            saved = start.step or 0
        elif before:
            again = Training(run, before.title, before.material, self.post)
            return await self._put_on_device(
                again, before.model, settings.change(before.config, changes), None
            )
        else:
            raise CheckpointError(f"there is no run {run!r} here", "it may have been deleted in another tab")
        if start.state is None:
            raise CheckpointError(
                f"“{title}” has weights but no training state", "it can write, not train on"
            )
        config = settings.change(from_dict(TrainConfig, start.state["train"]), changes)
        begun = Training(run, title, text, self.post, log)
        begun.saved = saved
        return await self._put_on_device(begun, start.model, config, start)

    async def _put_on_device(self, begun: Training, model: Any, config: TrainConfig, start: Any) -> Training:
        device = await self.device()
        await self._own(begun.run)
        await self._clear_device()
        await begun.begin(device, model, config, start)
        self.training, self.material = begun, begun.material
        return begun

    async def _own(self, run: str, *, steal: bool = False) -> None:
        """Become the only tab that trains a run. Raises Trouble."""
        if self._owned == run:
            return
        if not await self.locks.take(run, lambda: self._taken_over(run), steal=steal):
            raise trouble.other_tab()
        if self._owned:
            self.locks.give_back(self._owned)
        self._owned = run

    def _taken_over(self, run: str) -> None:
        """Another tab trains the run now: this one stops, and writes nothing more of it."""
        self._owned = "" if self._owned == run else self._owned
        if self.training and self.training.run == run:
            self.training.foreign = True
            self._start(self.training.abandon())
        self.post(trouble.event(trouble.other_tab()))

    async def do_take_over(self, run: str) -> Message:
        await self._own(run, steal=True)
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
        """Save a run every so often while it is trained, and when it has ended."""
        while run.active:
            await asyncio.wait([run.task], timeout=self.autosave)
            try:
                await run.save(self.store)
            except DeviceLost as error:
                await self._lost(self._device, error)

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

    # ---------------------------------------------------------------- the model at work

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

    async def do_stop_generating(self) -> Message:
        self._stop_writing.set()
        if self._writing and not self._writing.done():
            await asyncio.wait([self._writing])
        return {}

    async def do_evaluate(self) -> Message:
        return await self._alone(self._evaluate())

    async def _evaluate(self) -> Message:
        async with AsyncExitStack() as stack:
            model = await self._at_work(stack)
            runtime, tokenizer = model.runtime, model.tokenizer
            assert runtime is not None
            text = await self._with_tokens(model)
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

    async def _with_tokens(self, model: Model) -> Material:
        """The text of a model, fetched and tokenized where that was not done yet. Raises CheckpointError."""
        text = model.material
        if text is None:
            kept = (model.checkpoint and (model.checkpoint.state or {}).get("text")) or {}
            wanted = [_source(name) for name in kept.get("sources", [])]
            if not wanted or None in wanted:
                raise CheckpointError(
                    f"the text of “{model.title}” is not here",
                    "it can write; to train it, use its own computer",
                )
            loaded = await self._read([entry for entry in wanted if entry])
            text = replace(loaded.material, tokenizer=model.tokenizer)
        if text.dataset is None:
            text = replace(text, dataset=await material.tokenize(text, self.hear))
        model.material = text
        return text

    # ---------------------------------------------------------------- kept runs

    async def do_runs(self) -> Message:
        return await self.shelf.list()

    async def do_open_run(self, run: str) -> Message:
        current = self.training
        if not (current and current.run == run and not current.lost and not current.foreign):
            opened = await self.shelf.open(run)
            await self._stop()
            await self._clear_device()
            self.model = opened
        model = self.model or Model.of_training(current) if current else self.model
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
            "tokens": text.tokens_summary() if text and text.dataset else None,
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


def _source(name: str) -> dict[str, str] | None:
    """A source of the command line as one of the page's; None for a file of another computer."""
    if name == BUNDLED:
        return {"kind": "books"}
    if name.startswith(GUTENBERG):
        return {"kind": "gutenberg", "name": name.removeprefix(GUTENBERG)}
    return None


def _title(text: Material) -> str:
    """What a run on this text is called at first."""
    count = len(text.documents)
    if count == 1:
        return text.documents[0].title
    what = "texts" if material.DOCUMENTS in text.sources else "books"
    return f"{NUMBERS[count] if count < len(NUMBERS) else count} {what}"
