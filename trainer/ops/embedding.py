"""Token and position embedding."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.errors import DeviceError
from trainer.kernels import LOOP_LIMIT
from trainer.plan import ALIGNMENT, ITEM_SIZE, MAX_BINDING, Plan, Tape, Tensor, linear_grid

POSITIONS = 32  # that a workgroup links
STRIPS = 8  # threads that search for each of them on a GPU: one alone waits for memory most of the time


def table_parts(table: Tensor, logits: str = "f32") -> Iterator[tuple[int, int, Tensor]]:
    """(first row, rows, view) of parts of a table (V, C) that a binding can hold; columns of `logits` of that
    dtype can be bound from the same rows on.
    """
    V, C = table.shape
    aligned = ALIGNMENT // min(ITEM_SIZE[table.dtype], ITEM_SIZE[logits])
    rows = min(V, MAX_BINDING // (ITEM_SIZE[table.dtype] * C) // aligned * aligned)
    for first in range(0, V, rows):
        count = min(rows, V - first)
        yield first, count, table.rows(first, first + count)


def embedding(tape: Tape, tokens: Tensor, token_table: Tensor, position_table: Tensor) -> Tensor:
    """token_table[tokens] + position_table[t]: tokens (B, T) → (B·T, C).

    Raises DeviceError for more rows than a software renderer's loops can count; the gradients of weights, of
    biases and of this table are sums over all rows.
    """
    plan = tape.plan
    N, T, C = tokens.size, tokens.shape[1], token_table.shape[1]
    if plan.tuning.software and N >= LOOP_LIMIT:
        raise DeviceError(
            f"a batch of {N:,} tokens is over what a software renderer computes right, {LOOP_LIMIT - 1:,}",
            "choose a smaller --batch; more --accumulate keeps the step's size",
        )
    out = plan.activation("embedding", (N, C))  # f32, as all of the residual stream
    for first, count, part in table_parts(token_table):
        plan.dispatch(
            "embedding.forward",
            grid=linear_grid(N),
            constants={"N": N, "T": T, "C": C, "FIRST": first, "COUNT": count},
            tokens=tokens,
            token_table=part,
            position_table=position_table,
            out=out,
        )

    def backward() -> None:
        dout = tape.gradient(out)
        links = plan.activation("links", (N,), "u32")
        plan.dispatch(
            "embedding.chain",
            grid=(-(-N // POSITIONS), 1, 1),
            constants={"N": N, "STRIPS": 1 if plan.tuning.software else STRIPS},
            tokens=tokens,
            links=links,
        )
        dtable, add = tape.target(token_table)
        assert add, "the head writes the shared table's gradient first"
        for first, count, part in table_parts(dtable):
            plan.dispatch(
                "embedding.backward_tokens",
                grid=linear_grid(-(-N * C // 256)),
                constants={"N": N, "C": C, "FIRST": first, "COUNT": count},
                tokens=tokens,
                chains=links,
                dout=dout,
                dtoken_table=part,
            )
        dpositions, add = tape.target(position_table)
        plan.dispatch(
            "embedding.backward_positions",
            grid=linear_grid(-(-T * C // 64)),
            constants={"N": N, "T": T, "C": C, "ADD": add},
            dout=dout,
            dposition_table=dpositions,
        )

    tape.record(backward)
    return out


def embedding_one(
    plan: Plan, sequence: Tensor, position: Tensor, token_table: Tensor, position_table: Tensor
) -> Tensor:
    """The embedding (1, C) of the token at `position` of `sequence`."""
    C = token_table.shape[1]
    out = plan.activation("embedding", (1, C))
    for first, count, part in table_parts(token_table):
        plan.dispatch(
            "embedding.forward_one",
            grid=(-(-C // 64), 1, 1),
            constants={"C": C, "FIRST": first, "COUNT": count},
            tokens=sequence,
            token_table=part,
            position_table=position_table,
            position=position,
            out=out,
        )
    return out
