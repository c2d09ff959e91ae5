"""Running the command line in tests: in this process, or as the program that a user starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trainer.cli import main
from trainer.corpus import read_bundled

ROOT = Path(__file__).parents[1]

# A run that takes a moment on the reference device.
TINY = (
    *("--device", "reference", "--layers", "1", "--width", "8", "--heads", "2", "--context", "8"),
    *("--vocab", "270", "--batch", "2", "--warmup", "2", "--eval-batches", "1", "--sample-tokens", "4"),
)
STEPS = (
    *("--steps", "10", "--save-every", "3", "--eval-every", "4", "--sample-every", "5", "--log-every", "2"),
)


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


class Cli:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str | Path) -> Result:
        self.capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = self.capsys.readouterr()
        return Result(code, printed.out, printed.err)

    def done(self, *arguments: str | Path) -> str:
        """Run a command that must succeed, and return what it printed."""
        result = self(*arguments)
        assert (result.code, result.err) == (0, ""), result
        return result.out

    def refused(self, *arguments: str | Path) -> str:
        """Run a command that must be refused in one line, and return the line without "trainer: "."""
        return refusal(self(*arguments))


def refusal(result: Result) -> str:
    """The one line on stderr of a command that ended with code 2."""
    assert result.code == 2, result
    assert result.err.startswith("trainer: "), result
    assert result.err.endswith("\n"), result
    assert result.err.count("\n") == 1, result
    line = result.err.removeprefix("trainer: ").rstrip("\n")
    problem, separator, remedy = line.partition(": ")
    assert all((problem, separator, remedy)), f"no remedy in: {line}"
    return line


def start(*arguments: str | Path, **settings: Any) -> subprocess.Popen[str]:
    """Start `trainer` (or another Python `program`) as a process of its own, with pipes to its output."""
    program = settings.pop("program", ["-m", "trainer"])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **settings.pop("env", {})}
    environment.pop("TRAINER_DEBUG", None)
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        **{"stdout": subprocess.PIPE, **settings},
    )


def run(*arguments: str | Path, **settings: Any) -> Result:
    """Run `trainer` as a process of its own, to its end."""
    process = start(*arguments, **settings)
    try:
        out, err = process.communicate(timeout=300)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return Result(process.returncode, out, err)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read what the program prints until a line holds `text`."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"the program ended without printing {text!r}")


def write_story(path: Path, characters: int = 20_000) -> Path:
    """The beginning of a real book, as a text file."""
    story = next(book.text for book in read_bundled() if "Alice" in book.title)
    path.write_text(story[:characters], encoding="utf-8")
    return path


def read_log(run: Path) -> list[dict[str, Any]]:
    """The events in a run's log."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def losses(run: Path) -> dict[int, float]:
    """The loss of each step in a run's log, each step once."""
    steps = [event for event in read_log(run) if event["event"] == "step"]
    by_step = {event["step"]: event["loss"] for event in steps}
    assert list(by_step) == [event["step"] for event in steps] == sorted(by_step)
    return by_step


def weights(run: Path) -> bytes:
    """model.safetensors of a run's latest checkpoint."""
    return (run / (run / "latest").read_text().strip() / "model.safetensors").read_bytes()


def everything_in(folder: Path) -> list[str]:
    """All files and folders below `folder`."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
