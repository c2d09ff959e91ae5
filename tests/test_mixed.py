"""Mixed precision: it learns as f32 does, survives overflows, resumes to the bit or in f32, is refused
without f16.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from second_stages import second_stages

from trainer import checkpoint
from trainer.bench.steps import WORKLOADS, workload
from trainer.checkpoint import Checkpoint
from trainer.config import ModelConfig, TrainConfig
from trainer.corpus import read_bundled
from trainer.dataset import Dataset
from trainer.devices import Device
from trainer.errors import ConfigError, DeviceError
from trainer.events import Event, Notice, Step
from trainer.kernels import HALF, NEEDS, Tuning, needs
from trainer.model import build
from trainer.ops import adamw
from trainer.plan import Tensor
from trainer.snapshot import Snapshot
from trainer.tokenizer import Tokenizer
from trainer.train import Trainer

MODEL = ModelConfig(layers=2, width=32, heads=2, context=32, vocab=300)
CONFIG = TrainConfig(
    steps=200,
    batch=4,
    warmup=20,
    learning_rate=3e-3,
    precision="mixed",
    eval_every=0,
    eval_batches=1,
    sample_every=0,
    save_every=0,
)
SHORT = replace(CONFIG, steps=12, warmup=2)
Begin = Callable[[Trainer], Awaitable[None]]


@pytest.fixture(scope="module")
def text() -> tuple[Tokenizer, Dataset]:
    story = next(book.text for book in read_bundled() if "Alice" in book.title)
    tokenizer = Tokenizer.train([story[:40_000]], MODEL.vocab)
    training, validation = (tokenizer.encode_documents([p]) for p in (story[:60_000], story[60_000:64_000]))
    return tokenizer, Dataset(training, validation)


class Run:
    """A run, and what it tells. `begin` may look at and change the trainer before its first step."""

    def __init__(
        self,
        device: Device,
        text: tuple[Tokenizer, Dataset],
        config: TrainConfig,
        *,
        begin: Begin | None = None,
        resume: Checkpoint | None = None,
    ) -> None:
        self.events: list[Event] = []
        self.saved: list[Snapshot] = []
        asyncio.run(self._go(device, text, config, begin, resume))

    async def _go(
        self,
        device: Device,
        text: tuple[Tokenizer, Dataset],
        config: TrainConfig,
        begin: Begin | None,
        resume: Checkpoint | None,
    ) -> None:
        async def save(snapshot: Snapshot) -> str:
            self.saved.append(snapshot)
            return "memory"

        trainer = await Trainer.create(
            device, MODEL, config, *text, on_event=self.events.append, save=save, resume=resume
        )
        if begin:
            await begin(trainer)
        await trainer.run()
        copies = trainer.runtime.model.plan.tensors.get("arena.copy.0")
        self.copies = await read(trainer, copies) if copies else None
        self.weights = await read(trainer, trainer.runtime.model.plan.tensors["arena.parameter.0"])
        trainer.runtime.close()

    @property
    def losses(self) -> np.ndarray:
        return np.array([event.loss for event in self.events if isinstance(event, Step)], np.float64)

    @property
    def skipped(self) -> list[bool]:
        return [event.skipped for event in self.events if isinstance(event, Step)]

    @property
    def loss_scales(self) -> list[float]:
        """Of the checkpoints."""
        return [snapshot.state["loss_scale"][0] for snapshot in self.saved]


def reloaded(snapshot: Snapshot, folder: Path) -> Checkpoint:
    """A snapshot, saved and loaded to go on from."""
    parts = {
        name: getattr(snapshot, name) for name in ("model", "weights", "tokenizer", "state", "optimizer")
    }
    checkpoint.save(folder, snapshot.step, **parts)
    return checkpoint.load(folder, resume=True)


async def read(trainer: Trainer, tensor: Tensor) -> np.ndarray:
    data = await trainer.runtime.executable.read(tensor)
    return np.frombuffer(data, np.float16 if tensor.dtype == "f16" else np.float32).copy()


def scale_of(scale: float) -> Begin:
    """Begins with another loss scale."""

    async def begin(trainer: Trainer) -> None:
        tensor = trainer.training.state.loss_scale
        assert tensor is not None
        await trainer.runtime.executable.write(tensor, np.float32(scale).tobytes())

    return begin


async def round_weights(trainer: Trainer) -> None:
    """Begins with weights that f16 holds."""
    for name, tensor in trainer.runtime.model.plan.tensors.items():
        if name.startswith("arena.parameter"):
            rounded = (await read(trainer, tensor)).astype(np.float16).astype(np.float32)
            await trainer.runtime.executable.write(tensor, rounded.tobytes())


def test_it_learns_as_f32_does(native: Device, text: tuple[Tokenizer, Dataset]) -> None:
    """The measure is what f32 itself makes of a rounding: of a run that begins with weights rounded to f16,
    and goes on in f32. Mixed precision rounds in each step, and strays two to four times as far.

    The learning rate is one at which what is small stays small. At 3e-3, rounding the first weights grows
    until two runs in f32 differ by 0.01, and an overflow costs a step, which moves the rest of the losses.
    """
    config = replace(CONFIG, learning_rate=1e-3)
    f32 = replace(config, precision="f32")
    plain = Run(native, text, f32).losses
    rounded = Run(native, text, f32, begin=round_weights).losses
    mixed = Run(native, text, config).losses
    assert plain[0] - plain[-20:].mean() > 1
    assert np.abs(mixed - plain).mean() < 10 * np.abs(rounded - plain).mean()
    assert np.abs(mixed - plain).max() < 0.005
    assert np.any(mixed != plain), "nothing is f16"


def test_copies_are_the_rounded_weights(native: Device, text: tuple[Tokenizer, Dataset]) -> None:
    run = Run(native, text, SHORT)
    assert run.copies is not None
    matrices = run.weights[: run.copies.size]  # vectors, which lie behind them, have no copies
    assert run.copies.tobytes() == matrices.astype(np.float16).tobytes()
    assert Run(native, text, replace(SHORT, precision="f32")).copies is None


def test_an_overflow_halves_the_loss_scale_and_the_run_recovers(
    native: Device, text: tuple[Tokenizer, Dataset]
) -> None:
    """With 2^27, a gradient of a logit is up to 2^27 / 128, over the 65,504 that f16 holds."""
    run = Run(native, text, replace(SHORT, save_every=1), begin=scale_of(2.0**27))
    falls = run.skipped.index(False)
    assert 2 <= falls <= 8
    assert run.skipped == [True] * falls + [False] * (SHORT.steps - falls)
    expected = [2.0 ** (27 - min(step, falls)) for step in range(1, SHORT.steps + 1)]
    assert run.loss_scales == expected
    assert np.isfinite(run.losses).all()
    assert run.losses[-1] < run.losses[falls]
    notices = [event for event in run.events if isinstance(event, Notice)]
    assert len(notices) == falls
    assert "halved the loss scale" in notices[0].message


def test_good_steps_double_the_loss_scale(
    native: Device, text: tuple[Tokenizer, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adamw, "GROWTH", 5)
    run = Run(native, text, replace(SHORT, save_every=1))
    growth = [min(step // 5, 2) for step in range(1, SHORT.steps + 1)]
    assert run.loss_scales == [adamw.FIRST_LOSS_SCALE * 2**n for n in growth]


@pytest.mark.parametrize("device_name", ["native", "reference32"])
def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(
    device_name: str,
    text: tuple[Tokenizer, Dataset],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Among halvings and doublings of the loss scale."""
    device: Device = request.getfixturevalue(device_name)
    monkeypatch.setattr(adamw, "GROWTH", 3)
    whole = Run(device, text, replace(SHORT, save_every=4), begin=scale_of(2.0**24))
    rest = Run(device, text, replace(SHORT, save_every=4), resume=reloaded(whole.saved[1], tmp_path))
    assert len(set(whole.loss_scales)) > 1
    assert rest.losses.tolist() == whole.losses[8:].tolist()
    assert rest.weights.tobytes() == whole.weights.tobytes()
    last, again = whole.saved[-1].state, rest.saved[-1].state
    assert (again["loss_scale"], again["streak"]) == (last["loss_scale"], last["streak"])


@pytest.mark.parametrize(("before", "after"), [("f32", "mixed"), ("mixed", "f32")])
def test_a_run_goes_on_in_the_other_precision(
    before: str, after: str, native: Device, text: tuple[Tokenizer, Dataset], tmp_path: Path
) -> None:
    """From the very weights, moments and windows, so that its losses are those of the run that did not change
    but for what precision makes of them; and back again.
    """
    config = replace(SHORT, steps=24, save_every=8)
    whole = Run(native, text, replace(config, precision=before))
    rest = Run(native, text, replace(config, precision=after), resume=reloaded(whole.saved[0], tmp_path))
    assert np.abs(rest.losses - whole.losses[8:]).max() < 0.005
    assert np.any(rest.losses != whole.losses[8:])
    (notice,) = [event.message for event in rest.events if isinstance(event, Notice)]
    first, second = ("f32", "mixed precision, with a new loss scale")
    if after == "f32":
        first, second = ("mixed precision", "f32, without a loss scale")
    assert notice == f"trained in {first} until step 8; from there on in {second}"
    state = rest.saved[0].state
    assert state["train"]["precision"] == after
    assert state.get("loss_scale") == (None if after == "f32" else [adamw.FIRST_LOSS_SCALE])
    assert state.get("streak") == (None if after == "f32" else [8])
    again = Run(native, text, replace(config, precision=before), resume=reloaded(rest.saved[0], tmp_path))
    assert np.abs(again.losses - whole.losses[16:]).max() < 0.005


def test_the_variants_for_gpus_train_to_the_same_losses(
    native: Device, text: tuple[Tokenizer, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those on matrix units, too, where the device has such."""
    software = Run(native, text, SHORT).losses
    tuning = replace(native.info.tuning, software=False)
    monkeypatch.setattr(type(native.info), "tuning", property(lambda info: tuning))
    assert np.abs(Run(native, text, SHORT).losses - software).max() < 0.005


@pytest.mark.parametrize("units", [False, True])
def test_every_kernel_of_large_models_can_store_what_it_is_to(units: bool) -> None:
    """Models too large for a software renderer take kernels that small ones do not: sums in parts."""
    stored = set[str]()
    for name in WORKLOADS:
        model, settings = workload(name)
        features = needs("matmul_units").features if units else frozenset({HALF})
        train = replace(settings, steps=1000, precision="mixed")
        tuning = Tuning(software=False, features=features)
        plan = build(model, train=train, tokens=64 * model.context, tuning=tuning).plan
        dispatches = [dispatch for program in plan.programs.values() for dispatch in program.dispatches]
        assert all(dispatch.code for dispatch in dispatches)
        found = {d.variant for d in dispatches} & set(NEEDS)
        assert found == ({"attention_units", "linear_units", "matmul_units"} if units else set())
        stored |= {out.dtype for _, out in second_stages(dispatches)}
    assert stored == {"f16", "f32"}


UNITS = needs("matmul_units").features


@pytest.mark.parametrize(
    ("tuning", "precision"),
    [
        (Tuning(software=False, features=UNITS), "mixed"),
        (Tuning(software=False, features=frozenset({HALF})), "f32"),
        (Tuning(software=False), "f32"),
        (Tuning(software=True, features=UNITS), "f32"),  # made of the processor's own
    ],
)
def test_auto_is_mixed_on_a_gpu_with_matrix_units(tuning: Tuning, precision: str) -> None:
    built = build(MODEL, train=replace(CONFIG, precision="auto"), tokens=1000, tuning=tuning)
    assert built.training
    assert built.training.config == replace(CONFIG, precision=precision)
    assert ("halve" in built.plan.programs) == (precision == "mixed")


def test_a_run_is_saved_in_the_precision_that_suited_its_device(
    reference32: Device, text: tuple[Tokenizer, Dataset], tmp_path: Path
) -> None:
    """One that goes on, too, and is told of as one whose precision was named."""
    before = Run(reference32, text, replace(SHORT, save_every=8)).saved[0]
    rest = Run(reference32, text, replace(SHORT, precision="auto"), resume=reloaded(before, tmp_path))
    assert rest.saved[-1].state["train"]["precision"] == "f32"
    (notice,) = [event.message for event in rest.events if isinstance(event, Notice)]
    assert "in mixed precision until step 8; from there on in f32" in notice


def test_without_f16_it_is_refused(text: tuple[Tokenizer, Dataset]) -> None:
    with pytest.raises(DeviceError, match="shader-f16, which this device does not give: use precision f32"):
        build(MODEL, train=CONFIG, tokens=1000, tuning=Tuning())
    with pytest.raises(ConfigError, match="precision is 'half': give --precision one of f32, mixed"):
        replace(CONFIG, precision="half")
