"""Twin of shaders/random.wgsl."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np


def pcg4d(*words: int | np.ndarray) -> list[np.ndarray]:
    """The hash of Jarzynski and Olano, on four u32 or arrays of u32 that broadcast."""
    with np.errstate(over="ignore"):
        v = [np.atleast_1d(np.asarray(a, np.uint32)) * np.uint32(1664525) for a in words]
        v = [a + np.uint32(1013904223) for a in np.broadcast_arrays(*v)]
        _mix(v)
        v = [a ^ (a >> np.uint32(16)) for a in v]
        _mix(v)
    return v


def _mix(v: list[np.ndarray]) -> None:
    v[0] += v[1] * v[3]
    v[1] += v[2] * v[0]
    v[2] += v[0] * v[1]
    v[3] += v[1] * v[2]


def normal(k: SimpleNamespace, out: np.ndarray) -> None:
    i = np.arange(k.FIRST, k.FIRST + k.N, dtype=np.uint32)
    first, second = pcg4d(k.SEED, k.STREAM, i, 0), pcg4d(k.SEED, k.STREAM, i, 1)
    total = sum((a & 0xFFFF) + (a >> 16) for a in first) + sum(a & 0xFFFF for a in second)
    scale = np.float32(k.STD) / np.float32(65536)
    out[: k.N] = (np.asarray(total, np.float32) - np.float32(393210)) * scale


def fill(k: SimpleNamespace, out: np.ndarray) -> None:
    out[: k.N] = k.VALUE


def windows(
    k: SimpleNamespace, tokens: np.ndarray, counters: np.ndarray, inputs: np.ndarray, targets: np.ndarray
) -> None:
    rows = counters[3] * np.uint32(k.B) + np.arange(k.B, dtype=np.uint32)
    hashed = pcg4d(k.SEED, 0x77696E64, counters[0], rows)[0]
    starts = (hashed.astype(np.uint64) * np.uint64(k.STARTS)) >> np.uint64(32)
    unpacked = np.stack([tokens & 0xFFFF, tokens >> 16], axis=1).ravel()
    for b, start in enumerate(starts.astype(np.int64)):
        at = start - k.FIRST
        if 0 <= at < k.COUNT:
            inputs[b * k.T : (b + 1) * k.T] = unpacked[at : at + k.T]
            targets[b * k.T : (b + 1) * k.T] = unpacked[at + 1 : at + k.T + 1]
