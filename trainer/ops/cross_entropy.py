"""The head: logits over the vocabulary, softmax and cross-entropy, and their gradients, chunk by chunk."""

from __future__ import annotations

from trainer.kernels import LOOP_LIMIT, Choice, Question
from trainer.ops.accuracy import accuracy
from trainer.ops.embedding import table_parts
from trainer.ops.linear import gradient_of_weight, gradient_of_x, gradients
from trainer.ops.matmul import matmul
from trainer.plan import ALIGNMENT, ITEM_SIZE, MAX_BINDING, Grid, Plan, Tape, Tensor, linear_grid

MOST_HELD = 50 * 4 * 256  # logits that the threads of cross_entropy_held have registers for


def rows_at_once(rows: int, stride: int, dtype: str) -> int:
    """Rows of logits that one binding holds; chunks start where bindings of what has a row for each may."""
    aligned = ALIGNMENT // ITEM_SIZE[dtype]
    return min(rows, MAX_BINDING // (ITEM_SIZE[dtype] * stride) // aligned * aligned)


def head_loss(
    tape: Tape,
    x: Tensor,
    table: Tensor,
    targets: Tensor,
    losses: Tensor,
    *,
    vocab: int,
    scale: float,
    loss_scale: Tensor | None = None,
    hits: Tensor | None = None,
) -> None:
    """Cross-entropy of softmax(x · tableᵀ) against `targets`, in nats, for each row: (N, C) → losses (N).

    The logits (N, V) of a large vocabulary never exist as a whole. Rows are taken a chunk at a time: the
    chunk's logits become their own gradient in place, and give x's and the table's gradient (times `scale`,
    and times what `loss_scale` (1) holds) before the next chunk takes their memory. So the backward part
    comes with the forward one. `table` is (V rounded up to 64, C): whole vectors for the matmuls; `vocab` is
    V. With `hits` (N, u32), they say which targets had the largest logit.
    """
    plan = tape.plan
    N, C = x.shape
    V = table.shape[0]
    chunk = rows_at_once(N, V, tape.dtype)
    dx = plan.activation("dhead", (N, C), tape.dtype) if tape.training else None
    logits = plan.activation("logits", (chunk, V), tape.dtype)
    for start in range(0, N, chunk):
        rows = min(chunk, N - start)
        some = x.rows(start, start + rows)
        head_logits(plan, some, table, logits)
        if hits is not None:
            accuracy(
                plan, logits, targets.rows(start, start + rows), hits.rows(start, start + rows), vocab=vocab
            )
        _loss(
            tape,
            logits,
            targets.rows(start, start + rows),
            losses.rows(start, start + rows),
            vocab=vocab,
            scale=scale,
            loss_scale=loss_scale,
        )
        if dx is not None:
            _head_backward(tape, some, table, logits, dx.rows(start, start + rows))
    if dx is not None:
        tape.known(x, dx)


def _loss(
    tape: Tape,
    logits: Tensor,
    targets: Tensor,
    losses: Tensor,
    *,
    vocab: int,
    scale: float,
    loss_scale: Tensor | None,
) -> None:
    """Losses (N) of logits (N, V), which in training become their own gradient."""
    rows, stride = targets.size, logits.shape[1]
    variants = tape.plan.tuning.variants("cross_entropy", fitting(stride))
    shape = f"{rows}x{vocab}/{stride} {logits.dtype}" + (" gradient" if tape.training else "")
    question = Question("cross_entropy", shape, tuple(map(Choice, variants)), work=8.0 * rows * vocab)

    def forward_backward(plan: Plan, choice: Choice) -> None:
        plan.dispatch(
            "cross_entropy.forward_backward",
            variant=choice.variant,
            grid=grid(choice.variant, rows),
            constants={
                "N": rows,
                "V": vocab,
                "LD": stride,
                "SCALE": scale,
                "GRADIENT": tape.training,
                "LOSS_SCALING": loss_scale is not None,
            },
            logits=logits,
            targets=targets,
            losses=losses,
            loss_scale=loss_scale,
        )

    tape.plan.ask(question, forward_backward)


def fitting(stride: int) -> dict[str, bool]:
    """Which variants compute rows of `stride` logits, and every device to the end."""
    return {
        "cross_entropy": 3 * stride < LOOP_LIMIT,
        "cross_entropy_rows": stride % 4 == 0,
        "cross_entropy_held": stride % 4 == 0 and stride <= MOST_HELD,
    }


def grid(variant: str, rows: int) -> Grid:
    """Workgroups of a variant: a thread a row, or a workgroup a row."""
    return (-(-rows // 64), 1, 1) if variant == "cross_entropy" else linear_grid(rows)


def head_logits(plan: Plan, x: Tensor, table: Tensor, logits: Tensor) -> None:
    """logits (N, V) = x (N, C) · tableᵀ, in parts of the table that a binding can hold."""
    N, C = x.shape
    V = table.shape[0]
    for first, count, part in table_parts(table):
        matmul(plan, x, part, logits.tail(first), (N, count, C), transpose_b=True, strides=(C, C, V))


def _head_backward(tape: Tape, x: Tensor, table: Tensor, dlogits: Tensor, dx: Tensor) -> None:
    """dx = dlogits · table and dtable = dlogitsᵀ · x, for a chunk of rows."""
    plan = tape.plan
    N, C = x.shape
    V = table.shape[0]
    dtable, add = tape.target(table)
    parts = list(table_parts(table))
    dparts = list(table_parts(dtable, dlogits.dtype))
    if [first for first, *_ in parts] == [first for first, *_ in dparts]:
        for (first, count, part), (*_, dpart) in zip(parts, dparts, strict=True):
            gradients(
                plan,
                dlogits.tail(first),
                part,
                x,
                dx,
                dpart,
                (N, C, count),
                stride=V,
                table=True,
                add_x=first > 0,
                add_weight=add,
            )
        return
    for first, count, part in parts:
        gradient_of_x(plan, dlogits.tail(first), part, dx, (N, C, count), stride=V, table=True, add=first > 0)
    for first, count, dpart in dparts:
        gradient_of_weight(plan, dlogits.tail(first), x, dpart, (N, C, count), stride=V, table=True, add=add)


def mean_loss(plan: Plan, losses: Tensor, scalars: Tensor, counters: Tensor, scale: float) -> None:
    """scalars[0] gathers `scale` · Σ losses over the micro-batches of a step."""
    plan.dispatch(
        "cross_entropy.mean",
        grid=(1, 1, 1),
        constants={"N": losses.size, "SCALE": scale},
        row_losses=losses,
        scalars=scalars,
        counters=counters,
    )
