"""The site, built once a module as `make site` does and served from a sub-path. As a plugin:
pytest_plugins = ("browser", "built_site"). (PYTEST_DONT_REWRITE: it asserts little itself.)
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import serve

ROOT = Path(__file__).parent.parent
TESTS = "test-pages/"  # where tests/pages lies in the served tree


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def base(site: Path) -> Iterator[str]:
    """The address of the site, built for that address."""
    with serve(site, "/some/where/", {TESTS: ROOT / "tests" / "pages"}) as address:
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
        environment = {**os.environ, "SITE_URL": address}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        yield address
