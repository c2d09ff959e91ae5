"""The records that `trainer bench` keeps: where each figure is from, and how they join a folder's files."""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from trainer import storage
from trainer.devices import Device
from trainer.errors import ConfigError
from trainer.provenance import commit, machine, today

Record = dict[str, Any]

# What tells one measurement from another: a new record replaces the one that has the same of all of these.
KEY = ("workload", "impl", "axis", "variant", "precision", "batch", "seed", "tuned", "device", "machine")


@cache
def checkout() -> str | None:
    """The commit of the checkout when it is first asked for: what a command writes would make it dirty."""
    return commit()


def provenance(device: str, driver: str) -> Record:
    """What every record says of where its figures come from."""
    return {
        "device": device,
        "driver": driver,
        "machine": machine(),
        "date": today(),
        "commit": checkout(),
        "command": "trainer " + " ".join(sys.argv[1:]),
    }


def ours(device: Device) -> Record:
    """The same for what this trainer does on a device."""
    tuned = {"tuned": "yes"} if device.info.answers else {}
    return {**provenance(device.info.name, device.info.driver), "impl": "tabula", **tuned}


def digits(value: float, count: int = 4) -> float:
    """`value` with `count` digits: more would be noise."""
    return float(f"{value:.{count}g}")


def read(path: Path) -> list[Record]:
    """The records in a file; none where it is not there. Raises ConfigError for what holds something else."""
    remedy = "give another --out, or move the file"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the records in {path} ({error})", remedy) from error
    if not (isinstance(found, list) and all(isinstance(record, dict) for record in found)):
        raise ConfigError(f"{path} holds no list of records", remedy)
    return found


def keep(folder: Path | None, name: str, records: list[Record]) -> None:
    """Merge `records` into `folder/name`, if there is a folder; those of the same measurement are replaced.

    Raises TrainerError where the folder cannot be written, or the file holds something else.
    """
    if folder is None:
        return
    path = folder / name
    with storage.storage_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
    new = {_key(record) for record in records}
    merged = sorted([r for r in read(path) if _key(r) not in new] + records, key=_key)
    text = json.dumps(merged, indent=1, ensure_ascii=False)
    # A list of numbers is a line: a run's losses should not be pages of them.
    text = re.sub(r"\[[-\d.e,\s]+\]", lambda numbers: " ".join(numbers[0].split()), text)
    storage.write_file(path, [f"{text}\n".encode()])


def peak_memory() -> int:
    """Bytes of main memory that this process has held at most; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _key(record: Record) -> tuple[str, ...]:
    return tuple(str(record.get(name, "")) for name in KEY)
