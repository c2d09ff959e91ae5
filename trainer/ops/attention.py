"""Causal multi-head self-attention, over a batch and for one new token."""

from __future__ import annotations

from trainer.errors import DeviceError
from trainer.kernels import LOOP_LIMIT, Choice, Constant, MatrixUnits, Question
from trainer.ops import column_sum
from trainer.plan import Grid, Plan, Tape, Tensor

ROWS = 64  # of one head that a workgroup takes on, in most variants
TILE = 32  # rows that it reads at a time in attention_subgroups
KEYS = 256  # that decode.forward_one takes on at a time


def attention(tape: Tape, qkv: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """softmax(mask(q kᵀ / sqrt(HS))) v for each head; qkv (B·T, 3C) → (B·T, C), with `shape` = (B, T, NH).
    Its backward part makes the gradient of the bias that was added to qkv, too, if there was one.

    Raises DeviceError for a context that only the kernels for head sizes of multiples of 4 can take, and for
    one that no kernel computes right on a software renderer.
    """
    plan = tape.plan
    B, T, NH = shape
    C = qkv.shape[1] // 3
    units = plan.tuning.units
    shared = {"B": B, "T": T, "NH": NH, "HS": C // NH, "SCALE": (C // NH) ** -0.5}
    half = tape.dtype == qkv.dtype == "f16"
    fits = fitting(T, C // NH, units, half=half, software=plan.tuning.software)
    candidates = tuple(map(Choice, plan.tuning.variants("attention", fits)))
    if not candidates and C // NH % 4:
        raise DeviceError(
            f"heads of {C // NH} channels cannot have a context of {T:,}",
            "choose a head size (width / heads) that is a multiple of 4, or a smaller context",
        )
    if not candidates:
        raise _too_long(T, C // NH)
    sizes = f"{B}x{NH}x{T}x{C // NH} {qkv.dtype} {tape.dtype}"
    question = Question("attention", sizes, candidates, work=(7.0 if tape.training else 2.0) * B * T * T * C)
    out = plan.activation("attention", (B * T, C), tape.dtype)
    lse = plan.activation("attention.lse", (B, NH, T))

    def forward(plan: Plan, choice: Choice) -> None:
        plan.dispatch(
            "attention.forward",
            variant=choice.variant,
            grid=grid(choice.variant, shape, units),
            constants={**shared, **own_constants(choice.variant, units)},
            qkv=qkv,
            out=out,
            lse=lse,
        )

    plan.ask(question, forward)

    bias = tape.biases.pop(qkv, None)  # its gradient is Σ over the rows of dqkv

    def backward() -> None:
        dout = tape.gradient(out)
        dqkv, _ = tape.target(qkv)
        of_bias = bias and column_sum.partials(tape, bias, B * T)

        def backward_qkv(plan: Plan, choice: Choice) -> None:
            columns, blocks, _ = workgroups = grid(choice.variant, shape, units)
            read = {"qkv": qkv, "kept": lse, "dout": dout}
            fused = choice.variant == "attention_subgroups"
            part = column_sum.parts(B * T)[1]
            summed = of_bias if fused and T % ROWS == ROWS % part == 0 else None
            if fused:
                plan.dispatch(
                    "attention.backward",
                    variant=choice.variant,
                    grid=(columns, 2 * blocks, 1),
                    constants={**shared, "PART": part, **column_sum.beside(summed)},
                    **read,
                    result=out,
                    delta=plan.activation("attention.delta", (blocks, columns, TILE)),
                    dqkv=dqkv,
                    sums=summed and summed.sums,
                )
            else:
                constants = {**shared, **own_constants(choice.variant, units)}
                delta = plan.activation("attention.delta", (B, NH, T))
                for entry, bindings in (
                    ("backward_query", {"result": out, "delta": delta}),  # which makes delta for both
                    ("backward_key_value", {"deltas": delta}),
                ):
                    plan.dispatch(
                        f"attention.{entry}",
                        variant=choice.variant,
                        grid=workgroups,
                        constants=constants,
                        **read,
                        dqkv=dqkv,
                        **bindings,
                    )
            if of_bias and not summed:
                column_sum.partial(plan, dqkv, of_bias)

        plan.ask(question, backward_qkv)

    tape.record(backward)
    return out


def fitting(
    context: int, head_size: int, units: MatrixUnits, *, half: bool = False, software: bool = False
) -> dict[str, bool]:
    """Which variants compute this shape, and on a `software` renderer to the end; `half` says that qkv, out
    and their gradients are f16.

    The loops of attention_subgroups within that over tiles are all unrolled: it has no such end.
    """
    vectors, quarter = head_size // 4, -(-head_size // 16)  # of a head's row, and those that a member has
    blocks = -(-context // 4)  # of keys
    loops = {  # iterations of a thread, at most: see LOOP_LIMIT
        "attention": context * (3 * head_size + 4) + 2 * head_size + 3,
        "attention_direct": blocks * (3 * vectors + 4) + 10 * vectors + 11,
        "attention_tiled": blocks * (3 * quarter + 6) + 8 * quarter + 19,
    }
    return {
        "attention": loops["attention"] < LOOP_LIMIT,
        "attention_direct": head_size % 4 == 0 and loops["attention_direct"] < LOOP_LIMIT,
        "attention_subgroups": head_size % 4 == 0 and head_size <= 64,
        "attention_tiled": head_size % 4 == 0 and (not software or loops["attention_tiled"] < LOOP_LIMIT),
        "attention_units": half and head_size % units.side == 0 and head_size <= 4 * units.side,
    }


def _too_long(context: int, head_size: int) -> DeviceError:
    return DeviceError(
        f"a context of {context:,} with heads of {head_size} channels is over what a software renderer "
        "computes right",
        "choose a smaller context, or a GPU",
    )


def own_constants(variant: str, units: MatrixUnits) -> dict[str, Constant]:
    """What a variant's prologue has beyond attention.wgsl's."""
    return {"SIDE": units.side, "LANES": units.lanes} if variant == "attention_units" else {}


def grid(variant: str, shape: tuple[int, int, int], units: MatrixUnits) -> Grid:
    """Workgroups of each of a variant's entry points, for `shape` = (B, T, NH)."""
    B, T, NH = shape
    if variant == "attention":
        return -(-B * T * NH // ROWS), 1, 1
    if variant == "attention_direct":  # a thread takes four rows
        return -(-B * NH * -(-T // 4) // ROWS), 1, 1
    rows = 8 * units.side if variant == "attention_units" else ROWS
    return B * NH, -(-T // rows), 1  # the long rows of all heads first


def attention_one(plan: Plan, row: Tensor, cache: Tensor, position: Tensor, heads: int) -> Tensor:
    """Attention of the token at `position`: its qkv `row` (1, 3C) joins `cache` (T, 3C); returns (1, C).

    Raises DeviceError for a context that a software renderer does not compute right.
    """
    C = row.shape[1] // 3
    T, HS = cache.shape[0], C // heads
    if plan.tuning.software and -(-T // KEYS) * (HS + KEYS + 21) + 3 >= LOOP_LIMIT:  # iterations of a thread
        raise _too_long(T, HS)
    out = plan.activation("attention", (1, C))
    plan.dispatch(
        "decode.forward_one",
        grid=(heads, 1, 1),
        constants={"NH": heads, "HS": HS, "SCALE": HS**-0.5},
        row=row,
        cache=cache,
        position=position,
        out=out,
    )
    return out
