"""Faults at every step of a save: what tests/test_checkpoint.py injects.

As a script it kills a process (SIGKILL) at each point of a save in turn and checks what a reader finds:

    python tests/save_faults.py FOLDER
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer import checkpoint, storage
from trainer.config import ModelConfig
from trainer.safetensors import TensorData
from trainer.tokenizer import Tokenizer

MODEL = ModelConfig(layers=1, width=4, heads=2, context=8, vocab=258)
TOKENIZER = Tokenizer.train(["to be or not to be"], MODEL.vocab)
OS_FUNCTIONS = ("open", "mkdir", "rename", "replace", "fsync", "unlink", "rmdir")


def tensors(step: int, prefixes: tuple[str, ...] = ("",)) -> dict[str, TensorData]:
    """Tensors of MODEL's parameters that no other step has."""
    shapes = checkpoint.parameter_shapes(MODEL)
    fill = step.to_bytes(4, "little")
    return {
        prefix + name: TensorData("F32", shape, fill * (shape[0] * (shape[1] if shape[1:] else 1)))
        for prefix in prefixes
        for name, shape in shapes.items()
    }


def state(step: int) -> dict[str, Any]:
    """What a run could go on with, and that no other step has."""
    return {"counters": [step, step, 0, 0], "seconds": 0.5, "train": {}, "cursor": 10 * step}


def save(run: Path, step: int, keep: int = 2) -> Path:
    return checkpoint.save(
        run,
        step,
        model=MODEL,
        weights=tensors(step),
        tokenizer=TOKENIZER,
        state=state(step),
        optimizer=tensors(step, ("m.", "v.")),
        keep=keep,
    )


def assert_whole(loaded: checkpoint.Checkpoint) -> None:
    """All parts of `loaded` are of its step."""
    assert loaded.step is not None
    assert loaded.weights == tensors(loaded.step)
    assert loaded.optimizer == tensors(loaded.step, ("m.", "v."))
    assert loaded.state == state(loaded.step)
    assert loaded.tokenizer is not None


def leftovers(run: Path) -> list[str]:
    return [path.name for path in run.iterdir() if storage.TEMPORARY in path.name]


class _Torn:
    """A file that is written in halves, with a point where it can fail between them."""

    def __init__(self, file: Any, point: Callable[[], None]) -> None:
        self.file = file
        self.point = point

    def write(self, data: Any) -> None:
        view = memoryview(data)
        self.file.write(view[: len(view) // 2])
        self.file.flush()
        self.point()
        self.file.write(view[len(view) // 2 :])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _Torn:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


@contextmanager
def fault_at(target: int, action: Callable[[], None]) -> Iterator[list[int]]:
    """Call `action` before the `target`-th thing that is done to the disk. Yields [points passed so far]."""
    passed = [0]

    def point() -> None:
        passed[0] += 1
        if passed[0] == target:
            action()

    def failing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            point()
            return function(*args, **kwargs)

        return call

    real = {name: getattr(os, name) for name in OS_FUNCTIONS}
    real_open = io.open

    def torn_open(*args: Any, **kwargs: Any) -> Any:
        point()
        return _Torn(real_open(*args, **kwargs), point)

    try:
        for name, function in real.items():
            setattr(os, name, failing(function))
        io.open = torn_open  # what Path.open calls
        yield passed
    finally:
        for name, function in real.items():
            setattr(os, name, function)
        io.open = real_open


def prepare(folder: Path) -> Path:
    """A run folder with two checkpoints: a save that keeps one writes, flips and removes both."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    save(run, 1)
    save(run, 2)
    return run


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_while_saving(run: Path, target: int) -> bool:
    child = os.fork()
    if child == 0:
        try:
            with fault_at(target, _die):
                save(run, 3, keep=1)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def main(folder: Path) -> int:
    seen = set()
    target = 1
    while _killed_while_saving(run := prepare(folder), target):
        loaded = checkpoint.load(run, resume=True)
        assert loaded.step in (2, 3), (target, loaded.step)
        assert_whole(loaded)
        seen.add(loaded.step)
        for path in run.glob("step-*"):
            if path.name not in leftovers(run):
                assert_whole(checkpoint.load(path, resume=True))
        save(run, 4)
        assert leftovers(run) == [], target
        loaded = checkpoint.load(run, resume=True)
        assert loaded.step == 4
        assert_whole(loaded)
        assert len([path for path in run.iterdir() if path.is_dir()]) == 2
        target += 1
    assert checkpoint.load(run).step == 3, "the save that nothing killed"
    assert seen == {2, 3}
    print(target - 1)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
