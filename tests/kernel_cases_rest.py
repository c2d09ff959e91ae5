"""Embedding, optimiser, random numbers and sampling on odd shapes: 1, primes, and more than one workgroup."""

from __future__ import annotations

import numpy as np
from kernel_runs import poisoned
from kernel_table import case, groups, ints, normal, section, u32

from trainer.ops import adamw, cast, embedding
from trainer.plan import linear_grid

# ---------------------------------------------------------------- embedding
section(4)

for _B, _T, _C, _V in ((1, 1, 1, 1), (2, 7, 5, 11), (3, 64, 48, 100), (2, 37, 67, 1000), (3, 701, 2, 300)):
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
            linear_grid(_N),
            {"N": _N, "T": _T, **_part},
            {"tokens": _tokens, "token_table": _rows, "position_table": _positions},
            {"out": poisoned(_N * _C)},
        )
        case(
            "embedding.backward_tokens",
            f"{_label}-{_first}",
            linear_grid(-(-_N * _C // 256)),
            {"N": _N, **_part},
            {"tokens": _tokens, "chains": _links, "dout": _dout},
            {"dtoken_table": normal(_count, _C)},
            half=["dout"],
        )
    for _strips in (1, embedding.STRIPS):
        case(
            "embedding.chain",
            f"{_label}-{_strips}",
            groups(_N, embedding.POSITIONS),
            {"N": _N, "STRIPS": _strips},
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
            half=["dout"],
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
section(5)

for _N, _groups in ((4, 1), (1028, 1), (4000, 4), (270_004, 128)):
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
            {"squares": poisoned(_groups + 3)},
        )

for _slots, _flaw, _loss in ((1, 0, 2.5), (300, 0, 2.5), (300, 1, 2.5), (5, 0, np.inf), (5, 0, np.nan)):
    # In mixed precision: a loss scale that stays, one that grows with its fourth good step, one at its least
    for _clip, _scale, _streak in ((0.5, 0, 0), (1e9, 0, 0), (0.5, 8.0, 2), (0.5, 8.0, 3), (0.5, 1.0, 0)):
        _squares = max(_scale, 1.0) ** 2 * normal(_slots) ** 2
        _squares[_slots // 2] = -1 if _flaw else _squares[_slots // 2]
        case(
            "adamw.settle",
            f"{_slots}-{_flaw}-{_loss}-{_clip}" + (f"-{_scale}-{_streak}" if _scale else ""),
            (1, 1, 1),
            {"SLOTS": _slots, "CLIP": _clip, "RING": 4, "LOSS_SCALING": bool(_scale), "GROWTH": 4},
            {"all_squares": _squares.astype(np.float32), "schedule": np.abs(normal(10, 4)) + 0.01},
            {
                "scalars": np.array([_loss, *poisoned(6)], np.float32),
                "counters": u32(9, 7, 2, 5),
                "ring": poisoned(16),
                "loss_scale": np.array([_scale], np.float32) if _scale else None,
                "streak": u32(_streak) if _scale else None,
            },
        )

for _N, _decayed in ((4, 4), (260, 0), (1032, 300)):
    for _beta2, _decay, _copy in ((0.95, 0.1, False), (0.999, 0.3, True)):
        case(
            "adamw.update",
            f"{_N}-{_decay}" + ("-copy" if _copy else ""),
            groups(_N, adamw.AT_ONCE),
            {
                "N": _N,
                "DECAYED": _decayed,
                "MEAN_RATE": 1 - 0.9,
                "BETA2": _beta2,
                "VARIANCE_RATE": 1 - _beta2,
                "EPSILON": 1e-8,
                "DECAY": _decay,
                "COPY": _copy,
            },
            {
                "gradient": normal(_N),
                "settled": np.array([2.0, 3.0, 1 / 3, 1.0, 0.3, 1.2, 1.1], np.float32),
            },
            {
                "parameter": normal(_N),
                "mean": normal(_N),
                "variance": normal(_N) ** 2,
                "copy": poisoned(max(1, _decayed), np.float16) if _copy else None,
            },
        )

for _N in (1, 257, 1024, 2051):
    case(
        "cast.convert",
        f"{_N}",
        groups(_N, cast.AT_ONCE),
        {"N": _N},
        {"x": normal(_N)},
        {"out": poisoned(_N, np.float16)},
    )


# ---------------------------------------------------------------- random numbers and samples
section(6)

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

for _B, _T, _tokens_in_all in ((1, 1, 2), (5, 7, 1000), (3, 64, 65_537), (2, 16, 1_000_003)):
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

case("subgroups.meet", "64", (1, 1, 1), {}, {}, {"met": poisoned(512, np.uint32)})

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
