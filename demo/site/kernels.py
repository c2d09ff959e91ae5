"""The kernels, from shaders/: quoted in the text, and all of them in a gallery."""

from __future__ import annotations

import re
from html import escape

from demo.site.benchmarks import bar
from demo.site.data import DataError, Record, measurements
from trainer.kernels import (
    GPU_VARIANTS,
    SOFTWARE_VARIANTS,
    binding_modes,
    entry_points,
    file_text,
    files,
    source,
    variants,
)


def quote(variant: str, function: str) -> str:
    """A function of a shader file, with what stands right above it, as a fenced block.

    Raises DataError if the file has no such function.
    """
    code = source(variant)
    start = re.search(rf"^(?:@[^\n]*\n)*fn {function}\(", code, re.MULTILINE)
    if not start:
        raise DataError(f"shaders/{variant}.wgsl has no function {function!r}", "quote one that is there")
    end = code.index("\n}\n", start.start()) + 2
    return f"```wgsl\n{code[start.start() : end]}\n```"


def lines(variant: str, first: str, end: str) -> str:
    """The lines of a shader file from the one that begins with `first` to right before the next that begins
    with `end`, as a fenced block. Raises DataError if there are none.
    """
    found = source(variant).splitlines()
    stripped = [line.strip() for line in found]
    start = next((i for i, line in enumerate(stripped) if line.startswith(first)), len(found))
    stop = next((i for i, line in enumerate(stripped) if i > start and line.startswith(end)), None)
    if stop is None:
        raise DataError(
            f"shaders/{variant}.wgsl has no lines from {first!r} to {end!r}", "quote some that are there"
        )
    indent = len(found[start]) - len(stripped[start])
    return "\n".join(["```wgsl", *(line[indent:] for line in found[start:stop]), "```"])


def gallery() -> str:
    """All shader files, an op a section: maths, variants, their rates, entry points and code."""
    ops: dict[str, list[str]] = {}
    for variant in variants():
        op = next(
            (op for op, found in {**SOFTWARE_VARIANTS, **GPU_VARIANTS}.items() if variant in found), variant
        )
        ops.setdefault(op, []).append(variant)
    parts, shown = [], set[str]()
    for op, names in ops.items():
        parts.append(f"## {op.replace('_', ' ')} {{ #{op} }}")
        for variant in sorted(names, key=lambda name: (name != op, name)):
            parts.append(_section(op, variant, len(names) > 1, shown))
            shown |= set(files(variant))
    return "\n\n".join(parts)


def header(variant: str) -> str:
    """The comment on top of a shader file, without its slashes."""
    text = re.match(r"(?://[^\n]*\n)+", source(variant))
    return re.sub(r"^// ?", "", text[0], flags=re.MULTILINE).rstrip() if text else ""


def _section(op: str, variant: str, several: bool, shown: set[str]) -> str:
    """A variant, with its files but for those that are `shown` already."""
    parts = []
    if several:
        parts.append(f"### {variant} {{ #{variant if variant != op else f'{op}-naive'} }}")
        parts.append(_where(op, variant))
    # Raw HTML, in which a blank line would end the block: Markdown leaves <pre> whole.
    parts.append(f'<pre class="tb-maths" tabindex="0">{escape(header(variant))}</pre>')
    parts.append(_rates(variant))
    parts.append(_entries(variant))
    for name in (name for name in files(variant) if name not in shown):
        text = file_text(name)
        title = f"shaders/{name}.wgsl, {len(text.splitlines())} lines"
        code = _indented(f"```wgsl\n{text}```")
        parts.append(f'<span id="file-{name}"></span>\n\n??? quote "{title}"\n\n{code}')
    above = [f"[{name}.wgsl](#file-{name})" for name in files(variant) if name in shown]
    if above:
        parts.append(f"It also reads {' and '.join(above)}, which other kernels above read, too.")
    return "\n\n".join(part for part in parts if part)


def _where(op: str, variant: str) -> str:
    """Where a variant runs, by the tables in trainer/kernels.py."""
    notes = []
    for table, where in ((GPU_VARIANTS, "GPUs"), (SOFTWARE_VARIANTS, "software renderers")):
        order = table.get(op, ())
        if variant in order:
            place = order.index(variant)
            notes.append(f"first choice on {where}" if not place else f"choice no. {place + 1} on {where}")
    naive = "The naive variant, which checks the others" if variant == op else "A variant"
    return f"{naive}; {', '.join(notes)}." if notes else f"{naive}."


def _entries(variant: str) -> str:
    """What each entry point reads and writes."""
    rows = []
    for entry in entry_points(variant):
        modes = binding_modes(variant, entry)
        reads = ", ".join(f"`{name}`" for name, mode in modes.items() if mode == "read") or "–"
        writes = ", ".join(f"`{name}`" for name, mode in modes.items() if mode != "read") or "–"
        rows.append(f"| `{entry}` | {reads} | {writes} |")
    return "\n".join(["| entry point | reads | writes |", "|---|---|---|", *rows])


def _rates(variant: str) -> str:
    """The fastest measurement of a kernel on each device, beside the fastest of any implementation there."""
    timed = [r for r in measurements() if "tflops" in r.values and "variant" in r.values]
    best: dict[str, Record] = {}
    for record in timed:
        if variant in (record.values["variant"], record.values.get("kernel")):
            known = best.get(record.device)
            if known is None or record.number("tflops") > known.number("tflops"):
                best[record.device] = record
    rows = []
    for device, record in best.items():
        peers = [r for r in timed if r.device == device and r.values["workload"] == record.values["workload"]]
        share = record.number("tflops") / max(r.number("tflops") for r in peers)
        rows.append(
            f'<tr><th scope="row">{escape(device)}</th><td>{escape(str(record.values["workload"]))}</td>'
            f'<td class="tb-r"><a href="../benchmarks/#{record.anchor}" title="{escape(record.origin)}">'
            f'{record.shown("tflops")}</a></td><td class="tb-bars">{bar(share)}</td></tr>'
        )
    if not rows:
        return ""
    return (
        f'<div class="tb-scroll" tabindex="0" role="region" aria-label="Rates of {variant}">'
        '<table class="tb-table"><thead><tr><th scope="col">Measured on</th><th scope="col">Work</th>'
        '<th scope="col">Rate</th><th scope="col">Of the fastest there</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())
