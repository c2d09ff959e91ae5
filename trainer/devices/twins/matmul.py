"""Twin of shaders/matmul.wgsl and its variants."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
from numpy.lib.stride_tricks import as_strided

SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


def gelu(x: np.ndarray) -> np.ndarray:
    """GELU by tanh, as GPT-2 has it (Hendrycks and Gimpel, arXiv 1606.08415)."""
    return 0.5 * x * (1 + np.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x**3)))


def gelu_backward(x: np.ndarray) -> np.ndarray:
    """The derivative of `gelu`."""
    t = np.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * SQRT_2_OVER_PI * (1 + 3 * 0.044715 * x * x)


def _matrix(flat: np.ndarray, rows: int, columns: int, stride: int) -> np.ndarray:
    return as_strided(flat, (rows, columns), (stride * flat.itemsize, flat.itemsize))


def multiply(
    k: SimpleNamespace,
    a: np.ndarray,
    b: np.ndarray,
    bias: np.ndarray,
    aux: np.ndarray,
    out: np.ndarray,
    extra: np.ndarray,
) -> None:
    left = _matrix(a, k.K, k.M, k.LDA).T if k.TRANSPOSE_A else _matrix(a, k.M, k.K, k.LDA)
    right = _matrix(b, k.N, k.K, k.LDB).T if k.TRANSPOSE_B else _matrix(b, k.K, k.N, k.LDB)
    for part, start in enumerate(range(k.PART, k.K, k.PART), 1):
        rows = slice(start, start + k.PART)
        _matrix(out[part * k.M * k.LDO :], k.M, k.N, k.LDO)[:] = left[:, rows] @ right[rows]
    s = left[:, : k.PART] @ right[: k.PART]  # the first part, or all: the one with an epilogue
    if k.BIAS:
        s = s + bias[: k.N]
    if k.GELU:
        _matrix(extra, k.M, k.N, k.LDO)[:] = s
        s = gelu(s)
    if k.GELU_BACKWARD:
        s = s * gelu_backward(_matrix(aux, k.M, k.N, k.LDO))
    if k.RESIDUAL:
        s = s + _matrix(aux, k.M, k.N, k.LDO)
    result = _matrix(out, k.M, k.N, k.LDO)
    result[:] = s + (result if k.ADD else 0)
