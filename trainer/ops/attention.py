"""Causal multi-head self-attention, over a batch and for one new token."""

from __future__ import annotations

from trainer.plan import Plan, Tape, Tensor


def attention(tape: Tape, qkv: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """softmax(mask(q kᵀ / sqrt(HS))) v for each head; qkv (B·T, 3C) → (B·T, C), with `shape` = (B, T, NH)."""
    plan = tape.plan
    B, T, NH = shape
    C = qkv.shape[1] // 3
    constants = {"B": B, "T": T, "NH": NH, "HS": C // NH, "SCALE": (C // NH) ** -0.5}
    rows_grid = (-(-B * T * NH // 64), 1, 1)
    variant = plan.tuning.choose("attention", {})
    grid = rows_grid if variant == "attention" else (-(-T // 64), B * NH, 1)
    out = plan.activation("attention", (B * T, C))
    lse = plan.activation("attention.lse", (B, NH, T))
    plan.dispatch(
        "attention.forward", variant=variant, grid=grid, constants=constants, qkv=qkv, out=out, lse=lse
    )

    def backward() -> None:
        dout = tape.gradient(out)
        dqkv, _ = tape.target(qkv)
        delta = plan.activation("attention.delta", (B, NH, T))
        plan.dispatch(
            "attention.backward_delta",
            grid=rows_grid,
            constants=constants,
            result=out,
            dout=dout,
            delta=delta,
        )
        for entry in ("backward_query", "backward_key_value"):
            plan.dispatch(
                f"attention.{entry}",
                variant=variant,
                grid=grid,
                constants=constants,
                qkv=qkv,
                kept=lse,
                dout=dout,
                deltas=delta,
                dqkv=dqkv,
            )

    tape.record(backward)
    return out


def attention_one(plan: Plan, row: Tensor, cache: Tensor, position: Tensor, heads: int) -> Tensor:
    """Attention of the token at `position`: its qkv `row` (1, 3C) joins `cache` (T, 3C); returns (1, C)."""
    C = row.shape[1] // 3
    out = plan.activation("attention", (1, C))
    plan.dispatch(
        "decode.forward_one",
        grid=(heads, 1, 1),
        constants={"NH": heads, "HS": C // heads, "SCALE": (C // heads) ** -0.5},
        row=row,
        cache=cache,
        position=position,
        out=out,
    )
    return out
