"""The page of benchmarks: a table with bars for each file of measurements and each machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from demo.site import measured
from demo.site.data import PROVENANCE, Record, is_label, measurements, short, whole

TITLES = {  # in the order of the page
    "train_steps": "Training steps",
    "kernels": "Kernels",
    "waiting": "Steps, with and without waiting",
    "tokenizer": "Tokenizer",
    "page": "The page",
    "peers": "Trainers in the browser",
    "recorded_run": "The recorded run",
}
HEADS = {
    "ms": "Time",
    "ms_per_step": "A step",
    "ms_per_step_waiting": "A step, waiting",
    "tflops": "Rate",
    "burst_tflops": "In bursts",
    "tokens_per_s": "Tokens",
    "gb_per_s": "Memory",
    "roof_share": "Of the roof",
    "encoding_share": "On the CPU",
    "python_share": "Python’s own",
    "device_memory_bytes": "On the device",
    "peak_memory_bytes": "In the process",
    "estimated_memory_bytes": "Estimated",
    "train_s": "Training",
    "encode_s": "Encoding",
    "bytes_per_token": "Text",
    "impl": "By",
    "zlib_bits_per_byte": "zlib",
    "unigram_bits_per_byte": "Frequencies only",
    "uniform_bits_per_byte": "Knowing nothing",
    "bits_per_byte": "The model",
}
RATES = ("tflops", "gflops", "gb_per_s", "tokens_per_s")  # the first that a table has is drawn as bars


def page(but: Sequence[str] = ()) -> str:
    """HTML of all measurements but what is drawn and the files in `but`: a page has sections of its own for
    these. Headings are Markdown, so that they reach the table of contents.
    """
    files = dict.fromkeys(record.file for record in measurements())
    return "\n\n".join(
        f"## {TITLES.get(file, file.replace('_', ' ').capitalize())}\n\n{section(file)}"
        for file in sorted(files, key=_place)
        if file not in (*but, *measured.DRAWN)
    )


def section(file: str) -> str:
    """The measurements of a file, each machine's under its name; or nothing."""
    drawn = file in measured.DRAWN
    by_device: dict[str, list[Record]] = {}
    for record in whole(file) if drawn else measurements():
        if record.file == file:
            by_device.setdefault(record.device, []).append(record)
    parts = []
    for device, group in sorted(by_device.items()):
        parts.append(f"### {device} {{ #{file}-{_slug(device)} }}")
        parts += _drawn(group) if drawn else _tables(group)
    return "\n\n".join(parts)


def _place(file: str) -> tuple[int, str]:
    """Where a file's measurements stand on the page; those not known today last."""
    titles = list(TITLES)
    return (titles.index(file) if file in titles else len(titles), file)


def _drawn(records: Sequence[Record]) -> list[str]:
    """What measured.py draws of one machine's records, and where each is from."""
    return [f"{html}{_origins(group)}" for group, html in measured.sections(records)]


def _tables(records: Sequence[Record]) -> list[str]:
    """One machine's records of a file: those of the same rate in a table, so that its bars compare like with
    like.
    """
    by_rate: dict[str | None, list[Record]] = {}
    for record in records:
        rate = next((name for name in RATES if name in record.values), None)
        by_rate.setdefault(rate, []).append(record)
    return [table(group) for group in by_rate.values()]


def table(records: Sequence[Record]) -> str:
    """One machine's records of a file, and below them where they come from."""
    names = dict.fromkeys(name for record in records for name in record.values)
    rate = next((name for name in RATES if name in names), None)
    # What a narrow screen should show
    first = ("workload", "name", "precision", "impl", "variant", rate, "burst_tflops")
    fields = (name for name in (*first, *names) if name in names and name not in (*PROVENANCE, "unit"))
    columns = {name: _holds_numbers(name, records) for name in fields}
    largest = max((r.number(rate) for r in records if rate and rate in r.values), default=0)
    head = "".join(_head(name, numbers) for name, numbers in columns.items())
    head += '<th scope="col">Compared</th>' if largest else ""
    rows = "".join(_row(record, columns, rate if largest else None, largest) for record in records)
    label = escape(f"Measurements on {records[0].device}")
    return (
        f'<div class="tb-scroll" tabindex="0" role="region" aria-label="{label}"><table class="tb-table">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{_origins(records)}"
    )


def waiting() -> str:
    """Steps sent ahead, and with the loss read after each, wherever both were measured; or nothing."""
    records = [record for record in measurements() if record.file == "waiting"]
    return table(records) if records else ""


def bar(share: float, impl: str = "tabula") -> str:
    """A bar as long as `share` (0 to 1) of its cell; grey for what is not ours."""
    kind = "ours" if impl == "tabula" else "other"
    return (
        '<svg class="tb-bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="tb-bar__{kind}" width="{max(0.4, 100 * share):.4g}" height="4"/></svg>'
    )


def _holds_numbers(field: str, records: Iterable[Record]) -> bool:
    return not any(isinstance(record.values.get(field), str) for record in records)


def _head(field: str, numbers: bool) -> str:
    text = HEADS.get(field, field.replace("_", " ").capitalize())
    return f'<th scope="col"{_side(numbers)}>{escape(text)}</th>'


def _side(numbers: bool) -> str:
    """Where a cell's text stands: numbers, and what stands for one, at the right."""
    return ' class="tb-r"' if numbers else ""


def _row(record: Record, columns: dict[str, bool], rate: str | None, largest: float) -> str:
    cells = []
    for field, numbers in columns.items():
        value = record.values.get(field)
        if value is None:
            shown = "–"
        elif isinstance(value, str):
            shown = value.replace("_", " ") if field == "name" else value
        else:
            shown = f"{value:,}" if is_label(value, field) else record.shown(field)
        cells.append(f"<td{_side(numbers)}>{escape(shown)}</td>")
    if rate:
        share = record.number(rate) / largest if rate in record.values else 0
        cells.append(f'<td class="tb-bars">{bar(share, str(record.values.get("impl", "tabula")))}</td>')
    return f'<tr id="{record.anchor}" title="{escape(record.origin)}">{"".join(cells)}</tr>'


def _origins(records: Sequence[Record]) -> str:
    """Machine, date, commit and command of each measurement above, those that share them once."""
    made = dict.fromkeys(
        (
            *(str(r.values.get(name)) for name in ("machine", "driver", "date") if r.values.get(name)),
            str(r.values.get("commit")),
            str(r.values.get("command")),
        )
        for r in records
    )
    items = "".join(
        f"<li>{escape(', '.join(about))}, commit <code>{escape(short(commit))}</code>: "
        f"<code>{escape(command)}</code></li>"
        for *about, commit, command in made
    )
    return f'<ul class="tb-origins">{items}</ul>'


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
