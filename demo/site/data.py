"""What docs/data holds: measurements of this project, and facts from elsewhere with their sources.

A measurement is an object with the commit that it was made at, as `trainer bench` and `python -m demo.bench`
(or `demo.bench_peers`) write them: a list of them, or one object whose lists share what stands beside them.
facts.json holds what is not measured here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from demo.site.quantities import number, quantity
from trainer.errors import TrainerError
from trainer.events import json_lines

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs" / "data"
RECORDED = ROOT / "demo" / "page" / "recorded"  # the run that the demo plays: its log, and its evaluation
FACTS = "facts"  # the file's stem
PROVENANCE = ("device", "browser", "driver", "machine", "date", "commit", "command")
# How a measurement's field is read: the end of its name → (factor, unit)
UNITS: tuple[tuple[str, float, str], ...] = (
    ("tflops", 1e12, "FLOP/s"),
    ("gflops", 1e9, "FLOP/s"),
    ("tokens_per_s", 1, "tokens/s"),
    ("gb_per_s", 1e9, "B/s"),
    ("bits_per_byte", 1, "bits per byte"),
    ("loss", 1, "nats a token"),
    ("bytes_per_token", 1, "bytes a token"),
    ("memory_bytes", 1, "MiB"),
    ("bytes", 1, "B"),
    ("share", 100, "%"),
    ("_us", 1e-6, "s"),
    ("ms_per_step", 1e-3, "s"),
    ("ms_per_step_waiting", 1e-3, "s"),
    ("ms", 1e-3, "s"),
    ("_s", 1, "s"),
    ("seconds", 1, "s"),
)
NUMBERED = ("batch", "seed", "at")  # names that are numbers
NAMED_UNITS = {"MB": (1e6, "B"), "ms": (1e-3, "s")}  # of records with a value and a unit


class DataError(TrainerError):
    """A page asks for a figure that docs/data does not have."""


@dataclass(frozen=True)
class Record:
    """One measurement. `file` is the stem of its file, `anchor` its place on the page of benchmarks."""

    file: str
    values: Mapping[str, Any]

    @property
    def device(self) -> str:
        """What ran it: a GPU, a processor, or a browser."""
        return str(self.values.get("device") or self.values.get("browser") or self.values.get("machine"))

    @property
    def anchor(self) -> str:
        """Made of what tells it from the others, so that links to it stay."""
        parts = [
            self.file,
            *(str(v) for k, v in self.values.items() if k not in PROVENANCE and is_label(v, k)),
        ]
        return re.sub(r"[^a-z0-9]+", "-", " ".join([*parts, self.device]).lower()).strip("-")

    @property
    def origin(self) -> str:
        """Machine, date, commit and command, in one line."""
        v = self.values
        made = [self.device, v.get("machine"), v.get("date"), f"commit {short(str(v.get('commit')))}"]
        return f"{', '.join(str(part) for part in dict.fromkeys(made) if part)}: {v.get('command')}"

    def shown(self, field: str) -> str:
        """A field with its unit. Raises DataError if the record lacks it."""
        value = self.values.get(field)
        if value is None:
            raise DataError(
                f"{self.file}.json has no {field!r} for {self.anchor}", "name a field that is there"
            )
        factor, unit = self._unit(field)
        return quantity(value * factor, unit) if unit else number(value)

    def number(self, field: str) -> float:
        """A field in its base unit: operations, seconds, bytes a second and so on."""
        return float(self.values[field]) * self._unit(field)[0]

    def _unit(self, field: str) -> tuple[float, str]:
        if field == "value":
            unit = str(self.values["unit"])
            return NAMED_UNITS.get(unit, (1, unit))
        return next(((factor, unit) for end, factor, unit in UNITS if field.endswith(end)), (1, ""))


def short(commit: str) -> str:
    """A commit's first digits, and whether there were changes beside it."""
    return commit[:9] + ("-dirty" if commit.endswith("-dirty") else "")


def is_label(value: Any, field: str) -> bool:
    """Whether a field names what was measured, rather than a result."""
    return field in NUMBERED or (isinstance(value, str) and field != "unit")


@dataclass(frozen=True)
class Fact:
    """A figure from elsewhere: a number or a range of two in the base unit, and whose it is."""

    name: str
    value: Any
    unit: str
    source: str
    url: str | None = None
    note: str = ""  # what a table says of it

    @property
    def shown(self) -> str:
        return quantity(self.value, self.unit)


@cache
def facts(folder: Path = DATA) -> dict[str, Fact]:
    """All facts by name."""
    rows = json.loads((folder / f"{FACTS}.json").read_text(encoding="utf-8"))
    return {row["name"]: Fact(**row) for row in rows}


@cache
def measurements(folder: Path = DATA) -> tuple[Record, ...]:
    """All measurements there are, file by file."""
    found = []
    for path in sorted(folder.glob("*.json")):
        for row in _rows(json.loads(path.read_text(encoding="utf-8"))):
            found.append(
                Record(path.stem, {name: v for name, v in row.items() if isinstance(v, str | int | float)})
            )
    if folder == DATA:
        found += [_evaluation(path) for path in sorted(RECORDED.glob("*.report.jsonl"))]
    return tuple(record for record in found if "commit" in record.values)


def _evaluation(path: Path) -> Record:
    """The report of `trainer eval` on the recorded run, as one measurement."""
    report = json.loads(path.read_text(encoding="utf-8"))
    name, text = path.name.partition(".")[0], report["text"]
    fields = {
        "workload": name,
        "parameters": report["parameters"],
        "steps": report["checkpoint"]["step"],
        "loss": text["loss"],
        "perplexity": text["perplexity"],
        "bits_per_byte": text["bits_per_byte"],
        "zlib_bits_per_byte": text["baselines"]["zlib_bits_per_byte"],
        "unigram_bits_per_byte": text["baselines"]["unigram_bits_per_byte"],
        "uniform_bits_per_byte": text["baselines"]["uniform_bits_per_byte"],
        "device": report["device"]["name"],
        "driver": report["device"]["driver"],
        "date": report["date"][:10],
        "commit": report["commit"],
        "command": f"trainer eval {report['checkpoint']['path'].rpartition('/')[0]}",
    }
    return Record("recorded_run", fields)


def sample(step: int, run: str = "nano") -> tuple[str, str]:
    """What the recorded run wrote at a step: the prompt and its own text. Raises DataError."""
    for line in json_lines((RECORDED / f"{run}.jsonl").read_text(encoding="utf-8")):
        event = json.loads(line)
        if (event["event"], event["step"]) == ("sample", step):
            return event["prompt"], event["text"]
    raise DataError(f"the recorded run wrote nothing at step {step}", "ask for a step at which it did")


def whole(file: str, folder: Path = DATA) -> list[Record]:
    """The records of a file as they were written, with their lists; none where there is no such file."""
    path = folder / f"{file}.json"
    written = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [Record(file, values) for values in written]


def _rows(data: Any) -> list[dict[str, Any]]:
    if isinstance(data, list):
        return [part for row in data if isinstance(row, dict) for part in _rows(row)]
    shared = {name: value for name, value in data.items() if not isinstance(value, list | dict)}
    rows = [
        row for value in data.values() if isinstance(value, list) for row in value if isinstance(row, dict)
    ]
    return [{**row, **shared, **row} for row in rows] or [shared]  # what the row says counts


def find(file: str, *, device: str = "", **wanted: Any) -> Record:
    """The one record of a file whose fields are as wanted, on a device whose name contains `device`.

    Raises DataError if there is none, or more than one.
    """
    found = matching(file, device=device, **wanted)
    if len(found) != 1:
        asked = ", ".join(f"{name}={value!r}" for name, value in {**wanted, "device": device}.items())
        raise DataError(f"{file}.json has {len(found)} records with {asked}", "ask for one that is there")
    return found[0]


def fastest(file: str, **wanted: Any) -> Record:
    """Of the records that are as wanted, the one with the highest rate. Raises DataError if there is none."""
    found = matching(file, **wanted)
    return max(found, key=lambda record: record.number("tflops")) if found else find(file, **wanted)


def matching(file: str, *, device: str = "", **wanted: Any) -> list[Record]:
    """All records of a file whose fields are as wanted, on devices whose name contains `device`."""
    return [
        record
        for record in measurements()
        if record.file == file
        and device in record.device
        and all(record.values.get(name) == value for name, value in wanted.items())
    ]


def fact(name: str) -> Fact:
    """Raises DataError if facts.json has no such name."""
    if name not in facts():
        raise DataError(f"facts.json has nothing called {name!r}", "add it there, with its source")
    return facts()[name]
