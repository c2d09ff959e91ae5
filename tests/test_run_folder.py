"""A run's folder: one process at a time, and what a process that died or a damaged file leaves of it."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

import pytest
from cli_tools import STEPS, TINY, Cli, everything_in, start, wait_for

from trainer import checkpoint, storage
from trainer.cli import run_folder
from trainer.errors import StorageError

pytest_plugins = ("cli_fixtures",)

# Two runs in one folder.


@pytest.mark.parametrize("flags", [[], ["--overwrite"], ["--resume"]])
def test_folder_of_a_run_under_way_is_refused(
    flags: list[str], cli: Cli, story: Path, finished: Path, tmp_path: Path
) -> None:
    """Also before the first process has written anything, as while it makes its tokens."""
    out = tmp_path / "run"
    begin = ("train", "--sources", story, "--out", out, *TINY, *STEPS, *flags)
    if flags == ["--resume"]:
        shutil.copytree(finished, out)
        begin = ("train", "--resume", out, "--device", "reference", "--steps", "12")
    with run_folder.created(out), run_folder.held(out):
        before = everything_in(out)
        line = cli.refused(*begin)
        assert everything_in(out) == before
    assert line == f"{out} is being trained by another process: wait for it, or give another --out"
    cli.done(*begin)  # which has let go
    assert run_folder.LOCK not in everything_in(out)


def test_second_run_is_refused_till_the_first_is_dead(cli: Cli, story: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = (*TINY, "--eval-every", "0", "--sample-every", "0", "--save-every", "50")
    process = start("train", "--sources", story, "--out", out, *flags, "--steps", "1000000")
    try:
        wait_for(process, "step 50: saved")
        again = cli.refused("train", "--sources", story, "--out", out, *flags, "--overwrite")
        resumed = cli.refused("train", "--resume", out, "--device", "reference")
    finally:
        process.kill()
        process.communicate()
    assert "is being trained by another process" in again == resumed
    step = checkpoint.load(out).step
    assert step is not None
    assert run_folder.LOCK in everything_in(out)  # left by kill -9, which frees it
    cli.done("train", "--resume", out, "--device", "reference", "--steps", str(step + 1))
    assert checkpoint.load(out).step == step + 1


def test_a_lock_that_was_just_removed_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder removes it between another's opening it and locking it, and a third makes it anew."""
    path = tmp_path / "lock"
    real = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        path.unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(BlockingIOError), storage.held(path):
        pass


# What a process that died left.


def test_run_that_saved_nothing_is_begun_anew(cli: Cli, story: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(finished / "log.jsonl", out)
    begin = ("train", "--sources", story, "--out", out, *TINY, *STEPS)
    assert cli.refused(*begin) == f"{out} holds a run already: give --overwrite or another --out"
    for command in (["train", "--resume", out], ["sample", out], ["train", "--from", out, "--out", "new"]):
        line = cli.refused(*command)
        assert line == f"the run in {out} saved no checkpoint: begin it anew with --overwrite"
    cli.done(*begin, "--overwrite")


def test_file_of_a_run_is_not_its_folder(cli: Cli, finished: Path) -> None:
    path = finished / "step-000010" / "model.safetensors"
    for command in (["train", "--resume", path], ["sample", path]):
        assert cli.refused(*command) == f"{path} is a file: give the folder that holds it: {path.parent}"


# A damaged log.


@pytest.mark.parametrize(
    "line",
    ["null", "3", "[]", '"a"', '{"step": null}', '{"step": "x"}', '{"step": 1.5}', '{"st', "[" * 9999],
)
def test_log_goes_on_before_a_damaged_line(line: str, tmp_path: Path) -> None:
    good = ['{"step": 0}', '{"message": "a\u2028b"}', '{"step": 2}']
    path = tmp_path / run_folder.LOG
    path.write_text("\n".join([*good, line, '{"step": 2}', ""]), encoding="utf-8")
    run_folder.Log(tmp_path, 2).close()
    assert path.read_text(encoding="utf-8") == "".join(f"{one}\n" for one in good)


def test_log_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / run_folder.LOG).mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*log\.jsonl \(Is a directory\): choose"):
        run_folder.Log(tmp_path, 2)


# Names.


def test_name_that_is_too_long(cli: Cli, story: Path, tmp_path: Path) -> None:
    line = cli.refused("train", "--sources", story, *TINY, "--out", tmp_path / ("x" * 300))
    assert "(File name too long): choose a folder that can be written" in line


def test_folder_whose_name_no_checkpoint_could_hold(cli: Cli, story: Path, tmp_path: Path) -> None:
    """Where it is part of a relative source, which checkpoints keep as an absolute one."""
    folder = tmp_path / "b\udcff"
    folder.mkdir()
    shutil.copy(story, folder / "story.txt")
    (tmp_path / "link.txt").symlink_to(folder / "story.txt")
    line = cli.refused(
        "train", "--sources", tmp_path / "link.txt", *TINY, "--steps", "3", "--out", tmp_path / "run"
    )
    assert line.endswith("is not UTF-8: give text in UTF-8, or rename the file")
    assert "run" not in everything_in(tmp_path)
