"""Twin of shaders/attention.wgsl and its variants."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from trainer.devices.twins.column_sum import write_partials
from trainer.ops.attention import ROWS, TILE


def _heads(k: SimpleNamespace, flat: np.ndarray, parts: int) -> np.ndarray:
    """(parts, B, NH, T, HS) from a flat (B, T, parts·C): a view."""
    shape = (k.B, k.T, parts, k.NH, k.HS)
    return flat[: int(np.prod(shape))].reshape(shape).transpose(2, 0, 3, 1, 4)


def _scores(k: SimpleNamespace, qkv: np.ndarray) -> np.ndarray:
    """(B, NH, T, T), minus infinity above the diagonal."""
    q, key, _ = _heads(k, qkv, 3)
    future = np.triu(np.ones((k.T, k.T), bool), 1)
    return np.where(future, -np.inf, q @ key.swapaxes(-1, -2) * k.SCALE)


def forward(k: SimpleNamespace, qkv: np.ndarray, out: np.ndarray, lse: np.ndarray) -> None:
    scores = _scores(k, qkv)
    largest = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - largest)
    total = weights.sum(axis=-1, keepdims=True)
    _heads(k, out, 1)[0] = (weights / total) @ _heads(k, qkv, 3)[2]
    lse[: k.B * k.NH * k.T] = (largest + np.log(total)).ravel()


def _gradients(
    k: SimpleNamespace, qkv: np.ndarray, kept: np.ndarray, dout: np.ndarray, deltas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """P and dS, both (B, NH, T, T)."""
    rows = (k.B, k.NH, k.T, 1)
    p = np.exp(_scores(k, qkv) - kept[: k.B * k.NH * k.T].reshape(rows))
    dp = _heads(k, dout, 1)[0] @ _heads(k, qkv, 3)[2].swapaxes(-1, -2)
    return p, p * (dp - deltas[: k.B * k.NH * k.T].reshape(rows))


def backward_query(
    k: SimpleNamespace,
    qkv: np.ndarray,
    result: np.ndarray,
    kept: np.ndarray,
    dout: np.ndarray,
    delta: np.ndarray,
    dqkv: np.ndarray,
) -> None:
    own = (_heads(k, result, 1) * _heads(k, dout, 1)).sum(axis=-1).ravel()
    delta[: own.size] = own
    _, ds = _gradients(k, qkv, kept, dout, own)
    _heads(k, dqkv, 3)[0] = k.SCALE * ds @ _heads(k, qkv, 3)[1]


def backward_key_value(
    k: SimpleNamespace,
    qkv: np.ndarray,
    kept: np.ndarray,
    dout: np.ndarray,
    deltas: np.ndarray,
    dqkv: np.ndarray,
) -> None:
    p, ds = _gradients(k, qkv, kept, dout, deltas)
    gradient = _heads(k, dqkv, 3)
    gradient[1] = k.SCALE * ds.swapaxes(-1, -2) @ _heads(k, qkv, 3)[0]
    gradient[2] = p.swapaxes(-1, -2) @ _heads(k, dout, 1)[0]


def backward(
    k: SimpleNamespace,
    qkv: np.ndarray,
    result: np.ndarray,
    kept: np.ndarray,
    dout: np.ndarray,
    delta: np.ndarray,
    dqkv: np.ndarray,
    sums: np.ndarray,
) -> None:
    own = np.empty(k.B * k.NH * k.T, delta.dtype)
    backward_query(k, qkv, result, kept, dout, own, dqkv)
    backward_key_value(k, qkv, kept, dout, own, dqkv)
    blocks, rows = -(-k.T // ROWS), own.reshape(-1, k.T)
    shape = (blocks, len(rows), TILE)
    for block, of_block in enumerate(delta[: int(np.prod(shape))].reshape(shape)):  # of keys
        first = block * ROWS + (k.T - 1 - block * ROWS) // TILE * TILE  # of its last tile of queries
        of_block[:] = rows[:, np.minimum(first + np.arange(TILE), k.T - 1)]
    if k.SUM_ROWS:
        N, columns = k.B * k.T, 3 * k.NH * k.HS
        write_partials(k, sums, dqkv[: N * columns].reshape(-1, k.PART, columns).sum(axis=1))
