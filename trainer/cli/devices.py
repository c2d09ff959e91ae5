"""`trainer devices`: the adapters that there are, and which one is used."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from trainer.devices import DeviceInfo, open_device

SHOWN_LIMITS = (  # those that decide what fits; --json has all
    "max-buffer-size",
    "max-storage-buffer-binding-size",
    "max-storage-buffers-per-shader-stage",
    "max-compute-workgroup-storage-size",
    "max-compute-invocations-per-workgroup",
)
EPILOG = """\
examples:
  trainer devices
  trainer devices --json
  trainer train --device 1 ...          (or a part of the name: --device llvmpipe)

A software renderer does the GPU's work on the CPU: slow, but it computes the same. `--device reference`
is NumPy, the baseline; it needs no adapter. Limits are in bytes but for those that count things.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `trainer devices`."""
    parser.epilog = EPILOG
    parser.add_argument("--json", action="store_true", help="print all limits and features, as JSON")


async def main(args: argparse.Namespace) -> int:
    """List the adapters. Raises DeviceError when there is none."""
    from trainer.devices.native import describe, list_adapters

    infos = [describe(adapter) for adapter in list_adapters()]
    if not infos:
        await open_device("auto")  # says what is missing and what to install
    records = [_record(number, info) for number, info in enumerate(infos)]
    if args.json:
        print(json.dumps(records, indent=1, ensure_ascii=False))
    else:
        print("\n\n".join(_text(record) for record in records))
    return 0


def _record(number: int, info: DeviceInfo) -> dict[str, Any]:
    return {"device": number, "auto": number == 0, **asdict(info)}


def _text(record: dict[str, Any]) -> str:
    marks = ["used for auto"] * record["auto"] + ["software renderer"] * record["software"]
    lines = [f"{record['device']}  {record['name']}" + (f"  [{', '.join(marks)}]" if marks else "")]
    lines.append(f"   {record['kind']} through {record['backend']}, {record['driver']}")
    if record["memory"] is not None:
        lines.append(f"   {'memory free':40} {record['memory']:>14,}")
    lines += [
        f"   {name:40} {record['limits'][name]:>14,}" for name in SHOWN_LIMITS if name in record["limits"]
    ]
    lines.append(f"   features: {', '.join(record['features']) or 'none'}")
    return "\n".join(lines)
