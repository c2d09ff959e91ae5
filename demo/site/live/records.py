"""The committed figures that the live ones begin with: docs/data/*.json."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[3] / "docs" / "data"
OPERATIONS = 6  # a parameter and token: 2 forward, 4 backward (Kaplan et al. 2020, section 2.1)
GPT2 = ("gpt2", "GPT-2")  # the preset, and the workload of the benchmarks: one model
CHINCHILLA = 20  # tokens a parameter (Hoffmann et al. 2022)


@dataclass(frozen=True)
class Machine:
    """What computes, and for how much. `tflops` is a rate that was measured, or a peak if `peak`."""

    id: str
    name: str
    tflops: float
    peak: bool
    usd_per_hour: float | None

    def rate(self, utilisation: float) -> float:
        """FLOP/s at work: a peak's share, or what was measured."""
        return 1e12 * self.tflops * (utilisation if self.peak else 1)


@cache
def read(name: str) -> Any:
    """docs/data/`name`."""
    return json.loads((DATA / name).read_text(encoding="utf-8"))


def operations(parameters: float, tokens: float) -> float:
    """FLOPs of training a model of `parameters` on `tokens`."""
    return OPERATIONS * parameters * tokens


def utilisation() -> float:
    """The share of a peak that the figures begin with."""
    return read("machines.json")["utilisation"]["percent"] / 100


def device_name(device: str) -> str:
    """A device without vendor and details: "NVIDIA H100 80GB HBM3" is an H100."""
    return re.sub(r"^NVIDIA |\s*\(.*\)|\s+\d+GB.*", "", device)


def provenance(record: dict[str, Any]) -> str:
    """A record's machine, date and commit in a line."""
    commit = (record.get("commit") or "no commit")[:7]
    return f"{device_name(record['device'])}, {record['date']}, {commit}"


def products() -> list[dict[str, Any]]:
    """Of every device, its fastest recorded f32 products by the naive and by another kernel of ours, slow
    first.
    """
    best: dict[tuple[str, bool], dict[str, Any]] = {}
    for record in read("kernels.json"):
        same = record["impl"] == "tabula" and record["precision"] == "f32"
        if same and record["workload"].startswith("matmul NN"):
            key = record["device"], record["variant"] == "matmul"
            if key not in best or best[key]["tflops"] < record["tflops"]:
                best[key] = record
    return sorted(best.values(), key=lambda record: record["tflops"])


def trainers() -> list[dict[str, Any]]:
    """Of every device that trained GPT-2's steps with this trainer, the fastest record."""
    best: dict[str, dict[str, Any]] = {}
    for record in sorted(read("train_steps.json"), key=lambda record: record["tflops"]):
        if record["impl"] == "tabula" and record["workload"] in GPT2:
            best[record["device"]] = record
    return list(best.values())


def machines() -> list[Machine]:
    """Those of machines.json, and those that this trainer was timed on, at the price of their kind."""
    found = []
    for entry in read("machines.json")["machines"]:
        peak = "peak_tflops" in entry
        tflops = entry["peak_tflops"] if peak else entry["measured_tflops"]
        name = f"{entry['name']}, {entry['precision']}"
        found.append(Machine(entry["id"], name, tflops, peak, entry.get("usd_per_hour")))
    rents = {entry["name"]: entry.get("usd_per_hour") for entry in read("machines.json")["machines"]}
    for record in trainers():
        name = device_name(record["device"])
        rent = rents.get(name)
        found.append(Machine(f"{name.lower()}-here", f"{name}, this trainer", record["tflops"], False, rent))
    return found
