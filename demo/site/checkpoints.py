"""The page of checkpoints, from docs/checkpoints/index.json: a list with, for each,

name, title     "gpt2-fineweb", "GPT-2 124M on FineWeb"
parameters      a whole number
config          the fields of trainer.config.ModelConfig
trained         tokens, steps, seconds, device, and the text in words
scores          name → number
files           name (in docs/checkpoints/<name>/, or an address), bytes, sha256
samples         prompt, text

`python -m demo.ship` writes it; the demo's page lists it, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from demo.site.data import DataError
from demo.site.quantities import quantity

MANIFEST = Path(__file__).resolve().parents[2] / "docs" / "checkpoints" / "index.json"
UNITS = {"parameters": "parameters", "tokens": "tokens", "seconds": "s"}
NONE = (
    "None is shipped yet. Whatever you train, here or on the command line, is a checkpoint of the same kind."
)


def page(manifest: Path = MANIFEST) -> str:
    """Markdown of all checkpoints that are shipped, or that none is."""
    if not manifest.exists():
        return NONE
    return "\n\n".join(_checkpoint(entry) for entry in json.loads(manifest.read_text(encoding="utf-8")))


def shipped(name: str) -> Mapping[str, Any]:
    """What the manifest says of a checkpoint. Raises DataError."""
    for entry in json.loads(MANIFEST.read_text(encoding="utf-8")):
        if entry["name"] == name:
            return entry
    raise DataError(f"no checkpoint is called {name!r}", f"name one of {MANIFEST.name}")


def figure(name: str, what: str) -> str:
    """A figure of a checkpoint: its parameters, tokens or seconds of training, or one of its scores, of which
    accuracies are shares.
    """
    entry = shipped(name)
    known = {"parameters": entry["parameters"], **entry["trained"], **entry["scores"]}
    if what not in known:
        raise DataError(f"checkpoint {name} has no {what!r}", f"it has {', '.join(known)}")
    if what.endswith("accuracy"):
        return quantity(100 * known[what], "%")
    return quantity(known[what], "bits per byte" if "bits per byte" in what else UNITS[what])


def _checkpoint(entry: Mapping[str, Any]) -> str:
    trained, name = entry["trained"], entry["name"]
    about = [
        ("Parameters", f"{entry['parameters']:,}"),
        ("Model", ", ".join(f"{key} {value:,}" for key, value in entry["config"].items())),
        (
            "Trained",
            f"{quantity(trained['tokens'], 'tokens')} in {trained['steps']:,} steps, "
            f"{quantity(trained['seconds'], 's')} on {trained['device']}",
        ),
        ("Text", trained["text"]),
        *((key[0].upper() + key[1:], f"{value:,}") for key, value in entry["scores"].items()),
    ]
    rows = ["| what | value |", "|---|---|"]
    rows += [f"| {escape(key)} | {escape(value)} |" for key, value in about]
    files = ["| file | size | SHA-256 |", "|---|---:|---|"]
    for file in entry["files"]:
        address = file["name"] if "://" in file["name"] else f"{name}/{file['name']}"
        link = f'<a href="{escape(address)}">{escape(file["name"].rpartition("/")[2])}</a>'
        files.append(f"| {link} | {quantity(file['bytes'], 'B')} | `{file['sha256']}` |")
    samples = [
        f'<blockquote class="tb-sample"><b>{_lines(sample["prompt"])}</b>{_lines(sample["text"])}'
        "</blockquote>"
        for sample in entry["samples"]
    ]
    title = f"## {entry['title']} {{ #{name} }}"
    return "\n\n".join([title, "\n".join(rows), "\n".join(files), *samples])


def _lines(text: str) -> str:
    """What a model wrote, its line ends too."""
    return escape(text).replace("\n", "<br>")
