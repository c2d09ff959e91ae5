"""Puts a trained model among those that come with the site: its files, and its entry in their index.

    trainer export runs/small --out small
    python -m demo.ship small --run runs/small --name small --title "Small, on books" --text "1,208 books"

Reads the run's log.jsonl, its reports (report.json, and any other report-*.json) and its samples.jsonl (a
prompt and a text a line, all of which are shown). Writes docs/checkpoints/NAME/: the export's files, and as
evidence log.jsonl, thinned as a recording is, and the reports, without any path of this machine. The index
docs/checkpoints/index.json is what the page lists, and what the Checkpoints page is drawn from.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demo import record
from trainer import checkpoint, storage
from trainer.checkpoint import LOG
from trainer.config import to_dict
from trainer.errors import CheckpointError, ConfigError, TrainerError
from trainer.events import json_lines
from trainer.provenance import commit, machine

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "checkpoints"
INDEX = "index.json"
SAMPLES = "samples.jsonl"
LARGEST = 25 << 20  # bytes; what every host of static sites takes
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
DIGITS = 3  # significant ones of a score


def main(argv: Sequence[str] | None = None) -> int:
    """Writes a model's folder and its entry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo.ship", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("export", type=Path, help="what `trainer export` wrote")
    parser.add_argument("--run", type=Path, required=True, help="the run's log, reports and samples")
    parser.add_argument("--name", required=True, help="of its folder: lower-case words joined by -")
    parser.add_argument("--title", required=True, help="as readers see it")
    parser.add_argument("--text", required=True, help="what it was trained on, in a line")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of all models (default: the site's)")
    parser.add_argument("--machine", default=machine(), help="where it was trained (default: %(default)s)")
    parser.add_argument("--commit", default=commit(), help="what it was trained with (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        if not NAME.fullmatch(args.name):
            raise ConfigError(f"--name is {args.name!r}", "use lower-case words joined by -, as in a-name")
        evidence = read_run(args.run, args.machine, args.commit)
        files = {path.name: path.read_bytes() for path in _exported(args.export)} | evidence
        made = entry(args.name, args.title, args.text, files, read_samples(args.run))
        write(args.out, made, files)
    except (TrainerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out / args.name}: {sum(file['bytes'] for file in made['files']):,} bytes")
    return 0


def entry(
    name: str, title: str, text: str, files: Mapping[str, bytes], samples: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """What the index says of the model that `files` are. Raises CheckpointError where they disagree."""
    loaded = checkpoint.from_files(files, Path(name))
    if loaded.tokenizer is None:
        raise CheckpointError(f"{name} has no {checkpoint.TOKENIZER}", "export it with its tokenizer")
    log = [json.loads(line) for line in json_lines(files[LOG].decode())]
    start, end = log[0], log[-1]
    reports = [json.loads(body) for file, body in sorted(files.items()) if file.startswith("report")]
    trained = {"model": start["model"], "step": end["step"]}
    for found in (
        {"model": to_dict(loaded.model), "step": end["step"] if loaded.step is None else loaded.step},
        *({"model": report["model"], "step": report["checkpoint"]["step"]} for report in reports),
    ):
        if found != trained:
            raise CheckpointError(f"the log is of {trained}, another file of {found}", "give one run's files")
    for file, body in files.items():
        if len(body) > LARGEST:
            raise CheckpointError(f"{file} has {len(body):,} bytes", "export it with a smaller --shard-mib")
    return {
        "name": name,
        "title": title,
        "parameters": start["parameters"],
        "config": start["model"],
        "trained": {
            "tokens": end["step"] * start["tokens_per_step"],
            "steps": end["step"],
            "seconds": round(end["seconds"], 1),
            "device": start["device"]["name"],
            "text": text,
        },
        "scores": scores(reports),
        "files": [
            {"name": file, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            for file, body in sorted(files.items())
        ],
        "samples": list(samples),
    }


def scores(reports: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What reports measured: name → number."""
    found: dict[str, float] = {}
    for report in reports:
        if report["text"]:
            text = Path(report["data"][0]["name"]).stem
            name = "its held-out text" if text == "validation" else text
            found[f"bits per byte of {name}"] = report["text"]["bits_per_byte"]
        for name, label in {"lambada": "LAMBADA", "blimp": "BLiMP"}.items():
            if report[name]:
                found[f"{label} accuracy"] = report[name]["accuracy"]
    return {name: float(f"{value:.{DIGITS}g}") for name, value in found.items()}


def read_run(run: Path, machine: str, commit: str | None) -> dict[str, bytes]:
    """The evidence of a run: its thinned log and its reports. Raises CheckpointError."""
    reports = {path.name: record.read_report(run, path) for path in sorted(run.glob("report*.json"))}
    if not reports:
        raise CheckpointError(f"{run} has no report.json", "make one: trainer eval RUN --out RUN/report.json")
    log = record.recording(record.read_log(run), machine=machine, commit=commit)
    lines = {LOG: log, **{name: [report] for name, report in reports.items()}}
    return {
        name: "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in content).encode()
        for name, content in lines.items()
    }


def read_samples(run: Path) -> list[dict[str, str]]:
    """{prompt, text} of each line of samples.jsonl. Raises CheckpointError."""
    try:
        lines = json_lines((run / SAMPLES).read_text(encoding="utf-8"))
        return [{"prompt": line["prompt"], "text": line["text"]} for line in map(json.loads, lines)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{run / SAMPLES} holds no samples ({error})", "write a prompt and a text a line, as JSON"
        ) from None


def write(folder: Path, made: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """The model's folder, anew, and the index with its entry. Raises StorageError."""
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / INDEX
    known = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else []
    entries = [other for other in known if other["name"] != made["name"]] + [made]
    shutil.rmtree(folder / made["name"], ignore_errors=True)
    storage.write_folder(folder / made["name"], {name: [body] for name, body in files.items()})
    entries.sort(key=lambda one: (one["parameters"], one["name"]))
    storage.write_file(index, [(json.dumps(entries, indent=1, ensure_ascii=False) + "\n").encode()])


def _exported(folder: Path) -> list[Path]:
    """Files of an export. Raises CheckpointError where it holds more than that."""
    found = sorted(path for path in folder.iterdir() if path.is_file())
    known = {checkpoint.CONFIG, checkpoint.WEIGHTS_INDEX, checkpoint.TOKENIZER, checkpoint.TOKENIZER_CONFIG}
    for path in found:
        if path.name not in known and not re.fullmatch(r"model[-\w]*\.safetensors", path.name):
            raise CheckpointError(f"{path} is no part of an export", "give the --out of `trainer export`")
    return found


if __name__ == "__main__":
    sys.exit(main())
