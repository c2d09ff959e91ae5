"""The operations and bytes that kernels are held to: against the budget's formulas, and counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainer.bench.steps import STEP, configured
from trainer.bench.work import ATTENTION_PRODUCTS, GATHERED, UPDATED, WRITTEN, Work, work
from trainer.budget import flops_per_token
from trainer.config import ModelConfig
from trainer.kernels import HALF, SUBGROUPS, Tuning, binding_modes
from trainer.model import build
from trainer.ops import attention, column_sum
from trainer.ops.linear import gradients
from trainer.ops.matmul import matmul
from trainer.plan import SPACING, Dispatch, Plan, round_up

# Shapes that tell B, T, C and V apart; a vocabulary of whole tiles, so that no row is padding
MODEL = ModelConfig(layers=3, width=64, heads=4, context=32, vocab=320)
BATCH = 5
N, C, V = BATCH * MODEL.context, MODEL.width, MODEL.vocab


def dispatches(precision: str) -> list[Dispatch]:
    _, train = configured("nano", precision, BATCH)
    tuning = Tuning(software=False, features=frozenset({HALF}))
    plan = build(MODEL, train=replace(train, steps=100), tokens=999, tuning=tuning).plan
    return [dispatch for program in STEP for dispatch in plan.programs[program].dispatches]


def moved(kernel: str, precision: str) -> list[float]:
    return [work(dispatch).nbytes for dispatch in dispatches(precision) if dispatch.kernel == kernel]


def test_a_step_s_operations_are_the_budget_s_and_what_attention_makes_anew() -> None:
    flops = sum(work(dispatch).flops for dispatch in dispatches("f32"))
    product = 2 * N * MODEL.context * C / 2 * MODEL.layers  # of attention, the causal half
    anew = ATTENTION_PRODUCTS["backward_query"] + ATTENTION_PRODUCTS["backward_key_value"] - 4  # needed
    assert flops == 3 * flops_per_token(MODEL) * N + anew * product


@pytest.mark.parametrize(("precision", "item"), [("f32", 4), ("mixed", 2)])
def test_bytes_of_a_step_s_kernels_by_hand(precision: str, item: int) -> None:
    assert moved("layernorm.forward", precision)[0] == N * C * (4 + item) + 2 * C * 4 + N * 8
    last, *_, first = moved("layernorm.backward_fused", precision)  # the first one's gradient has been begun
    read = N * C * (4 + item) + C * 4 + N * 8
    parts, _ = column_sum.parts(N)
    of_vector = parts * round_up(C, SPACING) * 4
    assert last == read + N * C * item + 3 * of_vector  # its own two, and the bias of what it normalises
    assert first == read + N * C * item * 2 + 2 * of_vector  # nor is a bias in the embedding
    # c_attn's and c_fc's, whose gradients are stored in `item` bytes
    assert sorted(moved("column_sum.partial", precision)) == sorted(
        [N * width * item + parts * round_up(width, SPACING) * 4 for width in (3 * C, 4 * C)] * MODEL.layers
    )
    assert moved("cross_entropy.forward_backward", precision) == [2 * N * V * item + 2 * N * 4]
    copy = 2 if precision == "mixed" else 0
    matrices = (V + MODEL.context) * C + MODEL.layers * 12 * C * C
    of_layer = (*[C] * 6, 3 * C, 4 * C)  # LayerNorms and biases, each up to a whole number of places
    vectors = [*of_layer * MODEL.layers, C, C]
    parameters = matrices + sum(round_up(size, SPACING) for size in vectors)
    assert moved("adamw.update", precision) == [parameters * (4 + 3 * 8) + matrices * copy]
    statistics = 2 * N * MODEL.heads * 4  # log-sum-exp and delta
    read = N * C * item * 4 + statistics  # q, k, v and dout
    more = 2 * N * C * item  # out and dq, or dk and dv
    assert moved("attention.backward_query", precision)[0] == pytest.approx(read + more)
    assert moved("attention.backward_key_value", precision)[0] == pytest.approx(read + more)
    assert moved("embedding.forward", precision) == [N * 4 + 2 * N * C * 4 + MODEL.context * C * 4]


@pytest.mark.parametrize(("context", "whole"), [(64, True), (32, False)])
def test_bytes_of_the_backward_part_of_attention_in_one(context: int, whole: bool) -> None:
    """With the first sums for the gradient of qkv's bias, where the context is in whole blocks."""
    _, train = configured("nano", "f32", BATCH)
    tuning = Tuning(software=False, features=frozenset({SUBGROUPS}))
    model = replace(MODEL, context=context)
    plan = build(model, train=replace(train, steps=100), tokens=999, tuning=tuning).plan
    found = next(d for d in plan.programs["micro"].dispatches if d.kernel == "attention.backward")
    rows, product = BATCH * context, 2 * BATCH * context**2 * C / 2
    moved = rows * C * (3 + 1 + 1 + 3) + rows * MODEL.heads  # qkv, out, dout and dqkv; log-sum-exp
    moved += BATCH * MODEL.heads * attention.TILE  # delta, of a block's last tile
    moved += column_sum.parts(rows)[0] * round_up(3 * C, SPACING) if whole else 0
    assert work(found) == Work(7 * product, 4 * moved)


@pytest.mark.parametrize(("parts", "add"), [(1, False), (1, True), (4, False)])
def test_bytes_of_a_product_that_is_made_in_parts_or_added(parts: int, add: bool) -> None:
    plan = Plan(Tuning(software=False, pinned={"matmul": "matmul_tiled"}))
    M, N, K = 64, 128, 512 * parts
    a, b, out = (
        plan.tensor(name, shape, role="parameter")
        for name, shape in (("a", (M, K)), ("b", (K, N)), ("out", (M, N)))
    )
    with plan.program("multiply"):
        matmul(plan, a, b, out, (M, N, K), add=add)
    product = plan.programs["multiply"].dispatches[0]
    found, sums = work(product), product.grid[2]
    assert found.flops == 2 * M * N * K
    assert found.nbytes == 4 * (M * K + K * N + M * N * (sums + (add and sums == 1)))


@pytest.mark.parametrize(("add", "gelu"), [(False, False), (True, True)])
def test_bytes_of_the_gradients_of_a_linear_layer(add: bool, gelu: bool) -> None:
    """Both products read the gradient of the layer's outputs; each part of a sum is written."""
    plan = Plan(Tuning(software=False))
    N, inputs, outputs = 512, 64, 128
    shapes = {"dout": (N, outputs), "weight": (inputs, outputs), "x": (N, inputs), "before": (N, inputs)}
    shapes |= {"dx": (N, inputs), "dweight": (inputs, outputs)}
    t = {name: plan.tensor(name, shape, role="parameter") for name, shape in shapes.items()}
    with plan.program("backward"):
        gradients(
            plan,
            t["dout"],
            t["weight"],
            t["x"],
            t["dx"],
            t["dweight"],
            (N, inputs, outputs),
            gelu_of=t["before"] if gelu else None,
            add_x=add,
            add_weight=add,
        )
    dispatch = plan.programs["backward"].dispatches[0]
    parts_x, parts_weight = (
        -(-count // int(dispatch.constants[name]))
        for name, count in (("PART_X", outputs), ("PART_WEIGHT", N))
    )
    found = work(dispatch)
    assert found.flops == 2 * 2 * N * inputs * outputs
    numbers = N * outputs + inputs * outputs + N * inputs * (2 if gelu else 1)
    numbers += N * inputs * (parts_x + (add and parts_x == 1))
    numbers += inputs * outputs * (parts_weight + (add and parts_weight == 1))
    assert found.nbytes == 4 * numbers


def test_bytes_of_second_stages_that_share_a_launch() -> None:
    """Each partial sum is read, each sum written, and read where it has been begun."""
    plan = Plan()
    sizes = ((3, 640, False), (2, 256, True))
    with plan.program("sums") as program:
        for i, (P, C, add) in enumerate(sizes):
            sums, out = (plan.tensor(f"{x}{i}", shape) for x, shape in (("sums", (P, C)), ("out", (C,))))
            column_sum.total(plan, sums, out, add=add)
        column_sum.share_launches(plan, program)
    (dispatch,) = program.dispatches
    assert work(dispatch) == Work(0, 4 * sum(P * C + (1 + add) * C for P, C, add in sizes))


def test_what_the_tables_name_is_there() -> None:
    step = {dispatch.kernel: dispatch for dispatch in dispatches("mixed")}
    for kernel, names in UPDATED.items():
        modes = binding_modes(step[kernel].variant, step[kernel].entry)
        assert {modes[name] for name in names} == {"read_write"}
    for kernel in WRITTEN:
        assert "dqkv" in step[kernel].bindings
    bound = {name for dispatch in step.values() for name in dispatch.bindings}
    assert bound >= GATHERED
