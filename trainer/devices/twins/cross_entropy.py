"""Twin of shaders/cross_entropy.wgsl."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np


def forward_backward(
    k: SimpleNamespace, logits: np.ndarray, targets: np.ndarray, losses: np.ndarray, loss_scale: np.ndarray
) -> None:
    rows = logits[: k.N * k.LD].reshape(k.N, k.LD)
    values = rows[:, : k.V]
    largest = values.max(axis=1, keepdims=True)
    weights = np.exp(values - largest)
    total = weights.sum(axis=1, keepdims=True)
    picked = (np.arange(k.N), targets[: k.N])
    losses[: k.N] = np.log(total[:, 0]) - (values[picked] - largest[:, 0])
    if k.GRADIENT:
        gradient = weights / total
        gradient[picked] -= 1
        rows[:, : k.V] = gradient * (k.SCALE * loss_scale[0] if k.LOSS_SCALING else k.SCALE)
        rows[:, k.V :] = 0


def mean(k: SimpleNamespace, row_losses: np.ndarray, scalars: np.ndarray, counters: np.ndarray) -> None:
    scalars[0] = row_losses[: k.N].sum() * k.SCALE + (scalars[0] if counters[3] else 0)
    counters[3] += 1
