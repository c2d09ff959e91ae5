"""Twin of shaders/adamw.wgsl."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np


def norm_partial(k: SimpleNamespace, gradient: np.ndarray, squares: np.ndarray, flaws: np.ndarray) -> None:
    padded = np.zeros(-(-k.N // (k.GROUPS * 256)) * k.GROUPS * 256, gradient.dtype)
    padded[: k.N] = gradient[: k.N]
    of_group = padded.reshape(-1, k.GROUPS, 256)
    squares[k.SLOT : k.SLOT + k.GROUPS] = (of_group**2).sum(axis=(0, 2))
    flaws[k.SLOT : k.SLOT + k.GROUPS] = ~np.isfinite(of_group).all(axis=(0, 2))


def norm_total(
    k: SimpleNamespace,
    all_squares: np.ndarray,
    all_flaws: np.ndarray,
    scalars: np.ndarray,
    loss_scale: np.ndarray,
) -> None:
    unscale = 1 / loss_scale[0] if k.LOSS_SCALING else 1.0
    norm = np.sqrt(all_squares[: k.SLOTS].sum()) * unscale
    good = not all_flaws[: k.SLOTS].any() and np.isfinite(norm) and np.isfinite(scalars[0])
    scalars[1] = norm
    scalars[2] = min(1.0, k.CLIP / (norm + 1e-6)) * unscale
    scalars[3] = 1.0 if good else 0.0


def update(
    k: SimpleNamespace,
    gradient: np.ndarray,
    settled: np.ndarray,
    parameter: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    schedule: np.ndarray,
    counters: np.ndarray,
    copy: np.ndarray,
) -> None:
    if settled[3] == 0:
        return
    rows = schedule.reshape(-1, 4)
    rate = rows[counters[0], 0]
    correction1, correction2 = rows[counters[1], 1:3]
    g = gradient[: k.N] * settled[2]
    mean[: k.N] += k.MEAN_RATE * (g - mean[: k.N])
    variance[: k.N] = k.BETA2 * variance[: k.N] + k.VARIANCE_RATE * g * g
    step = mean[: k.N] * correction1 / (np.sqrt(variance[: k.N] * correction2) + k.EPSILON)
    parameter[: k.N] -= rate * (k.DECAY * parameter[: k.N] + step)
    if k.COPY:
        copy[: k.N] = parameter[: k.N]


def finish(
    k: SimpleNamespace,
    scalars: np.ndarray,
    schedule: np.ndarray,
    counts: np.ndarray,
    ring: np.ndarray,
    next_loss_scale: np.ndarray,
    streak: np.ndarray,
) -> None:
    step, good = int(counts[0]), scalars[3] != 0
    row = (scalars[0], scalars[1], schedule.reshape(-1, 4)[step, 0], 1 - scalars[3])
    ring.reshape(-1, 4)[step % k.RING] = row
    counts[0] += 1
    counts[1 if good else 2] += 1
    counts[3] = 0
    if k.LOSS_SCALING:
        enough = streak[0] + 1 == k.GROWTH
        if not good:
            next_loss_scale[0] = max(1.0, 0.5 * next_loss_scale[0])
        elif enough:
            next_loss_scale[0] *= 2
        streak[0] = 0 if enough or not good else streak[0] + 1
