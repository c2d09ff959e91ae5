"""Numbers from a formula, for models whose weights are too large to be kept as fixtures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def uniform(first: int, count: int) -> np.ndarray:
    """Numbers from -1 to 1 for the indices from `first` on: float64 that float32 holds exactly.

    They are the upper 24 bits of a hash of the index (the finaliser of MurmurHash3).
    """
    h = np.arange(first, first + count, dtype=np.uint64)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ (h >> np.uint64(shift))) * np.uint64(factor) & np.uint64(0xFFFFFFFF)
    return (h >> np.uint64(8)).astype(np.float64) / 2**23 - 1


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """A float32 array of each shape: matrices within ±1/4, vectors too, and ±1/4 around 1 for LayerNorm's."""
    arrays, first = {}, 1
    for name in sorted(shapes):
        size = int(np.prod(shapes[name]))
        centre = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
        arrays[name] = (centre + uniform(first, size) / 4).astype(np.float32).reshape(shapes[name])
        first += size
    return arrays


def tokens(count: int, vocab: int) -> list[int]:
    """`count` tokens below `vocab`."""
    return ((uniform(10**9, count) + 1) / 2 * vocab).astype(int).tolist()
