"""The figure "compute": what matrix products reach on the reader's machine, beside recorded machines; and the
plans that the page replays for it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from demo.device import FlatPlan
from demo.site.live.frame import Figure
from demo.site.live.markup import Markup, join, link, row, tag
from demo.site.live.numbers import figure
from demo.site.live.records import device_name, products, provenance, read
from trainer.kernels import Tuning
from trainer.ops.matmul import matmul
from trainer.ops.random import normal
from trainer.plan import Plan

SIZES = {"gpu": (256, 512, 1024, 2048), "software": (128, 256)}  # M = N = K
LOW, HIGH = 0.1, 100_000  # GFLOP/s at the two ends of a bar
OWN = {
    "cpu": "One CPU thread",
    "naive": "GPU, naive kernel",
    "tuned": "GPU, tuned kernel",
    "synced": "Tuned, read back each time",
}


def share(gflops: float) -> float:
    """How much of a logarithmic bar is filled, in percent."""
    return round(100 * min(1, max(0.005, math.log(gflops / LOW) / math.log(HIGH / LOW))), 1)


def plans() -> dict[str, list[dict[str, Any]]]:
    """For a GPU and for a software renderer, and for each size, what gpu.js takes: buffers and flat programs.
    `naive` and `tuned` are one product each, and `places` says in which buffer and where their results lie.
    """
    return {kind: [_plan(kind == "software", size) for size in sizes] for kind, sizes in SIZES.items()}


def _plan(software: bool, size: int) -> dict[str, Any]:
    plan = Plan()
    a, b = (plan.tensor(name, (size, size), role="state") for name in ("a", "b"))
    outs = {name: plan.tensor(name, (size, size), role="state") for name in ("naive", "tuned")}
    with plan.program("fill"):
        normal(plan, a, std=1.0, seed=1, stream=0)
        normal(plan, b, std=1.0, seed=1, stream=1)
    tunings = {"naive": Tuning(pinned={"matmul": "matmul"}), "tuned": Tuning(software)}
    for name, out in outs.items():
        plan.tuning = tunings[name]
        with plan.program(name):
            matmul(plan, a, b, out, (size, size, size))
    plan.finish()
    places = {name: plan.place(out)[:2] for name, out in outs.items()}
    _, programs = FlatPlan(plan).adding(plan.programs)
    return {"size": size, "places": places, "buffers": plan.buffers, "programs": programs}


def _controls() -> Markup:
    return join(
        tag("p", "Multiplies matrices for 3 seconds, on your GPU and on one CPU thread.", class_="live__say"),
        tag("button", "Measure", class_="btn", type="button", disabled=True),
    )


def _body(bundle: Path) -> Markup:
    own = [_bar(name, None, class_="live__own", data_row=key) for key, name in OWN.items()]
    recorded = [(record["tflops"], _kernel(record)) for record in products()]
    published = [
        (m["measured_tflops"], f"{m['name']}, published")
        for m in read("machines.json")["machines"]
        if "measured_tflops" in m
    ]
    others = [
        _bar(name, 1000 * tflops, class_="live__other") for tflops, name in sorted(recorded + published)
    ]
    head = tag(
        "tr",
        *(tag("th", text, scope="col") for text in ("What multiplies", "Logarithmic")),
        tag("th", "GFLOP/s", scope="col", class_="r"),
    )
    return tag(
        "table", tag("thead", head), tag("tbody", *own), tag("tbody", *others), class_="tbl live__bars"
    )


def _source(data: str) -> Markup:
    published = [m for m in read("machines.json")["machines"] if "measured_tflops" in m]
    recorded = "; ".join(dict.fromkeys(provenance(record) for record in products()))
    return join(
        tag("span", "Not measured here yet. ", data_part="source"),
        f"Grey, f32: {recorded} (",
        link("JSON", f"{data}/kernels.json"),
        "); published: ",
        *(link(m["title"], m["url"]) for m in published),
        ". Each mark on a bar is ten times more.",
    )


def _kernel(record: dict[str, Any]) -> str:
    kind = "naive" if record["variant"] == "matmul" else "tuned"
    name = device_name(record["device"])
    if name == "llvmpipe":
        name = f"Software GPU on {record['machine'].split(', ')[1]}"
    return f"{name}, {kind}"


def _bar(name: str, gflops: float | None, **attributes: Any) -> Markup:
    width = f"{share(gflops) if gflops else 0:g}%"
    drawn = tag("svg", tag("rect", width=width, height="100%", rx="3"), class_="live__bar", focusable="false")
    value = figure(gflops) if gflops else "–"
    return row(name, tag("td", drawn, aria_hidden="true"), value, **attributes)


FIGURE = Figure("The kernel decides how much of a machine you get", _controls, _body, _source)
