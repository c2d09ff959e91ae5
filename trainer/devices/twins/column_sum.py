"""Twin of shaders/column_sum.wgsl."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np


def partial(k: SimpleNamespace, x: np.ndarray, sums: np.ndarray) -> None:
    starts = np.arange(0, k.N, k.ROWS)
    rows = x[: k.N * k.C].reshape(k.N, k.C)
    sums[: len(starts) * k.C] = np.add.reduceat(rows, starts, axis=0).ravel()


def total(k: SimpleNamespace, parts: np.ndarray, out: np.ndarray) -> None:
    out[: k.C] = parts[: k.P * k.C].reshape(k.P, k.C).sum(axis=0) + (out[: k.C] if k.ADD else 0)
