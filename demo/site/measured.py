"""The measurements that are more than a row: a step by kernel, losses of whole runs, and curves of cost.

Each is drawn of the records of one machine, and told in a table that a screen reader can read, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from demo.site.charts import KINDS, Line, at_points, chart, even, figure, logarithmic
from demo.site.data import Record
from demo.site.live.markup import Markup, join, tag
from demo.site.quantities import number, quantity

DRAWN = ("profile", "learning", "curves")  # files of docs/data
BETWEEN = "between kernels"  # the row of a profile that is no kernel
# Along what tokens/s are drawn, how its axis is called, and what to look for
AXES = {
    "parameters": (
        "the model’s size, in parameters",
        "Operations a token grow with the parameters, so tokens/s fall as fast once a model keeps the device "
        "busy; where they fall more slowly, the smaller model did not.",
    ),
    "context": (
        "the context, in tokens",
        "A step has the same number of tokens as long as its batch can shrink. The layers’ products cost the "
        "same for each token; attention’s part grows with the context.",
    ),
    "vocabulary": (
        "the vocabulary, in tokens",
        "The head’s three products grow with it, and so do the logits, which are made a chunk of rows at a "
        "time where they are more than one binding holds.",
    ),
    "batch size": (
        "the batch, in windows",
        "A larger batch fills the device, and shares the optimiser’s pass over the weights among more "
        "tokens. When both are spent, the curve is flat.",
    ),
}


# -------------------------------------------------------------------- a step by kernel


def profile(record: Record) -> Markup:
    """One profile: what the step takes, and a row for each kernel."""
    rows = [Record(record.file, {**row, **_labels(record)}) for row in record.values["kernels"]]
    kernels = [row for row in rows if row.values["kernel"] != BETWEEN]
    at_the_roofs = sum(row.number("ms") * row.values["roof_share"] for row in kernels)
    together = sum(row.number("ms") for row in kernels)
    largest = max(abs(row.values["step_share"]) for row in rows)
    about = record.values
    summary = (
        f"A step of {about['workload']} in {about['precision']}, batch {about['batch']}: "
        f"{record.shown('ms_per_step')}, {record.shown('tokens_per_s')}. One by one, its "
        f"{about['dispatches']:,} launches take {quantity(together, 's')}; at the roofs, "
        f"{record.shown('matmul_tflops')} for products and {record.shown('copy_gb_per_s')} for bytes, they "
        f"would take {quantity(at_the_roofs, 's')}."
    )
    heads = ("Launches", "Time", "Of the step", "Arithmetic", "Memory", "Of the roof")
    head = tag("tr", _th("Kernel"), *(_th(text, right=True) for text in heads), _th("Compared"))
    return join(
        tag("p", summary),
        _table(f"A step by kernel on {record.device}", head, [_kernel(row, largest) for row in rows]),
    )


def _kernel(row: Record, largest: float) -> Markup:
    fields = ("launches", "ms", "step_share", "tflops", "gb_per_s", "roof_share")
    share = row.values["step_share"]
    kind = "other" if row.values["kernel"] == BETWEEN else "ours"
    cells = [tag("td", _cell(row, field), class_="tb-r") for field in fields]
    length = 100 * max(0, share) / largest
    bar = tag(
        "svg",
        tag("rect", width=f"{length:.4g}", height="4", class_=f"tb-bar__{kind}"),
        class_="tb-bar",
        viewBox="0 0 100 4",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
    name = tag("th", row.values["kernel"], scope="row")
    return tag("tr", name, *cells, tag("td", bar, class_="tb-bars"), id=row.anchor)


# -------------------------------------------------------------------- learning


def learning(records: Sequence[Record]) -> Markup:
    """Runs of one model: their losses, how far each is from the first, and both in a table."""
    first = _first(records)
    others = sorted((record for record in records if record is not first), key=lambda run: run.values["seed"])
    runs = [first, *others]
    lines = [
        Line(_run_name(run, first), _points(run, "training"), kind)
        for run, kind in zip(runs, KINDS, strict=False)
    ]
    base = dict(lines[0].points)
    apart = [
        Line(line.name, [(x, y - base[x]) for x, y in line.points if x in base], line.kind)
        for line in lines[1:]
    ]
    fields = (
        ("Loss at the end", "training_loss"),
        ("Validation loss", "validation_loss"),
        ("Apart in training", "training_difference_loss"),
        ("Apart in validation", "validation_difference_loss"),
        ("Steps skipped", "skipped_steps"),
        ("Time", "train_s"),
    )
    head = tag("tr", _th("Run"), *(_th(text, right=True) for text, _ in fields))
    rows = [
        tag(
            "tr",
            tag("th", _run_name(run, first), scope="row"),
            *(tag("td", _cell(run, field), class_="tb-r") for _, field in fields),
            id=run.anchor,
        )
        for run in runs
    ]
    about = first.values
    summary = (
        f"{about['workload']}, {about['parameters']:,} parameters, {about['steps']:,} steps, "
        f"{about['tokens']:,} tokens. Apart: the mean distance to the first run, over their second half."
    )
    return join(
        tag("p", summary),
        tag(
            "div",
            figure("Training loss, in nats a token, by step", _plot(lines), lines),
            figure("Its difference to the first run’s", _plot(apart), apart),
            class_="tb-plots",
        ),
        _table(f"Losses on {first.device}", head, rows),
    )


def _first(records: Sequence[Record]) -> Record:
    """The run that the others are compared with: it is no distance from itself."""
    return min(records, key=lambda record: (record.values["training_difference_loss"], record.values["seed"]))


def _run_name(run: Record, first: Record) -> str:
    other = run.values["seed"] != first.values["seed"]
    return f"{run.values['precision']}, another seed" if other else str(run.values["precision"])


def _points(run: Record, which: str) -> list[tuple[float, float]]:
    return list(zip(run.values[f"{which}_steps"], run.values[f"{which}_losses"], strict=True))


def _plot(lines: Sequence[Line]) -> Markup:
    points = [point for line in lines for point in line.points]
    return chart(lines, even([x for x, _ in points]), even([y for _, y in points]))


# -------------------------------------------------------------------- cost as work grows


def curves(records: Sequence[Record]) -> Markup:
    """Tokens/s of one base workload along each axis, a line for each precision, and all points in a table."""
    plots, rows = [], []
    for axis, (name, note) in AXES.items():
        along = [record for record in records if record.values["axis"] == axis]
        lines = [
            Line(
                record.values["precision"],
                [(point["at"], point["tokens_per_s"]) for point in record.values["points"]],
                kind,
            )
            for record, kind in zip(along, KINDS, strict=False)
        ]
        points = [point for line in lines for point in line.points]
        if len(points) > len(lines):  # one alone is no curve
            drawing = chart(
                lines, at_points([x for x, _ in points]), logarithmic([y for _, y in points]), dots=True
            )
            plots.append(figure(f"Tokens/s by {name}", drawing, lines, note))
        rows += [_point(record, point) for record in along for point in record.values["points"]]
    heads = ("At", "Batch", "Parameters", "A step", "Tokens", "Rate", "On the device")
    head = tag("tr", _th("Along"), _th("Precision"), *(_th(text, right=True) for text in heads))
    table = _table(f"Cost as work grows on {records[0].device}", head, rows)
    base = f"The base is {records[0].values['workload']} with a batch of {records[0].values['batch']}."
    return join(
        tag("p", base),
        tag("div", *plots, class_="tb-plots"),
        tag("details", tag("summary", "All points in a table"), table, class_="tb-numbers"),
    )


def _point(record: Record, point: dict[str, float]) -> Markup:
    row = Record(record.file, {**_labels(record), **point})
    fields = ("at", "batch", "parameters", "ms_per_step", "tokens_per_s", "tflops", "device_memory_bytes")
    cells = [tag("td", _cell(row, field), class_="tb-r") for field in fields]
    axis = tag("th", str(record.values["axis"]), scope="row")
    return tag("tr", axis, tag("td", str(record.values["precision"])), *cells, id=row.anchor)


# -------------------------------------------------------------------- all of them


def sections(records: Sequence[Record]) -> list[tuple[list[Record], str]]:
    """What one machine's records of such a file are drawn as: each with the records that it is made of."""
    draw: dict[str, Callable[[list[Record]], Markup]] = {
        "profile": lambda group: profile(group[0]),
        "learning": learning,
        "curves": curves,
    }
    groups = groupby(records, key=_group)
    return [(group, draw[group[0].file](group)) for group in (list(found) for _, found in groups)]


def _group(record: Record) -> tuple[str, ...]:
    """What is drawn together: the precisions of a workload, but for profiles."""
    names = ("workload", "precision", "batch") if record.file == "profile" else ("workload", "batch")
    return tuple(str(record.values.get(name)) for name in names)


def _labels(record: Record) -> dict[str, object]:
    """A record without its lists."""
    return {name: value for name, value in record.values.items() if isinstance(value, str | int | float)}


def _cell(row: Record, field: str) -> str:
    value = row.values.get(field)
    if value is None:
        return "–"
    if field.endswith("loss"):  # as many digits as runs differ in
        return f"{value:.4f}"
    return number(value) if field in ("at", "batch") else row.shown(field)


def _th(text: str, *, right: bool = False) -> Markup:
    return tag("th", text, scope="col", class_="tb-r" if right else None)


def _table(label: str, head: Markup, rows: Iterable[Markup]) -> Markup:
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="tb-table")
    return tag("div", table, class_="tb-scroll", tabindex="0", role="region", aria_label=label)
