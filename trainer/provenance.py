"""Where a figure comes from: machine, date, commit. Every figure that the project publishes carries these."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path


def commit() -> str | None:
    """The commit of the checkout that this code runs from, with "+changes" if it has uncommitted ones.

    None outside a git checkout, or without git.
    """
    checkout = Path(__file__).parent.parent
    if not (checkout / ".git").exists():
        return None
    revision = _git(checkout, "rev-parse", "--short=12", "HEAD")
    if revision is None:
        return None
    changes = _git(checkout, "status", "--porcelain", "--untracked-files=no", "--", "trainer", "shaders")
    return f"{revision}+changes" if changes else revision


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


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
