"""The wheel that the page installs: the trainer, its shaders and the page's own Python, in one pure wheel.

The books stay outside: they are files of the bundle, fetched when they are wanted.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from trainer import __version__

NAME = "tabula"  # as pyodide.loadPackage knows it
FILE_NAME = f"{NAME}-{__version__}-py3-none-any.whl"
PACKAGES = ("trainer", "demo")
BUILD_TIME = {"build.py", "hooks.py", "policy.py", "wheel.py"}  # of demo/, not for the page
EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip's first day: times would make each build differ


def sources(root: Path) -> dict[str, Path]:
    """What the wheel holds: path inside → file in the checkout."""
    found = {f"trainer/shaders/{path.name}": path for path in (root / "shaders").glob("*.wgsl")}
    for path in [*(root / "trainer").rglob("*.py"), *(root / "trainer" / "data").rglob("*.json")]:
        found[path.relative_to(root).as_posix()] = path
    for path in (root / "demo").glob("*.py"):
        if path.name not in BUILD_TIME:
            found[path.relative_to(root).as_posix()] = path
    return dict(sorted(found.items()))


def build(root: Path) -> bytes:
    """The wheel's bytes: the same for the same sources."""
    files = {name: path.read_bytes() for name, path in sources(root).items()}
    info = f"{NAME}-{__version__}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {__version__}\n".encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: demo\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/top_level.txt"] = "".join(f"{name}\n" for name in PACKAGES).encode()
    record = f"{info}/RECORD"
    lines = [f"{name},sha256={_record_hash(body)},{len(body)}\n" for name, body in files.items()]
    files[record] = "".join([*lines, f"{record},,\n"]).encode()
    return pack(files)


def pack(files: Mapping[str, bytes]) -> bytes:
    """`files` as a zip whose bytes depend on nothing else."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, body in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # Unix, wherever this runs
            archive.writestr(entry, body, zipfile.ZIP_DEFLATED, 9)
    return whole.getvalue()


def _record_hash(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
