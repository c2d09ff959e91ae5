"""The second stages of sums over rows in a program, however many share a launch (ops/column_sum.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trainer.ops.column_sum import SHARING, TOTALS
from trainer.plan import Dispatch, Tensor


def apart(dispatches: Iterable[Dispatch]) -> Iterator[Dispatch]:
    """The same dispatches, with one for each second stage."""
    for dispatch in dispatches:
        if dispatch.kernel != "column_sums.totals":
            yield dispatch
            continue
        for i in range(SHARING):
            constants = {name: dispatch.constants[f"{name}_{i}"] for name in ("P", "C", "ADD")}
            bindings = {name: dispatch.bindings[f"{name}_{i}"] for name in ("parts", "out")}
            if columns := int(constants["C"]):
                grid = (-(-columns // TOTALS), 1, 1)
                yield Dispatch("column_sum.total", "column_sum", constants, bindings, grid)


def second_stages(dispatches: Iterable[Dispatch]) -> Iterator[tuple[Tensor, Tensor]]:
    """(partial sums, what they are added up to) of each, in their order."""
    for dispatch in apart(dispatches):
        if dispatch.kernel == "column_sum.total":
            yield dispatch.bindings["parts"], dispatch.bindings["out"]
