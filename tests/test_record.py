"""Recordings of native runs: what `python -m demo.record` keeps of a log, and what it refuses."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from demo import record
from demo.site.live import recordings
from trainer.config import ModelConfig, TrainConfig, preset
from trainer.events import (
    Event,
    Notice,
    RunEnded,
    RunStarted,
    Sample,
    Saved,
    Step,
    Validation,
    from_json,
    to_json,
)
from trainer.provenance import machine

STEPS = 5000
FOLDER = "/home/somebody/secret/runs/micro"
START = 1_795_385_032.5  # 2026-11-22


def started(step: int, time: float) -> RunStarted:
    micro = preset("micro")
    return RunStarted(
        step=step,
        steps=STEPS,
        parameters=micro.model.parameters,
        tokens_per_step=2048,
        flops_per_step=1e9,
        model=to_json_config(micro.model),
        train=to_json_config(micro.train),
        device={"name": "A GPU", "backend": "Vulkan", "kind": "GPU", "driver": "1", "software": False},
        train_tokens=1_000_000,
        validation_tokens=100_000,
        version="0.1.0",
        time=START + time,
    )  # fmt: skip


def to_json_config(config: ModelConfig | TrainConfig) -> dict[str, Any]:
    return dict(vars(config))


def log_of_a_run() -> list[dict[str, Any]]:
    """A log with a second event a step: stopped in the middle, and resumed a day later."""
    events: list[tuple[float, Event]] = [(0, started(0, 0)), (0.1, Validation(0, 7.6, 3.9))]
    later = 0.0
    for step in range(1, STEPS + 1):
        if step == 2501:
            events.append((2500.2, RunEnded(2500, "stopped", 2500.0)))
            later = 86_400.0
            events.append((2500.2 + later, started(2500, 2500.2 + later)))
        loss = 7.6 - math.log(step) / 4 + 0.01 * (step % 7)
        skipped = step == 333
        events.append((later + step, Step(step, loss, 1e-3, 0.71234567, skipped, 2048 * step, float(step))))
        if step % 1000 == 0:
            events.append((later + step, Validation(step, loss, loss / 2)))
            events.append((later + step, Sample(step, "Once", " upon a time")))
            events.append((later + step, Saved(step, f"{FOLDER}/step-{step:06}")))
            events.append((later + step, Notice(f"the disk of {FOLDER} is nearly full")))
    events.append((later + STEPS + 0.5, RunEnded(STEPS, "finished", float(STEPS))))
    return [{"time": START + time, **to_json(event)} for time, event in events]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, with its evaluation."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in log_of_a_run()))
    report = {
        "format": 1,
        "checkpoint": {"path": f"{FOLDER}/step-005000", "step": STEPS},
        "data": [{"name": "/home/somebody/texts/held-out.txt", "bytes": 9}],
    }
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def made(run: Path, *more: str) -> list[dict[str, Any]]:
    out = run.parent / "micro.jsonl"
    assert record.main([str(run), "--out", str(out), *more]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def event_of(line: dict[str, Any]) -> Event:
    """The event of a log's line. Raises ConfigError or TypeError where it is none."""
    time = {} if line["event"] == "run_started" else {"time"}  # which has a time of its own
    return from_json({key: value for key, value in line.items() if key not in {"recording", *time}})


def test_a_recording_is_a_shorter_valid_stream_of_events(run: Path) -> None:
    lines = made(run)
    for line in lines:
        event_of(line)
    kinds = [line["event"] for line in lines]
    assert kinds[0] == "run_started"
    assert kinds[-1] == "run_ended"
    assert (kinds.count("run_started"), kinds.count("run_ended"), kinds.count("validation")) == (1, 1, 6)
    assert {"saved", "notice", "progress"} & set(kinds) == set()
    steps = [line["step"] for line in lines if line["event"] == "step"]
    assert 500 <= len(steps) <= record.MOST_STEPS + 2, "600, the first, and the one that was skipped"
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (1, STEPS)
    assert 333 in steps


def test_a_pause_is_no_part_of_a_recording(run: Path) -> None:
    times = [line["time"] for line in made(run)]
    assert times == sorted(times)
    assert max(b - a for a, b in pairwise(times)) < 20, "no day between two events"
    assert times[-1] - times[0] == pytest.approx(STEPS, abs=2)


def test_it_says_where_it_was_made_and_no_path(run: Path) -> None:
    first, *_ = made(run, "--commit", "1a2b3c")
    assert first["recording"] == {"machine": machine(), "date": "2026-11-22", "commit": "1a2b3c"}
    first, *_ = made(run, "--machine", "A rented GPU", "--commit", "1a2b3c")
    assert first["recording"]["machine"] == "A rented GPU"
    written = [path.read_text() for path in run.parent.glob("micro*")]
    assert len(written) == 2
    assert [text for text in written if "/home" in text or "secret" in text] == []


def test_the_evaluation_goes_beside_it(run: Path) -> None:
    made(run)
    (report,) = [json.loads(line) for line in (run.parent / "micro.report.jsonl").read_text().splitlines()]
    assert report["checkpoint"] == {"path": "step-005000", "step": STEPS}
    assert report["data"] == [{"name": "held-out.txt", "bytes": 9}]


def test_a_run_without_an_evaluation_has_none(run: Path) -> None:
    (run / "report.json").unlink()
    made(run)
    assert not (run.parent / "micro.report.jsonl").exists()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: (run / "log.jsonl").unlink(), "cannot be read"),
        (lambda run: (run / "log.jsonl").write_text('{"event": "st'), "is damaged"),
        (lambda run: (run / "log.jsonl").write_text(""), "does not begin with the start of a run"),
        (lambda run: cut(run, -1), "has not finished"),
        (lambda run: (run / "report.json").write_text("[]"), "is no report"),
    ],
)
def test_what_is_no_finished_run_is_refused(
    run: Path, damage: Any, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(run)
    out = run.parent / "micro.jsonl"
    assert record.main([str(run), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert list(run.parent.glob("micro*")) == [], "nothing is written"


def cut(run: Path, lines: int) -> None:
    path = run / "log.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:lines]) + "\n")


def test_the_committed_recordings_are_what_the_command_makes() -> None:
    runs = recordings.all_runs()
    assert runs
    for entry, run in zip(recordings.index(runs), runs, strict=True):
        assert {"machine", "date", "commit"} <= set(entry)
        assert entry["machine"]
        assert run.events[-1]["event"] == "run_ended"
        for event in run.events:
            assert event["event"] in record.KEPT
            event_of(event)
        for name in (entry["file"], entry["report"]):
            assert name is None or "runs/" not in (recordings.RECORDED / name).read_text(encoding="utf-8"), (
                name
            )


def test_the_index_knows_a_run_before_it_is_loaded(run: Path) -> None:
    made(run, "--machine", "A rented GPU", "--commit", "1a2b3c")
    (entry,) = recordings.index(recordings.all_runs(run.parent))
    assert entry["name"] == entry["preset"] == "micro"
    assert (entry["file"], entry["report"]) == ("micro.jsonl", "micro.report.jsonl")
    assert (entry["machine"], entry["device"], entry["steps"]) == ("A rented GPU", "A GPU", STEPS)


def test_what_is_drawn_of_a_run_is_its_loss_as_bits_per_byte(run: Path) -> None:
    made(run)
    (drawn,) = recordings.all_runs(run.parent)
    steps, seconds, bits = drawn.series["training"]
    assert steps[0] == 1
    assert steps[-1] == STEPS
    assert list(seconds) == [float(step) for step in steps]
    assert len(steps) < 250
    assert bits[-1] == pytest.approx((7.6 - math.log(STEPS * 0.92) / 4 + 0.03) / 2, abs=0.05), (
        "two bits a nat"
    )
    assert drawn.series["held_out"][0] == (1000, 2000, 3000, 4000, 5000)
    assert drawn.bits_per_byte == drawn.of("validation")[-1]["bits_per_byte"]
