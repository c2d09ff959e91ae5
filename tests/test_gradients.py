"""Gradients against central finite differences in float64, and what else a training step promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
from kernel_runs import assert_arrays_close

from trainer.config import ModelConfig, TrainConfig
from trainer.devices import Device
from trainer.devices.reference import ReferenceDevice, ReferenceExecutable
from trainer.kernels import SUBGROUPS, Tuning
from trainer.model import Model, build
from trainer.ops import cross_entropy, embedding
from trainer.ops.attention import attention
from trainer.ops.cross_entropy import head_loss
from trainer.ops.embedding import embedding as embed
from trainer.ops.layernorm import layernorm
from trainer.ops.linear import feed_forward, linear
from trainer.plan import SPACING, Plan, Tape, Tensor
from trainer.runtime import Runtime

Shapes = dict[str, tuple[int, ...]]
Op = Callable[[Tape, dict[str, Tensor]], Tensor]
STEP = 1e-5  # of the finite differences, whose error is then about 1e-10


def compile_reference(plan: Plan) -> ReferenceExecutable:
    return asyncio.run(ReferenceDevice(64).compile(plan))


def build_op(
    op: Op, shapes: Shapes, shared: str, tuning: Tuning | None = None, *, training: bool
) -> tuple[Plan, Tensor, dict[str, Tensor]]:
    """A plan whose program computes `op` and, in training, the gradients of its inputs from `dout`."""
    plan = Plan(tuning)
    inputs = {name: plan.tensor(name, shape, role="parameter") for name, shape in shapes.items()}
    vectors = [name for name, shape in shapes.items() if len(shape) == 1]
    arena = plan.tensor("vectors", (SPACING * max(1, len(vectors)),), role="gradient")
    gradients = {
        name: arena.view(f"d{name}", SPACING * vectors.index(name), shape)
        if name in vectors
        else plan.tensor(f"d{name}", shape, role="gradient")
        for name, shape in shapes.items()
    }
    with plan.program("op"):
        tape = Tape(plan, training=training, vectors=[arena])
        for name, tensor in inputs.items():
            if name != shared:
                tape.known(tensor, gradients[name])
        out = op(tape, inputs)
        if training:
            tape.known(out, plan.tensor("dout", out.shape, role="gradient"))
            tape.backward()
            if shared:
                gradients[shared] = tape.gradient(inputs[shared])
    plan.finish()
    return plan, out, gradients


def check_op(op: Op, shapes: Shapes, shared: str = "", tuning: Tuning | None = None) -> None:
    """Compare each input's gradient with differences of Σ out · dout. `shared` is an input whose gradient
    lives in the memory of the output's.
    """
    rng = np.random.default_rng(7)
    plan, out, _ = build_op(op, shapes, shared, tuning, training=False)
    forward = compile_reference(plan)
    values = {name: rng.standard_normal(int(np.prod(shape))) for name, shape in shapes.items()}
    dout = rng.standard_normal(out.size)

    def objective() -> float:
        for name, value in values.items():
            forward.array(plan.tensors[name])[:] = value
        forward.run(["op"])
        return float(forward.array(out) @ dout)

    training, _, gradients = build_op(op, shapes, shared, tuning, training=True)
    backward = compile_reference(training)
    for name, value in values.items():
        backward.array(training.tensors[name])[:] = value
    backward.array(training.tensors["dout"])[:] = dout
    backward.run(["op"])
    for name, gradient in gradients.items():
        expected = differences(objective, values[name], range(values[name].size))
        assert np.abs(expected).max() > 1e-3, f"{name} does not matter, so nothing is tested"
        np.testing.assert_allclose(backward.array(gradient), expected, rtol=1e-6, atol=1e-7, err_msg=name)


def differences(objective: Callable[[], float], values: np.ndarray, places: Iterable[int]) -> np.ndarray:
    """Central differences of `objective` in some elements of `values`, which it reads."""
    found = []
    for i in places:
        kept = values[i]
        values[i] = kept + STEP
        above = objective()
        values[i] = kept - STEP
        below = objective()
        values[i] = kept
        found.append((above - below) / (2 * STEP))
    return np.array(found)


def test_linear() -> None:
    check_op(lambda tape, t: linear(tape, "y", t["x"], t["w"], t["b"]), {"x": (5, 3), "w": (3, 4), "b": (4,)})


def test_linear_with_residual() -> None:
    check_op(
        lambda tape, t: linear(tape, "y", t["x"], t["w"], t["b"], residual=t["r"]),
        {"x": (5, 3), "w": (3, 4), "b": (4,), "r": (5, 4)},
        shared="r",
    )


def test_feed_forward() -> None:
    check_op(
        lambda tape, t: feed_forward(tape, t["x"], (t["w"], t["b"]), (t["w2"], t["b2"]), t["r"]),
        {"x": (5, 3), "w": (3, 8), "b": (8,), "w2": (8, 3), "b2": (3,), "r": (5, 3)},
        shared="r",
    )


def test_layernorm() -> None:
    check_op(
        lambda tape, t: layernorm(tape, "y", t["x"], t["w"], t["b"]), {"x": (11, 5), "w": (5,), "b": (5,)}
    )


def test_a_residual_around_a_layernorm_gathers_both_gradients() -> None:
    def block(tape: Tape, t: dict[str, Tensor]) -> Tensor:
        normed = layernorm(tape, "n", t["x"], t["lw"], t["lb"])
        return linear(tape, "y", normed, t["w"], t["b"], residual=t["x"])

    check_op(block, {"x": (4, 5), "lw": (5,), "lb": (5,), "w": (5, 5), "b": (5,)}, shared="x")


@pytest.mark.parametrize("software", [True, False])
@pytest.mark.parametrize("vectors", [("b", "lw", "lb", "b2"), ("lw", "lb", "b2", "b")])
def test_the_gradient_of_a_bias_is_made_by_the_layernorm_of_its_sum(
    vectors: tuple[str, ...], software: bool
) -> None:
    """Also where the bias does not lie in front of LayerNorm's vectors."""

    def block(tape: Tape, t: dict[str, Tensor]) -> Tensor:
        x = linear(tape, "x", t["attended"], t["w"], t["b"], residual=t["r"])
        normed = layernorm(tape, "n", x, t["lw"], t["lb"])
        return linear(tape, "y", normed, t["w2"], t["b2"], residual=x)

    shapes: Shapes = {"attended": (11, 3), "w": (3, 8), "r": (11, 8), "w2": (8, 8)}
    shapes |= dict.fromkeys(vectors, (8,))
    check_op(block, shapes, shared="r", tuning=Tuning(software=software))


def test_nothing_adds_to_a_gradient_that_has_been_summed_up() -> None:
    def reads_x_before_its_layernorm(tape: Tape, t: dict[str, Tensor]) -> Tensor:
        x = linear(tape, "x", t["attended"], t["w"], t["b"])
        y = linear(tape, "y", x, t["w2"], t["b2"])
        normed = layernorm(tape, "n", x, t["lw"], t["lb"])
        return linear(tape, "z", normed, t["w2"], t["b3"], residual=y)

    shapes: Shapes = {"attended": (2, 3), "w": (3, 8), "w2": (8, 8)}
    shapes |= dict.fromkeys(("b", "b2", "b3", "lw", "lb"), (8,))
    with pytest.raises(AssertionError, match="the gradient of op/x has been used already"):
        build_op(reads_x_before_its_layernorm, shapes, "", training=True)


@pytest.mark.parametrize("shape", [(2, 5, 2), (1, 1, 1), (1, 7, 1)])
def test_attention(shape: tuple[int, int, int]) -> None:
    B, T, NH = shape
    if T > 1:
        check_op(lambda tape, t: attention(tape, t["qkv"], shape), {"qkv": (B * T, 3 * NH * 3)})
    else:  # one position: q and k do not matter
        check_op(
            lambda tape, t: attention(tape, linear(tape, "qkv", t["x"], t["w"], t["b"]), shape),
            {"x": (B * T, 2), "w": (2, 9), "b": (9,)},
        )


@pytest.mark.parametrize("T", [64, 70])
def test_attention_by_subgroups_makes_the_gradient_of_the_bias_before_it(T: int) -> None:
    """Where the context is in whole blocks, without a dispatch for it."""
    shapes: Shapes = {"x": (T, 2), "w": (2, 12), "b": (12,)}
    tuning = Tuning(software=False, features=frozenset({SUBGROUPS}))

    def attended(tape: Tape, t: dict[str, Tensor]) -> Tensor:
        return attention(tape, linear(tape, "qkv", t["x"], t["w"], t["b"]), (1, T, 1))

    check_op(attended, shapes, tuning=tuning)
    plan, _, _ = build_op(attended, shapes, "", tuning, training=True)
    kernels = [dispatch.kernel for dispatch in plan.programs["op"].dispatches]
    assert kernels.count("attention.backward") == 1
    assert kernels.count("column_sum.partial") == (T % 64 > 0)


class Head:
    """Embedding and head over one table, as GPT-2 ties them; the loss is the mean over positions."""

    def __init__(self, tokens: np.ndarray, vocab: int, width: int, *, training: bool) -> None:
        self.plan = plan = Plan()
        B, T = tokens.shape
        padded = -(-vocab // 64) * 64
        self.tokens = plan.tensor("tokens", (B, T), "u32", "state")
        self.targets = plan.tensor("targets", (B * T,), "u32", "state")
        self.losses = plan.tensor("losses", (B * T,), role="state")
        shapes = {"table": (padded, width), "positions": (T, width)}
        self.parameters = {name: plan.tensor(name, shape, role="parameter") for name, shape in shapes.items()}
        self.gradients = {name: plan.tensor(f"d{name}", s, role="gradient") for name, s in shapes.items()}
        with plan.program("head"):
            tape = Tape(plan, training=training)
            for name, tensor in self.parameters.items():
                tape.known(tensor, self.gradients[name])
            x = embed(tape, self.tokens, self.parameters["table"], self.parameters["positions"])
            scale = 1 / (B * T)
            head_loss(tape, x, self.parameters["table"], self.targets, self.losses, vocab=vocab, scale=scale)
            tape.backward()
        plan.finish()
        self.executable = compile_reference(plan)
        self.executable.array(self.tokens)[:] = tokens.ravel()
        self.executable.array(self.targets)[:] = np.roll(tokens.ravel(), -1) % vocab

    def loss(self, values: dict[str, np.ndarray]) -> float:
        for name, value in values.items():
            self.executable.array(self.parameters[name])[:] = value
        self.executable.run(["head"])
        return float(self.executable.array(self.losses).mean())


@pytest.mark.parametrize("chunked", [False, True])
def test_embedding_and_head(chunked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    vocab, width, B, T = 150, 16, 2, 70
    if chunked:  # 140 rows in chunks of 64, a table of 192 rows in parts of 64
        monkeypatch.setattr(cross_entropy, "MAX_BINDING", 4 * 192 * 64)
        monkeypatch.setattr(embedding, "MAX_BINDING", 4 * width * 64)
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, vocab, (B, T), dtype=np.uint32)
    tokens[0, :9] = tokens[1, 5]  # one token many times
    tokens[1, -1] = vocab - 1
    forward, training = (Head(tokens, vocab, width, training=flag) for flag in (False, True))
    kernels = [dispatch.kernel for dispatch in training.plan.programs["head"].dispatches]
    assert kernels.count("cross_entropy.forward_backward") == (3 if chunked else 1)
    assert kernels.count("embedding.backward_tokens") == (3 if chunked else 1)
    values = {name: rng.standard_normal(t.size) for name, t in training.parameters.items()}
    training.loss(values)
    for name, value in values.items():
        places = rng.choice(value.size, 60, replace=False)
        if name == "table":  # the repeated token, one that never occurs in the input, and padding
            absent = np.setdiff1d(np.arange(vocab), tokens)[0]
            places = np.concatenate(
                [places, [int(tokens[0, 0]) * width, int(absent) * width, vocab * width + 1]]
            )
        expected = differences(lambda: forward.loss(values), value, places)
        got = training.executable.array(training.gradients[name])[places]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-8, err_msg=name)


# ---------------------------------------------------------------- the whole model

TINY = ModelConfig(layers=2, width=8, heads=2, context=6, vocab=20)
TRAIN = TrainConfig(steps=5, batch=2, warmup=1, learning_rate=1e-2, seed=5)
DATASET = np.random.default_rng(1).integers(0, 20, 200, dtype=np.uint32)


def tiny(train: TrainConfig = TRAIN, config: ModelConfig = TINY, tuning: Tuning | None = None) -> Model:
    return build(config, train=train, tokens=DATASET.size, tuning=tuning)


async def start(device: Device, model: Model) -> Runtime:
    """The model on the device, with weights large enough for every gradient to matter."""
    runtime = await Runtime.open(device, model)
    training = model.training
    assert training is not None
    executable = runtime.executable
    packed = DATASET[0::2] | (DATASET[1::2] << 16)
    await executable.write(training.dataset[0], packed.tobytes())
    steps = np.arange(1, training.config.steps + 1)
    schedule = np.zeros((steps.size, 4), np.float32)
    schedule[:, 0] = training.config.learning_rate
    schedule[:, 1] = 1 / (1 - training.config.beta1**steps)
    schedule[:, 2] = 1 / (1 - training.config.beta2**steps)
    await executable.write(training.state.schedule, schedule.tobytes())
    rng = np.random.default_rng(2)
    for name, tensor in model.parameters.items():
        values = rng.standard_normal(tensor.size) * 0.3 + name.endswith(("ln_1.weight", "ln_2.weight"))
        await executable.write(tensor, values.astype(np.float32).tobytes())
    return runtime


async def read(runtime: Runtime, tensor: Tensor) -> np.ndarray:
    dtype = np.float32 if tensor.dtype == "f32" else np.uint32
    return np.frombuffer(await runtime.executable.read(tensor), dtype).copy()


@pytest.mark.parametrize("software", [True, False])
def test_gradients_of_the_whole_model(software: bool, reference64: Device) -> None:
    model = tiny(tuning=Tuning(software=software))
    runtime = asyncio.run(start(reference64, model))
    executable, training = runtime.executable, model.training
    assert isinstance(executable, ReferenceExecutable)
    assert training is not None
    executable.run(["micro"])
    gradients = {name: executable.array(tensor).copy() for name, tensor in training.gradients.items()}

    def loss() -> float:
        executable.array(training.state.counters)[:] = 0
        executable.run(["micro"])
        return float(executable.array(training.state.scalars)[0])

    rng = np.random.default_rng(4)
    for name, tensor in model.parameters.items():
        values = executable.array(tensor)
        places = rng.choice(values.size, min(6, values.size), replace=False)
        expected = differences(loss, values, places)
        np.testing.assert_allclose(gradients[name][places], expected, rtol=1e-5, atol=1e-9, err_msg=name)
        assert np.abs(gradients[name]).max() > 1e-7, f"{name} has no gradient"


def test_two_micro_batches_are_one_of_double_size(device: Device) -> None:
    async def gradients(train: TrainConfig, programs: list[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        model = tiny(train)
        runtime = await start(device, model)
        runtime.executable.run(programs)
        training = model.training
        assert training is not None
        found = {name: await read(runtime, tensor) for name, tensor in training.gradients.items()}
        return found, await read(runtime, training.state.scalars)

    double, double_scalars = asyncio.run(gradients(replace(TRAIN, batch=4), ["micro"]))
    halves, scalars = asyncio.run(gradients(replace(TRAIN, accumulate=2), ["micro", "micro_add"]))
    assert_arrays_close("loss", scalars[:1], double_scalars[:1])
    for name in double:
        assert_arrays_close(name, halves[name], double[name])


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(device: Device) -> None:
    async def go() -> None:
        model = tiny()
        runtime = await start(device, model)
        training = model.training
        assert training is not None
        tables = [model.parameters, training.means, training.variances]

        async def everything() -> list[dict[str, bytes]]:
            return [
                {name: (await read(runtime, t)).tobytes() for name, t in table.items()} for table in tables
            ]

        runtime.executable.run(["micro", "update"])  # so that moments are not zero
        weight = model.parameters["transformer.h.0.mlp.c_fc.weight"]
        values = await read(runtime, weight)
        good = values.tobytes()
        for skipped, bad in enumerate((np.nan, np.inf, -np.inf), start=1):
            values[5] = bad
            await runtime.executable.write(weight, values.tobytes())
            before = await everything()
            runtime.executable.run(["micro", "update"])
            assert await everything() == before
            assert (await read(runtime, training.state.counters)).tolist() == [1 + skipped, 1, skipped, 0]
        ring = (await read(runtime, training.state.ring)).reshape(-1, 4)
        assert ring[:4, 3].tolist() == [0.0, 1.0, 1.0, 1.0]

        await runtime.executable.write(weight, good)  # and the run goes on from there
        before = await everything()
        runtime.executable.run(["micro", "update"])
        assert (await read(runtime, training.state.counters)).tolist() == [5, 2, 3, 0]
        ring = (await read(runtime, training.state.ring)).reshape(-1, 4)
        assert np.isfinite(ring[4]).all()
        after = await everything()
        assert all(now[name] != then[name] for now, then in zip(after, before, strict=True) for name in now)

    asyncio.run(go())


def test_the_variants_for_gpus_train_to_the_same_losses(native: Device) -> None:
    async def losses(tuning: Tuning) -> np.ndarray:
        model = tiny(replace(TRAIN, batch=3), ModelConfig(2, 24, 2, 9, 20), tuning)
        runtime = await start(native, model)
        for _ in range(TRAIN.steps):
            runtime.executable.run(["micro", "update"])
        training = model.training
        assert training is not None
        used = {d.variant for program in model.plan.programs.values() for d in program.dispatches}
        assert ("matmul_tiled" in used) != tuning.software
        return (await read(runtime, training.state.ring)).reshape(-1, 4)[: TRAIN.steps]

    software, gpu = (asyncio.run(losses(Tuning(software=flag))) for flag in (True, False))
    assert software[0, 0] - software[-1, 0] > 0.1, "the model learns"
    np.testing.assert_allclose(gpu, software, rtol=1e-4)
