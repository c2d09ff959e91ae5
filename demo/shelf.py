"""The kept runs: listed, opened, renamed, deleted, exported and imported."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo import archive, trouble
from demo.archive import Archive
from demo.material import DOCUMENTS, Material
from demo.store import REPORT, Full, Locks, RunStore, now
from demo.training import Training, checkpoint_files, no_room
from demo.writing import Model
from trainer import checkpoint
from trainer.checkpoint import LOG
from trainer.config import to_dict
from trainer.errors import StorageError
from trainer.events import json_lines


class Shelf:
    """What the page's Runs sheet does."""

    def __init__(self, store: RunStore, locks: Locks) -> None:
        self.store = store
        self.locks = locks

    async def list(self) -> dict[str, Any]:
        """All runs, and the room that they take."""
        used, available = await self.store.files.room()
        return {"runs": await self.store.runs(), "quota": {"used": used, "available": available}}

    async def open(self, run: str) -> Model:
        """The model of a run's last save, with its text if that is here. Raises CheckpointError."""
        files, data = await self.store.load(run)
        info = await self.store.info(run) or {}
        resume = checkpoint.STATE in files and checkpoint.OPTIMIZER in files
        found = checkpoint.from_files(files, Path(run), resume=resume)
        text = None
        if DOCUMENTS in data and found.tokenizer:
            sources = ((found.state or {}).get("text") or {}).get("sources") or [DOCUMENTS]
            text = Material.from_files(data, sources, found.tokenizer)
        return Model.of_checkpoint(run, info.get("title", run), found, text, lines(files.get(LOG, b"")))

    async def log(self, run: str) -> list[str]:
        """What a run's last save tells of it, a line of JSON an event. Raises CheckpointError."""
        return lines(await self.store.saved(run, LOG) or b"")

    async def delete(self, run: str, owned: bool) -> None:
        """Delete a run that no other tab trains. Raises Trouble."""
        if not owned and not await self.locks.take(run, lambda: None):
            raise trouble.other_tab()
        try:
            await self.store.delete(run)
        finally:
            self.locks.give_back(run)

    async def export(self, run: str, training: Training | None) -> dict[str, Any]:
        """A run as a zip: of its last save, or of the moment where `training` has it at work."""
        report = await self.store.attached(run, REPORT)
        beside = {REPORT: report} if report else {}
        if training:
            async with training.quiet():
                snapshot = await training.trainer.snapshot()
            beside[LOG] = "".join(f"{line}\n" for line in training.log).encode()
            beside[DOCUMENTS] = b"".join(training.material.files()[DOCUMENTS])
            title, step, files = training.title, snapshot.step, checkpoint_files(snapshot)
        else:
            kept, data = await self.store.load(run)
            info = await self.store.info(run) or {}
            title, step = info.get("title", run), int(info.get("step") or 0)
            if LOG in kept:
                beside[LOG] = kept.pop(LOG)
            if DOCUMENTS in data:
                beside[DOCUMENTS] = data[DOCUMENTS]
            files = {name: [body] for name, body in kept.items()}
        packed, name = archive.pack(title, step, files, beside)
        return {"zip": packed, "name": name}

    async def take_in(self, data: bytes) -> dict[str, Any]:
        """Keep the run of a zip under a new name. Raises CheckpointError, Trouble for want of room."""
        return await self.keep(archive.unpack(data))

    async def keep(self, found: Archive, **known: Any) -> dict[str, Any]:
        """The same of one that is unpacked; `known` is kept with what the list of runs shows."""
        resume = checkpoint.STATE in found.checkpoint and checkpoint.OPTIMIZER in found.checkpoint
        loaded = checkpoint.from_files(found.checkpoint, Path(found.title), resume=resume)
        run = secrets.token_hex(6)
        log = found.beside.get(LOG, b"")
        train: Mapping[str, Any] = (loaded.state or {}).get("train") or {}
        files = {name: [body] for name, body in found.checkpoint.items()}
        if log:
            files[LOG] = [log]
        info = {
            **known,
            "title": found.title,
            "step": last(log, "step") if loaded.step is None else loaded.step,
            "steps": train.get("steps") or last(log, "steps"),
            "loss": last(log, "loss", "validation") or last(log, "loss", "step"),
            "date": now(),
            "model": to_dict(loaded.model),
            "train": dict(train),
        }
        text = {DOCUMENTS: [found.beside[DOCUMENTS]]} if DOCUMENTS in found.beside else {}
        try:
            await self.store.save(run, info, files, text)
            if REPORT in found.beside:
                await self.store.attach(run, REPORT, found.beside[REPORT])
        except StorageError as error:
            full = no_room(error)
            note = (
                full.note.removeprefix("Training goes on. ") if isinstance(error, Full) else "Delete a run."
            )
            raise trouble.Trouble("quota", "Storage is full: not imported", note, str(error)) from error
        return {"run": run, "title": found.title}


def lines(log: bytes) -> list[str]:
    return json_lines(log.decode(errors="replace"))


def last(log: bytes, name: str, kind: str = "") -> Any:
    """What the last event of a log (of that kind) that has the field `name` says there, or None."""
    for line in reversed(lines(log)):
        try:
            event = json.loads(line)
            if kind in ("", event["event"]) and event[name] is not None:
                return event[name]
        except (ValueError, KeyError, TypeError):
            continue
    return None
