"""Twin of shaders/embedding.wgsl."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np


def _rows(k: SimpleNamespace, flat: np.ndarray) -> np.ndarray:
    """(rows, C): a view of the whole rows in `flat`."""
    return flat[: flat.size // k.C * k.C].reshape(-1, k.C)


def _in_part(k: SimpleNamespace, tokens: np.ndarray) -> np.ndarray:
    return (tokens >= k.FIRST) & (tokens.astype(np.int64) < k.FIRST + k.COUNT)


def forward(
    k: SimpleNamespace,
    tokens: np.ndarray,
    token_table: np.ndarray,
    position_table: np.ndarray,
    out: np.ndarray,
) -> None:
    here = _in_part(k, tokens[: k.N])
    rows = _rows(k, token_table)[tokens[: k.N][here] - k.FIRST]
    positions = _rows(k, position_table)[np.arange(k.N)[here] % k.T]
    _rows(k, out)[: k.N][here] = rows + positions


def forward_one(
    k: SimpleNamespace,
    tokens: np.ndarray,
    token_table: np.ndarray,
    position_table: np.ndarray,
    position: np.ndarray,
    out: np.ndarray,
) -> None:
    at = int(position[0])
    if _in_part(k, tokens[at : at + 1])[0]:
        row = int(tokens[at]) - k.FIRST
        out[: k.C] = _rows(k, token_table)[row] + _rows(k, position_table)[at]


def chain(k: SimpleNamespace, tokens: np.ndarray, links: np.ndarray) -> None:
    last: dict[int, int] = {}
    for i, token in enumerate(tokens[: k.N].tolist()):
        links[i] = k.N | (0 if token in last else 0x80000000)
        if token in last:
            before = last[token]
            links[before] = (int(links[before]) & 0x80000000) | i
        last[token] = i


def backward_tokens(
    k: SimpleNamespace, tokens: np.ndarray, chains: np.ndarray, dout: np.ndarray, dtoken_table: np.ndarray
) -> None:
    here = _in_part(k, tokens[: k.N])
    np.add.at(_rows(k, dtoken_table), tokens[: k.N][here] - k.FIRST, _rows(k, dout)[: k.N][here])


def backward_positions(k: SimpleNamespace, dout: np.ndarray, dposition_table: np.ndarray) -> None:
    total = dout[: k.N * k.C].reshape(-1, k.T * k.C).sum(axis=0)
    dposition_table[: k.T * k.C] = total + (dposition_table[: k.T * k.C] if k.ADD else 0)
