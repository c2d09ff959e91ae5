"""The parts that every live figure has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from demo.site.live.markup import Markup

OWN = "This machine, not measured yet"  # where the reader's own rate will stand


@dataclass(frozen=True)
class Figure:
    """A title that claims something, one row of controls, a result, and where its numbers come from. `body`
    is given the bundle's folder, `source` the address of docs/data.
    """

    title: str
    controls: Callable[[], Markup]
    body: Callable[[Path], Markup]
    source: Callable[[str], Markup]
