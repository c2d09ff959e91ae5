"""Twin of shaders/accuracy.wgsl."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np


def top_one(k: SimpleNamespace, logits: np.ndarray, targets: np.ndarray, hits: np.ndarray) -> None:
    rows = logits[: k.N * k.LD].reshape(k.N, k.LD)
    hits[: k.N] = rows[:, : k.V].argmax(axis=1) == targets[: k.N]
