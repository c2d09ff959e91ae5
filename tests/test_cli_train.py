"""`trainer train`: the run folder, going on with it, interrupts, and what a person sees meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cli_tools import (
    STEPS,
    TINY,
    Cli,
    everything_in,
    losses,
    read_log,
    run,
    start,
    wait_for,
    weights,
)
from raw_server import ALICE, ALICE_BODY, serving

from trainer import checkpoint, gutenberg
from trainer.cache import CACHE_VARIABLE
from trainer.cli.display import Display
from trainer.cli.interrupt import handled
from trainer.config import PRESETS, ModelConfig
from trainer.events import Notice, Pacer, RunEnded, RunStarted, Sample, Step, from_json

pytest_plugins = ("cli_fixtures",)

STARTED = RunStarted(0, 100, 1000, 64, 1e9, {}, {}, {"name": "a device"}, 10, 10, "", 0.0)


# The run folder.


def test_run_folder(finished: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == [
        "latest",
        "log.jsonl",
        "step-000009",
        "step-000010",
    ]
    loaded = checkpoint.load(finished, resume=True)
    assert loaded.step == 10
    assert loaded.model == ModelConfig(layers=1, width=8, heads=2, context=8, vocab=270)
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.vocab_size == 270
    assert loaded.state is not None
    assert loaded.state["text"]["validation_share"] == 0.1
    assert loaded.state["train"]["learning_rate"] == PRESETS["nano"].train.learning_rate


def test_log_is_the_stream_of_events(finished: Path) -> None:
    log = read_log(finished)
    times = [record["time"] for record in log]
    assert times == sorted(times)
    assert times[0] > 1.6e9
    events = [
        from_json({k: v for k, v in r.items() if k != "time" or r["event"] == "run_started"}) for r in log
    ]
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunEnded)
    assert [e.step for e in events if isinstance(e, Step)] == list(range(1, 11))
    kinds = [r["event"] for r in log]
    assert (kinds.count("validation"), kinds.count("sample"), kinds.count("saved")) == (4, 2, 4)


def test_budget_comes_before_the_work(cli: Cli, story: Path, tmp_path: Path) -> None:
    out = cli.done("train", "--sources", story, "--out", tmp_path / "run", *TINY, *STEPS)
    order = [
        "parameters  ",
        "memory      ",
        "tokens      ",
        "operations  ",
        "train-tokenizer: ",
        "tokenize: ",
        "training: ",
    ]
    places = [out.index(f"\n{line}" if i else line) for i, line in enumerate(order)]
    assert places == sorted(places)
    assert out.endswith(f"let it write: trainer sample {tmp_path / 'run'}\n")


def test_resume_goes_on_from_anywhere(
    finished: Path, story: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative source is found again from another folder, and an older checkpoint rewinds the log."""
    monkeypatch.chdir(story.parent)
    out = tmp_path / "run"
    cli.done("train", "--sources", story.name, "--out", out, *TINY, *STEPS)
    monkeypatch.chdir(tmp_path)
    with (out / "log.jsonl").open("a") as log:
        log.write('{"event": "step", "ste')  # as kill -9 may leave it
    cli.done("train", "--resume", out / "step-000009", "--device", "reference")
    assert losses(out) == losses(finished)
    assert weights(out) == weights(finished)
    assert [r["step"] for r in read_log(out) if r["event"] == "run_started"] == [0, 9]
    cli.done("train", "--resume", "run", "--device", "reference", "--steps", "12")
    assert set(losses(out)) == set(range(1, 13))
    assert checkpoint.load(out).step == 12


def test_resume_in_the_other_precision(finished: Path, cli: Cli, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    go_on = ("train", "--resume", out, "--device", "reference")
    said = cli.done(*go_on, "--precision", "mixed", "--steps", "14")
    assert (
        "note: trained in f32 until step 10; from there on in mixed precision, with a new loss scale\n"
        in said
    )
    assert "trained in" not in cli.done(*go_on, "--steps", "16")  # goes on in mixed precision
    said = cli.done(*go_on, "--precision", "f32", "--steps", "18")
    assert (
        "note: trained in mixed precision until step 16; from there on in f32, without a loss scale\n" in said
    )
    assert losses(out).keys() == set(range(1, 19))


def test_the_precision_that_suits_the_device_is_told(cli: Cli, story: Path, tmp_path: Path) -> None:
    flags = (*TINY, "--steps", "3", "--precision", "auto")
    said = cli.done("train", "--sources", story, "--out", tmp_path / "run", *flags).splitlines()
    assert re.fullmatch("precision   f32: NumPy float32 on .* is no GPU with matrix units to use", said[0])
    state = checkpoint.load(tmp_path / "run", resume=True).state
    assert state is not None
    assert state["train"]["precision"] == "f32"


def test_overwrite_replaces_the_run(cli: Cli, story: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cli.done("train", "--sources", story, "--out", out, *TINY, *STEPS)
    (out / "notes.txt").write_text("mine")
    cli.done("train", "--sources", story, "--out", out, *TINY, "--steps", "4", "--overwrite")
    assert sorted(path.name for path in out.iterdir()) == ["latest", "log.jsonl", "notes.txt", "step-000004"]
    assert set(losses(out)) == {1, 2, 3, 4}


def test_from_begins_with_weights_and_tokenizer(
    cli: Cli, story: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    flags = ("--device", "reference", "--batch", "2", "--warmup", "0", "--steps", "1", "--eval-batches", "1")
    cli.done("train", "--from", finished, "--sources", story, "--out", out, *flags)
    begun, ended = ([r for r in read_log(path) if r["event"] == "validation"] for path in (out, finished))
    assert begun[0]["step"] == 0
    assert begun[0]["loss"] == pytest.approx(ended[-1]["loss"], rel=1e-6)
    a, b = checkpoint.load(finished).tokenizer, checkpoint.load(out).tokenizer
    assert a is not None
    assert b is not None
    assert a.to_json() == b.to_json()


def test_tokenizer_of_another_size_sets_the_vocabulary(cli: Cli, story: Path, tmp_path: Path) -> None:
    cli.done("tokenizer", "--sources", story, "--vocab", "265", "--out", tmp_path / "t.json")
    flags = [flag for flag in TINY if flag not in ("--vocab", "270")]
    out = tmp_path / "run"
    cli.done(
        "train", "--sources", story, "--tokenizer", tmp_path / "t.json", "--out", out, *flags, "--steps", "3"
    )
    assert checkpoint.load(out).model.vocab == 265


def test_text_with_few_pairs_makes_a_smaller_vocabulary(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "abc.txt").write_text("abc def\n" * 50)
    out = cli.done(
        "train", "--sources", tmp_path / "abc.txt", "--out", tmp_path / "run", *TINY, "--steps", "3"
    )
    assert "note: the text has no pairs for 270 tokens" in out
    assert checkpoint.load(tmp_path / "run").model.vocab < 270


# Interrupts.


@contextlib.contextmanager
def not_ignored(number: int) -> Iterator[None]:
    """Processes begun meanwhile do not inherit that a signal is ignored: the tests may run under nohup."""
    before = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_interrupt_saves_and_says_how_to_go_on(number: int, story: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = (*TINY, "--steps", "1000000", "--eval-every", "0", "--sample-every", "0", "--save-every", "50")
    with not_ignored(number):
        process = start("train", "--sources", story, "--out", out, *flags)
    wait_for(process, "step 100: saved")
    process.send_signal(number)
    printed, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "stopping after the work under way; once more quits at once" in printed
    assert printed.endswith(f"go on with: trainer train --resume {out}\n")
    step = checkpoint.load(out, resume=True).step
    assert step is not None
    assert 100 <= step < 1_000_000
    last = read_log(out)[-1]
    assert (last["event"], last["reason"], last["step"]) == ("run_ended", "stopped", step)


def test_interrupt_before_training_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()
    with serving(monkeypatch) as github:

        def hang(handler: BaseHTTPRequestHandler, body: bytes) -> None:
            asked.set()
            github.released.wait(60)

        github.add(ALICE.repo, "11-0.txt", ALICE_BODY, hang)
        places = {gutenberg.BASE_VARIABLE: github.base, CACHE_VARIABLE: str(tmp_path / "cache")}
        process = start("train", "--sources", "gutenberg:11", "--out", tmp_path / "run", *TINY, env=places)
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        github.released.set()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "trainer: interrupted\n")
    assert everything_in(tmp_path) == []


def test_second_interrupt_is_left_to_the_system() -> None:
    before = signal.getsignal(signal.SIGINT)

    async def interrupted() -> list[str]:
        stops: list[str] = []
        with handled() as interrupt:
            interrupt.stop = lambda: stops.append("stop")
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.01)
            assert signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # it comes twice where a terminal goes
        return stops

    assert asyncio.run(interrupted()) == ["stop"]
    assert signal.getsignal(signal.SIGINT) == before


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


INTERRUPTED_TWICE = """
import asyncio, os, signal
from trainer.cli.display import open_display
from trainer.cli.interrupt import handled
async def work(interrupt):
    interrupt.stop = lambda: os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(60)
with open_display(), handled() as interrupt:
    asyncio.run(work(interrupt))
"""


def test_second_interrupt_leaves_the_cursor_to_be_seen() -> None:
    process, ours = start_on_terminal(program=["-c", INTERRUPTED_TWICE])
    seen = all_shown(ours)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == -signal.SIGINT
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l") >= 0


ENDLESS = (*TINY, "--steps", "1000000", "--eval-every", "50", "--sample-every", "0", "--save-every", "0")


def test_run_whose_reader_leaves_is_saved(story: Path, tmp_path: Path) -> None:
    process = start("train", "--sources", story, "--out", tmp_path / "run", *ENDLESS)
    wait_for(process, "step 50: validation")
    assert process.stdout is not None
    process.stdout.close()
    err = process.communicate(timeout=60)[1]
    line = "trainer: nobody reads the output any more (Broken pipe): stopping\n"
    assert (process.returncode, err) == (0, line)
    assert_stopped(tmp_path / "run")


def test_run_whose_terminal_is_gone_is_saved(story: Path, tmp_path: Path) -> None:
    process, ours = start_on_terminal("train", "--sources", story, "--out", tmp_path / "run", *ENDLESS)
    seen = b""
    while b"step 50: validation" not in seen:
        seen += os.read(ours, 65536)
    os.close(ours)
    for _ in range(2):
        process.send_signal(signal.SIGHUP)
    err = process.communicate(timeout=60)[1]
    assert (process.returncode, err) == (0, "")
    assert_stopped(tmp_path / "run")


def assert_stopped(out: Path) -> None:
    """The run in `out` was stopped and saved, and can go on."""
    last = read_log(out)[-1]
    assert (last["event"], last["reason"]) == ("run_ended", "stopped")
    assert checkpoint.load(out, resume=True).step == last["step"] >= 50


# What a person sees.


def test_a_stage_that_is_done_at_once_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Pacer(Display(), "evaluate", "passages", 1)
    progress(1, "100.0% right")
    progress.last(1, "100.0% right")
    assert capsys.readouterr().out == "evaluate: 1 of 1 passages (100.0% right)\n"


def start_on_terminal(*arguments: str | Path, **settings: Any) -> tuple[subprocess.Popen[str], int]:
    """Start the program on a terminal of its own; also returns the end that shows what is written there."""
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm-256color", "COLUMNS": "120"}
    process = start(*arguments, stdout=theirs, stdin=subprocess.DEVNULL, env=environment, **settings)
    os.close(theirs)
    return process, ours


def all_shown(terminal: int) -> bytes:
    """All that a program on this terminal writes until it ends."""
    seen = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while piece := os.read(terminal, 65536):
            seen += piece
    os.close(terminal)
    return seen


def test_lines_come_every_few_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("trainer.cli.display.time.monotonic", lambda: now[0])
    display = Display()
    display(STARTED)
    for step in range(1, 101):
        now[0] += 0.25
        display(Step(step, 2.5, 1e-3, 1.0, False, 64 * step, 0.5 * step))
    display(Sample(100, "Once", " upon [b]a time"))
    display(Notice("look"))
    display(RunEnded(100, "finished", 61.0))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "training: 1,000 parameters on a device"
    assert [line.split()[1] for line in lines[1:-3]] == ["20/100", "40/100", "60/100", "80/100", "100/100"]
    assert lines[1] == "step 20/100  loss 2.5000  lr 1.00e-03  128 tokens/s  2.0 GFLOP/s  0:00:40 left"
    assert lines[-3:] == [
        "step 100 writes: Once upon [b]a time",
        "note: look",
        "finished at step 100 after 0:01:01",
    ]


def test_terminal_gets_a_live_display_and_a_file_no_escapes(story: Path, tmp_path: Path) -> None:
    process, ours = start_on_terminal("train", "--sources", story, "--out", tmp_path / "run", *TINY, *STEPS)
    seen = all_shown(ours)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0
    assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h") > 0  # the cursor is back
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    for part in (
        "train ━",
        "tokens/s",
        "step 8: validation loss",
        "step 10 writes:",
        "finished at step 10",
        "let it write",
    ):
        assert part in text
    plain = run("train", "--sources", story, "--out", tmp_path / "other", *TINY, *STEPS)
    assert "\x1b" not in plain.out


def test_rich_is_not_needed_without_a_terminal(story: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['rich'] = None; from trainer.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    result = run(
        "train", "--sources", story, "--out", tmp_path / "run", *TINY, *STEPS, program=["-c", program]
    )
    assert (result.code, result.err) == (0, "")
