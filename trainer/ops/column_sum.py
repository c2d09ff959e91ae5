"""Sums over rows, in two stages of fixed order."""

from __future__ import annotations

from trainer.plan import Plan, Tensor


def parts(rows: int) -> tuple[int, int]:
    """How many parts the rows are split into for the first stage, and the rows of each part."""
    each = max(8, -(-rows // 256))
    return -(-rows // each), each


def column_sum(plan: Plan, x: Tensor, out: Tensor, *, add: bool) -> None:
    """out (C) = [out +] Σ_n x (N, C)."""
    N, C = x.shape
    P, each = parts(N)
    sums = plan.activation("column_sums", (P, C))
    plan.dispatch(
        "column_sum.partial",
        grid=(-(-C // 64), P, 1),
        constants={"N": N, "C": C, "ROWS": each},
        x=x,
        sums=sums,
    )
    total(plan, sums, out, add=add)


def total(plan: Plan, sums: Tensor, out: Tensor, *, add: bool) -> None:
    """out (C) = [out +] Σ_p sums (P, C): the second stage."""
    P, C = sums.shape
    plan.dispatch(
        "column_sum.total",
        grid=(-(-C // 64), 1, 1),
        constants={"P": P, "C": C, "ADD": add},
        parts=sums,
        out=out,
    )
