"""Numbers as the figures write them, mostly with three digits: 48,600; 124 M; 129 days.
demo/figures/numbers.js writes the same ones in the page, and a test compares the two.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal

from demo.site.live.markup import Markup, join, tag

YEAR = 365.25 * 86400  # seconds


def figure(n: float) -> str:
    """Three digits: 0.016, 6.93, 11.9, 870, 48,600."""
    size = abs(n)
    if size >= 999.5:
        return _fixed(n, 2 - math.floor(math.log10(size)))
    if size >= 99.95:
        return _fixed(n, 0)
    if size >= 9.995:
        return _fixed(n, 1)
    if size >= 0.0995 or size == 0:
        return _fixed(n, 2)
    return _fixed(n, 1 - math.floor(math.log10(size)))


def _fixed(n: float, places: int) -> str:
    """With so many places behind the point, or -places noughts before it; halves go up, as in JavaScript."""
    rounded = Decimal(n).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    return f"{rounded:,.{max(0, places)}f}"


def short(n: float) -> str:
    """With a letter for the thousands: 5.20 M, 124 M, 10.0 B."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if n >= 0.9995 * unit:
            return f"{figure(n / unit)} {letter}"
    return figure(n)


def count(n: int, noun: str) -> str:
    """1 token; 1,024 tokens."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def rounded(n: float) -> str:
    """Three digits, without noughts behind the point: 96, 5.24."""
    text = figure(n)
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(seconds: float) -> str:
    """In words: 45 s, 39 min, 16.6 hours, 129 days, 6.31 years."""
    if seconds < 90:
        return f"{rounded(seconds)} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{rounded(seconds / 3600)} hours"
    if seconds < 2 * YEAR:
        return f"{rounded(seconds / 86400)} days"
    return f"{rounded(seconds / YEAR)} years"


def dollars(usd: float) -> str:
    """$0.52, $12, $1,340."""
    return f"${usd:,.0f}" if usd >= 9.995 else f"${usd:.2f}"


def power(n: float) -> Markup:
    """7.5 × 10¹⁸, with the exponent raised."""
    mantissa, exponent = f"{n:.1e}".split("e")
    return join(f"{mantissa} × 10", tag("sup", str(int(exponent))))
