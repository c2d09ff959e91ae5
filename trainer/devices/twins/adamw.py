"""Twin of shaders/adamw.wgsl."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

FLAW = -1


def norm_partial(k: SimpleNamespace, gradient: np.ndarray, squares: np.ndarray) -> None:
    stride = k.GROUPS * 4 * 256
    padded = np.zeros(-(-k.N // stride) * stride, gradient.dtype)
    padded[: k.N] = gradient[: k.N]
    of_group = padded.reshape(-1, k.GROUPS, 4 * 256)
    good = np.isfinite(of_group).all(axis=(0, 2))
    squares[k.SLOT : k.SLOT + k.GROUPS] = np.where(good, (of_group**2).sum(axis=(0, 2)), FLAW)


def settle(
    k: SimpleNamespace,
    all_squares: np.ndarray,
    scalars: np.ndarray,
    schedule: np.ndarray,
    counters: np.ndarray,
    ring: np.ndarray,
    loss_scale: np.ndarray,
    streak: np.ndarray,
) -> None:
    unscale = 1 / loss_scale[0] if k.LOSS_SCALING else 1.0
    squares, rows = all_squares[: k.SLOTS], schedule.reshape(-1, 4)
    norm = np.nan if (squares == FLAW).any() else np.sqrt(squares.sum()) * unscale
    good = bool(np.isfinite(norm) and np.isfinite(scalars[0]))
    step, updates = int(counters[0]), int(counters[1])
    clip = min(1.0, k.CLIP / (norm + 1e-6)) * unscale
    scalars[1:7] = norm, clip, good, rows[step, 0], rows[updates, 1], rows[updates, 2]
    ring.reshape(-1, 4)[step % k.RING] = scalars[0], norm, rows[step, 0], not good
    counters[0] += 1
    counters[1 if good else 2] += 1
    counters[3] = 0
    if k.LOSS_SCALING:
        enough = streak[0] + 1 == k.GROWTH
        if not good:
            loss_scale[0] = max(1.0, 0.5 * loss_scale[0])
        elif enough:
            loss_scale[0] *= 2
        streak[0] = 0 if enough or not good else streak[0] + 1


def update(
    k: SimpleNamespace,
    gradient: np.ndarray,
    settled: np.ndarray,
    parameter: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    copy: np.ndarray,
) -> None:
    if settled[3] == 0:
        return
    rate, correction1, correction2 = settled[4:7]
    g = gradient[: k.N] * settled[2]
    mean[: k.N] += k.MEAN_RATE * (g - mean[: k.N])
    variance[: k.N] = k.BETA2 * variance[: k.N] + k.VARIANCE_RATE * g * g
    step = mean[: k.N] * correction1 / (np.sqrt(variance[: k.N] * correction2) + k.EPSILON)
    decay = np.where(np.arange(k.N) < k.DECAYED, k.DECAY, 0.0)
    parameter[: k.N] -= rate * (decay * parameter[: k.N] + step)
    if k.COPY:
        copy[: k.DECAYED] = parameter[: k.DECAYED]
