"""HTML and SVG as strings in which all text is escaped.

tag("td", "a < b", class_="r")  ->  '<td class="r">a &lt; b</td>'
"""

from __future__ import annotations

from html import escape
from typing import Any

VOID = {"input", "link", "br"}


class Markup(str):
    """Text that is markup already."""


def tag(name: str, /, *children: str, **attributes: Any) -> Markup:
    """An element. Of the names of attributes, a last `_` goes and the others become `-`; True stands for an
    attribute without a value, and what is None or False is left out.
    """
    given = "".join(
        f" {key}" if value is True else f' {key}="{escape(str(value))}"'
        for key, value in ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
        if value is not None and value is not False
    )
    if name in VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(*children)}</{name}>")


def join(*parts: str) -> Markup:
    """The parts side by side; those that are no markup are escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part, quote=False) for part in parts))


def link(text: str, address: str) -> Markup:
    return tag("a", text, href=address)


def row(heading: str, *cells: str, **attributes: Any) -> Markup:
    """A table's row whose first cell is its heading; `cells` are plain texts, or whole cells."""
    whole = [cell if cell.startswith("<td") else tag("td", cell, class_="r") for cell in cells]
    return tag("tr", tag("th", heading, scope="row"), *whole, **attributes)
