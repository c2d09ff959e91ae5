"""Twin of shaders/sampling.wgsl, with sorting where the kernel halves the range of bits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from trainer.devices.twins.random import pcg4d


def choose(
    k: SimpleNamespace,
    logits: np.ndarray,
    settings: np.ndarray,
    choices: np.ndarray,
    cursor: np.ndarray,
    sequence: np.ndarray,
    probabilities: np.ndarray,
) -> None:
    x = logits[: k.V]
    weights = np.exp(x - x.max())
    token = int(x.argmax())
    if settings[0] > 0:
        kept = keep(np.exp((x - x.max()) / settings[0]), int(choices[1]), float(settings[1]))
        u = (int(pcg4d(choices[0], 0x64726177, cursor[1], 0)[0][0]) >> 8) / 2**24
        token = min(int(np.searchsorted(np.cumsum(kept), u * kept.sum(), side="right")), k.V - 1)
    at = int(cursor[0]) + 1
    sequence[at] = token
    probabilities[at] = weights[token] / weights.sum()
    cursor[0] = at
    cursor[1] += 1


def keep(weights: np.ndarray, top_k: int, top_p: float) -> np.ndarray:
    """`weights` with 0 for every token that top-k or, after it, top-p leaves out."""
    kept = weights.copy()
    if 0 < top_k < len(kept):
        kept[kept < np.sort(kept)[-top_k]] = 0
    if top_p < 1:
        ordered = np.sort(kept)[::-1]
        reached = np.searchsorted(np.cumsum(ordered), top_p * kept.sum())
        kept[kept < ordered[min(reached, len(ordered) - 1)]] = 0
    return kept
