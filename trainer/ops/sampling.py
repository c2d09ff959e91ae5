"""The choice of the next token, on the GPU."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.plan import Plan, Tensor


@dataclass(frozen=True)
class Sampler:
    """What generation keeps on the GPU; see shaders/sampling.wgsl for the meaning of each element."""

    settings: Tensor  # f32 (2): temperature, top-p
    choices: Tensor  # u32 (2): seed, top-k
    cursor: Tensor  # u32 (2): position of the newest token, draws so far
    sequence: Tensor  # u32 (T + 1): tokens
    probabilities: Tensor  # f32 (T + 1): the model's own probability of each generated token
    logits: Tensor  # f32 (1, V rounded up to 64): of the newest token's choice


def choose(plan: Plan, vocab: int, sampler: Sampler) -> None:
    """Append the choice of a token from the sampler's logits to the sequence."""
    plan.dispatch(
        "sampling.choose",
        grid=(1, 1, 1),
        constants={"V": vocab},
        logits=sampler.logits,
        settings=sampler.settings,
        choices=sampler.choices,
        cursor=sampler.cursor,
        sequence=sampler.sequence,
        probabilities=sampler.probabilities,
    )
