"""How many dispatches a training step has, and that no op gains one unnoticed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from second_stages import apart, second_stages

from trainer import model as model_module
from trainer.bench.steps import WORKLOADS, workload
from trainer.budget import dispatches, least_dispatches, op_of
from trainer.config import ModelConfig, TrainConfig
from trainer.gpt2_format import parameter_shapes
from trainer.kernels import HALF, SUBGROUPS, Constant, Tuning, binding_modes, needs
from trainer.model import build
from trainer.ops import column_sum
from trainer.plan import SPACING, Dispatch, Plan, Program, Tensor, round_up

MODEL = ModelConfig(layers=3, width=48, heads=3, context=32, vocab=300)


@pytest.mark.parametrize("precision", ["f32", "mixed"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_dispatches_of_a_step(layers: int, precision: str, accumulate: int) -> None:
    model = replace(MODEL, layers=layers)
    train = TrainConfig(batch=2, precision=precision, accumulate=accumulate)
    built = build(model, train=train, tokens=1000, tuning=Tuning(features=frozenset({HALF})))
    of_micro_batch = {
        "random.windows": 1,
        "embedding.forward": 1,
        "embedding.chain": 1,
        "embedding.backward_tokens": 1,
        "embedding.backward_positions": 1,
        "layernorm.forward": 2 * layers + 1,
        "layernorm.backward": 2 * layers + 1,
        "layernorm.backward_parameters": 2 * layers + 1,
        "matmul.multiply": 3 * (4 * layers + 1),  # forward, and the gradients of both operands
        "attention.forward": layers,
        "attention.backward_query": layers,
        "attention.backward_key_value": layers,
        "column_sum.partial": 4 * layers,  # a bias each
        "column_sum.total": 1,  # of all biases and LayerNorms
        "cross_entropy.forward_backward": 1,
        "cross_entropy.mean": 1,
    }
    of_update = {"adamw.norm_partial": 1, "adamw.settle": 1, "adamw.update": 1}
    assert dispatches(built, train) == {**{k: accumulate * n for k, n in of_micro_batch.items()}, **of_update}

    least = least_dispatches(model, train)
    assert sum(least.values()) == (14 * layers + 8) * accumulate + 1
    by_op = dict.fromkeys(least, 0)
    for kernel, count in dispatches(built, train).items():
        by_op[op_of(kernel)] += count
    assert all(by_op[op] >= fewest for op, fewest in least.items())


def test_micro_batches_are_counted_and_not_listed() -> None:
    built = build(MODEL, train=TrainConfig(accumulate=2), tokens=1000)
    few, most = (dispatches(built, cast(TrainConfig, SimpleNamespace(accumulate=n))) for n in (2, 2**32))
    assert most["random.windows"] == 2**32
    assert most["layernorm.forward"] == 2**31 * few["layernorm.forward"]
    assert most["adamw.update"] == few["adamw.update"]


def test_on_gpus_the_backward_part_of_layernorm_is_one_dispatch() -> None:
    """It sums up the gradients of two of a block's four biases, too."""
    train = TrainConfig(batch=2)
    counts = dispatches(build(MODEL, train=train, tokens=1000, tuning=Tuning(software=False)), train)
    each = 2 * MODEL.layers + 1
    found = {kernel: count for kernel, count in counts.items() if kernel.startswith("layernorm.")}
    assert found == {"layernorm.forward": each, "layernorm.backward_fused": each}
    assert counts["column_sum.partial"] == 2 * MODEL.layers


def test_on_gpus_the_gradients_of_the_second_linear_layer_sum_up_those_of_the_first_ones_bias() -> None:
    """Where the tokens are in whole tiles, and the tiles as wide as the sums and what lies behind them."""
    for width, batch, layers in ((96, 8, 0), (96, 7, MODEL.layers), (48, 8, MODEL.layers)):
        model, train = replace(MODEL, width=width), TrainConfig(batch=batch)
        built = build(model, train=train, tokens=1000, tuning=Tuning(software=False))
        first_stages = [
            d for d in built.plan.programs["micro"].dispatches if d.kernel == "column_sum.partial"
        ]
        assert len([d for d in first_stages if d.constants["C"] == 4 * width]) == layers


@pytest.mark.parametrize(
    ("precision", "variant"), [("f32", "linear_tiled"), ("mixed", "linear_tiled"), ("mixed", "linear_units")]
)
def test_on_gpus_both_gradients_of_a_linear_layer_are_one_dispatch(precision: str, variant: str) -> None:
    train = TrainConfig(batch=2, precision=precision)
    features = needs(variant).features | ({HALF} if precision == "mixed" else set())
    built = build(MODEL, train=train, tokens=1000, tuning=Tuning(software=False, features=features))
    found = [d.variant for d in built.plan.programs["micro"].dispatches if d.kernel == "linear.backward"]
    assert found == [variant] * (4 * MODEL.layers + 1)
    assert dispatches(built, train)["matmul.multiply"] == 4 * MODEL.layers + 1  # forward


def test_on_gpus_with_subgroups_the_backward_part_of_attention_is_one_dispatch() -> None:
    """It sums up the gradient of qkv's bias, too, where the context is in whole blocks."""
    train = TrainConfig(batch=2)
    for context, blocks in ((MODEL.context, False), (64, True)):
        tuning = Tuning(software=False, features=frozenset({SUBGROUPS}))
        model = replace(MODEL, context=context)
        counts = dispatches(build(model, train=train, tokens=1000, tuning=tuning), train)
        found = {kernel: count for kernel, count in counts.items() if kernel.startswith("attention.")}
        assert found == {"attention.forward": MODEL.layers, "attention.backward": MODEL.layers}
        assert counts["column_sum.partial"] == (1 if blocks else 2) * MODEL.layers


Step = tuple[str, frozenset[tuple[str, Constant]], tuple[tuple[Tensor, bool], ...]]


def steps(dispatches: list[Dispatch]) -> list[Step]:
    """Kernel, constants, and what is bound and whether it is written: second stages one by one."""
    found: list[Step] = []
    for d in apart(dispatches):
        modes = binding_modes(d.variant, d.entry)
        bound = tuple((tensor, modes[name] == "read_write") for name, tensor in d.bindings.items())
        found.append((d.kernel, frozenset(d.constants.items()), bound))
    return found


def ordered(first: Step, then: Step) -> bool:
    """Whether one writes what the other binds."""

    def overlap(x: Tensor, y: Tensor) -> bool:
        return x.root is y.root and x.offset < y.offset + y.size and y.offset < x.offset + x.size

    return any((a or b) and overlap(x, y) for x, a in first[2] for y, b in then[2])


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("precision", ["f32", "mixed"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_second_stages_share_launches_and_nothing_else_changes(
    name: str, precision: str, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, train = workload(name)
    train = replace(train, precision=precision, accumulate=accumulate, steps=100)
    features = needs("matmul_units").features if precision == "mixed" else frozenset({SUBGROUPS})
    seen: list[tuple[list[Dispatch], list[Dispatch]]] = []
    share = column_sum.share_launches

    def seeing(plan: Plan, program: Program) -> None:
        before = list(program.dispatches)
        share(plan, program)
        seen.append((before, program.dispatches))

    monkeypatch.setattr(column_sum, "share_launches", seeing)
    tuning = Tuning(software=False, features=features)
    build(model, train=train, tokens=64 * model.context, tuning=tuning)
    assert len(seen) == accumulate
    for before, after in seen:
        alone, together = steps(before), steps(after)
        assert Counter(alone) == Counter(together)
        totals = [
            step
            for step in alone
            if step[0] == "column_sum.total" and step[2][0][0].nbytes <= column_sum.WAITING
        ]
        if name in ("TINY", "SMALL"):
            assert len(before) - len(after) >= 0.4 * len(totals)
        assert [step for step in alone if step not in totals] == [s for s in together if s not in totals]
        place, now = ({step: i for i, step in enumerate(order)} for order in (alone, together))
        for total in totals:
            for other in alone:
                if ordered(total, other) or ordered(other, total):
                    assert (place[total] < place[other]) == (now[total] < now[other])


def first_stage(dispatches: list[Dispatch]) -> dict[Tensor, list[tuple[int, int]]]:
    """What columns of each tensor of partial sums are written: (first, end), in their order."""
    columns: dict[Tensor, list[tuple[int, int]]] = {}
    for d in dispatches:
        if "sums" not in d.bindings or not d.constants.get("SUM_ROWS", True):
            continue
        k, sums = d.constants, d.bindings["sums"]
        starts = [k["WEIGHT"], k["BIAS"]] if "WEIGHT" in k else [0]
        for start in starts + [0] * bool(k.get("SUM_DX")):
            first = sums.offset + int(start)
            columns.setdefault(sums.root, []).append((first, first + int(k["WIDTH"])))
    return {sums: sorted(pairs) for sums, pairs in columns.items()}


@pytest.mark.parametrize(
    "tuning",
    [Tuning(), Tuning(software=False), Tuning(software=False, features=frozenset({SUBGROUPS}))],
    ids=["software", "gpu", "subgroups"],
)
def test_vectors_are_summed_up_once_wherever_buffers_end(
    tuning: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ends pass over all vectors in turn, also over those of a LayerNorm, which one dispatch writes."""
    model, train = replace(MODEL, context=64), TrainConfig(batch=2)
    vectors = {name: shape for name, shape in parameter_shapes(model).items() if len(shape) == 1}
    widest = max(round_up(shape[0], SPACING) for shape in vectors.values())
    room = sum(round_up(shape[0], SPACING) for shape in vectors.values())

    def totals() -> list[Tensor]:
        built = build(model, train=train, tokens=1000, tuning=tuning)
        assert built.training is not None
        micro = built.plan.programs["micro"].dispatches
        found = [(sums, out) for sums, out in second_stages(micro) if "partial_sums" in sums.name]
        written = first_stage(micro)
        for sums, _ in found:
            firsts, ends = zip(*written.pop(sums), strict=True)
            assert (*firsts, sums.shape[1]) == (0, *ends), "each column once, and none left out"
        assert not written
        outs = [out for _, out in found]
        for name in vectors:
            gradient = built.training.gradients[name]
            assert sum(out.holds(gradient) for out in outs) == 1, name
        assert sum(out.size for out in outs) == room
        return outs

    (whole,) = totals()
    counts = set()
    for size in range(widest, room, SPACING):
        with monkeypatch.context() as patch:
            patch.setattr(model_module, "MAX_BUFFER", 4 * (whole.offset + size))
            assert len({out.root for out in totals()}) == 2
        with monkeypatch.context() as patch:
            patch.setattr(column_sum, "MAX_BINDING", 4 * column_sum.parts(2 * model.context)[0] * size)
            outs = totals()
            assert max(out.size for out in outs) <= size
            counts.add(len(outs))
    assert {2, 3, 4} < counts
