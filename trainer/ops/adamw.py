"""Global gradient norm, clip and AdamW over the flat arena, with the step's bookkeeping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.config import TrainConfig
from trainer.plan import Plan, Tensor

AT_ONCE = 4 * 256  # numbers that a workgroup takes at once
# Workgroups that add up one piece of the gradient: enough for a large GPU. A CPU in disguise has few cores,
# and its barriers are dear.
NORM_GROUPS = 1024
NORM_GROUPS_SOFTWARE = 8

# Of a run in mixed precision. A scale too large costs one step, whose gradients overflow and halve it; one
# too small would round small gradients to nothing.
FIRST_LOSS_SCALE = 2.0**16
GROWTH = 2000  # good steps in a row after which the scale is doubled: as torch.amp.GradScaler has it


@dataclass(frozen=True)
class Piece:
    """A stretch of the arena that one binding can hold."""

    parameter: Tensor
    gradient: Tensor
    mean: Tensor
    variance: Tensor
    decayed: int  # elements that have weight decay, from the first on: matrices
    copy: Tensor | None  # f16 (decayed)


@dataclass(frozen=True)
class StepState:
    """What the GPU keeps from step to step; see shaders/adamw.wgsl for the meaning of each element."""

    counters: Tensor  # u32 (4): step, updates applied, steps skipped, micro-batch
    scalars: Tensor  # f32 (7): loss, gradient norm, clip scale, finite, learning rate, bias corrections
    schedule: Tensor  # f32 (steps, 4): learning rate, AdamW's two bias corrections
    ring: Tensor  # f32 (RING, 4): loss, gradient norm, learning rate, skipped
    loss_scale: Tensor | None = None  # f32 (1): what gradients are multiplied by, in mixed precision
    streak: Tensor | None = None  # u32 (1): good steps since the loss scale changed


def adamw(plan: Plan, pieces: Sequence[Piece], state: StepState, config: TrainConfig) -> None:
    """Append the optimiser's step: if a gradient or the loss is not finite, only the loss scale changes."""
    most = NORM_GROUPS_SOFTWARE if plan.tuning.software else NORM_GROUPS
    groups = [min(most, -(-piece.gradient.size // AT_ONCE)) for piece in pieces]
    squares = plan.activation("squares", (sum(groups),))
    slot = 0
    for piece, count in zip(pieces, groups, strict=True):
        plan.dispatch(
            "adamw.norm_partial",
            grid=(count, 1, 1),
            constants={"N": piece.gradient.size, "GROUPS": count, "SLOT": slot},
            gradient=piece.gradient,
            squares=squares,
        )
        slot += count
    plan.dispatch(
        "adamw.settle",
        grid=(1, 1, 1),
        constants={
            "SLOTS": slot,
            "CLIP": config.clip,
            "RING": state.ring.shape[0],
            "LOSS_SCALING": state.loss_scale is not None,
            "GROWTH": GROWTH,
        },
        all_squares=squares,
        scalars=state.scalars,
        schedule=state.schedule,
        counters=state.counters,
        ring=state.ring,
        loss_scale=state.loss_scale,
        streak=state.streak,
    )
    for piece in pieces:
        plan.dispatch(
            "adamw.update",
            grid=(-(-piece.parameter.size // AT_ONCE), 1, 1),
            constants={
                "N": piece.parameter.size,
                "DECAYED": piece.decayed,
                "BETA2": config.beta2,
                "MEAN_RATE": 1 - config.beta1,
                "VARIANCE_RATE": 1 - config.beta2,
                "EPSILON": config.epsilon,
                "DECAY": config.weight_decay,
                "COPY": piece.copy is not None,
            },
            gradient=piece.gradient,
            settled=state.scalars,
            parameter=piece.parameter,
            mean=piece.mean,
            variance=piece.variance,
            copy=piece.copy,
        )
