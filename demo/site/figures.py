"""The live figures: `<!-- figure: NAME -->`, on a line of its own in a page's Markdown, becomes one.

What is written here is whole without JavaScript: numbers and drawings from docs/data and from the recorded
runs. Where there is JavaScript, demo/figures/NAME.js brings the controls to life and redraws in place.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from demo.site.live import compute, curves, gpt2_time, hour, recordings, steps, tokenizer
from demo.site.live.frame import Figure
from demo.site.live.markup import Markup, join, tag

FIGURES: dict[str, Figure] = {
    "compute": compute.FIGURE,
    "gpt2-time": gpt2_time.FIGURE,
    "hour": hour.FIGURE,
    "tokenizer": tokenizer.FIGURE,
    "curves": curves.FIGURE,
    "steps": steps.FIGURE,
}
MARK = re.compile(r"<!--\s*figure:\s*([\w-]+)\s*-->")
STYLES = "figures/figures.css"


class UnknownFigure(ValueError):
    """A page names a figure that there is not."""


def fill(content: str, root: str, bundle: str, folder: Path) -> str:
    """`content`, a page's HTML, with its figures. `root` and `bundle` are the addresses, from that page, of
    the site and of the bundle, which lies in `folder`. Styles and modules come with the figures: other pages
    load none. Raises UnknownFigure.
    """
    found = [match[1] for match in MARK.finditer(content)]
    for name in found:
        if name not in FIGURES:
            raise UnknownFigure(f"there is no figure {name!r}: use one of {', '.join(FIGURES)}")
    if not found:
        return content
    styles = tag("link", rel="stylesheet", href=f"{bundle}/{STYLES}")
    filled = MARK.sub(lambda match: f"\n{draw(match[1], root, bundle, folder)}\n", content)
    return f"{styles}\n{filled}"


def bundled() -> dict[str, bytes]:
    """What the figures' modules read, made now: path in the bundle → content."""
    runs = recordings.all_runs()
    data = {
        "figures/compute.json": compute.plans(),
        "figures/curves.json": curves.bundled(recordings.drawn()),
        recordings.INDEX: recordings.index(runs),
        **tokenizer.bundled(),
    }
    return {name: json.dumps(value, separators=(",", ":")).encode() for name, value in data.items()}


def draw(name: str, root: str, bundle: str, folder: Path) -> Markup:
    """One figure: title, controls, result, source; and the module of its element, `<tabula-NAME>`."""
    figure = FIGURES[name]
    title = f"figure-{name}"
    return join(
        tag(
            f"tabula-{name}",
            tag(
                "figure",
                tag("figcaption", figure.title, class_="live__title", id=title),
                tag("div", figure.controls(), class_="live__controls"),
                tag("div", figure.body(folder), class_="live__body"),
                tag("p", figure.source(f"{root}/data"), class_="live__source"),
                tag("p", "", class_="hidden", role="status", data_part="status"),
                class_="tb live",
                aria_labelledby=title,
            ),
            data_search_exclude=True,
        ),
        tag("script", "", type="module", src=f"{bundle}/figures/{name.replace('-', '_')}.js"),
    )
