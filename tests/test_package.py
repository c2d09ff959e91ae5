"""The wheel: it carries shaders and books, and what it installs works away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from trainer.devices.native import list_adapters

ROOT = Path(__file__).parent.parent

# Run where nothing but the wheel is installed: what the page has, too.
PLAN = """
import trainer
from trainer import corpus
from trainer.config import PRESETS
from trainer.model import build

preset = PRESETS["nano"]
model = build(preset.model, train=preset.train, tokens=100_000, evaluation_batch=2, generate=True)
for program in model.plan.programs.values():
    for dispatch in program.dispatches:
        dispatch.code
print(trainer.__file__)
print(len(model.plan.programs), len(corpus.read_bundled()))
"""


def run(*command: str | Path, **environment: str) -> str:
    """The output of a command that must succeed, away from the checkout."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=Path(sys.prefix),
        env={**clean, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "-q", "wheel", "--no-index", "--no-deps", "--no-build-isolation")
    run(*pip, "-w", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=os.name != "nt")
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    run(sys.executable, "-m", "pip", "-q", "--python", folder, "install", "--no-index", "--no-deps", wheel)
    return binaries


def test_the_wheel_carries_all_that_runs_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    places = (("trainer", "*.py"), ("trainer", "*.json"), ("shaders", "*.wgsl"), ("docs/books", "*.txt"))
    expected = set()
    for folder, pattern in places:
        found = [path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob(pattern)]
        assert found, f"{folder} has no {pattern}"
        inside = folder if folder == "trainer" else f"trainer/{Path(folder).name}"
        expected |= {f"{inside}/{name}" for name in found}
    assert expected <= names
    assert {name.removeprefix("trainer/books/") for name in names - expected} == {
        "PROVENANCE.md",
        ".gitattributes",
    }


def test_with_the_standard_library_alone_it_plans_and_reads_its_books(installed: Path) -> None:
    where, counts = run(installed / "python", "-c", PLAN).splitlines()
    assert Path(where).is_relative_to(installed.parent)
    programs, books = map(int, counts.split())
    assert programs >= 5
    assert books == 10


def test_its_command_lists_the_devices(installed: Path) -> None:
    dependencies = sysconfig.get_path("purelib")
    listed = run(installed / "trainer", "devices", PYTHONPATH=dependencies)
    assert list_adapters()[0].info["device"] in listed
