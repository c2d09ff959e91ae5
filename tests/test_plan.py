"""Plans: memory is never shared by two live tensors, limits are kept, and nothing but Python is needed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import PRESETS, ModelConfig, TrainConfig
from trainer.errors import DeviceError
from trainer.kernels import MATRIX_UNITS, MatrixUnits, Tuning, binding_modes, needs
from trainer.model import Model, build
from trainer.ops import attention
from trainer.plan import (
    ALIGNMENT,
    MAX_BINDING,
    MAX_BINDINGS,
    MAX_BUFFER,
    MAX_GRID,
    Dispatch,
    Plan,
    Program,
    Tape,
    Tensor,
    binding_pieces,
    linear_grid,
)

ROOT = Path(__file__).parent.parent


def modes(dispatch: Dispatch) -> Iterator[tuple[Tensor, bool]]:
    """(tensor, whether it is written) of each binding."""
    found = binding_modes(dispatch.variant, dispatch.kernel.split(".")[1])
    for name, tensor in dispatch.bindings.items():
        yield tensor, found[name] == "read_write"


def check_memory(plan: Plan) -> None:
    """Replay every program, noting which tensor was last written into each buffer: what a dispatch reads
    must still be there. And no dispatch may read and write one buffer, or write one place twice.
    """
    for tensor, place in plan.places.items():
        assert place.offset + tensor.nbytes <= plan.buffers[place.buffer], tensor.name
    lasting = [t for t in plan.tensors.values() if t.role != "activation"]
    homes = {plan.places[t].buffer for t in lasting}
    assert len(homes) == len(lasting), "two lasting tensors share a buffer"
    for program in plan.programs.values():
        owners: dict[int, Tensor] = {}
        touched: set[Tensor] = set()
        for dispatch in program.dispatches:
            check_aliasing(plan, dispatch)
            for tensor, _ in modes(dispatch):
                buffer = plan.place(tensor)[0]
                assert tensor.root.role != "activation" or buffer not in homes
                if tensor.root in touched:
                    assert owners[buffer] is tensor.root, f"{tensor.name} was overwritten"
                touched.add(tensor.root)
                owners[buffer] = tensor.root


def check_aliasing(plan: Plan, dispatch: Dispatch) -> None:
    written = [plan.place(t) for t, write in modes(dispatch) if write]
    read = {plan.place(t)[0] for t, write in modes(dispatch) if not write}
    assert not read & {buffer for buffer, _, _ in written}, f"{dispatch.kernel} reads what it writes"
    for i, (buffer, start, size) in enumerate(written):
        for other, other_start, other_size in written[:i]:
            overlap = start < other_start + other_size and other_start < start + size
            assert buffer != other or not overlap, f"{dispatch.kernel} writes one place twice"


@st.composite
def programs(draw: st.DrawFn) -> Plan:
    """A plan of random programs over random tensors; activations are written before they are read."""
    plan = Plan()
    kept = [plan.tensor(f"state{i}", (draw(st.integers(1, 300)),), role="state") for i in range(2)]
    for p in range(draw(st.integers(1, 3))):
        with plan.program(f"p{p}"):
            alive = list(kept)
            for i in range(draw(st.integers(1, 12))):
                source = draw(st.sampled_from(alive))
                if draw(st.booleans()) or len(alive) == 1:
                    target = plan.activation(f"a{i}", (draw(st.integers(1, 600)),))
                else:
                    target = draw(st.sampled_from([t for t in alive if t is not source]))
                plan.dispatch(
                    "column_sum.total",
                    grid=(1, 1, 1),
                    constants={"P": 1, "C": 1, "ADD": False},
                    parts=source,
                    out=target,
                )
                if target not in alive:
                    alive.append(target)
    plan.finish()
    return plan


@given(programs())
@settings(max_examples=200)
def test_no_two_live_tensors_share_memory(plan: Plan) -> None:
    check_memory(plan)


def bytes_of(plan: Plan, role: str) -> int:
    return sum(t.nbytes for t in plan.tensors.values() if t.role == role)


def lasting_bytes(plan: Plan) -> int:
    return sum(t.nbytes for t in plan.tensors.values() if t.role != "activation")


def test_memory_is_shared_where_lifetimes_allow() -> None:
    plan = Plan()
    x = plan.tensor("x", (64,), role="state")
    with plan.program("chain"):
        for i in range(6):
            y = plan.activation(f"y{i}", (64,))
            plan.dispatch(
                "column_sum.total",
                grid=(1, 1, 1),
                constants={"P": 1, "C": 64, "ADD": False},
                parts=x,
                out=y,
            )
            x = y
    plan.finish()
    assert len(plan.buffers) == 3  # x, and two that the links of the chain take in turn
    check_memory(plan)


def everything(preset: str, *, software: bool, **tuning: Any) -> Model:
    chosen = PRESETS[preset]
    return build(
        chosen.model,
        train=chosen.train,
        tokens=1_000_000,
        evaluation_batch=chosen.train.batch,
        generate=True,
        tuning=Tuning(software=software, **tuning),
    )


@pytest.mark.parametrize("software", [True, False])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_keep_to_the_limits(preset: str, software: bool) -> None:
    plan = everything(preset, software=software).plan
    check_memory(plan)
    assert max(plan.buffers) <= MAX_BUFFER == 256 << 20
    assert MAX_BINDING == 128 << 20
    for dispatch in every_dispatch(plan):
        assert len(dispatch.bindings) <= MAX_BINDINGS
        assert 1 <= min(dispatch.grid) <= max(dispatch.grid) <= MAX_GRID
        for tensor in dispatch.bindings.values():
            buffer, start, size = plan.place(tensor)
            assert 0 < size <= MAX_BINDING
            assert start % ALIGNMENT == 0
            assert start + size <= plan.buffers[buffer]
    assert plan.nbytes - lasting_bytes(plan) < bytes_of(plan, "activation") / 2, "activations share memory"


def every_dispatch(plan: Plan) -> Iterator[Dispatch]:
    for program in plan.programs.values():
        yield from program.dispatches


def described(program: Program, plan: Plan) -> list[str]:
    return [
        f"{d.kernel} {d.variant} {d.constants} {d.grid} "
        + " ".join(f"{name}={t.name}@{plan.place(t)}" for name, t in d.bindings.items())
        for d in program.dispatches
    ]


def test_software_renderers_get_no_loop_that_they_would_cut_short() -> None:
    """Mesa's leaves a thread's loops after 65,535 iterations: see trainer.kernels.LOOP_LIMIT."""
    assert {"attention_direct", "cross_entropy"} <= variants_used(everything("nano", software=True))
    used = variants_used(everything("gpt2", software=True))
    assert {"attention_direct", "cross_entropy_rows"} <= used
    fits = attention.fitting(8192, 64, MatrixUnits(), software=True)
    assert Tuning(software=True).variants("attention", fits)[0] == "attention_tiled"
    nano = PRESETS["nano"]
    with pytest.raises(DeviceError, match="--batch"):
        build(nano.model, train=replace(nano.train, batch=1024), tokens=100_000)


@pytest.mark.parametrize(("head_size", "longest"), [(6, 2978), (17, 1190)])
@pytest.mark.parametrize("software", [False, True])
def test_heads_of_odd_sizes_cannot_look_back_for_ever(head_size: int, longest: int, software: bool) -> None:
    """The one kernel that takes them loops 3 HS + 4 times a key in a thread; a step is planned, or refused in
    words that name both ways out.
    """

    def planned(head_size: int, context: int) -> set[str]:
        model = ModelConfig(layers=1, width=3 * head_size, heads=3, context=context, vocab=300)
        train = TrainConfig(batch=1)
        plan = build(model, train=train, tokens=2 * context, tuning=Tuning(software=software)).plan
        return {d.variant for d in plan.programs["micro"].dispatches if d.kernel == "attention.forward"}

    assert planned(head_size, longest) == {"attention"}
    refused = f"heads of {head_size} channels cannot have a context of {longest + 1:,}: choose a .* "
    with pytest.raises(DeviceError, match=refused + "that is a multiple of 4, or a smaller context"):
        planned(head_size, longest + 1)
    assert planned(head_size // 4 * 4, longest + 1) != {"attention"}


def test_measured_answers_are_taken_where_the_device_can_run_them() -> None:
    """One question for each op, shape and epilogue; an answer holds for it alone."""
    model = ModelConfig(layers=2, width=64, heads=2, context=32, vocab=512)
    train = TrainConfig(batch=128, steps=100)

    def planned(tuning: Tuning) -> Program:
        return build(model, train=train, tokens=1000, tuning=tuning).plan.programs["micro"]

    def choices(program: Program) -> dict[str, str]:
        return {
            f"{d.constants['M']}x{d.constants['N']}x{d.constants['K']}": f"{d.variant} {d.constants['PART']}"
            for d in program.dispatches
            if d.kernel == "matmul.multiply"
        }

    asked = planned(Tuning(software=False)).asked
    key = "matmul NN 4096x64x256 f32 f32 f32 bias:f32 residual:f32"
    question = asked[key].question
    assert [len(runs) for runs in asked[key].runs.values()] == [2]  # in both layers
    assert MATRIX_UNITS not in {name for c in question.candidates for name in needs(c.variant).features}
    assert len({choice.variant for choice in question.candidates}) == 3
    default = choices(planned(Tuning(software=False)))
    for choice in question.candidates:
        answered = choices(planned(Tuning(software=False, answers={key: str(choice)})))
        part = min(choice.constants["PART"], 256)
        assert answered == default | {"4096x64x256": f"{choice.variant} {part}"}
    for unknown in ("matmul_units TILE_N=128 PART=4096", "nonsense", ""):
        assert choices(planned(Tuning(software=False, answers={key: unknown}))) == default
    parts = asked["layernorm 4096x64 f32 f32"].runs
    assert [len(runs) for runs in parts.values()] == [5, 5]  # forward, backward


def test_a_pinned_variant_that_cannot_run_is_an_error() -> None:
    with pytest.raises(ValueError, match="matmul_units cannot run matmul NN "):
        everything("nano", software=True, pinned={"matmul": "matmul_units"})


def variants_used(model: Model) -> set[str]:
    return {dispatch.variant for dispatch in every_dispatch(model.plan)}


def test_plans_are_deterministic() -> None:
    first, second = (everything("micro", software=True).plan for _ in range(2))
    assert first.buffers == second.buffers
    assert list(first.programs) == list(second.programs)
    for name in first.programs:
        assert described(first.programs[name], first) == described(second.programs[name], second)


# ---------------------------------------------------------------- what a plan refuses


def scale(plan: Plan, source: Tensor, target: Tensor, **changes: object) -> None:
    arguments = {"grid": (1, 1, 1), "constants": {"P": 1, "C": 1, "ADD": False}, **changes}
    plan.dispatch("column_sum.total", parts=source, out=target, **arguments)  # type: ignore[arg-type]


def test_a_tensor_over_a_buffer_is_refused() -> None:
    with pytest.raises(DeviceError, match="256 MiB"):
        Plan().tensor("big", (MAX_BUFFER // 4 + 1,))


def test_bindings_grids_and_names_are_checked() -> None:
    plan = Plan()
    x, y = plan.tensor("x", (MAX_BINDING // 4 + 64,)), plan.tensor("y", (128,))
    with pytest.raises(ValueError, match="exists already"):
        plan.tensor("x", (1,))
    with plan.program("p"):
        with pytest.raises(DeviceError, match="128 MiB"):
            scale(plan, x, y)
        with pytest.raises(DeviceError, match="65,536 workgroups in a row"):
            scale(plan, y, x.rows(0, 64), grid=(MAX_GRID + 1, 1, 1))
        with pytest.raises(ValueError, match="grid"):
            scale(plan, y, x.rows(0, 64), grid=(0, 1, 1))
        with pytest.raises(ValueError, match="unaligned"):
            scale(plan, y.rows(1, 65), x.rows(0, 64))
        with pytest.raises(ValueError, match="binds"):
            plan.dispatch("column_sum.total", grid=(1, 1, 1), constants={}, parts=y)
        with pytest.raises(ValueError, match="nested"), plan.program("q"):
            pass


def test_a_gradient_is_given_once() -> None:
    plan = Plan()
    x, dx = plan.tensor("x", (64,)), plan.tensor("dx", (64,))
    tape = Tape(plan, training=True)
    tape.share(x, dx)
    assert tape.target(x) == (dx, True)
    with pytest.raises(ValueError, match="already"):
        tape.share(x, dx)


def test_views_and_pieces() -> None:
    plan = Plan()
    x = plan.tensor("x", (8, 64))
    view = x.rows(2, 5).rows(1, 2)
    assert (view.shape, view.offset, view.root) == ((1, 64), 3 * 64, x)
    assert (x.tail(64).shape, x.tail(64).offset) == ((448,), 64)
    assert x.rows(0, 8) is x
    long = Tensor("long", (MAX_BINDING // 4 * 2 + 5,))
    pieces = list(binding_pieces(long))
    assert [start for start, _ in pieces] == [0, MAX_BINDING // 4, MAX_BINDING // 2]
    assert sum(piece.size for _, piece in pieces) == long.size


@pytest.mark.parametrize("groups", [1, MAX_GRID, MAX_GRID + 1, 3 * MAX_GRID, 1_000_003])
def test_linear_grid(groups: int) -> None:
    x, y, z = linear_grid(groups)
    assert z == 1
    assert max(x, y) <= MAX_GRID
    assert groups <= x * y < groups + MAX_GRID


# ---------------------------------------------------------------- the page has the standard library alone

PAGE_MODULES = (
    *(
        "bpe",
        "checkpoint",
        "config",
        "corpus",
        "errors",
        "evaluate",
        "events",
        "generate",
        "gpt2_format",
        "kernels",
    ),
    *("model", "plan", "pretokenize", "runtime", "safetensors", "tokenizer", "tokenizer_json", "train"),
)

WITHOUT_PACKAGES = """
    import importlib, sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {"numpy", "wgpu", "rich"}:
                raise ImportError(f"{name} is blocked")

    sys.meta_path.insert(0, Blocker())
    for package in ("numpy", "wgpu", "rich"):
        try:
            importlib.import_module(package)
        except ImportError:
            continue
        raise SystemExit(f"{package} is not blocked")
    for name in sys.argv[1:]:
        importlib.import_module(f"trainer.{name}")
    from trainer import model
    from trainer.config import PRESETS
    nano = PRESETS["nano"]
    built = model.build(nano.model, train=nano.train, tokens=10_000, evaluation_batch=8, generate=True)
    print(sum(len(program.dispatches) for program in built.plan.programs.values()))
"""


def test_a_plan_is_built_with_the_standard_library_alone() -> None:
    missing = [name for name in PAGE_MODULES if not (ROOT / "trainer" / f"{name}.py").exists()]
    assert not missing
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT_PACKAGES), *PAGE_MODULES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
