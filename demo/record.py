"""Makes a recording of a native run, for the demo to play where there is no GPU, and for the post's curves.

    python -m demo.record runs/micro --out demo/page/recorded/micro.jsonl

Run it where the run was made: the machine and the commit that the recording names are those at hand, unless
--machine and --commit say others. The recording is the run's log.jsonl with at most 600 of its steps, without
its saves and notices; a `recording` in its first line has machine, date and commit. The run's evaluation, if
there is one (`trainer eval RUN --out RUN/report.json`, or --report), goes beside it: micro.report.jsonl. No
path of this machine gets into either. Whatever lies in demo/page/recorded/ is in the site after the next
build.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer import storage
from trainer.checkpoint import LOG
from trainer.errors import CheckpointError, TrainerError
from trainer.events import json_lines
from trainer.provenance import commit, machine

MOST_STEPS = 600
KEPT = ("run_started", "step", "validation", "sample", "run_ended")
DIGITS = {"loss": 5, "learning_rate": 5, "gradient_norm": 4, "bits_per_byte": 5}  # significant ones
REPORT = "report.json"

Event = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Writes a recording; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo.record", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--out", type=Path, required=True, help="the recording: a file.jsonl")
    parser.add_argument("--report", type=Path, help=f"the run's evaluation (default: RUN/{REPORT}, if there)")
    parser.add_argument("--machine", default=machine(), help="where the run was made (default: %(default)s)")
    parser.add_argument("--commit", default=commit(), help="what it was made with (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        events = recording(read_log(args.run), machine=args.machine, commit=args.commit)
        report = read_report(args.run, args.report)
        _write(args.out, events)
        if report:
            _write(args.out.with_suffix(".report.jsonl"), [report])
    except TrainerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {len(events)} events{', and the report beside it' if report else ''}")
    return 0


def recording(events: list[Event], *, machine: str, commit: str | None) -> list[Event]:
    """A finished run's events as they are published. Raises CheckpointError for one that has not finished."""
    kept = _without_pauses([event for event in events if event["event"] in KEPT])
    if not kept or kept[0]["event"] != "run_started":
        raise CheckpointError(
            "the log does not begin with the start of a run", "give a run's folder, log and all"
        )
    if kept[-1].get("reason") != "finished":
        raise CheckpointError("the run has not finished", "go on with it: trainer train --resume RUN")
    date = datetime.fromtimestamp(kept[0]["time"], UTC).date().isoformat()
    known = {"machine": machine, "date": date, "commit": commit}
    first = {"time": kept[0]["time"], "recording": known, **kept[0]}
    return [first, *map(_rounded, _thinned(kept[1:]))]


def read_log(run: Path) -> list[Event]:
    """The events of a run's log.jsonl. Raises CheckpointError where there is none, or one that is damaged."""
    path = run / LOG
    try:
        lines = json_lines(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror})", "give the --out of a run"
        ) from None
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error})", "resume the run, which mends its log") from None


def read_report(run: Path, path: Path | None) -> dict[str, Any] | None:
    """An evaluation without the paths in it, or None where there is none. Raises CheckpointError."""
    if path is None and not (run / REPORT).is_file():
        return None
    path = path or run / REPORT
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        report["checkpoint"]["path"] = Path(report["checkpoint"]["path"]).name
        for data in report["data"]:
            data["name"] = Path(data["name"]).name
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is no report ({error})", "make one: trainer eval RUN --out FILE"
        ) from None
    return report


def _without_pauses(events: list[Event]) -> list[Event]:
    """A run that was stopped and resumed as one: neither the end in between nor the time until it went on."""
    joined: list[Event] = []
    gone = 0.0
    for event in events:
        if event["event"] == "run_started" and joined:
            if joined[-1]["event"] == "run_ended":
                joined.pop()
            gone = event["time"] - joined[-1]["time"]
            continue
        joined.append({**event, "time": round(event["time"] - gone, 3)})
    return joined


def _thinned(events: list[Event]) -> list[Event]:
    """Every nth step from the last back, MOST_STEPS at most; and the first, and all that were skipped."""
    steps = [i for i, event in enumerate(events) if event["event"] == "step"]
    stride = -(-len(steps) // MOST_STEPS) or 1
    wanted = {*steps[::-1][::stride], *steps[:1]}
    return [e for i, e in enumerate(events) if e["event"] != "step" or i in wanted or e["skipped"]]


def _rounded(event: Event) -> Event:
    return {
        name: float(f"{value:.{DIGITS[name]}g}") if name in DIGITS and value is not None else value
        for name, value in event.items()
    }


def _write(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    storage.write_file(path, [text.encode()])


if __name__ == "__main__":
    sys.exit(main())
