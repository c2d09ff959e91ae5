"""Twin of shaders/decode.wgsl."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np


def forward_one(
    k: SimpleNamespace, row: np.ndarray, cache: np.ndarray, position: np.ndarray, out: np.ndarray
) -> None:
    C, at = k.NH * k.HS, int(position[0])
    table = cache[: cache.size // (3 * C) * 3 * C].reshape(-1, 3, C)
    table[at, 1:] = row[: 3 * C].reshape(3, C)[1:]
    keys, values = table[: at + 1, 1:].reshape(at + 1, 2, k.NH, k.HS).transpose(1, 2, 0, 3)  # (NH, t, HS)
    q = row[:C].reshape(k.NH, k.HS, 1)
    scores = (keys @ q)[..., 0] * k.SCALE
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    out[:C] = (weights[:, None] @ values).ravel()
