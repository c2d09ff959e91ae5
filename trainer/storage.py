"""Files and folders that a crash cannot tear: a reader sees all of one, or nothing.

Everything is written under a temporary name, flushed to the disk and then renamed, so that `kill -9` or a
full disk leaves at most a leftover whose name contains `.tmp-`; `remove_leftovers` takes those away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from trainer.errors import StorageError

Chunks = Iterable[bytes | bytearray | memoryview]

TEMPORARY = ".tmp-"
LEFTOVER = re.compile(rf".+{re.escape(TEMPORARY)}[0-9a-f]{{8}}")


def write_file(path: Path, chunks: Chunks) -> None:
    """Replace `path` by a file of `chunks`, atomically. Raises StorageError; `path` is whole even then."""
    temporary = _temporary(path)
    with storage_errors(path):
        try:
            _write(temporary, chunks)
            os.replace(temporary, path)  # noqa: PTH105 - the tests inject faults into os functions
            _sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_folder(path: Path, files: Mapping[str, Chunks]) -> None:
    """Create the folder `path` with `files`, atomically. `path` must not exist, its parent must.

    Raises StorageError; `path` is then whole or not there.
    """
    temporary = _temporary(path)
    with storage_errors(path):
        try:
            temporary.mkdir()
            for name, chunks in files.items():
                _write(temporary / name, chunks)
            _sync_folder(temporary)
            os.rename(temporary, path)  # noqa: PTH104
            _sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def map_file(path: Path) -> memoryview:
    """The bytes of the file at `path`, memory-mapped read-only: read when used. Raises OSError."""
    import mmap

    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return memoryview(b"")  # an empty file cannot be mapped
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def remove_folder(path: Path) -> None:
    """Remove a folder: to a reader, all of it at once. What cannot be removed now stays for another time."""
    doomed = _temporary(path)
    with contextlib.suppress(OSError):
        os.rename(path, doomed)  # noqa: PTH104
        shutil.rmtree(doomed)


def remove_leftovers(folder: Path) -> None:
    """Remove what dead writers left in `folder`. Call it under `locked(folder)`: nobody is writing then."""
    for path in folder.iterdir():
        if not LEFTOVER.fullmatch(path.name):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process holds `folder`, and hold it. The kernel lets go when the holder dies.

    Windows has no such lock: one process a folder is assumed there.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold `path`, a file that is made for it and removed afterwards. A file that a dead holder left is free.

    Raises BlockingIOError where another process holds it, OSError where it cannot be made; Windows is as
    for `locked`.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink == 0:  # removed since it was opened: the next one makes another
            raise BlockingIOError(errno.EWOULDBLOCK, "its holder is about to let go")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}{TEMPORARY}{secrets.token_hex(4)}")


def _write(path: Path, chunks: Chunks) -> None:
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows cannot open a folder; it journals renames itself
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """A block in which the system's refusal to write `path` is a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space" if full else "choose a folder that can be written"
        problem = f"cannot write {path} ({error.strerror or error})"
        raise StorageError(problem, f"{remedy}; what was there before is intact") from error
