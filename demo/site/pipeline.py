"""The pipeline as a drawing, each box a link to its stage of the demo; and the row that starts it."""

from __future__ import annotations

from html import escape

# Stage of the demo, its name there, what goes in, and what comes out
STAGES = (
    ("data", "Data", "old books", "plain text"),
    ("tokenizer", "Tokenizer", "frequent pairs", "vocabulary"),
    ("tokenize", "Tokenize", "text", "numbers"),
    ("train", "Train", "numbers", "weights"),
    ("infer", "Inference", "a few words", "new text"),
    ("eval", "Evaluation", "unseen text", "a score"),
)
BOX, HEIGHT, GAP = 104, 74, 19.2  # side by side
ROW, ROW_HEIGHT, ROW_GAP = 320, 44, 16  # below each other, for narrow screens


def drawing(demo: str) -> str:
    """The diagram twice, for wide screens and for phones; `demo` is the address of the demo."""
    label = "Six stages, each with what goes in and what comes out. Every box opens its stage of the demo."
    return (
        f'<figure class="tb-pipeline">{_wide(demo, label)}{_narrow(demo, label)}'
        "<figcaption>Each box opens its stage of the demo.</figcaption></figure>"
    )


def start(demo: str) -> str:
    """Start, which opens the demo running, and the six stages to look at first."""
    stages = "".join(f'<li><a href="{demo}#{stage}">{name}</a></li>' for stage, name, *_ in STAGES)
    return (
        '<div class="tb-start">'
        f'<a class="md-button md-button--primary" href="{demo}#start">Train one now</a>'
        f"<ol>{stages}</ol></div>"
    )


def _wide(demo: str, label: str) -> str:
    boxes, arrows = [], []
    for i, (stage, name, into, out) in enumerate(STAGES):
        x = i * (BOX + GAP)
        texts = (
            _text("name", x + BOX / 2, 25, name)
            + _text("note", x + BOX / 2, 45, into)
            + _text("note", x + BOX / 2, 61, f"→ {out}")
        )
        boxes.append(_box(f"{demo}#{stage}", name, x + 0.5, 0.5, BOX - 1, HEIGHT - 1, texts))
        if i:
            arrows.append(_arrow(x - GAP + 3, HEIGHT / 2, GAP - 6, down=False))
    width = len(STAGES) * (BOX + GAP) - GAP
    return _svg("wide", width, HEIGHT, label, arrows + boxes)


def _narrow(demo: str, label: str) -> str:
    boxes, arrows = [], []
    for i, (stage, name, into, out) in enumerate(STAGES):
        y = i * (ROW_HEIGHT + ROW_GAP)
        texts = _text("name tb-pipeline__left", 14, y + 27, name) + _text(
            "note tb-pipeline__right", ROW - 14, y + 27, f"{into} → {out}"
        )
        boxes.append(_box(f"{demo}#{stage}", name, 0.5, y + 0.5, ROW - 1, ROW_HEIGHT - 1, texts))
        if i:
            arrows.append(_arrow(ROW / 2, y - ROW_GAP + 2, ROW_GAP - 4, down=True))
    height = len(STAGES) * (ROW_HEIGHT + ROW_GAP) - ROW_GAP
    return _svg("narrow", ROW, height, label, arrows + boxes)


def _svg(kind: str, width: float, height: float, label: str, parts: list[str]) -> str:
    return (
        f'<svg class="tb-pipeline__{kind}" viewBox="0 0 {width:g} {height:g}" role="group" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _box(href: str, name: str, x: float, y: float, width: float, height: float, texts: str) -> str:
    frame = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>'
    return f'<a xlink:href="{href}" aria-label="{name}: open this stage">{frame}{texts}</a>'


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="tb-pipeline__{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def _arrow(x: float, y: float, length: float, down: bool) -> str:
    if down:
        path = f"M{x:g} {y:g}v{length:g}m-3.5-3.5l3.5 3.5 3.5-3.5"
    else:
        path = f"M{x:g} {y:g}h{length:g}m-3.5-3.5l3.5 3.5-3.5 3.5"
    return f'<path d="{path}"/>'
