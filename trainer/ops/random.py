"""Initial weights and training windows, from counter-based random numbers."""

from __future__ import annotations

from trainer.plan import MAX_BINDING, Plan, Tensor, binding_pieces, linear_grid

TOKENS_AT_ONCE = MAX_BINDING // 2 // 2  # tokens of one buffer of the dataset: half a binding, to leave room


def normal(plan: Plan, out: Tensor, *, std: float, seed: int, stream: int) -> None:
    """out ~ N(0, std²); each `stream` is a sequence of its own."""
    for first, piece in binding_pieces(out):
        plan.dispatch(
            "random.normal",
            grid=linear_grid(-(-piece.size // 64)),
            constants={"N": piece.size, "STD": std, "SEED": seed, "STREAM": stream, "FIRST": first},
            out=piece,
        )


def fill(plan: Plan, out: Tensor, value: float) -> None:
    """out = value, everywhere."""
    for _, piece in binding_pieces(out):
        plan.dispatch(
            "random.fill",
            grid=linear_grid(-(-piece.size // 64)),
            constants={"N": piece.size, "VALUE": value},
            out=piece,
        )


def dataset_parts(tokens: int, context: int) -> list[tuple[int, int, int]]:
    """(first start, starts, tokens) of the buffers that a dataset is split into.

    A buffer holds the windows that start in it whole, so neighbours overlap by `context` tokens.
    """
    starts = tokens - context
    return [
        (first, min(TOKENS_AT_ONCE, starts - first), min(TOKENS_AT_ONCE, starts - first) + context)
        for first in range(0, starts, TOKENS_AT_ONCE)
    ]


def windows(
    plan: Plan, dataset: list[Tensor], tokens: int, counters: Tensor, shape: tuple[int, int], seed: int
) -> tuple[Tensor, Tensor]:
    """A batch of `shape` (B, T): random windows of the dataset, and the token that follows each of theirs."""
    B, T = shape
    inputs = plan.activation("inputs", shape, "u32")
    targets = plan.activation("targets", (B * T,), "u32")
    for (first, count, _), part in zip(dataset_parts(tokens, T), dataset, strict=True):
        plan.dispatch(
            "random.windows",
            grid=(-(-B * T // 64), 1, 1),
            constants={"B": B, "T": T, "SEED": seed, "STARTS": tokens - T, "FIRST": first, "COUNT": count},
            tokens=part,
            counters=counters,
            inputs=inputs,
            targets=targets,
        )
    return inputs, targets
