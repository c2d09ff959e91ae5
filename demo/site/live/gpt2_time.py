"""The figure "gpt2-time": how long training a model takes, by machine, and what that costs."""

from __future__ import annotations

from pathlib import Path

from demo.site.live.dial import dial
from demo.site.live.frame import OWN, Figure
from demo.site.live.markup import Markup, join, link, row, tag
from demo.site.live.numbers import dollars, duration, figure, power, short
from demo.site.live.records import Machine, machines, operations, provenance, read, trainers, utilisation


def _controls() -> Markup:
    models = read("machines.json")["models"]
    chosen = models[0]
    choices = [
        tag(
            "label",
            tag(
                "input",
                type="radio",
                name="model",
                value=f"{m['parameters']:.0f},{m['tokens']:.0f}",
                checked=m is chosen,
                disabled=True,
            ),
            tag("span", m["name"]),
        )
        for m in models
    ]
    return join(
        tag(
            "fieldset",
            tag("legend", "Start from", class_="hidden"),
            *choices,
            class_="seg live__presets live__presets--long",
        ),
        dial("parameters", "Parameters", "M", chosen["parameters"] / 1e6, 1, 1e4),
        dial("tokens", "Tokens", "B", chosen["tokens"] / 1e9, 1e-2, 1e3),
        dial("utilisation", "Utilisation", "%", 100 * utilisation(), 1, 100),
    )


def _body(bundle: Path) -> Markup:
    model = read("machines.json")["models"][0]
    flops = operations(model["parameters"], model["tokens"])
    head = tag(
        "tr",
        tag("th", "Machine", scope="col"),
        *(tag("th", text, scope="col", class_="r") for text in ("TFLOP/s at work", "Time", "Rent")),
    )
    rows = [row(OWN, "–", "–", "–", class_="live__own", data_row="own")]
    rows += [_row(machine, flops) for machine in machines()]
    return join(
        tag(
            "p",
            f"6 × {short(model['parameters'])} × {short(model['tokens'])} = ",
            power(flops),
            " FLOPs",
            class_="live__sum num",
            data_part="sum",
        ),
        tag(
            "div",
            tag("table", tag("thead", head), tag("tbody", *rows), class_="tbl live__times"),
            class_="scroll",
            tabindex="0",
            role="group",
            aria_label="Time by machine",
        ),
    )


def _row(machine: Machine, flops: float) -> Markup:
    rate = machine.rate(utilisation())
    seconds = flops / rate
    return row(
        machine.name,
        figure(rate / 1e12),
        duration(seconds),
        dollars(seconds / 3600 * machine.usd_per_hour) if machine.usd_per_hour else "–",
        data_row=machine.id,
        data_tflops=f"{machine.tflops:g}",
        data_peak=machine.peak,
        data_rent=f"{machine.usd_per_hour:g}" if machine.usd_per_hour else None,
    )


def _source(data: str) -> Markup:
    facts = read("machines.json")
    peaks = [m for m in facts["machines"] if "peak_tflops" in m]
    return join(
        "Operations: ",
        link(f"{facts['formula']['text']} ({facts['formula']['title']})", facts["formula"]["url"]),
        ". Utilisation counts for ",
        *_listed([link(m["name"], m["url"]) for m in peaks]),
        ", whose peaks are the vendor’s; the others are rates as measured. Rent: ",
        *_listed([link(f"${m['usd_per_hour']:g} an hour for {m['name']}", m["rent_url"]) for m in peaks]),
        *(f". This trainer: {provenance(record)}" for record in trainers()),
        " (",
        link("machines", f"{data}/machines.json"),
        ", ",
        link("steps", f"{data}/train_steps.json"),
        ").",
    )


def _listed(parts: list[Markup]) -> list[str]:
    """The parts with commas between them."""
    return [piece for part in parts for piece in (", ", part)][1:]


FIGURE = Figure("GPT-2 takes months in a tab, and hours on rented GPUs", _controls, _body, _source)
