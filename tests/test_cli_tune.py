"""`trainer tune`, and what `trainer train --tune` makes of it: measured once, kept, and taken."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cli_tools import STEPS, TINY, Cli, everything_in, read_log, run, start, wait_for, weights

from trainer import answers, tune
from trainer.cache import unseal
from trainer.cli import tune as cli_tune
from trainer.devices import Device

pytest_plugins = ("cli_fixtures",)


def test_the_command_measures_once_and_says_what_it_found(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TABULA_CACHE", str(tmp_path))
    real = tune.questions
    # The two smallest of eighteen, for the test's sake
    monkeypatch.setattr(cli_tune, "questions", lambda *given: real(*given)[-2:])
    command = ("tune", "--preset", "nano", "--batch", "1", "--device", "reference")

    def said(*options: str) -> list[str]:
        return cli.done(*command, *options).splitlines()

    end = "of 2 questions measured on NumPy float32 on "
    (nothing,) = said("--budget", "0")
    assert nothing.startswith(f"0 {end}")
    assert nothing.endswith(", 0 known before, 2 left for another time")
    first, second, summary = (line for line in said() if not line.startswith("tune: "))
    for line in (first, second):
        assert re.search(r"^\w+ .* f32.*  +[0-9.]+ -> +[0-9.]+ ms +[0-9.]+x  \w+", line), line
    assert summary.startswith(f"2 {end}")
    assert summary.endswith(", 0 known before, 0 left for another time")
    assert said()[-1].endswith(", 2 known before, 0 left for another time")
    assert said("--force")[-1].startswith(f"2 {end}")
    assert said("--force", "--budget", "0")[-1].endswith(", 2 known before, 0 left for another time")


def test_a_model_is_described_as_for_training(cli: Cli, finished: Path) -> None:
    """By flags, or as that of a run: what was measured for the one is known for the other."""
    flags = ("--layers", "1", "--width", "8", "--heads", "2", "--context", "8", "--vocab", "270")
    asked = [("--resume", finished), (*flags, "--batch", "2"), ("--preset", "nano", *flags, "--batch", "2")]

    def last(*options: str | Path) -> str:
        return cli.done("tune", "--device", "reference", *options).splitlines()[-1]

    first = last(*asked[0])
    count = re.match(r"(\d+) of \1 questions measured", first)
    assert count
    assert int(count[1]) > 10
    for description in asked[1:]:
        assert f" {count[1]} known before, 0 left" in last(*description)
    for other in (("--batch", "3"), ("--width", "16"), ("--accumulate", "2")):
        assert ", 0 left" not in last(*asked[1], *other, "--budget", "0")


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--preset", "huge"], "unknown preset 'huge'"),
        (["--batch", "0"], "batch is 0: give --batch a value from 1 up"),
        (["--heads", "5"], "width 48 is not a multiple of heads 5"),
        (["--resume", "RUN", "--preset", "nano"], "--resume and --preset exclude each other"),
        (["--resume", "RUN", "--layers", "3"], "--layers cannot be changed here"),
        (["--resume", "RUN", "--batch", "3"], "--resume and --batch exclude each other"),
        (["--resume", "/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_descriptions_that_are_refused(flags: list[str], problem: str, cli: Cli, finished: Path) -> None:
    given = [str(finished) if flag == "RUN" else flag for flag in flags]
    assert cli.refused("tune", "--device", "reference", *given).startswith(problem)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_was_found(number: int, tmp_path: Path) -> None:
    places = {"TABULA_CACHE": str(tmp_path)}
    command = ("tune", "--preset", "nano", "--batch", "1", "--device", "reference")
    process = start(*command, "--force", "--budget", "600", env=places)
    wait_for(process, " ms ")  # a row of the table
    process.send_signal(number)
    printed, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    *rows, stopped, summary = printed.splitlines()
    assert stopped == "stopped: what was found is kept, and the same command without --force goes on"
    found = 1 + sum(" ms " in line for line in rows)
    assert summary.startswith(f"{found} of ")
    after = run(*command, "--budget", "0", env=places).out
    assert f", {found} known before, " in after
    assert ", 0 left" not in after


@pytest.mark.parametrize(
    "command", [("bench", "steps", "--steps", "100000", "--tune", "600"), ("train", "--tune", "force")]
)
def test_what_other_commands_measure_first_is_kept_too(
    command: tuple[str, ...], story: Path, tmp_path: Path
) -> None:
    cache, out = tmp_path / "cache", tmp_path / "run"
    options = ("--preset", "nano", "--device", "reference", "--sources", story, "--out", out)
    process = start(*command, *options, env={"TABULA_CACHE": str(cache)})
    ends = time.monotonic() + 60
    while not (kept := list(cache.rglob("*.json"))):
        assert time.monotonic() < ends
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "trainer: interrupted\n")
    assert not out.exists()
    body = unseal(kept[0].read_bytes())
    assert body is not None
    assert json.loads(body)["answers"]


def test_an_interrupt_before_anything_was_found(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TABULA_CACHE", str(tmp_path))

    async def interrupted(*given: Any) -> AsyncIterator[tune.Finding]:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
        yield tune.Finding(*given)

    monkeypatch.setattr(cli_tune, "measure", interrupted)
    result = cli("tune", "--preset", "nano", "--device", "reference")
    assert (result.code, result.err) == (1, "trainer: interrupted\n")
    assert everything_in(tmp_path) == []


def test_training_takes_what_is_known_and_measures_when_told(
    cli: Cli, story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TABULA_CACHE", str(tmp_path / "cache"))
    seconds: list[float] = []
    real = tune.tune

    def noted(
        device: Device, questions: Any, budget: float, on_event: Any = None
    ) -> AsyncIterator[tune.Finding]:
        seconds.append(budget)
        return real(device, questions, budget, on_event)

    monkeypatch.setattr(answers, "tune", noted)
    command = ("train", "--sources", story, *TINY, *STEPS)
    for mode, measured in (("auto", 0), ("off", 0), ("force", 1)):
        cli.done(*command, "--out", tmp_path / mode, "--tune", mode)
        assert len(seconds) == measured
    assert list((tmp_path / "cache" / "tuning").iterdir())
    cli.done("train", "--resume", tmp_path / "force", "--steps", "12")
    assert len(seconds) == 1
    assert weights(tmp_path / "off") == weights(tmp_path / "auto")
    assert read_log(tmp_path / "force")[-1]["event"] == "run_ended"
    problem = cli.refused("train", "--resume", tmp_path / "force", "--tune", "off")
    assert problem == "--resume and --tune exclude each other: leave one out"
