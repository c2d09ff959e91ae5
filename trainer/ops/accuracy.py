"""Whether each target is what the model would have chosen."""

from __future__ import annotations

from trainer.plan import Plan, Tensor


def accuracy(plan: Plan, logits: Tensor, targets: Tensor, hits: Tensor, *, vocab: int) -> None:
    """hits (N, u32) = 1 where targets (N) has the largest of the first `vocab` logits (N, V), else 0.

    Of equal logits the first counts as the largest.
    """
    (N,), V = targets.shape, logits.shape[1]
    plan.dispatch(
        "accuracy.top_one",
        grid=(-(-N // 64), 1, 1),
        constants={"N": N, "V": vocab, "LD": V},
        logits=logits,
        targets=targets,
        hits=hits,
    )
