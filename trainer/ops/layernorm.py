"""LayerNorm (Ba, Kiros and Hinton, arXiv 1607.06450)."""

from __future__ import annotations

from trainer.kernels import Choice, Question
from trainer.ops import column_sum
from trainer.plan import Grid, Plan, Tape, Tensor, linear_grid

THREADS = 256  # of a workgroup of layernorm_rows
LANES = (32, THREADS)  # threads that share a row there: the fewest and the most


def layernorm(tape: Tape, name: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + 1e-5) · weight + bias, over the channels of each row: (N, C) → (N, C)."""
    plan = tape.plan
    N, C = x.shape
    out = plan.activation(name, (N, C), tape.dtype)
    statistics = plan.activation(f"{name}.statistics", (N, 2))
    candidates = tuple(map(Choice, plan.tuning.variants("layernorm", fitting(C))))
    question = Question("layernorm", f"{N}x{C} {x.dtype} {out.dtype}", candidates, work=16.0 * N * C)

    def forward(plan: Plan, choice: Choice) -> None:
        plan.dispatch(
            "layernorm.forward",
            variant=choice.variant,
            grid=grid(choice.variant, N, C),
            constants={"N": N, "C": C, **own_constants(choice.variant, C)},
            x=x,
            weight=weight,
            bias=bias,
            out=out,
            statistics=statistics,
        )

    plan.ask(question, forward)

    # Backward goes the other way: what reads x first is the last to add to its gradient, and may sum it up.
    bias_of_x = tape.biases.pop(x, None)

    def backward() -> None:
        dout = tape.gradient(out)
        P, each = column_sum.parts(N)
        of_weight, of_bias = (column_sum.partials(tape, parameter, N) for parameter in (weight, bias))
        assert of_weight.sums.root is of_bias.sums.root, "one binding holds both"
        of_dx = bias_of_x and column_sum.partials(tape, bias_of_x, N)
        # The bias lies in front of the LayerNorm's vectors in the arena, but perhaps in another stretch.
        near = of_dx if of_dx and of_dx.reaches(of_weight) else None
        bound = (near or of_weight).sums
        dx, add = tape.target(x, last=of_dx is not None)
        read = {"x": x, "kept": statistics, "dout": dout}
        of_x = {"N": N, "C": C, "ADD": add}
        of_parameters = {
            "N": N,
            "C": C,
            "ROWS": each,
            "WEIGHT": of_weight.sums.offset - bound.offset,
            "BIAS": of_bias.sums.offset - bound.offset,
            **of_weight.constants,
        }

        def backward_all(plan: Plan, choice: Choice) -> None:
            fused = choice.variant == "layernorm_rows"
            if fused:
                plan.dispatch(
                    "layernorm.backward_fused",
                    variant=choice.variant,
                    grid=(1, P, 1),
                    constants={
                        **of_x,
                        **of_parameters,
                        "SUM_DX": near is not None,
                        **own_constants(choice.variant, C),
                    },
                    **read,
                    weight=weight,
                    dx=dx,
                    sums=bound,
                )
            else:
                plan.dispatch(
                    "layernorm.backward_parameters",
                    variant=choice.variant,
                    grid=(-(-of_weight.width // 64), P, 1),
                    constants=of_parameters,
                    **read,
                    sums=bound,
                )
                plan.dispatch(
                    "layernorm.backward",
                    variant=choice.variant,
                    grid=grid("layernorm", N, C),
                    constants=of_x,
                    **read,
                    weight=weight,
                    dx=dx,
                )
            if of_dx and not (fused and near):
                column_sum.partial(plan, dx, of_dx)

        plan.ask(question, backward_all)

    tape.record(backward)
    return out


def fitting(C: int) -> dict[str, bool]:
    """Which variants compute rows of C channels."""
    return {"layernorm_rows": C % 4 == 0}


def own_constants(variant: str, C: int) -> dict[str, int]:
    """What a variant is told beside the shape: how many threads share a row, with up to four vectors each."""
    if variant == "layernorm":
        return {}
    lanes = LANES[0]
    while lanes < LANES[1] and 16 * lanes < C:
        lanes *= 2
    return {"LANES": lanes}


def grid(variant: str, rows: int, C: int) -> Grid:
    """Workgroups of forward by a variant: a thread a row, or several."""
    if variant == "layernorm":
        return (-(-rows // 64), 1, 1)
    return linear_grid(-(-rows * own_constants(variant, C)["LANES"] // THREADS))
