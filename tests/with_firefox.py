"""The worker in Firefox, where Firefox is: it trains there what it trains elsewhere. Run by `make firefox`.

Playwright steers no Firefox but its own. This one steers itself: tests/pages/firefox.js sends the results.
"""

from __future__ import annotations

import asyncio
import json
import queue
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from browser import StaticFiles, serve
from page_session import QUICK, SMALL, TEXT, VOCAB, uninterrupted

from demo.build import bundle_folder
from trainer.devices.reference import ReferenceDevice

PAGES = Path(__file__).parent / "pages"
STEPS = 24
TRAIN = {**QUICK, "steps": STEPS, "eval_every": 12, "sample_every": 12}
JOB = {"source": TEXT, "vocab": VOCAB, "model": SMALL, "train": TRAIN, "prompt": "Alice"}
SECONDS = 240
PREFERENCES = {
    "dom.webgpu.enabled": True,  # on Linux it is off
    "gfx.webgpu.ignore-blocklist": True,  # a software renderer is on that list
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.aboutwelcome.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
}


class Reporting(StaticFiles):
    """A server that the page sends its report to."""

    reports: queue.Queue[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.reports.put(json.loads(body))


@contextmanager
def firefox(profile: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Firefox without a window, with a new profile, at an address."""
    program = which("firefox") or which("firefox-esr")
    assert program, "there is no Firefox: install it (Debian: sudo apt-get install firefox-esr)"
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items())
    (profile / "user.js").write_text("".join(lines), encoding="utf-8")
    command = [program, "--headless", "--no-remote", "--profile", str(profile), address]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page tells of its two visits."""
    folder = tmp_path_factory.mktemp("firefox")
    for name in ("firefox.html", "firefox.js", "session.js"):
        (folder / name).write_bytes((PAGES / name).read_bytes())
    (folder / "job.json").write_text(json.dumps(JOB), encoding="utf-8")
    profile = tmp_path_factory.mktemp("profile")
    Reporting.reports = queue.Queue()
    with (
        serve(folder, folders={"bundle/": bundle_folder()}, handler=Reporting) as address,
        firefox(profile, address + "firefox.html"),
    ):
        told = Reporting.reports.get(timeout=SECONDS)
    assert "error" not in told, told
    return told


def curve(losses: dict[str, float]) -> list[float]:
    assert [int(step) for step in losses] == list(range(1, STEPS + 1))
    return list(losses.values())


def test_it_trains_what_numpy_trains(report: dict[str, Any]) -> None:
    assert report["device"]["software"]
    changes = {name: value for name, value in TRAIN.items() if QUICK[name] != value}
    expected = asyncio.run(uninterrupted(ReferenceDevice(32), **changes))
    assert curve(report["whole"]) == pytest.approx(expected, rel=1e-3)


def test_a_second_visit_goes_on_to_the_bit(report: dict[str, Any]) -> None:
    assert 4 <= report["step"] < STEPS
    assert report["resumed"] == report["whole"]
    assert report["again"] == report["text"] != ""


def test_it_measures_and_evaluates(report: dict[str, Any]) -> None:
    assert report["gflops"] > 0.1
    assert report["evaluated"]["blimp"]["pairs"] == 40
    assert 0 < report["evaluated"]["text"]["bits_per_byte"] < 8


def test_mixed_precision_trains_as_f32_does(report: dict[str, Any]) -> None:
    mixed = curve(report["mixed"])
    assert mixed != curve(report["whole"])
    assert mixed == pytest.approx(curve(report["whole"]), rel=1e-2)
