"""Where a figure comes from: machine, date, commit. Every figure that the project publishes carries these."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path


def commit() -> str | None:
    """The commit of the checkout that this trainer runs from, with "-dirty" if tracked files were changed.

    None for an installed trainer, in the page, and without git.
    """
    root = Path(__file__).resolve().parent.parent
    if sys.platform == "emscripten" or not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def today() -> str:
    """The date in UTC, as ISO 8601 writes it."""
    return datetime.now(UTC).date().isoformat()


def machine() -> str:
    """The processor, its cores and the system, such as "AMD EPYC 9554, 2 cores, Linux"."""
    return f"{_processor()}, {cores()} cores, {platform.system()}"


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
