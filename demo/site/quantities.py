"""Numbers with units, as the site writes them."""

from __future__ import annotations

from collections.abc import Sequence

# Unit of a record or fact → (from this size on, divided by, written so); the first that fits is taken.
STEPS: dict[str, tuple[tuple[float, float, str], ...]] = {
    "FLOP/s": (
        (1e15, 1e15, " PFLOP/s"),
        (1e12, 1e12, " TFLOP/s"),
        (1e9, 1e9, " GFLOP/s"),
        (0, 1e6, " MFLOP/s"),
    ),
    "B/s": ((1e12, 1e12, " TB/s"), (0, 1e9, " GB/s")),
    "B": ((1e9, 1e9, " GB"), (1e6, 1e6, " MB"), (0, 1e3, " kB")),
    "MiB": ((0, 2**20, " MiB"),),
    "KiB": ((0, 2**10, " KiB"),),
    "s": (
        (2 * 365.25 * 86400, 365.25 * 86400, " years"),
        (2 * 86400, 86400, " days"),
        (2 * 3600, 3600, " hours"),
        (120, 60, " minutes"),
        (1, 1, " s"),
        (1e-3, 1e-3, " ms"),
        (0, 1e-6, " µs"),
    ),
    "%": ((0, 1, "%"),),
    "x": ((0, 1, "×"),),
}  # fmt: skip
COUNTS = ((1e9, 1e9, " billion"), (1e6, 1e6, " million"), (0, 1, ""))  # parameters, tokens, words
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def quantity(value: float | Sequence[float], unit: str) -> str:
    """A number, or a range of two, with its unit.

    >>> quantity(43.68e12, "FLOP/s"), quantity([60, 120], "s"), quantity(36191, "tokens/s")
    ('43.7 TFLOP/s', '1–2 minutes', '36,191 tokens/s')
    """
    low, high = value if isinstance(value, Sequence) else (value, value)
    if unit == "FLOP":
        return f"{_power(high)} FLOPs"
    if unit.startswith("USD"):
        return f"${_range(low, high)}{unit.removeprefix('USD').replace('/h', ' an hour')}"
    steps = STEPS.get(unit) or tuple((a, b, f"{prefix} {unit}") for a, b, prefix in COUNTS)
    if unit.endswith("/s") and unit not in STEPS:  # rates of counts are written out
        steps = ((0, 1, f" {unit}"),)
    _, divisor, name = next(step for step in steps if abs(high) >= step[0])
    return f"{_range(low / divisor, high / divisor)}{name}"


def number(value: float) -> str:
    """Three digits of a fraction, all of a whole number.

    >>> number(43.68), number(36191), number(0.00551), number(20.0)
    ('43.7', '36,191', '0.00551', '20')
    """
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _range(low: float, high: float) -> str:
    return number(low) if low == high else f"{number(low)}–{number(high)}"


def _power(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return power if mantissa == "1.0" else f"{mantissa} × {power}"
