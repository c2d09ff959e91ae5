"""Every kernel on odd shapes: 1, primes, sizes beside those of every tile, and the presets' own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from kernel_runs import Case, poisoned, variants_of

from trainer.kernels import Constant
from trainer.ops import attention, column_sum, cross_entropy, layernorm, matmul
from trainer.plan import Grid, linear_grid

CASES: list[Case] = []
_rng = np.random.default_rng(20240611)


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * _rng.standard_normal(shape)).astype(np.float32)


def ints(below: int, *shape: int) -> np.ndarray:
    return _rng.integers(0, below, shape, dtype=np.uint32)


def u32(*values: int) -> np.ndarray:
    return np.array(values, np.uint32)


def case(
    kernel: str,
    label: str,
    grid: Grid | Callable[[str], Grid],
    constants: Mapping[str, Constant],
    read: Mapping[str, np.ndarray | None],
    written: Mapping[str, np.ndarray | None],
    *,
    exact: bool = False,
    floor: float = 0.0,
    only: Callable[[str], bool] = lambda variant: True,
) -> None:
    by_variant = grid if callable(grid) else lambda variant: grid
    names = tuple(filter(only, variants_of(kernel)))
    CASES.append(Case(kernel, label, constants, read, written, by_variant, names, exact, floor))


def groups(threads: int, size: int = 64) -> Grid:
    return -(-threads // size), 1, 1


# ---------------------------------------------------------------- matmul

EPILOGUES = ("BIAS", "GELU", "GELU_BACKWARD", "RESIDUAL", "ADD")


def stored(rows: int, columns: int, stride: int) -> np.ndarray:
    """A matrix under a row stride; what lies between its rows is NaN, as nothing may read it."""
    matrix = np.full((rows, stride), np.nan, np.float32)
    matrix[:, :columns] = normal(rows, columns)
    return matrix.ravel()[: (rows - 1) * stride + columns]


def matmul_case(
    M: int, N: int, K: int, transposes: str, *epilogues: str, pads: tuple[int, int, int] = (0, 0, 0)
) -> None:
    """`transposes` has two of N and T, for a and b; `pads` widens the rows of a, b and out."""
    ta, tb = (letter == "T" for letter in transposes)
    lda, ldb, ldo = ((M if ta else K) + pads[0], (K if tb else N) + pads[1], N + pads[2])
    fits = matmul.fitting(M, N, K, lda, ldb, ldo, ta, tb)
    span = (M - 1) * ldo + N
    uses_aux = "GELU_BACKWARD" in epilogues or "RESIDUAL" in epilogues
    flags = {"TRANSPOSE_A": ta, "TRANSPOSE_B": tb} | {name: name in epilogues for name in EPILOGUES}
    case(
        "matmul.multiply",
        "-".join([transposes, f"{M}x{N}x{K}", *epilogues, *(["strided"] if any(pads) else [])]),
        lambda variant: matmul.grid(variant, M, N),
        {"M": M, "N": N, "K": K, "LDA": lda, "LDB": ldb, "LDO": ldo, **flags},
        {
            "a": stored(K, M, lda) if ta else stored(M, K, lda),
            "b": stored(N, K, ldb) if tb else stored(K, N, ldb),
            "bias": normal(N) if "BIAS" in epilogues else None,
            "aux": normal(span) if uses_aux else None,
        },
        {
            "out": normal(span) if "ADD" in epilogues else poisoned(span),
            "extra": poisoned(span) if "GELU" in epilogues else None,
        },
        only=lambda variant: fits.get(variant, True),
    )


for _transposes in ("NN", "NT", "TN"):
    for _size in (
        (1, 1, 1),
        (1, 13, 7),
        (17, 19, 5),
        (4, 4, 4),
        (68, 132, 36),
        (67 + (_transposes == "TN"), 12, 8),
    ):
        matmul_case(*_size, _transposes)
    matmul_case(36, 20, 16, _transposes, "ADD", pads=(8, 4, 12))
matmul_case(5, 3, 2, "TT")
matmul_case(64, 128, 16, "NN")  # one tile of the largest kind, exactly
matmul_case(64, 128, 17, "TN")
matmul_case(1, 144, 48, "NN", "BIAS")  # decoding with nano
matmul_case(130, 144, 48, "NN", "BIAS")  # nano's qkv
matmul_case(70, 192, 48, "NN", "BIAS", "GELU")
matmul_case(70, 48, 192, "NN", "BIAS", "RESIDUAL")
matmul_case(70, 192, 48, "NT", "GELU_BACKWARD")
matmul_case(48, 192, 521, "TN", "ADD")
matmul_case(70, 1024, 48, "NT")
matmul_case(9, 256, 768, "NT")
matmul_case(9, 768, 256, "NN", "BIAS", "GELU", "RESIDUAL", "ADD")
matmul_case(7, 5, 3, "NN", "BIAS", "GELU", "RESIDUAL", "ADD")
matmul_case(7, 5, 3, "NT", "GELU_BACKWARD", "ADD")
matmul_case(600, 260, 12, "NN")  # more rows of tiles than are grouped together


# ---------------------------------------------------------------- rows


def logits(rows: int, vocab: int, stride: int) -> np.ndarray:
    """With NaN in the padding, which may be written and not read."""
    values = np.full((rows, stride), np.nan, np.float32)
    values[:, :vocab] = normal(rows, vocab, scale=4.0)
    return values


for _N, _C in ((1, 1), (3, 5), (65, 48), (130, 67), (7, 384), (2, 768), (5, 1031)):
    _x = normal(_N, _C) + 3
    _weight, _bias, _dout = normal(_C), normal(_C), normal(_N, _C)
    case(
        "layernorm.forward",
        f"{_N}x{_C}",
        lambda variant, N=_N: layernorm.grid(variant, N),
        {"N": _N, "C": _C},
        {"x": _x, "weight": _weight, "bias": _bias},
        {"out": poisoned(_N * _C), "statistics": poisoned(2 * _N)},
    )
    _mean = _x.mean(axis=1, keepdims=True)
    _kept = np.concatenate([_mean, 1 / np.sqrt(_x.var(axis=1, keepdims=True) + 1e-5)], axis=1)
    for _add in (False, True) if _C > 1 else (False,):  # one channel has no gradient
        case(
            "layernorm.backward",
            f"{_N}x{_C}" + ("-add" if _add else ""),
            lambda variant, N=_N: layernorm.grid(variant, N),
            {"N": _N, "C": _C, "ADD": _add},
            {"x": _x, "weight": _weight, "kept": _kept, "dout": _dout},
            {"dx": normal(_N * _C) if _add else poisoned(_N * _C)},
        )
    _parts, _each = column_sum.parts(_N)
    case(
        "layernorm.backward_parameters",
        f"{_N}x{_C}",
        (-(-_C // 64), _parts, 1),
        {"N": _N, "C": _C, "ROWS": _each},
        {"x": _x, "kept": _kept, "dout": _dout},
        {"dweight": poisoned(_parts * _C), "dbias": poisoned(_parts * _C)},
    )

for _N, _C in ((1, 1), (7, 65), (130, 48), (2111, 67), (9, 2304)):
    _parts, _each = column_sum.parts(_N)
    case(
        "column_sum.partial",
        f"{_N}x{_C}",
        (-(-_C // 64), _parts, 1),
        {"N": _N, "C": _C, "ROWS": _each},
        {"x": normal(_N, _C)},
        {"sums": poisoned(_parts * _C)},
    )
    for _add in (False, True):
        case(
            "column_sum.total",
            f"{_parts}x{_C}" + ("-add" if _add else ""),
            groups(_C),
            {"P": _parts, "C": _C, "ADD": _add},
            {"parts": normal(_parts, _C)},
            {"out": normal(_C) if _add else poisoned(_C)},
        )

for _N, _V, _LD in (
    (1, 1, 64),
    (3, 5, 8),
    (65, 257, 320),
    (5, 1021, 1024),
    (70, 1024, 1024),
    (2, 50257, 50304),
):
    for _gradient in (False, True):
        case(
            "cross_entropy.forward_backward",
            f"{_N}x{_V}" + ("-gradient" if _gradient else ""),
            lambda variant, N=_N: cross_entropy.grid(variant, N),
            {"N": _N, "V": _V, "LD": _LD, "SCALE": 1 / (3 * _N), "GRADIENT": _gradient},
            {"targets": ints(_V, _N)},
            {"logits": logits(_N, _V, _LD), "losses": poisoned(_N)},
            only=lambda variant, LD=_LD: cross_entropy.fitting(LD).get(variant, True),
        )
for _N, _V, _LD in ((1, 1, 64), (70, 5, 8), (3, 1021, 1024)):
    _targets, _logits = ints(_V, _N), np.round(logits(_N, _V, _LD))  # rounded, so that some are equal
    _targets[::2] = np.nan_to_num(_logits, nan=-np.inf).argmax(axis=1)[::2]
    case(
        "accuracy.top_one",
        f"{_N}x{_V}",
        groups(_N),
        {"N": _N, "V": _V, "LD": _LD},
        {"logits": _logits, "targets": _targets},
        {"hits": poisoned(_N, np.uint32)},
    )
for _N in (1, 255, 521):
    for _batch in (0, 3):
        case(
            "cross_entropy.mean",
            f"{_N}-{_batch}",
            (1, 1, 1),
            {"N": _N, "SCALE": 1 / _N},
            {"row_losses": np.abs(normal(_N))},
            {"scalars": normal(4), "counters": u32(7, 6, 1, _batch)},
        )


# ---------------------------------------------------------------- attention

ATTENTION = [(1, 1, 1, 1), (2, 7, 3, 5), (1, 64, 2, 4), (2, 65, 3, 16), (1, 131, 2, 32), (1, 70, 1, 64)]
ATTENTION += [(2, 70, 1, 128)]

for _shape in ATTENTION:
    _B, _T, _NH, _HS = _shape
    _rows, _C = _B * _T * _NH, _NH * _HS
    # scores with a deviation of 4, so that the running maximum keeps moving
    _qkv, _dout = normal(_B * _T, 3 * _C, scale=2.0), normal(_B * _T, _C)
    _heads = _qkv.reshape(_B, _T, 3, _NH, _HS).transpose(2, 0, 3, 1, 4).astype(np.float64)
    _scores = _heads[0] @ _heads[1].swapaxes(-1, -2) * _HS**-0.5
    _scores = np.where(np.triu(np.ones((_T, _T), bool), 1), -np.inf, _scores)
    _weights = np.exp(_scores - _scores.max(axis=-1, keepdims=True))
    _lse = _scores.max(axis=-1) + np.log(_weights.sum(axis=-1))
    _out = (_weights / _weights.sum(axis=-1, keepdims=True)) @ _heads[2]
    _delta = (_out * _dout.reshape(_B, _T, _NH, _HS).transpose(0, 2, 1, 3)).sum(axis=-1)
    _constants = {"B": _B, "T": _T, "NH": _NH, "HS": _HS, "SCALE": _HS**-0.5}
    _label = "x".join(map(str, _shape))

    def _grid(variant: str, shape: tuple[int, int, int] = _shape[:3]) -> Grid:
        return attention.grid(variant, shape)

    def _backward(variant: str, head_size: int = _HS) -> bool:
        return variant == "attention" or head_size < 128  # a software renderer compiles those for a minute

    case(
        "attention.forward",
        _label,
        _grid,
        _constants,
        {"qkv": _qkv},
        {"out": poisoned(_rows * _HS), "lse": poisoned(_rows)},
    )
    case(
        "attention.backward_delta",
        _label,
        _grid,
        _constants,
        {"result": _out.transpose(0, 2, 1, 3).astype(np.float32), "dout": _dout},
        {"delta": poisoned(_rows)},
    )
    for _entry in ("backward_query", "backward_key_value"):
        case(
            f"attention.{_entry}",
            _label,
            _grid,
            _constants,
            {
                "qkv": _qkv,
                "kept": _lse.astype(np.float32),
                "dout": _dout,
                "deltas": _delta.astype(np.float32),
            },
            {"dqkv": poisoned(3 * _rows * _HS)},
            only=_backward,
            floor=1e-6,  # of the terms that cancel
        )

for _NH, _HS, _at in ((1, 1, 0), (3, 16, 1), (2, 5, 255), (1, 128, 256), (2, 64, 523)):
    _row, _cache = normal(3 * _NH * _HS), normal(_at + 3, 3 * _NH * _HS)
    _cache[_at:] = np.nan  # nothing behind the newest token is there yet
    case(
        "decode.forward_one",
        f"{_NH}x{_HS}-{_at}",
        (_NH, 1, 1),
        {"NH": _NH, "HS": _HS, "SCALE": _HS**-0.5},
        {"row": _row, "position": u32(_at)},
        {"cache": _cache, "out": poisoned(_NH * _HS)},
    )


# ---------------------------------------------------------------- embedding

for _B, _T, _C, _V in ((1, 1, 1, 1), (2, 7, 5, 11), (3, 64, 48, 100), (2, 37, 67, 1000)):
    _N = _B * _T
    _label, _tokens = f"{_B}x{_T}x{_C}", ints(_V, _N)
    _table, _positions, _dout = normal(_V, _C), normal(_T, _C), normal(_N, _C)
    _links = u32(*[_N] * _N)
    _seen: dict[int, int] = {}
    for _i, _token in enumerate(_tokens.tolist()):
        if _token in _seen:
            _links[_seen[_token]] = (_links[_seen[_token]] & 0x80000000) | _i
        else:
            _links[_i] |= 0x80000000
        _seen[_token] = _i
    for _first, _count in {(0, _V), (_V // 3, -(-_V // 2))}:
        _part = {"C": _C, "FIRST": _first, "COUNT": _count}
        _rows = _table[_first : _first + _count]
        case(
            "embedding.forward",
            f"{_label}-{_first}",
            linear_grid(-(-_N * _C // 64)),
            {"N": _N, "T": _T, **_part},
            {"tokens": _tokens, "token_table": _rows, "position_table": _positions},
            {"out": poisoned(_N * _C)},
        )
        case(
            "embedding.backward_tokens",
            f"{_label}-{_first}",
            linear_grid(-(-_N * _C // 64)),
            {"N": _N, **_part},
            {"tokens": _tokens, "chains": _links, "dout": _dout},
            {"dtoken_table": normal(_count, _C)},
        )
    case(
        "embedding.chain",
        _label,
        groups(_N),
        {"N": _N},
        {"tokens": _tokens},
        {"links": poisoned(_N, np.uint32)},
    )
    for _add in (False, True):
        case(
            "embedding.backward_positions",
            _label + ("-add" if _add else ""),
            linear_grid(-(-_T * _C // 64)),
            {"N": _N, "T": _T, "C": _C, "ADD": _add},
            {"dout": _dout},
            {"dposition_table": normal(_T * _C) if _add else poisoned(_T * _C)},
        )
    _at = _T - 1
    _half = int(_tokens[_at]) // 2
    case(
        "embedding.forward_one",
        _label,
        groups(_C),
        {"C": _C, "FIRST": _half, "COUNT": _V - _half},
        {
            "tokens": _tokens,
            "token_table": _table[_half:],
            "position_table": _positions,
            "position": u32(_at),
        },
        {"out": poisoned(_C)},
    )


# ---------------------------------------------------------------- optimiser

for _N, _groups in ((1, 1), (257, 1), (1000, 4), (70001, 128)):
    _bad = normal(_N)
    _bad[_N // 2] = np.inf
    for _gradient, _label in (
        (normal(_N), ""),
        (_bad, "-inf"),
        (np.where(_bad == np.inf, np.nan, _bad), "-nan"),
    ):
        case(
            "adamw.norm_partial",
            f"{_N}{_label}",
            (_groups, 1, 1),
            {"N": _N, "GROUPS": _groups, "SLOT": 3},
            {"gradient": _gradient},
            {"squares": poisoned(_groups + 3), "flaws": poisoned(_groups + 3, np.uint32)},
        )

for _slots, _flaw, _loss in ((1, 0, 2.5), (300, 0, 2.5), (300, 1, 2.5), (5, 0, np.inf), (5, 0, np.nan)):
    _flaws = np.zeros(_slots, np.uint32)
    _flaws[-1] = _flaw
    for _clip in (0.5, 1e9):
        case(
            "adamw.norm_total",
            f"{_slots}-{_flaw}-{_loss}-{_clip}",
            (1, 1, 1),
            {"SLOTS": _slots, "CLIP": _clip},
            {"all_squares": normal(_slots) ** 2, "all_flaws": _flaws},
            {"scalars": np.array([_loss, *poisoned(3)], np.float32)},
        )

for _N in (1, 257, 1031):
    for _beta1, _beta2, _decay in ((0.9, 0.95, 0.1), (0.9, 0.999, 0.0)):
        case(
            "adamw.update",
            f"{_N}-{_decay}",
            linear_grid(-(-_N // 256)),
            {
                "N": _N,
                "MEAN_RATE": 1 - _beta1,
                "BETA2": _beta2,
                "VARIANCE_RATE": 1 - _beta2,
                "EPSILON": 1e-8,
                "DECAY": _decay,
            },
            {
                "gradient": normal(_N),
                "settled": np.array([2.0, 3.0, 1 / 3, 1.0], np.float32),
                "schedule": np.abs(normal(5, 4)) + 0.01,
                "counters": u32(3, 2, 1, 0),
            },
            {"parameter": normal(_N), "mean": normal(_N), "variance": normal(_N) ** 2},
        )

for _step, _good in ((0, 1.0), (9, 0.0)):
    case(
        "adamw.finish",
        f"{_step}",
        (1, 1, 1),
        {"RING": 4},
        {"scalars": np.array([2.5, 0.7, 1.0, _good], np.float32), "schedule": normal(10, 4)},
        {"counts": u32(_step, _step, 0, 5), "ring": poisoned(16)},
    )


# ---------------------------------------------------------------- random numbers and samples

for _N, _first in ((1, 0), (65, 7), (1031, 2**31)):
    case(
        "random.normal",
        f"{_N}-{_first}",
        linear_grid(-(-_N // 64)),
        {"N": _N, "STD": 0.02 / 3, "SEED": 4_000_000_001, "STREAM": 5, "FIRST": _first},
        {},
        {"out": poisoned(_N)},
        exact=True,
    )
    _fill = {"N": _N, "VALUE": 1 / 3}
    case("random.fill", f"{_N}", linear_grid(-(-_N // 64)), _fill, {}, {"out": poisoned(_N)}, exact=True)

for _B, _T, _tokens_in_all in ((1, 1, 2), (5, 7, 1000), (3, 64, 65_537)):
    _starts = _tokens_in_all - _T
    for _first, _count in {(0, _starts), (_starts // 4, -(-_starts // 2))}:
        case(
            "random.windows",
            f"{_B}x{_T}-{_first}",
            groups(_B * _T),
            {"B": _B, "T": _T, "SEED": 99, "STARTS": _starts, "FIRST": _first, "COUNT": _count},
            {"tokens": ints(2**32 - 1, -(-(_count + _T) // 2)), "counters": u32(12, 11, 1, 3)},
            {"inputs": poisoned(_B * _T, np.uint32), "targets": poisoned(_B * _T, np.uint32)},
        )

for _V, _settings, _top_k in (
    (1, (0.0, 1.0), 0),
    (257, (0.0, 1.0), 0),
    (1021, (0.8, 0.9), 40),
    (70, (1.0, 1.0), 3),
):
    case(
        "sampling.choose",
        f"{_V}-{_settings[0]}",
        (1, 1, 1),
        {"V": _V},
        {
            "logits": normal(_V, scale=2.0),
            "settings": np.array(_settings, np.float32),
            "choices": u32(1234, _top_k),
        },
        {"cursor": u32(4, 17), "sequence": ints(_V, 9), "probabilities": poisoned(9)},
    )
