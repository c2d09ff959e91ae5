"""A small trained model as the site ships one: sharded, F16, with its log, report, samples and index. As a
plugin: pytest_plugins = ("shipped_model",). (PYTEST_DONT_REWRITE: it asserts little itself.)
"""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from page_session import STEPS, Page

from demo import ship
from trainer import export, storage
from trainer.checkpoint import load
from trainer.devices import Device

NAME, TITLE = "tiny", "Tiny, on a story"
TEXT = "40 KB of Alice’s Adventures in Wonderland"
MADE = {"machine": "A rented GPU", "commit": "1a2b3c"}
SHARD = 6000  # bytes
SAMPLES = [
    {"prompt": "Alice", "text": " was <b>not</b> there."},
    {"prompt": "The cat", "text": ""},
]


def made(native: Device, place: Path) -> Path:
    """The parts of a model before it is shipped: `place`/export and `place`/run."""

    async def trained() -> bytes:
        page = Page(native)
        await page.prepare()
        run = await page.train()
        await page.until("run_ended", reason="finished")
        await page.until("saved", step=STEPS)
        await page.send("evaluate")
        zipped = (await page.send("export_run", run=run))["zip"]
        await page.close()
        return zipped

    with zipfile.ZipFile(io.BytesIO(asyncio.run(trained()))) as archive:
        archive.extractall(place)
    (run,) = place.iterdir()
    run = run.rename(place / "run")
    (run / ship.SAMPLES).write_text("".join(f"{json.dumps(line)}\n" for line in SAMPLES))
    storage.write_folder(place / "export", export.to_files(load(run), shard_bytes=SHARD))
    return place


def shipped(place: Path, *more: str) -> int:
    """The exit code of the maker's command, which writes into `place`/site/checkpoints."""
    out = place / "site" / "checkpoints"
    flags = {"run": place / "run", "out": out, "name": NAME, "title": TITLE, "text": TEXT, **MADE}
    given = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    return ship.main([str(place / "export"), *given, *more])


def index(place: Path) -> list[dict[str, Any]]:
    return json.loads((place / "site" / "checkpoints" / ship.INDEX).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model(native: Device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `site`/checkpoints, shipped by the maker's command."""
    place = made(native, tmp_path_factory.mktemp("model"))
    assert shipped(place) == 0
    return place
