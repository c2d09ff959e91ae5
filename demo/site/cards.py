"""Pictures for links to the site, 1200 × 630: a page's title over the loss curve of the recorded run.

Drawn with the site's own fonts and the project's own data, without the network.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from trainer.events import json_lines

ROOT = Path(__file__).resolve().parents[2]
FONTS = ROOT / "docs" / "assets" / "fonts"
RUN = ROOT / "demo" / "page" / "recorded" / "nano.jsonl"
WIDTH, HEIGHT, MARGIN = 1200, 630, 80
SCALE = 2  # drawn so much larger and then reduced, for smooth lines
PAPER, INK, MUTED, RULE = "#ffffff", "#1b2027", "#59636e", "#dde1e6"
LEARNING, HELD_OUT = "#0b5cad", "#b04a00"


def card(title: str, note: str) -> bytes:
    """A PNG with a page's title and the line below it."""
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
    draw = ImageDraw.Draw(image)
    _curves(draw)
    _write(draw, "Tabula", MARGIN, 64, "inter.woff2", 30, LEARNING, weight=600)
    y = 130
    for line in _wrapped(title, "source-serif.woff2", 68, 600)[:3]:
        _write(draw, line, MARGIN, y, "source-serif.woff2", 68, INK, weight=600)
        y += 78
    for line in _wrapped(note, "inter.woff2", 28, 400)[:2]:
        _write(draw, line, MARGIN, y + 14, "inter.woff2", 28, MUTED, weight=400)
        y += 40
    small = image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).quantize(64)
    body = io.BytesIO()
    small.save(body, "PNG", optimize=True)
    return body.getvalue()


def _curves(draw: ImageDraw.ImageDraw) -> None:
    """The recorded run's loss, training and held-out, along the lower edge."""
    losses, held_out = _run()
    left, right, top, bottom = MARGIN, WIDTH - MARGIN, 400, HEIGHT - 60
    low, high = min(loss for _, loss in losses), max(loss for _, loss in losses)
    last = losses[-1][0]

    def place(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
        return [
            (
                SCALE * (left + (right - left) * math.sqrt(step / last)),
                SCALE * (bottom - (bottom - top) * (loss - low) / (high - low)),
            )
            for step, loss in points
        ]

    base = SCALE * (bottom + 8)
    draw.line([(SCALE * left, base), (SCALE * right, base)], fill=RULE, width=2 * SCALE)
    draw.line(place(losses), fill=LEARNING, width=3 * SCALE, joint="curve")
    for x, y in place(held_out):
        r = 5 * SCALE
        draw.ellipse((x - r, y - r, x + r, y + r), fill=HELD_OUT)


@cache
def _run() -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    events = [json.loads(line) for line in json_lines(RUN.read_text(encoding="utf-8"))]

    def points(kind: str) -> list[tuple[int, float]]:
        return [(event["step"], event["loss"]) for event in events if event["event"] == kind]

    return points("step"), points("validation")


@cache
def _font(name: str, size: int, weight: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(str(FONTS / name), size * SCALE)
    font.set_variation_by_axes([weight])
    return font


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    x: float,
    y: float,
    font: str,
    size: int,
    colour: str,
    *,
    weight: int,
) -> None:
    draw.text((SCALE * x, SCALE * y), text, fill=colour, font=_font(font, size, weight))


def _wrapped(text: str, font: str, size: int, weight: int) -> list[str]:
    """`text` in lines that fit between the margins."""
    room = SCALE * (WIDTH - 2 * MARGIN)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _font(font, size, weight).getlength(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
