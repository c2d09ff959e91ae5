"""The figure "steps": training steps on the reader's machine, beside recorded machines and other trainers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from demo.site.live.frame import Figure
from demo.site.live.markup import Markup, join, link, row, tag
from demo.site.live.numbers import figure
from demo.site.live.records import device_name, provenance, read
from trainer.bench.steps import WORKLOADS
from trainer.provenance import commit

TIMED = ("TINY", "SMALL")
FILES = ("train_steps.json", "peers.json")


def recorded(workload: str) -> list[dict[str, Any]]:
    """The records of a workload, the fastest first."""
    records = [record for file in FILES for record in read(file) if record["workload"] == workload]
    return sorted(records, key=lambda record: record["ms_per_step"])


def described(workload: str) -> str:
    """What is trained: TINY: 2 layers, width 64, context 64, vocabulary 512, batch 8."""
    model, batch = WORKLOADS[workload]
    return (
        f"{workload}: {model.layers} layers, width {model.width}, context {model.context}, "
        f"vocabulary {model.vocab:,}, batch {batch}"
    )


def name(record: dict[str, Any]) -> str:
    """Who trains, and on what: Tabula, H100, mixed; jax-js 0.1.25 in Chromium, 2 cores."""
    who = "Tabula" if record["impl"] == "tabula" else record["impl"]
    mixed = ", mixed" if record["precision"] == "mixed" else ""
    if "browser" not in record:
        return f"{who}, {device_name(record['device'])}{mixed}"
    browser = re.split(r"[ /,]", record["browser"])[0]
    where = device_name(record["device"])
    where = record["machine"].split(", ")[1] if "swiftshader" in where else where
    return f"{who} in {browser}, {where}{mixed}"


def _controls() -> Markup:
    say = (
        "Loads the trainer, as the demo does, and trains two small models on random tokens for some seconds, "
        "on your GPU."
    )
    return join(
        tag("p", say, class_="live__say"),
        tag("button", "Time steps here", class_="btn", type="button", data_act="time", disabled=True),
    )


def _body(bundle: Path) -> Markup:
    head = tag(
        "tr",
        tag("th", "Who trains, and on what", scope="col"),
        *(tag("th", text, scope="col", class_="r") for text in ("ms a step", "tokens/s")),
    )
    parts = []
    for workload in TIMED:
        title = tag("th", described(workload), colspan="3", scope="rowgroup")
        own = row("This machine", "–", "–", class_="live__own", data_row=workload)
        others = [
            row(name(record), figure(record["ms_per_step"]), figure(record["tokens_per_s"]))
            for record in recorded(workload)
        ]
        parts.append(tag("tbody", tag("tr", title, class_="live__group"), own, *others))
    table = tag("table", tag("thead", head), *parts, class_="tbl live__steps")
    table = tag("div", table, class_="scroll", tabindex="0", role="group", aria_label="Steps by machine")
    copied = join(
        tag("summary", "The measurement as JSON"),
        tag("pre", "", data_part="json"),
        tag("button", "Copy", class_="btn btn--small", type="button", data_act="copy"),
    )
    return join(table, tag("details", copied, class_="more", hidden=True, data_commit=commit() or ""))


def _source(data: str) -> Markup:
    found = [record for workload in TIMED for record in recorded(workload)]
    origins = "; ".join(dict.fromkeys(provenance(record) for record in found))
    links = [link(file.partition(".")[0].replace("_", " "), f"{data}/{file}") for file in FILES]
    return join(
        tag("span", "Not timed here yet. ", data_part="source"),
        f"Black: {origins} (JSON: ",
        links[0],
        ", ",
        links[1],
        ").",
    )


FIGURE = Figure("One training step, here and elsewhere", _controls, _body, _source)
