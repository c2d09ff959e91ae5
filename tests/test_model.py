"""The whole model against PyTorch and `transformers`: fixtures that tests/make_oracles/model.py makes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_oracles import formula
from safetensors.numpy import load_file, save_file
from second_stages import second_stages

from trainer import checkpoint, plan
from trainer import model as model_module
from trainer.config import ModelConfig, SampleConfig, TrainConfig
from trainer.devices import Device, open_device
from trainer.devices.reference import ReferenceExecutable
from trainer.generate import generate
from trainer.gpt2_format import EMBEDDING
from trainer.kernels import GPU_VARIANTS, Tuning
from trainer.model import Model, Training, build
from trainer.ops import column_sum, cross_entropy, embedding, random
from trainer.plan import Tensor
from trainer.runtime import Runtime, floats, ints, pack_floats, pack_ints
from trainer.schedule import schedule

FOLDER = Path(__file__).parent / "fixtures" / "model"
ORACLE: dict[str, Any] = json.loads((FOLDER / "oracle.json").read_text())
STEPS = len(ORACLE["learning_rates"])

# Relative to the largest number of a tensor. What float64 leaves of "steps" and "change" comes from the
# schedule, which the device is given in float32, and from the fixture, which has the changes in float32.
FLOAT32 = {"forward": 5e-6, "gradient": 5e-6, "steps": 2e-6, "change": 2e-4}
TOLERANCE = {
    "reference64": {"forward": 1e-13, "gradient": 1e-13, "steps": 1e-8, "change": 2e-7},
    "reference": FLOAT32,
    "auto": FLOAT32,
}
DEVICES = tuple(TOLERANCE)
# Which kernels run: what a device may choose, whichever the default adapter is, and the naive ones.
TUNINGS = {
    "software": Tuning(software=True),
    "GPU": Tuning(software=False),
    "naive": Tuning(pinned={op: op for op in GPU_VARIANTS}),
}

_opened: dict[str, Device] = {}


async def device(name: str) -> Device:
    if name not in _opened:
        _opened[name] = await open_device(name)
    return _opened[name]


@cache
def oracle() -> dict[str, np.ndarray]:
    return load_file(FOLDER / "oracle.safetensors")


@cache
def saved() -> checkpoint.Checkpoint:
    return checkpoint.load(FOLDER / "checkpoint")


async def start(name: str, source: checkpoint.Checkpoint | None = None, **parts: Any) -> Runtime:
    """A runtime with the weights of a checkpoint, the fixture's if none is given."""
    source = source or saved()
    chosen = await device(name)
    parts.setdefault("tuning", chosen.info.tuning)
    runtime = await Runtime.open(chosen, build(source.model, **parts))
    await runtime.load(source.weights)
    return runtime


async def numbers(runtime: Runtime, tensor: Tensor) -> np.ndarray:
    """A tensor's numbers: of the reference device in its own precision, which `read` would round."""
    if isinstance(runtime.executable, ReferenceExecutable):
        return runtime.executable.array(tensor).astype(np.float64).reshape(tensor.shape)
    return np.array(floats(await runtime.executable.read(tensor))).reshape(tensor.shape)


def close(actual: Any, expected: Any, tolerance: float, what: str) -> None:
    """Assert that no number is further off than `tolerance` times the largest expected one."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, what
    error = np.nan_to_num(np.abs(actual - expected), nan=np.inf) / np.abs(expected).max()
    worst = np.unravel_index(error.argmax(), error.shape)
    message = f"{what} at {list(map(int, worst))}: {actual[worst]} instead of {expected[worst]}"
    assert error[worst] <= tolerance, f"{message}, off by {error[worst]:.2g}"


# ------------------------------------------------------------------------------------------- forward
@pytest.mark.parametrize("name", DEVICES)
def test_losses_are_those_of_transformers(name: str) -> None:
    asyncio.run(check_losses(name))


async def check_losses(name: str) -> None:
    runtime = await start(name, evaluation_batch=len(ORACLE["windows"]))
    windows = [(window[:-1], window[1:]) for window in ORACLE["windows"]]
    losses = await runtime.losses(windows)
    assert runtime.model.evaluation is not None
    exact = await numbers(runtime, runtime.model.evaluation.losses)
    close(exact, oracle()["losses"].ravel(), TOLERANCE[name]["forward"], "loss")
    np.testing.assert_allclose(losses, exact.reshape(len(windows), -1), rtol=1e-7)  # rounded to float32


@pytest.mark.parametrize("name", DEVICES)
def test_log_probabilities_of_all_tokens_are_those_of_transformers(name: str) -> None:
    asyncio.run(check_log_probabilities(name))


async def check_log_probabilities(name: str) -> None:
    """The loss of every token as the target: the logits but for a constant, which softmax does not see."""
    V, at_once = saved().model.vocab, 5
    runtime = await start(name, evaluation_batch=at_once)
    assert runtime.model.evaluation is not None
    for window, logits in zip(ORACLE["windows"], oracle()["logits"], strict=True):
        found = []
        for first in range(0, V, at_once):
            targets = range(first, min(first + at_once, V))
            await runtime.losses([(window[:-1], [target] * len(logits)) for target in targets])
            losses = await numbers(runtime, runtime.model.evaluation.losses)
            found += list(losses.reshape(at_once, -1)[: len(targets)])
        expected = np.log(np.exp(logits).sum(axis=1)) - logits.T
        close(found, expected, TOLERANCE[name]["forward"], "-log p")


# ------------------------------------------------------------------------------------------- training
def settings(run: Mapping[str, Any]) -> TrainConfig:
    return TrainConfig(
        batch=run["batch"], accumulate=run["accumulate"], seed=run["seed"], **ORACLE["optimiser"]
    )


async def start_training(name: str, run: Mapping[str, Any], **parts: Any) -> tuple[Runtime, Training]:
    """A runtime with the fixture's weights, dataset and schedule.

    The training program takes windows from the dataset by itself. In the run "fixed" the dataset is one
    window long, so that there is only one to take; in "sampled" the oracle knows which ones are taken.
    """
    runtime = await start(name, train=settings(run), tokens=run["tokens"], **parts)
    training = runtime.model.training
    assert training is not None
    for (first, _, count), part in zip(
        random.dataset_parts(run["tokens"], saved().model.context), training.dataset, strict=True
    ):
        tokens = ORACLE["corpus"][first : first + count] + [0] * (count % 2)
        pairs = (low | high << 16 for low, high in zip(tokens[::2], tokens[1::2], strict=True))
        await runtime.executable.write(part, pack_ints(pairs))
    await runtime.executable.write(training.state.schedule, schedule(training.config))
    return runtime, training


async def train(runtime: Runtime, training: Training) -> dict[str, np.ndarray]:
    """Ten steps: the first one's `gradient.*`, `losses` and `norms` of all, and `change.*` of the weights."""
    before = {key: await numbers(runtime, t) for key, t in runtime.model.parameters.items()}
    batches = ["micro"] + ["micro_add"] * (training.config.accumulate - 1)
    runtime.executable.run(batches)
    found = {f"gradient.{key}": await numbers(runtime, t) for key, t in training.gradients.items()}
    runtime.executable.run(["update"])
    for _ in range(1, STEPS):
        runtime.executable.run([*batches, "update"])
    ring = (await numbers(runtime, training.state.ring))[:STEPS]
    found |= {"losses": ring[:, 0], "norms": ring[:, 1], "rates": ring[:, 2], "skipped": ring[:, 3]}
    for key, tensor in runtime.model.parameters.items():
        found[f"change.{key}"] = await numbers(runtime, tensor) - before[key]
    return found


@pytest.mark.parametrize("run", ORACLE["runs"])
@pytest.mark.parametrize("name", DEVICES)
def test_gradients_and_ten_steps_are_those_of_torch(name: str, run: str) -> None:
    asyncio.run(check_training(name, run))


async def check_training(name: str, run: str, **parts: Any) -> None:
    notes, tolerance = ORACLE["runs"][run], TOLERANCE[name]
    runtime, training = await start_training(name, notes, **parts)
    found = await train(runtime, training)
    for key in saved().weights:
        for kind in ("gradient", "change"):
            expected = oracle()[f"{run}.{kind}.{key}"]
            close(found[f"{kind}.{key}"], expected, tolerance[kind], f"{kind} of {key}")
    close(found["losses"], notes["losses"], tolerance["steps"], "loss of step")
    close(found["norms"], notes["norms"], tolerance["steps"], "norm of step")
    close(found["rates"], ORACLE["learning_rates"], 1e-7, "learning rate of step")
    assert not found["skipped"].any()
    counters = ints(await runtime.executable.read(training.state.counters))
    assert counters == [STEPS, STEPS, 0, 0]
    assert not (await numbers(runtime, padding(runtime.model))).any()


@pytest.mark.parametrize("tuning", TUNINGS)
def test_every_choice_of_kernels_is_the_same_model(tuning: str) -> None:
    asyncio.run(check_training("auto", "sampled", tuning=TUNINGS[tuning]))
    asyncio.run(check_generation("auto", tuning=TUNINGS[tuning]))


def padding(model: Model) -> Tensor:
    """The rows of the embedding behind the vocabulary's: zeros that training leaves as they are."""
    table = model.parameters[EMBEDDING]
    return table.view("padding", table.size, (-table.shape[0] % 64, table.shape[1]))


# ------------------------------------------------------------------------------------------- generation
@pytest.mark.parametrize("name", DEVICES)
def test_greedy_generation_is_that_of_transformers(name: str) -> None:
    asyncio.run(check_generation(name))


async def check_generation(name: str, **parts: Any) -> None:
    """With a prefilled cache, and with one that decoding the prompt fills: both as `generate` has it."""
    runtime = await start(name, generate=True, **parts)
    for expected in ORACLE["generated"]:
        for continued in (prefilled, decoded):
            sequence, probabilities = await continued(runtime, expected["prompt"])
            assert sequence == expected["sequence"]
            close(probabilities, expected["probabilities"], FLOAT32["forward"], "probability")


async def prefilled(runtime: Runtime, prompt: Sequence[int]) -> tuple[list[int], list[float]]:
    """`prompt` continued to context + 1 tokens, and the probabilities of the new ones."""
    left = runtime.model.config.context + 1 - len(prompt)
    tokens = [token async for token in generate(runtime, prompt, SampleConfig(tokens=left, temperature=0.0))]
    return [*prompt, *[token.id for token in tokens]], [token.probability for token in tokens]


async def decoded(runtime: Runtime, prompt: Sequence[int]) -> tuple[list[int], list[float]]:
    """The same, but the cache is filled by decoding the prompt."""
    executable, sampler = runtime.executable, runtime.model.sampler
    assert sampler is not None
    await executable.compile(["decode"])
    for position in range(len(prompt)):
        await point(runtime, prompt, position)  # again for each: decoding writes its own choice behind it
        executable.run(["decode"])
    executable.run(
        ["decode"] * (runtime.model.config.context - len(prompt))
    )  # none, where the prompt is full
    probabilities = floats(await executable.read(sampler.probabilities))
    return ints(await executable.read(sampler.sequence)), probabilities[len(prompt) :]


async def point(runtime: Runtime, tokens: Sequence[int], position: int) -> None:
    """Let the next decoding read `tokens` at `position`, and choose greedily. What follows them is junk."""
    sampler, junk = runtime.model.sampler, runtime.model.config.vocab - 1
    assert sampler is not None
    (length,) = sampler.sequence.shape
    values = {
        sampler.settings: pack_floats([0.0, 1.0]),  # temperature, top-p
        sampler.choices: pack_ints([0, 0]),  # seed, top-k
        sampler.cursor: pack_ints([position, 0]),
        sampler.sequence: pack_ints([*tokens, *[junk] * (length - len(tokens))]),
    }
    for tensor, data in values.items():
        await runtime.executable.write(tensor, data)


@pytest.mark.parametrize("name", DEVICES)
def test_alternatives_are_the_likeliest_tokens(name: str) -> None:
    async def go() -> None:
        runtime = await start(name, generate=True)
        prompt = [int(id) for id in ORACLE["windows"][0][:3]]
        greedy = SampleConfig(tokens=4, temperature=0.0)
        plain = [token async for token in generate(runtime, prompt, greedy)]
        told = [token async for token in generate(runtime, prompt, greedy, alternatives=5)]
        assert [token.id for token in told] == [token.id for token in plain]
        for token in told:
            ids, shares = zip(*token.alternatives, strict=True)
            assert len(set(ids)) == 5
            assert ids[0] == token.id
            assert shares[0] == pytest.approx(token.probability, rel=1e-5)
            assert list(shares) == sorted(shares, reverse=True)
            assert sum(shares) < 1
        everything = [t async for t in generate(runtime, prompt, greedy, alternatives=saved().model.vocab)]
        assert sum(share for _, share in everything[0].alternatives) == pytest.approx(1)

    asyncio.run(go())


@pytest.mark.parametrize("name", DEVICES)
def test_logits_of_decoding_are_those_of_transformers(name: str) -> None:
    asyncio.run(check_logits(name))


async def check_logits(name: str) -> None:
    """Token by token: the sampler holds the logits of the newest one."""
    runtime = await start(name, generate=True)
    sampler = runtime.model.sampler
    assert sampler is not None
    await runtime.executable.compile(["decode"])
    for window, expected in zip(ORACLE["windows"], oracle()["logits"], strict=True):
        for position, of_position in enumerate(expected):
            await point(runtime, window, position)
            runtime.executable.run(["decode"])
            found = (await numbers(runtime, sampler.logits))[0, : saved().model.vocab]
            close(found, of_position, TOLERANCE[name]["forward"], f"logits of position {position}")


# ------------------------------------------------------------------------------------------- limits
@pytest.mark.parametrize("name", DEVICES)
def test_what_large_models_split_is_the_same_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that the small model meets, in the places where a large one meets WebGPU's own."""
    V, C, T = 128, saved().model.width, saved().model.context  # V: rows of the table, padded
    limit = 4 * 64 * V  # bytes: 64 rows of logits
    monkeypatch.setattr(plan, "MAX_BINDING", limit)  # no dispatch binds more; the optimiser goes by pieces
    monkeypatch.setattr(column_sum, "MAX_BINDING", limit)  # gradients of vectors are summed up in stretches
    monkeypatch.setattr(cross_entropy, "MAX_BINDING", limit)  # the head takes 64 rows at a time
    monkeypatch.setattr(embedding, "MAX_BINDING", 4 * 64 * C)  # the table comes in two parts
    monkeypatch.setattr(model_module, "MAX_BUFFER", limit * 3 // 2)  # parameters lie in several buffers
    monkeypatch.setattr(random, "TOKENS_AT_ONCE", 70)  # and so does the dataset
    run = ORACLE["runs"]["sampled"]
    split = build(saved().model, train=settings(run), tokens=run["tokens"])
    assert split.training is not None
    assert run["batch"] * T > 64
    shapes = {t.shape for d in split.plan.programs["micro"].dispatches for t in d.bindings.values()}
    assert (64, V) in shapes, "the head does not take 64 rows at a time"
    assert (64, C) in shapes, "the table is in one part"
    assert len(split.training.dataset) > 1
    totals = list(second_stages(split.plan.programs["micro"].dispatches))
    assert len(totals) > 1, "the vectors' gradients are in one stretch"
    updates = [d for d in split.plan.programs["update"].dispatches if d.kernel == "adamw.update"]
    segments = {t for t in split.plan.tensors.values() if t.role == "parameter"}
    assert len(updates) > len(segments) > 1, "the optimiser does not go by pieces"

    asyncio.run(check_training(name, "sampled"))
    asyncio.run(check_log_probabilities(name))
    asyncio.run(check_generation(name))


# ------------------------------------------------------------------------------------------- checkpoints
def test_what_transformers_loaded_is_what_is_saved(tmp_path: Path) -> None:
    """The oracle is of a checkpoint of ours that `transformers` loaded: it is still written like that."""
    asyncio.run(check_saved(tmp_path))


async def check_saved(folder: Path) -> None:
    weights = await (await start("auto", evaluation_batch=1)).weights()
    written = checkpoint.save(folder, 0, model=saved().model, weights=weights, tokenizer=None)
    files = {path.name: path.read_bytes() for path in written.iterdir()}
    assert files == {path.name: path.read_bytes() for path in (FOLDER / "checkpoint").iterdir()}


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 that `transformers` saved: its config, and the same weights from the formula."""
    folder = tmp_path_factory.mktemp("gpt2")
    notes = json.loads((FOLDER / "gpt2" / "oracle.json").read_text())
    save_file(formula.weights(notes["shapes"]), folder / "model.safetensors", {"format": "pt"})
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == notes["sha256"]
    (folder / "config.json").write_bytes((FOLDER / "gpt2" / "config.json").read_bytes())
    return folder


@pytest.mark.parametrize("name", ["reference", "auto"])
def test_a_gpt2_of_transformers_means_the_same_to_us(name: str, gpt2: Path) -> None:
    asyncio.run(check_gpt2(name, checkpoint.load(gpt2)))


async def check_gpt2(name: str, source: checkpoint.Checkpoint) -> None:
    """Its context and vocabulary are the real ones: 1,024 rows of 50,257 logits, which no binding holds."""
    runtime = await start(name, source, evaluation_batch=1)
    tokens = formula.tokens(source.model.context + 1, source.model.vocab)
    (losses,) = await runtime.losses([(tokens[:-1], tokens[1:])])
    runtime.close()
    expected = json.loads((FOLDER / "gpt2" / "oracle.json").read_text())["losses"]
    assert len(expected) == 1024
    close(losses, expected, TOLERANCE[name]["forward"], "loss")


# ------------------------------------------------------------------------------------------- initial weights
INITIAL = ModelConfig(layers=3, width=48, heads=3, context=64, vocab=1021)


@cache
def initial(name: str, seed: int) -> dict[str, bytes]:
    async def make() -> dict[str, bytes]:
        runtime = await Runtime.open(await device(name), build(INITIAL, seed=seed))
        await runtime.initialise()
        return {key: bytes(tensor.data) for key, tensor in (await runtime.weights()).items()}

    return asyncio.run(make())


def test_initial_weights_are_gpt2s() -> None:
    """N(0, 0.02²), residual projections N(0, 0.02² / 2L), LayerNorm 1 and 0, biases 0."""
    matrices = []
    for key, data in initial("auto", 7).items():
        values = np.frombuffer(data, np.float32).astype(np.float64)
        if key.endswith("bias"):
            assert not values.any(), key
        elif ".ln_" in key:
            assert (values == 1).all(), key
        else:
            std = 0.02 / (2 * INITIAL.layers) ** 0.5 if key.endswith("c_proj.weight") else 0.02
            n, scaled = len(values), values / std
            # Five standard errors: of the mean, of the deviation, and of the share within one deviation
            assert abs(scaled.mean()) < 5 / n**0.5, key
            assert abs(scaled.std() - 1) < 5 / (2 * n) ** 0.5, key
            assert abs((abs(scaled) < 1).mean() - 0.6827) < 5 * (0.6827 * 0.3173 / n) ** 0.5, key
            matrices.append(scaled[: INITIAL.width**2])
    assert len(matrices) == 2 + 4 * INITIAL.layers
    correlations = np.corrcoef(matrices) - np.eye(len(matrices))
    assert abs(correlations).max() < 5 / INITIAL.width, "two matrices resemble each other"


def test_initial_weights_are_the_same_on_every_device() -> None:
    assert initial("auto", 7) == initial("reference", 7) == initial("reference64", 7)


def test_initial_weights_come_from_the_seed() -> None:
    one, other = initial("reference", 7), initial("reference", 8)
    assert {key for key in one if one[key] == other[key]} == {
        key for key in one if key.endswith("bias") or ".ln_" in key
    }
