"""Rows and attention on odd shapes: 1, primes, sizes beside those of every tile, and presets'."""

from __future__ import annotations

import numpy as np
from kernel_runs import poisoned
from kernel_table import case, groups, ints, normal, section, u32

from trainer.kernels import Constant, MatrixUnits
from trainer.ops import attention, column_sum, cross_entropy, layernorm
from trainer.plan import Grid

# ---------------------------------------------------------------- rows
section(20)


def logits(rows: int, vocab: int, stride: int) -> np.ndarray:
    """With NaN in the padding, which may be written and not read."""
    values = np.full((rows, stride), np.nan, np.float32)
    values[:, :vocab] = normal(rows, vocab, scale=4.0)
    return values


for _N, _C in ((1, 1), (3, 5), (65, 48), (130, 67), (7, 384), (131, 768), (5, 1031), (2111, 132)):
    _x = normal(_N, _C) + 3
    _weight, _bias, _dout = normal(_C), normal(_C), normal(_N, _C)
    _own = layernorm.own_constants("layernorm_rows", _C)

    def _fitting(variant: str, C: int = _C) -> bool:
        return layernorm.fitting(C).get(variant, True)

    case(
        "layernorm.forward",
        f"{_N}x{_C}",
        lambda variant, N=_N, C=_C: layernorm.grid(variant, N, C),
        {"N": _N, "C": _C, **_own},
        {"x": _x, "weight": _weight, "bias": _bias},
        {"out": poisoned(_N * _C), "statistics": poisoned(2 * _N)},
        only=_fitting,
        half=["out"],
    )
    _mean = _x.mean(axis=1, keepdims=True)
    _kept = np.concatenate([_mean, 1 / np.sqrt(_x.var(axis=1, keepdims=True) + 1e-5)], axis=1)
    _parts, _each = column_sum.parts(_N)
    for _add in (False, True) if _C > 1 else (False,):  # one channel has no gradient
        case(
            "layernorm.backward",
            f"{_N}x{_C}" + ("-add" if _add else ""),
            groups(_N),
            {"N": _N, "C": _C, "ADD": _add},
            {"x": _x, "weight": _weight, "kept": _kept, "dout": _dout},
            {"dx": normal(_N * _C) if _add else poisoned(_N * _C)},
            # The gradient of one channel is a difference of equals: a fused multiply-add leaves its rounding.
            floor=float(2.0**-23 * np.abs(_dout * _weight).max() * _kept[:, 1].max()) if _C == 1 else 0.0,
            half=["dout", "dx"],
        )
    _fused = _fitting("layernorm_rows")  # the only one that has it
    _begun = normal(_N * _C) if _fused else None
    for _width, _apart, _stride in ((_C, _C, 2 * _C), (_C + 5, _C + 70, 2 * _C + 100)):
        for _third in (False, True):  # a vector in front of the two, whose sums are dx's
            _first = _apart if _third else 0
            _row = _stride + _first
            _at = {"WEIGHT": _first, "BIAS": _first + _apart}
            _sums = {"ROWS": _each, "STRIDE": _row, "WIDTH": _width, **_at}
            _held = poisoned((_parts - 1) * _row + _at["BIAS"] + _width)
            case(
                "layernorm.backward_parameters",
                f"{_N}x{_C}-{_row}-from-{_first}",
                (-(-_width // 64), _parts, 1),
                {"N": _N, "C": _C, **_sums},
                {"x": _x, "kept": _kept, "dout": _dout},
                {"sums": _held},
                half=["dout"],
            )
            for _add in (False, True) if _fused else ():
                case(
                    "layernorm.backward_fused",
                    f"{_N}x{_C}-{_row}" + ("-sum" if _third else "") + ("-add" if _add else ""),
                    (1, _parts, 1),
                    {"N": _N, "C": _C, "ADD": _add, "SUM_DX": _third, **_own, **_sums},
                    {"x": _x, "weight": _weight, "kept": _kept, "dout": _dout},
                    {"dx": _begun if _add else poisoned(_N * _C), "sums": _held},
                    half=["dout", "dx"],
                )

for _N, _C in ((1, 1), (7, 65), (130, 48), (2111, 67), (9, 2304)):
    _parts, _each = column_sum.parts(_N)
    for _width, _stride in ((_C, _C), (_C + 5, _C + 70)):
        case(
            "column_sum.partial",
            f"{_N}x{_C}-{_stride}",
            (-(-_width // 64), _parts, 1),
            {"N": _N, "C": _C, "ROWS": _each, "STRIDE": _stride, "WIDTH": _width},
            {"x": normal(_N, _C)},
            {"sums": poisoned((_parts - 1) * _stride + _width)},
            half=["x"],
        )
    for _add in (False, True):
        case(
            "column_sum.total",
            f"{_parts}x{_C}" + ("-add" if _add else ""),
            groups(_C, column_sum.TOTALS),
            {"P": _parts, "C": _C, "ADD": _add},
            {"parts": normal(_parts, _C)},
            {"out": normal(_C) if _add else poisoned(_C)},
            half=["out"],
        )

for _N, _V, _LD in (
    (1, 1, 64),
    (3, 5, 8),
    (65, 257, 320),
    (5, 1021, 1024),
    (70, 1024, 1024),
    (3, 10_300, 10_304),
    (2, 50257, 50304),
    (1, cross_entropy.MOST_HELD, cross_entropy.MOST_HELD),
    (1, 60_001, 60_032),  # more than one workgroup's threads have registers for
):
    for _gradient, _scaling in ((False, False), (True, False), (True, True)):
        case(
            "cross_entropy.forward_backward",
            f"{_N}x{_V}" + ("-gradient" if _gradient else "") + ("-scaled" if _scaling else ""),
            lambda variant, N=_N: cross_entropy.grid(variant, N),
            {
                "N": _N,
                "V": _V,
                "LD": _LD,
                "SCALE": 1 / (3 * _N),
                "GRADIENT": _gradient,
                "LOSS_SCALING": _scaling,
            },
            {
                "targets": ints(_V, _N),
                "loss_scale": np.array([1024.0], np.float32) if _scaling else None,
            },
            {"logits": logits(_N, _V, _LD), "losses": poisoned(_N)},
            only=lambda variant, LD=_LD: cross_entropy.fitting(LD).get(variant, True),
            half=["logits"] if _scaling or not _gradient else [],
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
section(3)

ATTENTION = [(1, 1, 1, 1), (2, 7, 3, 5), (1, 64, 2, 4), (2, 65, 3, 16), (1, 131, 2, 32), (1, 70, 1, 64)]
ATTENTION += [(2, 70, 1, 128), (1, 150, 2, 48), (1, 129, 1, 64), (1, 67, 3, 20)]
ATTENTION += [(2, 128, 3, 20)]
STEEP = [(1, 131, 2, 32), (1, 129, 1, 64)]

for _shape, _scale in [(shape, 2.0) for shape in ATTENTION] + [(shape, 5.0) for shape in STEEP]:
    _B, _T, _NH, _HS = _shape
    _rows, _C = _B * _T * _NH, _NH * _HS
    # scores with a deviation of 4, so that the running maximum keeps moving; of 25, so that it moves far
    _qkv, _dout = normal(_B * _T, 3 * _C, scale=_scale), normal(_B * _T, _C)
    _heads = _qkv.reshape(_B, _T, 3, _NH, _HS).transpose(2, 0, 3, 1, 4).astype(np.float64)
    _scores = _heads[0] @ _heads[1].swapaxes(-1, -2) * _HS**-0.5
    _scores = np.where(np.triu(np.ones((_T, _T), bool), 1), -np.inf, _scores)
    _weights = np.exp(_scores - _scores.max(axis=-1, keepdims=True))
    _lse = _scores.max(axis=-1) + np.log(_weights.sum(axis=-1))
    _out = (_weights / _weights.sum(axis=-1, keepdims=True)) @ _heads[2]
    _delta = (_out * _dout.reshape(_B, _T, _NH, _HS).transpose(0, 2, 1, 3)).sum(axis=-1)
    _constants = {"B": _B, "T": _T, "NH": _NH, "HS": _HS, "SCALE": _HS**-0.5}
    _label = "x".join(map(str, _shape)) + ("-steep" if _scale > 2 else "")

    def _fits(variant: str, units: MatrixUnits, shape: tuple[int, int, int, int] = _shape) -> bool:
        return attention.fitting(shape[1], shape[3], units, half=True).get(variant, True)

    def _grid(variant: str, shape: tuple[int, int, int] = _shape[:3]) -> Grid:
        return attention.grid(variant, shape, MatrixUnits())

    def _on_units(
        units: MatrixUnits, shape: tuple[int, int, int] = _shape[:3]
    ) -> tuple[Grid, dict[str, Constant]]:
        variant = "attention_units"
        return attention.grid(variant, shape, units), attention.own_constants(variant, units)

    def _backward(variant: str, head_size: int = _HS) -> bool:
        return variant == "attention" or head_size < 128  # a software renderer compiles those for a minute

    case(
        "attention.forward",
        _label,
        _grid,
        _constants,
        {"qkv": _qkv},
        {"out": poisoned(_rows * _HS), "lse": poisoned(_rows)},
        half=["qkv", "out"],
        fits=_fits,
        for_units=_on_units,
    )
    if _scale > 2:
        continue  # exp(score - lse) of such scores has an error of its own in f32, in every variant
    _result = _out.transpose(0, 2, 1, 3).astype(np.float32)
    for _entry, _read, _written in (
        ("backward_query", {"result": _result}, {"delta": poisoned(_rows)}),
        ("backward_key_value", {"deltas": _delta.astype(np.float32)}, {}),
    ):
        case(
            f"attention.{_entry}",
            _label,
            _grid,
            _constants,
            {
                "qkv": _qkv,
                "kept": _lse.astype(np.float32),
                "dout": _dout,
                **_read,
            },
            {"dqkv": poisoned(3 * _rows * _HS), **_written},
            only=_backward,
            floor=1e-6,  # of the terms that cancel
            half=["qkv", "result", "dout", "dqkv"],
            fits=_fits,
            for_units=_on_units,
        )
    _fused = attention.fitting(_T, _HS, MatrixUnits())["attention_subgroups"]  # the only one that has it
    _blocks, _width, _stride = -(-_T // attention.ROWS), 3 * _C + 8, 3 * _C + 72
    for _part in ((0, 16, 64) if _T % attention.ROWS == 0 else (0,)) if _fused else ():
        case(
            "attention.backward",
            _label + (f"-sums-of-{_part}" if _part else ""),
            (_B * _NH, 2 * _blocks, 1),
            {**_constants, "SUM_ROWS": _part > 0, "PART": _part or 8, "STRIDE": _stride, "WIDTH": _width},
            {"qkv": _qkv, "result": _result, "kept": _lse.astype(np.float32), "dout": _dout},
            {
                "dqkv": poisoned(3 * _rows * _HS),
                "delta": poisoned(_blocks * _B * _NH * attention.TILE),
                "sums": poisoned(_B * _T // _part * _stride) if _part else None,
            },
            floor=1e-6,
            half=["qkv", "result", "dout", "dqkv"],
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

section(7)
# One workgroup and less, whole ones and more; where a sum is missing, it has no columns.
for _shapes in (
    ((3, 700, False), (64, 65, True), (1, 1, False), (11, 256, True)),
    ((2, 513, True), (256, 512, False), (7, 255, False)),
    ((5, 1, False), (4, 257, False)),
):
    _missing = 4 - len(_shapes)
    _sums = dict(enumerate((*_shapes, *_missing * [(0, 0, False)])))
    case(
        "column_sums.totals",
        "-".join(f"{P}x{C}" + "+" * add for P, C, add in _shapes),
        (sum(-(-C // column_sum.TOTALS) for _, C, _ in _shapes), 1, 1),
        {
            name: value
            for i, each in _sums.items()
            for name, value in zip((f"P_{i}", f"C_{i}", f"ADD_{i}"), each, strict=True)
        },
        {f"parts_{i}": normal(P, C) if C else None for i, (P, C, _) in _sums.items()},
        {f"out_{i}": (normal(C) if add else poisoned(C)) if C else None for i, (_, C, add) in _sums.items()},
        half=["out_0", "out_2"],
    )
