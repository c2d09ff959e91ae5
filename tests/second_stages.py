"""The second stages of sums over rows in a program, however many share a launch (ops/column_sum.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trainer.plan import Dispatch, Tensor


def second_stages(dispatches: Iterable[Dispatch]) -> Iterator[tuple[Tensor, Tensor]]:
    """(partial sums, what they are added up to) of each, in their order."""
    for dispatch in dispatches:
        if dispatch.kernel == "column_sum.total":
            yield dispatch.bindings["parts"], dispatch.bindings["out"]
        if dispatch.kernel == "column_sums.totals":
            for i in range(4):
                if dispatch.constants[f"C_{i}"]:
                    yield dispatch.bindings[f"parts_{i}"], dispatch.bindings[f"out_{i}"]
