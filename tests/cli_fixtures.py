"""Fixtures of the command line's tests, as a plugin: pytest_plugins = ("cli_fixtures",)"""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_tools import STEPS, TINY, Cli, run, write_story


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file that is long enough for TINY."""
    return write_story(tmp_path_factory.mktemp("story") / "story.txt")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, story: Path) -> Path:
    """A run of TINY and STEPS on `story` that is done. Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    result = run("train", "--sources", story, "--out", folder, *TINY, *STEPS)
    assert (result.code, result.err) == (0, "")
    return folder
