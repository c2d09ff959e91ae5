"""The wheel that the page installs: the trainer, its shaders and the page's own Python, in one pure wheel.

The books stay outside: they are files of the bundle, fetched when they are wanted.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from demo.zips import pack
from trainer import __version__

NAME = "tabula"  # as pyodide.loadPackage knows it
FILE_NAME = f"{NAME}-{__version__}-py3-none-any.whl"
PACKAGES = ("trainer", "demo")
# Modules of demo/ that are not for the page.
BUILD_TIME = {
    "bench.py",
    "bench_peers.py",
    "bench_server.py",
    "build.py",
    "bytecode.py",
    "bytecode_inside.py",
    "hooks.py",
    "policy.py",
    "record.py",
    "ship.py",
    "wheel.py",
    "zips.py",
}
# Parts of the trainer that a page has no use for: the command line, what of `trainer bench` is no training
# step, and the devices of a machine
NATIVE = (
    "trainer/__main__.py",
    "trainer/bench/curves.py",
    "trainer/bench/learn.py",
    "trainer/bench/matmul.py",
    "trainer/bench/profile.py",
    "trainer/bench/pytorch.py",
    "trainer/bench/tokenizer.py",
    "trainer/bench/work.py",
    "trainer/cli/",
    "trainer/devices/native.py",
    "trainer/devices/reference.py",
    "trainer/devices/twins/",
)


def sources(root: Path) -> dict[str, Path]:
    """What the wheel holds: path inside → file in the checkout."""
    found = {f"trainer/shaders/{path.name}": path for path in (root / "shaders").glob("*.wgsl")}
    for path in [*(root / "trainer").rglob("*.py"), *(root / "trainer" / "data").rglob("*.json")]:
        name = path.relative_to(root).as_posix()
        if not name.startswith(NATIVE):
            found[name] = path
    for path in (root / "demo").glob("*.py"):
        if path.name not in BUILD_TIME:
            found[path.relative_to(root).as_posix()] = path
    return dict(sorted(found.items()))


def build(files: Mapping[str, bytes]) -> bytes:
    """The wheel of `files`: the same bytes for the same files."""
    files = dict(files)
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


def _record_hash(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
