"""The training loop: the same to the bit when it is resumed, interrupted, looked at or run again."""

from __future__ import annotations

import asyncio
import json
import math
import signal
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cli_tools
import pytest

from trainer import checkpoint
from trainer.checkpoint import Checkpoint
from trainer.config import ModelConfig, TrainConfig
from trainer.corpus import read_bundled
from trainer.dataset import Dataset
from trainer.devices import Device, open_device
from trainer.errors import CheckpointError, CorpusError
from trainer.events import (
    Event,
    Notice,
    RunEnded,
    RunStarted,
    Sample,
    Saved,
    Step,
    Validation,
    from_json,
    to_json,
)
from trainer.model import RING
from trainer.schedule import learning_rate
from trainer.snapshot import Snapshot, resumed_config
from trainer.tokenizer import Tokenizer
from trainer.train import Trainer

MODEL = ModelConfig(layers=2, width=16, heads=2, context=16, vocab=300)
CONFIG = TrainConfig(
    steps=20,
    batch=4,
    warmup=4,
    eval_every=6,
    eval_batches=2,
    sample_every=7,
    sample_tokens=4,
    save_every=5,
    log_every=3,
)
TINY = ModelConfig(layers=1, width=8, heads=2, context=8, vocab=300)


@dataclass(frozen=True)
class Text:
    tokenizer: Tokenizer
    dataset: Dataset


@pytest.fixture(scope="module")
def text() -> Text:
    """Real text, a little of it."""
    story = next(book.text for book in read_bundled() if "Alice" in book.title)
    tokenizer = Tokenizer.train([story[:40_000]], MODEL.vocab)
    halves = (tokenizer.encode_documents([part]) for part in (story[:36_000], story[36_000:40_000]))
    return Text(tokenizer, Dataset(*halves, text_bytes=40_000))


@dataclass
class Run:
    """What a run left behind."""

    reason: str
    events: list[Event]
    snapshot: Snapshot

    @property
    def steps(self) -> list[Step]:
        return [event for event in self.events if isinstance(event, Step)]

    @property
    def losses(self) -> list[float | None]:
        return [step.loss for step in self.steps]

    @property
    def state(self) -> dict[str, bytes]:
        """Weights and moments, as bytes."""
        tensors = {**self.snapshot.weights, **self.snapshot.optimizer}
        return {name: bytes(tensor.data) for name, tensor in tensors.items()}


Watch = Callable[[Trainer, Event], None]


async def run(
    device: Device,
    text: Text,
    config: TrainConfig = CONFIG,
    model: ModelConfig = MODEL,
    *,
    watch: Watch | None = None,
    folder: Path | None = None,
    resume: Checkpoint | None = None,
) -> Run:
    """Train; `watch` sees every event, and checkpoints go to `folder`."""
    events: list[Event] = []
    trainer: Trainer | None = None

    def on_event(event: Event) -> None:
        events.append(event)
        if watch and trainer:
            watch(trainer, event)

    async def save(snapshot: Snapshot) -> str:
        if folder is None:
            return "nowhere"
        parts = {
            name: getattr(snapshot, name) for name in ("model", "weights", "tokenizer", "state", "optimizer")
        }
        return str(checkpoint.save(folder, snapshot.step, **parts))

    trainer = await Trainer.create(
        device, model, config, text.tokenizer, text.dataset, on_event=on_event, save=save, resume=resume
    )
    reason = await trainer.run()
    result = Run(reason, events, await trainer.snapshot())
    trainer.runtime.close()
    return result


def stop_at(step: int) -> Watch:
    """Asks to stop when the checkpoint of `step` has been written."""

    def watch(trainer: Trainer, event: Event) -> None:
        if isinstance(event, Saved) and event.step == step:
            trainer.stop()

    return watch


@pytest.mark.parametrize("name", ["auto", "reference"])
def test_resumed_run_equals_the_uninterrupted_one_to_the_bit(name: str, text: Text, tmp_path: Path) -> None:
    async def whole_and_parts() -> tuple[Run, Run, Run]:
        whole = await run(await open_device(name), text)
        first = await run(await open_device(name), text, watch=stop_at(10), folder=tmp_path)
        loaded = checkpoint.load(tmp_path, resume=True)
        second = await run(await open_device(name), text, resumed_config(loaded), resume=loaded)
        return whole, first, second

    whole, first, second = asyncio.run(whole_and_parts())
    assert (whole.reason, first.reason, second.reason) == ("finished", "stopped", "finished")
    assert [s.step for s in first.steps] == list(range(1, 11))
    assert [s.step for s in second.steps] == list(range(11, 21))
    assert first.losses + second.losses == whole.losses
    assert second.state == whole.state
    assert second.snapshot.state["counters"] == whole.snapshot.state["counters"] == [20, 20, 0, 0]
    assert [e for e in second.events if isinstance(e, Validation)] == [
        e for e in whole.events if isinstance(e, Validation) and e.step > 10
    ]
    assert [e for e in second.events if isinstance(e, Sample)] == [
        e for e in whole.events if isinstance(e, Sample) and e.step > 10
    ]


def test_seed_decides(device: Device, text: Text) -> None:
    config = replace(CONFIG, steps=6)
    first, again, other = (asyncio.run(run(device, text, replace(config, seed=seed))) for seed in (1, 1, 2))
    assert first.losses == again.losses
    assert first.state == again.state
    assert all(a != b for a, b in zip(first.losses, other.losses, strict=True))


def test_looking_changes_nothing(device: Device, text: Text) -> None:
    quiet = replace(CONFIG, steps=8, eval_every=0, sample_every=0, save_every=0, log_every=8)
    busy = replace(CONFIG, steps=8, eval_every=1, sample_every=2, save_every=3, log_every=1)
    a, b = (asyncio.run(run(device, text, config)) for config in (quiet, busy))
    assert [type(e) for e in a.events if isinstance(e, Validation | Sample)] == [Validation] * 2
    assert sum(isinstance(e, Validation | Sample) for e in b.events) == 13  # 0 to 8, and 2, 4, 6, 8
    assert a.losses == b.losses
    assert a.state == b.state


def test_loss_falls(device: Device, text: Text) -> None:
    events = asyncio.run(run(device, text)).events
    validations = [e.loss or math.inf for e in events if isinstance(e, Validation)]
    assert validations[0] == pytest.approx(math.log(MODEL.vocab), abs=0.1)
    assert validations[-1] < validations[0] - 0.2


def test_accumulated_micro_batches_are_one_batch(device: Device, text: Text) -> None:
    """Windows depend on step and row alone, so 2 × 4 windows are the same as 8."""
    together, apart = (
        asyncio.run(run(device, text, replace(CONFIG, steps=6, batch=batch, accumulate=accumulate)))
        for batch, accumulate in ((8, 1), (4, 2))
    )
    assert apart.losses == pytest.approx(together.losses, rel=1e-5)
    norms = ([step.gradient_norm for step in r.steps] for r in (together, apart))
    assert next(norms) == pytest.approx(next(norms), rel=1e-4)
    assert (
        [s.tokens for s in apart.steps]
        == [s.tokens for s in together.steps]
        == [128 * n for n in range(1, 7)]
    )
    alone = asyncio.run(run(device, text, replace(CONFIG, steps=6)))
    assert alone.losses != pytest.approx(together.losses, rel=1e-5)


def test_learning_rate_warms_up_and_decays(device: Device, text: Text) -> None:
    config = replace(CONFIG, learning_rate=1e-2, min_learning_rate=0.25)
    rates = [learning_rate(config, step) for step in range(config.steps)]
    assert rates[:5] == pytest.approx([2.5e-3, 5e-3, 7.5e-3, 1e-2, 1e-2])
    assert all(a > b for a, b in pairwise(rates[4:]))
    assert learning_rate(config, 12) == pytest.approx(1e-2 * (0.25 + 0.75 / 2))  # halfway from 4 to 20
    assert learning_rate(config, config.steps) == pytest.approx(2.5e-3)
    seen = [step.learning_rate for step in asyncio.run(run(device, text, config)).steps]
    assert seen == list(array("f", rates))


def test_more_steps_than_the_ring_holds(device: Device, text: Text) -> None:
    config = replace(
        CONFIG, steps=RING + 44, eval_every=0, sample_every=0, save_every=0, log_every=10 * RING, batch=1
    )
    result = asyncio.run(run(device, text, config, TINY))
    assert [s.step for s in result.steps] == list(range(1, RING + 45))
    rates = array("f", [learning_rate(config, step) for step in range(config.steps)])
    assert [s.learning_rate for s in result.steps] == list(rates)
    assert result.snapshot.state["counters"] == [RING + 44, RING + 44, 0, 0]


def test_step_that_is_not_finite_is_counted_and_changes_nothing(device: Device, text: Text) -> None:
    """The first update takes the weights to 1e38 and every step after it to infinity."""
    config = replace(
        CONFIG, steps=4, learning_rate=1e38, warmup=0, eval_every=0, sample_every=0, save_every=1
    )
    first = asyncio.run(run(device, text, config, watch=stop_at(1)))
    result = asyncio.run(run(device, text, config))
    assert [step.skipped for step in first.steps] == [False]
    assert [step.skipped for step in result.steps] == [False, True, True, True]
    assert [step.loss is None for step in result.steps] == [False, True, True, True]
    assert all(from_json(json.loads(json.dumps(to_json(e), allow_nan=False))) == e for e in result.events)
    assert [e.message for e in result.events if isinstance(e, Notice)] == [
        f"step {step} was not finite and changed nothing" for step in (2, 3, 4)
    ]
    assert result.snapshot.state["counters"] == [4, 1, 3, 0]
    assert result.state == first.state


def test_stop_saves_where_it_is(device: Device, text: Text, tmp_path: Path) -> None:
    def watch(trainer: Trainer, event: Event) -> None:
        if isinstance(event, Step) and event.step == 7:
            trainer.stop()

    config = replace(CONFIG, save_every=0, log_every=1)
    result = asyncio.run(run(device, text, config, watch=watch, folder=tmp_path))
    assert result.reason == "stopped"
    ended = result.events[-1]
    assert isinstance(ended, RunEnded)
    assert ended.reason == "stopped"
    assert 7 <= ended.step <= 9  # two chunks of one step are under way at most
    assert checkpoint.load(tmp_path).step == ended.step == result.steps[-1].step


def test_pause_holds_and_proceed_goes_on(reference32: Device, text: Text) -> None:
    async def paused_run() -> tuple[Run, int]:
        paused = asyncio.Event()
        trainers: list[Trainer] = []

        def watch(trainer: Trainer, event: Event) -> None:
            if isinstance(event, Step) and event.step == 5:
                trainers.append(trainer)
                trainer.pause()
                paused.set()

        task = asyncio.create_task(run(reference32, text, replace(CONFIG, log_every=1), watch=watch))
        await paused.wait()
        for _ in range(200):  # turns of the loop, in which a run that is not held would end
            await asyncio.sleep(0)
        assert not task.done()
        held = trainers[0].step
        trainers[0].proceed()
        return await task, held

    result, held = asyncio.run(paused_run())
    assert 5 <= held <= 7
    assert result.reason == "finished"
    assert result.losses == asyncio.run(run(reference32, text)).losses


def test_hold_returns_when_no_step_is_under_way(reference32: Device, text: Text) -> None:
    async def held_run() -> Run:
        trainers: list[Trainer] = []

        def watch(trainer: Trainer, event: Event) -> None:
            trainers.append(trainer)

        task = asyncio.create_task(run(reference32, text, replace(CONFIG, log_every=1), watch=watch))
        while not trainers:
            await asyncio.sleep(0)
        for _ in range(3):
            await trainers[0].hold()
            at = trainers[0].step
            snapshot = await trainers[0].snapshot()
            assert snapshot.state["counters"][0] == at, "steps were under way that nobody has read"
            trainers[0].proceed()
            await trainers[0].hold()  # before the loop has woken
            assert trainers[0].step == at
            trainers[0].proceed()
            while trainers[0].step == at:
                await asyncio.sleep(0)
        result = await task
        await trainers[0].hold()  # a run that has ended holds by itself
        return result

    result = asyncio.run(held_run())
    assert result.losses == asyncio.run(run(reference32, text)).losses


def test_stop_ends_a_pause(reference32: Device, text: Text) -> None:
    async def stopped_run() -> Run:
        def watch(trainer: Trainer, event: Event) -> None:
            if isinstance(event, Step) and event.step == 5:
                trainer.pause()
                asyncio.get_running_loop().call_soon(trainer.stop)

        return await run(reference32, text, replace(CONFIG, log_every=1), watch=watch)

    assert asyncio.run(stopped_run()).reason == "stopped"


def test_events_come_in_order_and_survive_json(device: Device, text: Text, tmp_path: Path) -> None:
    result = asyncio.run(run(device, text, folder=tmp_path))
    told = [event for event in result.events if event.kind != "progress"]
    assert isinstance(told[0], RunStarted)
    assert isinstance(told[-1], RunEnded)
    assert {type(event) for event in told} == {RunStarted, Step, Validation, Sample, Saved, RunEnded}
    steps = [vars(event)["step"] for event in told]
    assert steps == sorted(steps)
    assert [e.step for e in told if isinstance(e, Validation)] == [0, 6, 12, 18, 20]
    assert [e.step for e in told if isinstance(e, Sample)] == [7, 14, 20]
    assert [e.step for e in told if isinstance(e, Saved)] == [5, 10, 15, 20]
    for event in result.events:
        assert from_json(json.loads(json.dumps(to_json(event)))) == event


def test_reader_that_fails_ends_the_run(reference32: Device, text: Text) -> None:
    def watch(trainer: Trainer, event: Event) -> None:
        if isinstance(event, Step) and event.step == 3:
            raise OSError("no space left")

    seen: list[Event] = []
    with pytest.raises(OSError, match="no space left"):
        asyncio.run(run(reference32, text, watch=lambda t, e: (seen.append(e), watch(t, e))[1]))
    ended = seen[-1]
    assert isinstance(ended, RunEnded)
    assert (ended.reason, ended.detail) == ("failed", "no space left")


def test_resume_refuses_other_tokens(reference32: Device, text: Text, tmp_path: Path) -> None:
    asyncio.run(run(reference32, text, watch=stop_at(5), folder=tmp_path))
    loaded = checkpoint.load(tmp_path, resume=True)
    other = Text(text.tokenizer, Dataset(text.dataset.train[1:], text.dataset.validation))
    with pytest.raises(CheckpointError, match="trained on other tokens"):
        asyncio.run(run(reference32, other, resume=loaded))


@pytest.mark.parametrize("short", ["train", "validation"])
def test_text_shorter_than_a_window_is_refused(short: str, reference32: Device, text: Text) -> None:
    parts: dict[str, Any] = {"train": text.dataset.train, "validation": text.dataset.validation}
    parts[short] = parts[short][: MODEL.context]
    with pytest.raises(CorpusError, match=r"16 tokens and one window takes 17: .*--context"):
        asyncio.run(run(reference32, Text(text.tokenizer, Dataset(**parts))))
    parts[short] = text.dataset.train[: MODEL.context + 1]
    result = asyncio.run(run(reference32, Text(text.tokenizer, Dataset(**parts)), replace(CONFIG, steps=5)))
    assert len(result.losses) == 5


def test_killed_program_resumes_to_the_same_weights(tmp_path: Path) -> None:
    """kill -9 of `trainer train` in mid-run; the one that resumes it ends where an uninterrupted one does."""
    story = cli_tools.write_story(tmp_path / "story.txt")
    flags = (
        *("--layers", "1", "--width", "16", "--heads", "2", "--context", "16", "--vocab", "300"),
        *("--steps", "150", "--batch", "2", "--warmup", "5", "--save-every", "10", "--log-every", "4"),
        *("--eval-every", "40", "--eval-batches", "1", "--sample-every", "60", "--sample-tokens", "4"),
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = cli_tools.run("train", "--sources", story, "--out", whole, *flags)
    assert (done.code, done.err) == (0, "")

    process = cli_tools.start("train", "--sources", story, "--out", killed, *flags)
    cli_tools.wait_for(process, "step 20: saved")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    left = checkpoint.load(killed).step
    assert left in range(20, 150, 10)

    done = cli_tools.run("train", "--resume", killed)
    assert (done.code, done.err) == (0, "")
    assert f"going on from step {left}" in done.out
    assert cli_tools.losses(killed) == cli_tools.losses(whole)
    assert set(cli_tools.losses(killed)) == set(range(1, 151))
    assert cli_tools.weights(killed) == cli_tools.weights(whole)
