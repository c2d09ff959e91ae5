"""Twin of shaders/layernorm.wgsl."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from trainer.devices.twins import column_sum
from trainer.devices.twins.column_sum import write_partials

EPSILON = 1e-5


def forward(
    k: SimpleNamespace,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    out: np.ndarray,
    statistics: np.ndarray,
) -> None:
    x = x[: k.N * k.C].reshape(k.N, k.C)
    mean = x.mean(axis=1, keepdims=True)
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(axis=1, keepdims=True) + EPSILON)
    out[: k.N * k.C] = ((x - mean) * rstd * weight[: k.C] + bias[: k.C]).ravel()
    statistics[: 2 * k.N] = np.concatenate([mean, rstd], axis=1).ravel()


def _normalized(k: SimpleNamespace, x: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, rstd = kept[: 2 * k.N].reshape(k.N, 2, 1).transpose(1, 0, 2)
    return (x[: k.N * k.C].reshape(k.N, k.C) - mean) * rstd, rstd


def backward(
    k: SimpleNamespace,
    x: np.ndarray,
    weight: np.ndarray,
    kept: np.ndarray,
    dout: np.ndarray,
    dx: np.ndarray,
) -> None:
    normalized, rstd = _normalized(k, x, kept)
    g = dout[: k.N * k.C].reshape(k.N, k.C) * weight[: k.C]
    mean_g = g.mean(axis=1, keepdims=True)
    mean_gx = (g * normalized).mean(axis=1, keepdims=True)
    d = (rstd * (g - mean_g - normalized * mean_gx)).ravel()
    dx[: k.N * k.C] = d + (dx[: k.N * k.C] if k.ADD else 0)


def backward_parameters(
    k: SimpleNamespace,
    x: np.ndarray,
    kept: np.ndarray,
    dout: np.ndarray,
    sums: np.ndarray,
) -> None:
    normalized, _ = _normalized(k, x, kept)
    d = dout[: k.N * k.C].reshape(k.N, k.C)
    starts = np.arange(0, k.N, k.ROWS)
    write_partials(k, sums, np.add.reduceat(d * normalized, starts, axis=0), k.WEIGHT)
    write_partials(k, sums, np.add.reduceat(d, starts, axis=0), k.BIAS)


def backward_fused(
    k: SimpleNamespace,
    x: np.ndarray,
    weight: np.ndarray,
    kept: np.ndarray,
    dout: np.ndarray,
    dx: np.ndarray,
    sums: np.ndarray,
) -> None:
    backward(k, x, weight, kept, dout, dx)
    backward_parameters(k, x, kept, dout, sums)
    if k.SUM_DX:
        column_sum.partial(k, dx, sums)
