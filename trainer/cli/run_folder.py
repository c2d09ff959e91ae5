"""A training run's folder: its log and its checkpoints. Nothing of it is touched before training begins.

run/log.jsonl      an event a line, with the `time` it happened at (seconds since 1970)
run/train.lock     while a process trains
run/latest         see checkpoint.py
run/step-000300/
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from trainer import checkpoint, storage
from trainer.checkpoint import LOG
from trainer.errors import CheckpointError, ConfigError
from trainer.events import Event, Progress, json_lines, to_json
from trainer.snapshot import Snapshot

LOCK = "train.lock"
KEEP = 2  # checkpoints


def folder_of_run(path: Path) -> Path:
    """The run folder that `path` is, or that the checkpoint folder `path` lies in. Raises CheckpointError."""
    if checkpoint.find(path) != path:
        return path
    if checkpoint.FOLDER_NAME.fullmatch(path.resolve().name):
        return path.resolve().parent
    raise CheckpointError(
        f"{path} is no folder of a run",
        "give the --out that the run began with, or begin another with --from",
    )


def check_new(folder: Path, overwrite: bool) -> None:
    """Raise ConfigError if `folder` holds a run that may not be overwritten."""
    if not overwrite and any(_remains(folder)):
        go_on = f"go on with --resume {folder}, or " if (folder / checkpoint.LATEST).is_file() else ""
        raise ConfigError(f"{folder} holds a run already", f"{go_on}give --overwrite or another --out")


@contextlib.contextmanager
def created(folder: Path) -> Iterator[None]:
    """Make `folder`, or see that it can be written; if the block fails and left it empty, remove it again.

    Raises StorageError.
    """
    with storage.storage_errors(folder):
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # not empty: something was saved
            for path in missing:
                path.rmdir()
        raise


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep every other process from training in `folder`. Raises ConfigError where one does, StorageError."""
    with contextlib.ExitStack() as stack:
        with storage.storage_errors(folder):
            try:
                stack.enter_context(storage.held(folder / LOCK))
            except BlockingIOError as error:
                raise ConfigError(
                    f"{folder} is being trained by another process", "wait for it, or give another --out"
                ) from error
        yield


def clear(folder: Path) -> None:
    """Remove the run in `folder`: first the pointer, so that what is left is never taken for a whole run."""
    with storage.storage_errors(folder), storage.locked(folder):
        for path in _remains(folder):
            if path.is_dir():
                storage.remove_folder(path)
            else:
                path.unlink(missing_ok=True)
        storage.remove_leftovers(folder)


def _remains(folder: Path) -> Iterator[Path]:
    """The files and folders in `folder` that a run wrote."""
    yield from (folder / name for name in (checkpoint.LATEST, LOG) if (folder / name).is_file())
    if folder.is_dir():
        yield from [path for path in folder.iterdir() if checkpoint.FOLDER_NAME.fullmatch(path.name)]


async def save(folder: Path, snapshot: Snapshot) -> str:
    """Write a checkpoint of a run; returns its folder. Raises StorageError."""
    path = checkpoint.save(
        folder,
        snapshot.step,
        model=snapshot.model,
        weights=snapshot.weights,
        tokenizer=snapshot.tokenizer,
        state=snapshot.state,
        optimizer=snapshot.optimizer,
        keep=KEEP,
    )
    return str(path)


class Log:
    """Writes the events it reads to log.jsonl, a line at once; Progress is left out. Raises StorageError."""

    def __init__(self, folder: Path, step: int) -> None:
        """Begin a log or, from `step` on, continue one: events of later steps are dropped."""
        self.path = folder / LOG
        if step and self.path.exists():
            with storage.storage_errors(self.path):
                kept = "".join(f"{line}\n" for line in lines_until(self.path, step))
            storage.write_file(self.path, [kept.encode()])
        with storage.storage_errors(self.path):
            self._file: TextIO = self.path.open("a" if step else "w", encoding="utf-8")

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            return
        record = {"time": round(time.time(), 3), **to_json(event)}
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
        with storage.storage_errors(self.path):
            self._file.write(f"{line}\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # a full disk was reported when the line was written
            self._file.close()


def lines_until(path: Path, step: int) -> Iterator[str]:
    """The lines of a log before the first event of a later step, or before a line that is damaged."""
    for line in json_lines(path.read_text(encoding="utf-8", errors="replace")):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            return
        at = event.get("step", 0) if isinstance(event, dict) else None
        if type(at) is not int or at > step:
            return
        yield line
