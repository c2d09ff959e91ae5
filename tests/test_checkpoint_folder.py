"""Checkpoints on a disk: what a run folder keeps, and the promise that no crash tears a checkpoint."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import save_faults
from save_faults import assert_whole, fault_at, leftovers, prepare, save

from trainer import checkpoint
from trainer.errors import CheckpointError, StorageError
from trainer.safetensors import TensorData, write_file


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in (100, 200, 300, 400):
        save(tmp_path, step, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "latest",
        "step-000200",
        "step-000300",
        "step-000400",
    ]
    for name in ("log.jsonl", "notes.tmp-mine"):
        (tmp_path / name).write_text("not a checkpoint's\n")
    save(tmp_path, 500, keep=1)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["latest", "log.jsonl", "notes.tmp-mine", "step-000500"]


def test_a_run_that_goes_back_keeps_what_it_writes_now(tmp_path: Path) -> None:
    for step in (100, 200, 300):
        save(tmp_path, step, keep=3)
    os.utime(tmp_path / "step-000200", (2e9, 2e9))  # the newest by the clock, whatever its step
    assert save(tmp_path, 100, keep=2) == tmp_path / "step-000100-2"
    assert checkpoint.load(tmp_path).folder == tmp_path / "step-000100-2"
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {"latest", "step-000100-2", "step-000200"}
    assert save(tmp_path, 100) == tmp_path / "step-000100"


@pytest.mark.parametrize("name", ["step-000009", "../elsewhere", "step-000001/..", "", "\xff" * 300, "."])
def test_a_pointer_to_nowhere_is_one_clear_error(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    save(run, 1)
    save(tmp_path / "elsewhere", 1)
    (run / "latest").write_text(name)
    with pytest.raises(CheckpointError, match=r"latest names .* no checkpoint there"):
        checkpoint.load(run)


def test_paths_that_hold_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no folder .*nowhere"):
        checkpoint.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"has no model.safetensors: give a run folder"):
        checkpoint.load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"file is a file: give the folder that holds it: .*"):
        checkpoint.load(tmp_path / "file")
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(CheckpointError, match="saved no checkpoint: begin it anew with --overwrite"):
        checkpoint.load(tmp_path)
    with pytest.raises(StorageError, match="cannot write"):
        save(tmp_path / "file", 1)


def test_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    script = Path(save_faults.__file__)
    result = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 60  # points at which it was killed


def test_a_full_disk_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    refused = target = passed = 0
    while passed >= target:
        target += 1
        run = prepare(tmp_path)
        message = ""
        with fault_at(target, full) as points:
            try:
                save(run, 3, keep=1)
            except StorageError as error:
                message = str(error)
        passed = points[0]
        loaded = checkpoint.load(run, resume=True)
        assert_whole(loaded)
        if message:
            refused += 1
            assert "No space left on device" in message
            assert "free some space" in message
            assert leftovers(run) == []
            assert loaded.step == 2 or (run / "step-000003").exists()
        else:  # the fault hit the removal of an old checkpoint, or nothing at all
            assert loaded.step == 3
    assert refused > 60


def test_everything_is_on_the_disk_before_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    for name in ("fsync", "rename", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, real=real, name=name: (order.append(name), real(*args)))
    folder = save(tmp_path, 1)
    files = len(list(folder.iterdir()))
    checkpoint_order = ["fsync"] * (files + 1) + ["rename", "fsync"]  # its files, itself; then its parent
    pointer_order = ["fsync", "replace", "fsync"]
    assert order == checkpoint_order + pointer_order


def test_a_file_that_the_system_cuts_off_is_not_kept(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from save_faults import save
from trainer.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    save(Path(sys.argv[1]), 2)
except StorageError as error:
    print(error)
"""
    save(tmp_path, 1)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout.startswith(
        f"cannot write {tmp_path / 'step-000002'} (File too large): free some space"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000001"]
    assert_whole(checkpoint.load(tmp_path, resume=True))


WRITER = """
import sys
from pathlib import Path
import save_faults
from trainer import checkpoint
def wait_halfway():
    print("halfway", flush=True)
    sys.stdin.readline()
with save_faults.fault_at(12, wait_halfway):
    save_faults.save(Path(sys.argv[1]), 2)
"""


@pytest.fixture
def halfway(tmp_path: Path):
    """Another process that is halfway through saving step 2 in tmp_path, where step 1 is."""
    save(tmp_path, 1)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "halfway\n"
        assert len(leftovers(tmp_path)) == 1
        yield writer
        writer.kill()


def test_a_living_writer_is_waited_for(tmp_path: Path, halfway: subprocess.Popen[str]) -> None:
    import fcntl

    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(folder)
    assert checkpoint.load(tmp_path).step == 1
    halfway.communicate("go on\n")
    assert halfway.returncode == 0
    assert_whole(checkpoint.load(tmp_path, resume=True))
    save(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000002", "step-000003"]


def test_what_a_dead_writer_left_is_removed(tmp_path: Path, halfway: subprocess.Popen[str]) -> None:
    halfway.send_signal(signal.SIGKILL)
    halfway.wait()
    (tmp_path / "latest.tmp-01234567").write_text("step-000002\n")
    assert checkpoint.load(tmp_path).step == 1
    assert len(leftovers(tmp_path)) == 2
    save(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000001", "step-000003"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_file(path, {"a": TensorData("U8", (2,), b"ab")})
    before = path.read_bytes()

    def interrupt() -> None:
        raise KeyboardInterrupt

    for target in range(1, 5):
        with pytest.raises(KeyboardInterrupt), fault_at(target, interrupt):
            write_file(path, {"b": TensorData("U8", (3,), b"abc")})
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]
