"""Twin of shaders/column_sum.wgsl."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np


def partial(k: SimpleNamespace, x: np.ndarray, sums: np.ndarray) -> None:
    starts = np.arange(0, k.N, k.ROWS)
    rows = x[: k.N * k.C].reshape(k.N, k.C)
    write_partials(k, sums, np.add.reduceat(rows, starts, axis=0))


def write_partials(k: SimpleNamespace, sums: np.ndarray, values: np.ndarray, first: int = 0) -> None:
    """Write `values` (P, C) to columns of `sums`, from `first` on, and 0 behind each row of them."""
    padded = np.pad(values, ((0, 0), (0, k.WIDTH - values.shape[1])))
    for p, row in enumerate(padded):
        sums[first + p * k.STRIDE :][: k.WIDTH] = row


def total(k: SimpleNamespace, parts: np.ndarray, out: np.ndarray) -> None:
    out[: k.C] = parts[: k.P * k.C].reshape(k.P, k.C).sum(axis=0) + (out[: k.C] if k.ADD else 0)
