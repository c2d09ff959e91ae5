"""The figure "curves": how recorded runs got better, over steps, tokens, time or FLOPs.

The drawing needs no script and no style of its own: places are percentages of an SVG that is as wide as the
page; lines lie in an inner SVG that is stretched to it. demo/figures/curves.js draws the same on other axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo.site.live import recordings
from demo.site.live.frame import Figure
from demo.site.live.markup import Markup, join, row, tag
from demo.site.live.numbers import duration, figure, power, short
from demo.site.live.recordings import Recording
from demo.site.live.records import device_name

LEFT, RIGHT, TOP, BOTTOM = 9, 86, 4, 88  # where the axes begin and end, in percent
APART, WIDE = 7, 14  # percent: the height of a line's name with its space, and what its width may be
Y_STEP = 0.5  # bits per byte between two lines of the grid
AXES = {"steps": "Steps", "tokens": "Tokens", "time": "Time", "flops": "FLOPs"}
CLOCK = (1, 10, 60, 600, 3600, 36_000, 86_400, 864_000)  # seconds that the axis of time marks
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

Points = list[tuple[float, float]]


def bundled(runs: Sequence[Recording]) -> list[dict[str, Any]]:
    """What curves.js draws."""
    return [{"name": run.name, **run.series} for run in runs]


def along(series: dict[str, Any], which: str, axis: str) -> Points:
    """`which` (training, held_out) of a run as points (x, bits per byte)."""
    if not series[which]:
        return []
    steps, seconds, bits = series[which]
    scale = {"steps": 1, "tokens": series["tokens_per_step"], "flops": series["flops_per_step"]}.get(axis)
    return list(zip(seconds if scale is None else [scale * step for step in steps], bits, strict=True))


def chart(runs: Sequence[Recording], axis: str = "steps") -> Markup:
    """The drawing of `runs`; an empty one for none."""
    lines = [
        (run.name, *(along(run.series, which, axis) for which in ("training", "held_out"))) for run in runs
    ]
    points = [point for _, training, held in lines for point in (*training, *held)]
    if not points:
        return tag("svg", class_="live__chart", aria_hidden="true", focusable="false")
    x_low, x_high = (bound(x for x, _ in points) for bound in (min, max))
    y_low = math.floor(min(y for _, y in points) / Y_STEP) * Y_STEP
    y_high = math.ceil(max(y for _, y in points) / Y_STEP) * Y_STEP

    def x_of(x: float) -> float:
        return LEFT + (RIGHT - LEFT) * math.log(x / x_low) / math.log(x_high / x_low)

    def y_of(y: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (y - y_low) / (y_high - y_low)

    def path(points: Points, kind: str) -> Markup:
        return tag(
            "polyline", points=" ".join(f"{x_of(x):.2f},{y_of(y):.2f}" for x, y in points), class_=kind
        )

    heights = [y_low + i * Y_STEP for i in range(round((y_high - y_low) / Y_STEP) + 1)]
    grid = [_horizontal(y, y_of(y)) for y in heights]
    marks = [_tick(text, x_of(x)) for x, text in ticks(axis, x_low, x_high)]
    drawn = tag(
        "svg",
        *(path(training, "live__training") for _, training, _ in lines),
        *(path(held, "live__held") for _, _, held in lines),
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        width="100%",
        height="100%",
    )
    dots = [
        tag("circle", cx=f"{x_of(x):.2f}%", cy=f"{y_of(y):.2f}%", r="3.5")
        for _, _, held in lines
        for x, y in held
    ]
    lasts = [(name, *(held or training)[-1]) for name, training, held in lines]
    ends = spread([(name, x_of(x), y_of(y)) for name, x, y in lasts])
    names = [tag("text", name, x=f"{x:.2f}%", y=f"{y:.2f}%", dx=".6em", dy=".35em") for name, x, y in ends]
    return tag(
        "svg",
        *grid,
        *marks,
        drawn,
        *dots,
        *names,
        class_="live__chart",
        aria_hidden="true",
        focusable="false",
    )


def ticks(axis: str, low: float, high: float) -> Sequence[tuple[float, str]]:
    """Where the horizontal axis has marks, and what stands there: at most six."""
    if axis == "time":
        return [(seconds, duration(seconds)) for seconds in CLOCK if low <= seconds <= high]
    exponents = [e for e in range(25) if low <= 10**e <= high]
    chosen = exponents[:: -(-len(exponents) // 6) or 1]
    return [(10**e, _power(e) if axis == "flops" else _plain(e)) for e in chosen]


def spread(ends: list[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Names and where their lines end, moved down where two names would touch."""
    placed: list[tuple[str, float, float]] = []
    for name, x, y in sorted(ends, key=lambda end: end[2]):
        for _, other_x, other_y in placed:
            if abs(x - other_x) < WIDE:
                y = max(y, other_y + APART)
        placed.append((name, x, y))
    return placed


def _power(exponent: int) -> str:
    return f"10{str(exponent).translate(SUPERSCRIPTS)}"


def _plain(exponent: int) -> str:
    """1, 10, 100, 1 K, 10 K, ..."""
    return f"{10 ** (exponent % 3)}{('', ' K', ' M', ' B', ' T')[exponent // 3]}"


def _horizontal(y: float, place: float) -> Markup:
    return join(
        tag("line", x1=f"{LEFT}%", x2=f"{RIGHT}%", y1=f"{place:.2f}%", y2=f"{place:.2f}%"),
        tag("text", f"{y:.1f}", x=f"{LEFT - 1}%", y=f"{place:.2f}%", dy=".35em", text_anchor="end"),
    )


def _tick(text: str, place: float) -> Markup:
    return tag("text", text, x=f"{place:.2f}%", y="97%", text_anchor="middle")


def _controls() -> Markup:
    runs = [
        tag(
            "label",
            tag("input", type="checkbox", name="run", value=run.name, checked=True, disabled=True),
            run.name,
        )
        for run in recordings.drawn()
    ]
    axes = [
        tag(
            "label",
            tag("input", type="radio", name="axis", value=key, checked=key == "steps", disabled=True),
            tag("span", name),
        )
        for key, name in AXES.items()
    ]
    return join(
        tag("fieldset", tag("legend", "Runs", class_="hidden"), *runs, class_="live__ticks"),
        tag("fieldset", tag("legend", "Along", class_="hidden"), *axes, class_="seg"),
    )


def _body(bundle: Path) -> Markup:
    runs = recordings.drawn()
    titles = ("Bits a byte", "Parameters", "Steps", "Tokens", "Time", "FLOPs")
    head = tag(
        "tr",
        tag("th", "Run", scope="col"),
        *(tag("th", text, scope="col", class_="r") for text in titles),
    )
    table = tag("table", tag("thead", head), tag("tbody", *map(_row, runs)), class_="tbl")
    return join(
        tag(
            "p",
            "Bits per byte of text: ",
            tag("span", "held-out", class_="live__key-held"),
            ", ",
            tag("span", "training", class_="live__key-training"),
            class_="live__sum",
        ),
        tag("div", chart(runs), data_part="chart"),
        tag("div", table, class_="scroll", tabindex="0", role="group", aria_label="The recorded runs"),
    )


def _row(run: Recording) -> Markup:
    start, end = run.start, run.events[-1]
    return row(
        run.name,
        figure(run.bits_per_byte) if run.bits_per_byte else "–",
        short(start["parameters"]),
        f"{end['step']:,}",
        short(end["step"] * start["tokens_per_step"]),
        duration(end["seconds"]),
        tag("td", power(end["step"] * start["flops_per_step"]), class_="r"),
        data_run=run.name,
    )


def _source(data: str) -> Markup:
    recorded = []
    for run in recordings.drawn():
        known = run.start["recording"]
        device, commit = device_name(run.start["device"]["name"]), (known["commit"] or "no commit")[:7]
        recorded.append(f"{run.name}: {device} ({known['machine']}), {known['date']}, {commit}. ")
    return join(
        "Recorded by this project’s trainer, each against held-out text of its own. ",
        *recorded,
        "The horizontal axis is logarithmic.",
    )


FIGURE = Figure("More compute, better guesses", _controls, _body, _source)
