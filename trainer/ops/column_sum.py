"""Sums over rows in two stages of fixed order: what the gradients of biases and of LayerNorm's vectors are.

The first stage leaves a row of partial sums for each part of the rows, the second adds these up. The vectors'
gradients lie side by side in their arena, and their partial sums in the same order, as columns of one tensor:
the second stage of all of them is one dispatch, at the end of the backward pass.

A second stage has little to do, and a launch that waits for the one before it takes longer than that: those
that need not be done at once share one (`share_launches`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from trainer.kernels import Constant, binding_modes
from trainer.plan import MAX_BINDING, MAX_BINDINGS, SPACING, Dispatch, Plan, Program, Tape, Tensor, round_up

MAX_PARTS = 256
TOTALS = 256  # columns that a workgroup of the second stage adds up
SHARING = MAX_BINDINGS // 2  # second stages in one launch at most, of two bindings each
# Bytes of partial sums that may wait: what a cache does not keep so long costs what a launch less gains (on
# an H100, sharing takes 8% off a step of TINY and 4% off SMALL's, and would take nothing off MEDIUM's)
WAITING = 8 << 20


def parts(rows: int) -> tuple[int, int]:
    """How many parts the rows are split into for the first stage, and the rows of each part."""
    each = max(8, -(-rows // MAX_PARTS))
    return -(-rows // each), each


def modules(names: Iterable[str]) -> Iterator[list[str]]:
    """Names of parameters, neighbours that belong to one module together."""
    for _, group in groupby(names, lambda name: name.rpartition(".")[0]):
        yield list(group)


def stretches(gradients: Mapping[str, Tensor], rows: int) -> list[Tensor]:
    """The memory of the gradients of vectors, neighbours in an arena, in as few pieces as a binding can hold
    the partial sums of. Vectors of one module, as LayerNorm's two, stay together: one dispatch writes both.
    """
    most = MAX_BINDING // (4 * parts(rows)[0])
    groups: list[list[Tensor]] = []
    for names in modules(gradients):
        module = [gradients[name] for name in names]
        fits = groups and groups[-1][0].root is module[0].root and _span([*groups[-1], *module]) <= most
        if not fits:
            groups.append([])
        groups[-1] += module
    return [group[0].view(f"{group[0].name} and on", 0, (_span(group),)) for group in groups]


def _span(tensors: list[Tensor]) -> int:
    """Elements from the first of some neighbours to what follows the last."""
    return tensors[-1].offset + round_up(tensors[-1].size, SPACING) - tensors[0].offset


@dataclass(frozen=True)
class Partials:
    """Where the first stage writes its sums for a vector (C)."""

    sums: Tensor  # from the first one on
    stride: int  # elements from the sums of a part to those of the next
    width: int  # C and what pads it in the arena, where the sums are 0

    @property
    def constants(self) -> dict[str, int]:
        """What the kernels of the first stage are told of it."""
        return {"STRIDE": self.stride, "WIDTH": self.width}

    def reaches(self, other: Partials) -> bool:
        """Whether the binding of these sums has those of another vector behind them."""
        return self.sums.root is other.sums.root and self.sums.offset < other.sums.offset


def beside(to: Partials | None) -> dict[str, Constant]:
    """What a kernel is told that can do a first stage beside its own work, and does if `to` is given."""
    return {"SUM_ROWS": to is not None, **(to.constants if to else {"STRIDE": 0, "WIDTH": 0})}


def partials(tape: Tape, parameter: Tensor, rows: int) -> Partials:
    """Where the partial sums of a vector's gradient go: their second stage is appended at the end of the
    backward pass, once for all that share a stretch.
    """
    gradient, add = tape.target(parameter)
    assert add == tape.accumulate, "a vector is used once in a micro-batch"
    stretch = next((s for s in tape.vectors if s.holds(gradient)), gradient)
    if stretch not in tape.partial_sums:
        sums = tape.plan.activation("partial_sums", (parts(rows)[0], stretch.size))
        tape.partial_sums[stretch] = sums
        tape.at_end(lambda: total(tape.plan, sums, stretch, add=add))
    start = gradient.offset - stretch.offset
    width = min(round_up(gradient.size, SPACING), stretch.size - start)
    return Partials(tape.partial_sums[stretch].tail(start), stretch.size, width)


def column_sum(tape: Tape, x: Tensor, parameter: Tensor) -> None:
    """The gradient of `parameter` (C) = Σ_n x (N, C)."""
    partial(tape.plan, x, partials(tape, parameter, x.shape[0]))


def partial(plan: Plan, x: Tensor, to: Partials) -> None:
    """The first stage for the columns of x (N, C)."""
    N, C = x.shape
    P, each = parts(N)
    plan.dispatch(
        "column_sum.partial",
        variant=plan.tuning.variants("column_sum", {})[0],
        grid=(-(-to.width // 64), P, 1),
        constants={"N": N, "C": C, "ROWS": each, **to.constants},
        x=x,
        sums=to.sums,
    )


def total(plan: Plan, sums: Tensor, out: Tensor, *, add: bool) -> None:
    """out (C) = [out +] Σ_p sums (P, C): the second stage."""
    P, C = sums.shape
    plan.dispatch(
        "column_sum.total",
        grid=(-(-C // TOTALS), 1, 1),
        constants={"P": P, "C": C, "ADD": add},
        parts=sums,
        out=out,
    )


def share_launches(plan: Plan, program: Program) -> None:
    """Let second stages of small sums wait for each other, and put up to SHARING into one launch, which comes
    before the first dispatch that binds what one of them writes, or writes what one reads. To be called
    within the program.
    """
    dispatches, program.dispatches = program.dispatches, []
    waiting: list[Dispatch] = []
    for dispatch in dispatches:
        shares = dispatch.kernel == "column_sum.total" and dispatch.bindings["parts"].nbytes <= WAITING
        full = shares and len(waiting) == SHARING
        if full or any(_in_order(total, dispatch) for total in waiting):
            _launch(plan, program, waiting)
            waiting = []
        (waiting if shares else program.dispatches).append(dispatch)
    _launch(plan, program, waiting)


def _in_order(total: Dispatch, later: Dispatch) -> bool:
    """Whether a second stage has to be done before a later dispatch."""
    parts, out = total.bindings["parts"], total.bindings["out"]
    modes = binding_modes(later.variant, later.entry)
    return any(
        tensor.meets(out) or (modes[name] == "read_write" and tensor.meets(parts))
        for name, tensor in later.bindings.items()
    )


def _launch(plan: Plan, program: Program, totals: list[Dispatch]) -> None:
    """Append second stages: one as it is, several as one dispatch."""
    if len(totals) < 2:
        program.dispatches += totals
        return
    missing = SHARING - len(totals)
    constants = [*(total.constants for total in totals), *missing * [{"P": 0, "C": 0, "ADD": False}]]
    bindings = [*(total.bindings for total in totals), *missing * [{"parts": None, "out": None}]]
    plan.dispatch(
        "column_sums.totals",
        grid=(sum(total.grid[0] for total in totals), 1, 1),
        constants={f"{name}_{i}": value for i, each in enumerate(constants) for name, value in each.items()},
        **{f"{name}_{i}": tensor for i, each in enumerate(bindings) for name, tensor in each.items()},
    )
