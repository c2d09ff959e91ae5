"""A slider for a quantity that spans decades, and a field for its number."""

from __future__ import annotations

import math

from demo.site.live.markup import Markup, tag
from demo.site.live.numbers import figure


def dial(name: str, label: str, unit: str, value: float, low: float, high: float) -> Markup:
    """`value` between `low` and `high`; demo/figures/dial.js moves the one with the other."""
    span = math.log(value / low) / math.log(high / low)
    return tag(
        "div",
        tag("label", label, for_=f"dial-{name}"),
        tag(
            "input",
            type="range",
            id=f"dial-{name}",
            min=0,
            max=1,
            step="any",
            value=f"{span:.4f}",
            aria_valuetext=f"{figure(value)} {unit}",
            disabled=True,
        ),
        tag(
            "input",
            type="number",
            aria_label=f"{label}, {unit}",
            min=f"{low:g}",
            max=f"{high:g}",
            step="any",
            value=f"{value:.4g}",
            disabled=True,
        ),
        tag("span", unit, aria_hidden="true"),
        class_="live__dial",
        data_dial=name,
    )
