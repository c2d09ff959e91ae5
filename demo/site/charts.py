"""Line charts of measurements, drawn while the site is built: SVG without script or style of its own.

Places are percentages of a drawing that is as wide as its column, so that text keeps its size on a phone; the
lines lie in an inner SVG that is stretched to it. The colours are those of the page, in docs/assets/site.css.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from demo.site.live.markup import Markup, join, tag
from demo.site.live.numbers import rounded

LEFT, RIGHT, TOP, BOTTOM = 13, 98, 5, 87  # where the axes begin and end, in percent
APART = 11  # percent between two marks of the horizontal axis, at least
KINDS = ("first", "second", "third")  # how lines look: colours and dashes of docs/assets/site.css

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A series: its name in the legend, its points from left to right, and which of KINDS it looks like."""

    name: str
    points: Points
    kind: str = KINDS[0]


@dataclass(frozen=True)
class Axis:
    """`low` to `high`, marked at `marks`; logarithmic or even."""

    low: float
    high: float
    marks: Sequence[float]
    log: bool

    def share(self, value: float) -> float:
        """Where `value` lies: 0 at `low`, 1 at `high`."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def logarithmic(values: Sequence[float]) -> Axis:
    """An axis over `values`, all above 0, from one mark of the row 1, 2, 5, 10, 20, ... to another."""
    steps = [m * 10.0**e for e in range(-6, 16) for m in (1, 2, 5)]
    low = max(step for step in steps if step <= min(values))
    high = min(step for step in steps if step > low and step >= max(values))
    return Axis(low, high, _some([step for step in steps if low <= step <= high]), log=True)


def even(values: Sequence[float]) -> Axis:
    """An axis over `values` with four to eight marks at round numbers."""
    low, high = min(values), max(values)
    rough = (high - low or abs(high) or 1.0) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    return Axis(first * step, last * step, [i * step for i in range(first, last + 1)], log=False)


def at_points(values: Sequence[float]) -> Axis:
    """A logarithmic axis from the least to the largest of `values`, with a mark at each of them."""
    found = sorted(set(values))
    return Axis(found[0], max(found[-1], 1.001 * found[0]), found, log=True)


def chart(lines: Sequence[Line], x: Axis, y: Axis, *, dots: bool = False) -> Markup:
    """The drawing of `lines`, the last one in front; `dots` marks their points. It says nothing to a screen
    reader, for which a table stands beside it.
    """
    across = lambda value: LEFT + (RIGHT - LEFT) * x.share(value)  # noqa: E731
    down = lambda value: BOTTOM - (BOTTOM - TOP) * y.share(value)  # noqa: E731
    drawn = tag(
        "svg",
        *(_path(line, across, down) for line in lines),
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        width="100%",
        height="100%",
    )
    circles = [
        tag("circle", cx=f"{across(px):.2f}%", cy=f"{down(py):.2f}%", r="3", class_=f"tb-line--{line.kind}")
        for line in lines
        for px, py in line.points
        if dots
    ]
    return tag(
        "svg",
        *(_horizontal(mark, down(mark)) for mark in y.marks),
        *_marks(x, across),
        drawn,
        *circles,
        class_="tb-chart",
        aria_hidden="true",
        focusable="false",
    )


def figure(title: str, drawing: Markup, lines: Sequence[Line], note: str = "") -> Markup:
    """A chart under its title and a legend, with a note below."""
    names = [tag("span", line.name, class_=f"tb-key tb-key--{line.kind}") for line in lines]
    below = [tag("p", note)] if note else []
    return tag(
        "figure",
        tag("figcaption", title),
        tag("div", *names, class_="tb-legend"),
        drawing,
        *below,
        class_="tb-plot",
    )


def short(value: float) -> str:
    """A mark's number: 0.05, 512, 2 K, 1.5 M."""
    size = abs(value)
    for unit, letter in ((1e9, " B"), (1e6, " M"), (1e3, " K")):
        if size >= 0.9995 * unit:
            return f"{_digits(float(f'{value / unit:.2g}'))}{letter}"
    return _digits(value)


def _digits(value: float) -> str:
    text = f"{value:.0f}" if abs(value) >= 9.95 else rounded(value)
    return text.replace("-", "−")


def _some(marks: list[float]) -> list[float]:
    """Every second or third of many marks, the last one among them."""
    stride = -(-len(marks) // 7)
    return marks[::-1][::stride][::-1]


def _path(line: Line, across: Callable[[float], float], down: Callable[[float], float]) -> Markup:
    places = " ".join(f"{across(x):.2f},{down(y):.2f}" for x, y in line.points)
    return tag("polyline", points=places, class_=f"tb-line--{line.kind}")


def _horizontal(mark: float, place: float) -> Markup:
    return join(
        tag("line", x1=f"{LEFT}%", x2=f"{RIGHT}%", y1=f"{place:.2f}%", y2=f"{place:.2f}%"),
        tag("text", short(mark), x=f"{LEFT - 1.5}%", y=f"{place:.2f}%", dy=".35em", text_anchor="end"),
    )


def _marks(x: Axis, across: Callable[[float], float]) -> list[Markup]:
    """The horizontal axis' numbers, as many as have room."""
    placed: list[tuple[float, float]] = []
    for mark in x.marks:
        if not placed or across(mark) - placed[-1][1] >= APART:
            placed.append((mark, across(mark)))
    return [
        tag("text", short(mark), x=f"{place:.2f}%", y="97%", text_anchor="middle") for mark, place in placed
    ]
