"""Copies in another precision."""

from __future__ import annotations

from trainer.plan import Plan, Tensor, linear_grid


def cast(plan: Plan, x: Tensor, out: Tensor) -> None:
    """out = as much of x (f32), rounded to what out stores."""
    N = out.size
    plan.dispatch("cast.convert", grid=linear_grid(-(-N // 256)), constants={"N": N}, x=x, out=out)
