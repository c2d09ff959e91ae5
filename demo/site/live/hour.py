"""The figure "hour": the largest model that is worth training in a given time on a given machine.

Chinchilla's rule is 20 tokens a parameter (Hoffmann et al. 2022): C = 6 · N · 20 · N, so N = √(C / 120).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from demo.site.live import recordings
from demo.site.live.dial import dial
from demo.site.live.frame import OWN, Figure
from demo.site.live.markup import Markup, join, link, row, tag
from demo.site.live.numbers import power, short
from demo.site.live.records import CHINCHILLA, OPERATIONS, Machine, machines, operations, read, utilisation
from trainer.config import PRESETS

TIMES = {
    "1 minute": 60,
    "10 minutes": 600,
    "1 hour": 3600,
    "8 hours": 28_800,
    "1 day": 86_400,
    "1 week": 604_800,
}
LINE = (2e4, 5e9)  # parameters at the two ends of the line


def best_size(flops: float) -> float:
    """Parameters of the largest model that `flops` can train on 20 tokens a parameter."""
    return math.sqrt(flops / (OPERATIONS * CHINCHILLA))


def _controls() -> Markup:
    own = tag("option", OWN, value="own", disabled=True)
    options = [
        tag(
            "option",
            _at_work(machine),
            value=machine.id,
            data_rate=f"{machine.rate(utilisation()):g}",
            selected=machine.id == "m1",
        )
        for machine in machines()
    ]
    return join(
        dial("minutes", "Time", "minutes", 60, 1, 10_080),
        tag(
            "label",
            tag("span", "Machine"),
            tag("select", own, *options, disabled=True),
            class_="field live__select",
        ),
    )


def _at_work(machine: Machine) -> str:
    return f"{machine.name}, at {100 * utilisation():g}%" if machine.peak else machine.name


def _place(parameters: float) -> str:
    low, high = LINE
    return f"{min(100, max(0, 100 * math.log(parameters / low) / math.log(high / low))):.1f}%"


def nearest(parameters: float, among: Iterable[str] = PRESETS) -> str:
    """The preset whose size is the nearest, by ratio."""
    return min(among, key=lambda name: abs(math.log(PRESETS[name].model.parameters / parameters)))


def _body(bundle: Path) -> Markup:
    rate = next(machine for machine in machines() if machine.id == "m1").rate(utilisation())
    N = best_size(rate * 3600)
    presets = [
        tag(
            "g",
            tag("line", x1=_place(size), x2=_place(size), y1="26", y2="38"),
            tag("text", name, x=_place(size), y=54 + 16 * (i % 2), text_anchor="middle"),
            data_preset=name,
            data_parameters=size,
        )
        for i, (name, size) in enumerate((name, PRESETS[name].model.parameters) for name in PRESETS)
    ]
    marker = tag("circle", cx=_place(N), cy="32", r="6", class_="live__marker")
    drawn = tag(
        "svg",
        tag("line", x1="0", x2="100%", y1="32", y2="32", class_="live__axis"),
        *presets,
        marker,
        tag("text", short(N), x=_place(N), y="16", text_anchor="middle", class_="live__here"),
        class_="live__line",
        aria_hidden="true",
        focusable="false",
    )
    return join(
        tag("p", *_sentence("1 hour", N), class_="live__sum num", data_part="sum"),
        drawn,
        _samples(N),
        _table(rate),
    )


def _sentence(time: str, N: float) -> list[str]:
    tokens = CHINCHILLA * N
    return [
        f"{time}: {short(N)} parameters, trained on {short(tokens)} tokens: ",
        power(operations(N, tokens)),
        " FLOPs",
    ]


def _samples(N: float) -> Markup:
    """What recorded runs of the presets wrote at their end; the one of the nearest size is shown."""
    runs = [*recordings.of_models(), *recordings.all_runs()]  # of one preset, the page's own
    texts = {run.preset: run.sample for run in runs if run.preset and run.sample}
    chosen = nearest(N, texts)

    def said(name: str, sample: recordings.Event) -> Markup:
        size = f"{short(PRESETS[name].model.parameters)} parameters"
        return tag(
            "div",
            tag("p", f"The nearest recorded run, {name} of {size}, wrote:"),
            tag("blockquote", f"{sample['prompt']}{sample['text']}", class_="book"),
            data_sample=name,
            hidden=name != chosen,
        )

    return tag("div", *(said(name, sample) for name, sample in texts.items()), class_="live__samples")


def _table(rate: float) -> Markup:
    head = tag(
        "tr",
        tag("th", "Time", scope="col"),
        *(tag("th", text, scope="col", class_="r") for text in ("Parameters", "Tokens", "Preset")),
    )
    rows = []
    for time, seconds in TIMES.items():
        N = best_size(rate * seconds)
        rows.append(row(time, short(N), short(CHINCHILLA * N), nearest(N), data_seconds=seconds))
    return tag("table", tag("thead", head), tag("tbody", *rows), class_="tbl live__hours")


def _source(data: str) -> Markup:
    facts = read("machines.json")
    m1 = next(m for m in facts["machines"] if m["id"] == "m1")
    return join(
        "The largest model worth training: ",
        link(f"{facts['chinchilla']['text']} ({facts['chinchilla']['title']})", facts["chinchilla"]["url"]),
        ", so √(FLOPs / 120) parameters, if all the time goes into products at the machine’s rate. Rates: ",
        link(f"{m1['name']}, published", m1["url"]),
        ", ",
        link("machines", f"{data}/machines.json"),
        ", ",
        link("steps", f"{data}/train_steps.json"),
        ".",
    )


FIGURE = Figure("An hour in a tab is worth a model of a few million parameters", _controls, _body, _source)
