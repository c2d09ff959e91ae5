"""LayerNorm (Ba, Kiros and Hinton, arXiv 1607.06450)."""

from __future__ import annotations

from trainer.kernels import Choice, Question
from trainer.ops import column_sum
from trainer.plan import Grid, Plan, Tape, Tensor, linear_grid


def layernorm(tape: Tape, name: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + 1e-5) · weight + bias, over the channels of each row: (N, C) → (N, C)."""
    plan = tape.plan
    N, C = x.shape
    out = plan.activation(name, (N, C), tape.dtype)
    statistics = plan.activation(f"{name}.statistics", (N, 2))
    candidates = tuple(map(Choice, plan.tuning.variants("layernorm", {})))
    question = Question("layernorm", f"{N}x{C} {x.dtype} {out.dtype}", candidates, work=16.0 * N * C)

    def forward(plan: Plan, choice: Choice) -> None:
        plan.dispatch(
            "layernorm.forward",
            variant=choice.variant,
            grid=grid(choice.variant, N),
            constants={"N": N, "C": C},
            x=x,
            weight=weight,
            bias=bias,
            out=out,
            statistics=statistics,
        )

    plan.ask(question, forward)

    def backward() -> None:
        dout = tape.gradient(out)
        P, each = column_sum.parts(N)
        of_weight, of_bias = (column_sum.partials(tape, parameter, N) for parameter in (weight, bias))
        assert of_weight.sums.root is of_bias.sums.root, "one binding holds both"
        plan.dispatch(
            "layernorm.backward_parameters",
            grid=(-(-of_weight.width // 64), P, 1),
            constants={
                "N": N,
                "C": C,
                "ROWS": each,
                "BIAS": of_bias.sums.offset - of_weight.sums.offset,
                **of_weight.constants,
            },
            x=x,
            kept=statistics,
            dout=dout,
            sums=of_weight.sums,
        )
        dx, add = tape.target(x)

        def backward_x(plan: Plan, choice: Choice) -> None:
            plan.dispatch(
                "layernorm.backward",
                variant=choice.variant,
                grid=grid(choice.variant, N),
                constants={"N": N, "C": C, "ADD": add},
                x=x,
                weight=weight,
                kept=statistics,
                dout=dout,
                dx=dx,
            )

        plan.ask(question, backward_x)

    tape.record(backward)
    return out


def grid(variant: str, rows: int) -> Grid:
    """Workgroups of a variant: a thread a row, or a workgroup a row."""
    return (-(-rows // 64), 1, 1) if variant == "layernorm" else linear_grid(rows)
