"""A run as one zip: the folder that `trainer train` writes, with the text that it was trained on.

a-run/latest, a-run/step-000300/..., a-run/log.jsonl      what the command line reads
a-run/documents.jsonl, a-run/title.txt, a-run/report.json   what the page adds
"""

from __future__ import annotations

import io
import re
import unicodedata
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from demo.material import DOCUMENTS
from demo.store import REPORT, TITLE, Chunks
from trainer import checkpoint
from trainer.checkpoint import LOG
from trainer.errors import CheckpointError

BESIDE = (LOG, DOCUMENTS, REPORT, TITLE)
LARGEST = 2 << 30  # bytes unpacked: more than a page's Python can hold
EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip's first day: times would make each export differ


@dataclass(frozen=True)
class Archive:
    """What a zip of a run holds."""

    title: str
    checkpoint: dict[str, bytes]
    beside: dict[str, bytes]  # some of BESIDE


def pack(
    title: str, step: int, files: Mapping[str, Chunks], beside: Mapping[str, bytes]
) -> tuple[bytes, str]:
    """The zip of a run whose newest checkpoint is `files`, and its name."""
    name = slug(title)
    folder = f"step-{step:06d}"
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:

        def add(path: str, chunks: Chunks) -> None:
            packed = not path.endswith(".safetensors")  # weights hardly get smaller
            entry = zipfile.ZipInfo(f"{name}/{path}", EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w") as file:
                for chunk in chunks:
                    file.write(chunk)

        for file, chunks in files.items():
            add(f"{folder}/{file}", chunks)
        for file, body in {
            **beside,
            TITLE: title.encode(),
            checkpoint.LATEST: f"{folder}\n".encode(),
        }.items():
            add(file, [body])
    return whole.getvalue(), f"{name}.zip"


def unpack(data: bytes) -> Archive:
    """What `pack` wrote, or a zip of any run's or model's folder. Raises CheckpointError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [entry for entry in archive.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in members) > LARGEST:
                raise CheckpointError("the zip holds more than 2 GB", "open it with the command line")
            files = {entry.filename: archive.read(entry) for entry in members}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(f"this is no whole zip file ({error})", "export the run again") from error
    folders = sorted(
        str(PurePosixPath(path).parent) for path in files if PurePosixPath(path).name == checkpoint.CONFIG
    )
    if not folders:
        raise CheckpointError(
            f"the zip holds no {checkpoint.CONFIG}", "zip the folder of a run or of a model, and nothing else"
        )
    run = PurePosixPath(folders[-1]).parent
    latest = files.get(_path(run, checkpoint.LATEST), b"").decode(errors="replace").strip()
    chosen = next((folder for folder in folders if PurePosixPath(folder).name == latest), folders[-1])
    if not latest:
        run = PurePosixPath(chosen)
    beside = {name: files[_path(run, name)] for name in BESIDE if _path(run, name) in files}
    inside = {
        path.name: body for file, body in files.items() if str((path := PurePosixPath(file)).parent) == chosen
    }
    title = beside.pop(TITLE, run.name.encode()).decode(errors="replace").strip()
    return Archive(title[:200] or "Imported run", inside, beside)


def _path(folder: PurePosixPath, name: str) -> str:
    return str(folder / name)


def slug(title: str) -> str:
    """
    >>> slug("Ten books, micro"), slug("<img src=x>"), slug("…")
    ('ten-books-micro', 'img-src-x', 'run')
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60].strip("-") or "run"
