"""The autotuner: it finds what is faster, trusts no kernel that computes something else, and keeps what it
found; a run keeps to the kernels that it began with.
"""

from __future__ import annotations

import asyncio
import json
import sys
from array import array
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainer import answers, checkpoint, tune
from trainer.cache import FolderCache, seal
from trainer.config import ModelConfig, TrainConfig, to_dict
from trainer.dataset import Dataset
from trainer.devices import Device
from trainer.devices.native import NativeDevice, NativeExecutable
from trainer.errors import DeviceError, StorageError
from trainer.events import Event, Notice, Progress, Reader
from trainer.kernels import MATRIX_UNITS, Choice, Tuning
from trainer.ops.random import normal
from trainer.plan import Asked, Plan
from trainer.snapshot import Snapshot
from trainer.tokenizer import Tokenizer
from trainer.train import Trainer

MODEL = ModelConfig(layers=1, width=64, heads=2, context=32, vocab=512)
TRAIN = TrainConfig(steps=40, batch=4, warmup=4, eval_every=0, sample_every=0, save_every=0)
PRODUCT = "matmul NN 128x64x256 f32 f32 f32 bias:f32 residual:f32"  # of the layer's MLP


def asked(device: Device, *keys: str) -> list[Asked]:
    """The questions of a training step, or those with these keys, as a device with a real GPU asks them."""
    found = tune.questions(MODEL, TRAIN, replace(device.info.tuning, software=False))
    return [one for one in found if not keys or one.question.key in keys]


def with_candidate(one: Asked, choice: Choice) -> Asked:
    """The question with one more candidate, which is to be taken."""
    question = replace(one.question, candidates=(choice, *one.question.candidates))
    return Asked(question, one.runs)


async def findings_of(
    device: Device, questions: list[Asked], seconds: float, on_event: Reader | None = None
) -> list[tune.Finding]:
    """All that is found."""
    return [finding async for finding in tune.tune(device, questions, seconds, on_event)]


def tuned(device: Device, questions: list[Asked], seconds: float = 60.0) -> tuple[tune.Finding, list[Event]]:
    """What is found of one question, and what is told."""
    events: list[Event] = []
    (finding,) = asyncio.run(findings_of(device, questions, seconds, events.append))
    return finding, events


# ---------------------------------------------------------------- what is found


def test_on_a_software_renderer_kernels_without_barriers_win(native: Device) -> None:
    """The kernel for GPUs waits at two barriers for every few columns that it multiplies."""
    finding, events = tuned(native, asked(native, PRODUCT))
    assert finding.default.variant == "matmul_tiled"
    assert finding.winner.variant == "matmul_direct"
    assert finding.speedup > 1 + tune.MARGIN
    assert not finding.refused
    assert finding.seconds[str(finding.winner)] == min(finding.seconds.values()) > 0
    assert [e.done for e in events if isinstance(e, Progress)] == [0, 1]


def test_every_question_of_a_step_is_answered(native: Device) -> None:
    """The largest first; forward and backward of attention and LayerNorm, the loss, and sums in parts."""
    questions = asked(native)
    findings = asyncio.run(findings_of(native, questions, 300.0))
    assert {one.question.op for one in questions} == {
        "matmul",
        "linear",
        "attention",
        "layernorm",
        "cross_entropy",
    }
    assert [finding.question for finding in findings] == [one.question for one in questions]
    assert [finding.refused for finding in findings] == [{}] * len(findings)
    for finding in findings:  # but for what cannot win, in other tiles
        tried = {name.split()[0] for name in finding.seconds}
        assert tried == {choice.variant for choice in finding.question.candidates}
        assert len(finding.seconds) > 1
    work = [one.question.work * len(next(iter(one.runs.values()))) for one in questions]
    assert work == sorted(work, reverse=True)


def test_what_a_variant_makes_beside_its_op_is_what_others_make(native: Device) -> None:
    """Attention by subgroups sums up its gradients as column_sum does, for a context of whole blocks."""
    tuning = replace(native.info.tuning, software=False)
    questions = tune.questions(replace(MODEL, context=64), TRAIN, tuning)
    (attention,) = (one for one in questions if one.question.op == "attention")
    finding, _ = tuned(native, [attention])
    assert "attention_subgroups" in finding.seconds
    assert not finding.refused


def test_a_kernel_that_computes_something_else_is_refused(native: Device) -> None:
    (one,) = asked(native, PRODUCT)
    # Leaves half of each sum out
    half = Choice("matmul_direct", {"TILE_M": 32, "TILE_N": 32, "PART": 256, "K": 128})
    finding, events = tuned(native, [with_candidate(one, half)])
    assert str(finding.winner) in finding.seconds
    assert list(finding.refused) == [str(half)]
    assert str(half) not in finding.seconds
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert f"{half} is refused for {PRODUCT}: it computes " in notice.message


def test_a_kernel_that_the_device_cannot_run_is_refused(
    native: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = asked(native, PRODUCT)
    monkeypatch.setattr(native, "info", replace(native.info, enabled=()))
    units = Choice("matmul_units", {"TILE_M": 128, "TILE_N": 128, "PART": 256})
    finding, _ = tuned(native, [with_candidate(one, units)])
    assert MATRIX_UNITS in finding.refused[str(units)]
    assert "does not give" in finding.refused[str(units)]
    assert str(finding.winner) in finding.seconds


@pytest.mark.parametrize("software", [True, False])
def test_a_kernel_that_the_device_refuses_to_compile_is_refused(
    software: bool, native: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, whether candidates are compiled one by one or all at once."""
    monkeypatch.setattr(native, "info", replace(native.info, software=software))
    (one,) = asked(native, PRODUCT)
    # Of more workgroup memory than there is
    vast = Choice("matmul_tiled", {"TILE_M": 128, "TILE_N": 1 << 14, "PART": 256})
    finding, _ = tuned(native, [with_candidate(one, vast)])
    assert "refuses the kernel matmul_tiled.multiply" in finding.refused[str(vast)]
    assert str(finding.winner) in finding.seconds


def test_a_winner_has_to_win_by_more_than_noise() -> None:
    slow, fast = Choice("slow"), Choice("fast")
    question = tune.Question("op", "shape", (slow, fast), 1.0)
    assert tune._winner(question, {"slow": 1.0, "fast": 0.96}) == slow
    assert tune._winner(question, {"slow": 1.0, "fast": 0.94}) == fast
    assert tune._winner(question, {"fast": 9.0}) == fast  # the other one was refused


# ---------------------------------------------------------------- time


def test_without_time_nothing_is_measured(native: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeDevice, "compile", None)  # and nothing is put on the device
    assert asyncio.run(findings_of(native, asked(native), 0.0)) == []


def test_when_time_is_up_the_rest_is_left(native: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(tune.time, "perf_counter", lambda: next(clock))
    questions = asked(native)
    findings = asyncio.run(findings_of(native, questions, 30.0))
    assert 0 < len(findings) < len(questions)
    assert [finding.question for finding in findings] == [one.question for one in questions[: len(findings)]]


def test_it_can_be_cancelled_and_gives_the_memory_back(
    native: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[NativeExecutable] = []
    close = NativeExecutable.close

    def noted(executable: NativeExecutable) -> None:
        closed.append(executable)
        close(executable)

    monkeypatch.setattr(NativeExecutable, "close", noted)

    async def go() -> None:
        task = asyncio.create_task(findings_of(native, asked(native), 60.0))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    assert len(closed) == 1


def test_a_cancelled_read_ends_with_the_loop_that_waited(
    native: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when the GPU is done, which may be when there is no loop any more to tell."""
    untold: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", untold.append)
    plan = Plan(native.info.tuning)
    x = plan.tensor("x", (1 << 22,), role="state")
    with plan.program("fill"):
        normal(plan, x, std=1.0, seed=1, stream=0)
    plan.finish()

    async def go() -> None:
        executable = await native.compile(plan)
        executable.run(["fill"] * 20)
        reading = asyncio.create_task(executable.read(x))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])  # a software renderer may be done already
        executable.close()

    async def all_is_done() -> None:
        executable = await native.compile(plan)
        await executable.finish()
        executable.close()

    for _ in range(4):
        asyncio.run(go())
        asyncio.run(all_is_done())
    assert not untold


def test_what_does_not_fit_the_device_is_an_error(reference32: Device) -> None:
    with pytest.raises(DeviceError):
        tune.questions(MODEL, replace(TRAIN, batch=1 << 22), reference32.info.tuning)


# ---------------------------------------------------------------- what is kept


class MemoryCache:
    """A `Cache` that forgets."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        return self.entries.get(key)

    async def put(self, key: str, entry: bytes) -> None:
        self.entries[key] = entry


def test_answers_are_kept_for_the_next_run(reference32: Device, tmp_path: Path) -> None:
    cache = FolderCache("tuning", tmp_path)

    async def ask(**options: Any) -> tuple[dict[str, str], list[tune.Finding]]:
        return await answers.answers(reference32, MODEL, TRAIN, cache, **options)

    assert asyncio.run(ask(seconds=0)) == ({}, [])
    found, findings = asyncio.run(ask(seconds=60))
    assert found == {finding.question.key: str(finding.winner) for finding in findings}
    assert len(found) == len(tune.questions(MODEL, TRAIN, reference32.info.tuning))
    assert asyncio.run(ask(seconds=60)) == (found, [])
    again, findings = asyncio.run(ask(seconds=60, force=True))
    assert set(again) == set(found) == {finding.question.key for finding in findings}
    (path,) = (tmp_path / "tuning").iterdir()
    assert path.suffix == ".json"
    other = replace(reference32.info, driver="another")
    assert asyncio.run(answers.load(cache, other)) == {}


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"{}",
        seal(b"[]"),
        seal(b'{"device": {"name": "another"}, "answers": {}}'),
        b"x" + seal(b"{}"),
        seal(b"\xff"),
    ],
)
def test_damaged_and_foreign_entries_are_left_alone(entry: bytes, reference32: Device) -> None:
    cache, events = MemoryCache(), []
    cache.entries[answers.entry_of(reference32.info)] = entry
    assert asyncio.run(answers.load(cache, reference32.info, events.append)) == {}
    (notice,) = events
    assert "damaged" in notice.message


def test_answers_among_other_candidates_are_asked_again(reference32: Device) -> None:
    *rest, one = tune.questions(MODEL, TRAIN, reference32.info.tuning)
    cache = MemoryCache()

    async def measure() -> None:
        (finding,) = [found async for found in answers.measure(reference32, [one], cache, {}, 60.0)]
        kept = await answers.load(cache, reference32.info)
        assert answers.answers_in(kept, [*rest, one]) == {one.question.key: str(finding.winner)}
        more = with_candidate(one, Choice("new"))
        assert answers.answers_in(kept, [*rest, more]) == {}

    asyncio.run(measure())


def test_what_cannot_be_kept_is_told_once(reference32: Device) -> None:
    class Full(MemoryCache):
        async def put(self, key: str, entry: bytes) -> None:
            raise StorageError("the disk is full", "make room")

    events: list[Event] = []
    questions = tune.questions(MODEL, TRAIN, reference32.info.tuning)[-2:]

    async def measure() -> None:
        found = [f async for f in answers.measure(reference32, questions, Full(), {}, 60.0, events.append)]
        assert [finding.question for finding in found] == [one.question for one in questions]

    asyncio.run(measure())
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert "cannot be kept: the disk is full: make room" in notice.message


def test_what_was_found_is_kept_whatever_comes_then(reference32: Device) -> None:
    """A cancelled command, a lost device: the first answer is kept while the second one is sought."""
    cache = MemoryCache()

    class Lost(Exception):
        pass

    def lose(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 1:
            raise Lost

    with pytest.raises(Lost):
        asyncio.run(answers.answers(reference32, MODEL, TRAIN, cache, 60.0, on_event=lose))
    first = tune.questions(MODEL, TRAIN, reference32.info.tuning)[0].question
    assert list(asyncio.run(answers.load(cache, reference32.info))) == [first.key]


# ---------------------------------------------------------------- a run's own


def test_a_resumed_run_keeps_to_the_kernels_that_it_began_with(native: Device, tmp_path: Path) -> None:
    """Other kernels add up in another order: with them, the same steps end elsewhere."""
    tokenizer = Tokenizer.from_merges([])
    tokens = array("H", (i * i % 251 for i in range(4000)))
    dataset = Dataset(tokens[:3000], tokens[3000:], text_bytes=4000)
    model = replace(MODEL, width=32, vocab=tokenizer.vocab_size)
    config = replace(TRAIN, batch=16, steps=12, save_every=8)
    in_parts = {  # for lavapipe, a kernel that adds up in another order
        one.question.key: str(choice)
        for one in tune.questions(model, config, native.info.tuning)
        for choice in one.question.candidates
        if choice.constants.get("PART") == 64 and choice.variant == "matmul_tiled"
    }
    assert in_parts

    async def run(known: Mapping[str, str], resume: Any = None) -> list[Snapshot]:
        """What the run saved, the end last."""
        saved: list[Snapshot] = []

        async def save(snapshot: Snapshot) -> str:
            saved.append(snapshot)
            return ""

        trainer = await Trainer.create(
            native,
            model,
            config,
            tokenizer,
            dataset,
            on_event=lambda _: None,
            save=save,
            resume=resume,
            answers=known,
        )
        await trainer.run()
        trainer.runtime.close()
        return saved

    def bits(snapshot: Snapshot) -> dict[str, bytes]:
        return {name: bytes(tensor.data) for name, tensor in snapshot.weights.items()}

    async def go() -> None:
        first, whole = await run(in_parts)
        *_, other = await run({})
        state = first.state["tuning"]
        assert state["device"]["name"] == native.info.name
        assert in_parts.items() <= state["answers"].items()
        checkpoint.save(
            tmp_path,
            8,
            model=model,
            weights=first.weights,
            tokenizer=tokenizer,
            state=json.loads(json.dumps(first.state)),
            optimizer=first.optimizer,
        )
        (rest,) = await run({}, checkpoint.load(tmp_path, resume=True))
        assert bits(rest) == bits(whole) != bits(other)
        assert rest.state["tuning"] == state

    asyncio.run(go())


def test_a_run_that_goes_on_otherwise_takes_what_is_measured_here(
    native: Device, reference32: Device
) -> None:
    plan = tune.build(MODEL, train=TRAIN, tokens=1000, tuning=Tuning()).plan
    state = {"train": to_dict(TRAIN), "tuning": answers.of_run(plan, native.info)}
    assert answers.from_run(state, native.info, TRAIN) == state["tuning"]["answers"]
    assert answers.from_run(state, reference32.info, TRAIN) is None
    assert answers.from_run(state, native.info, replace(TRAIN, precision="mixed")) is None
    assert answers.from_run({"train": to_dict(TRAIN)}, native.info, TRAIN) == {}  # from before there were any
    assert answers.from_run(None, native.info, TRAIN) is None
