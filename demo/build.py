"""Builds the bundle: everything that the demo page loads, in one folder that any static server can serve.

    python -m demo.build        makes build/bundle/<version>/, unless it is there already

    manifest.json           version, what boots Python, the books, and each file's size and SHA-256
    pyodide/                Pyodide's core from npm, its lock trimmed to our wheel, and that wheel; what the
                            page imports of the standard library and of the wheel is bytecode
    *.js, page/, figures/   the worker, the page and the post's live figures, as in demo/; and what those
                            figures read, as demo/site/live/ makes it
    page/vendor/            uPlot, from npm
    books/                  the bundled books, fetched on demand
    NOTICES.txt             and LICENSE: whose work this is, and under which licence

The version is a hash of the content, so that a browser may keep what it has for ever. The same inputs make
the same bytes, except that another release of zlib may compress them otherwise.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo import bytecode, wheel
from demo.site import figures
from trainer.errors import TrainerError
from trainer.gutenberg import manifest as gutenberg_manifest

ROOT = Path(__file__).resolve().parent.parent
CORE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")
STDLIB = "pyodide/python_stdlib.zip"
LOCK = "pyodide/pyodide-lock.json"
WHEEL = f"pyodide/{wheel.FILE_NAME}"
PAGE_FILES = (".js", ".css", ".jsonl", ".svg")  # of demo/ and below; its markup goes into docs/demo.md
MANIFEST = "manifest.json"
STATE = "current.json"  # which bundle the inputs at hand make


class BuildError(TrainerError):
    """The bundle cannot be built."""


def bundle_folder(root: Path = ROOT) -> Path:
    """The folder of the bundle that belongs to the sources at hand, made now if it is missing or stale.

    Raises BuildError when npm's packages are missing or are not those of package-lock.json.
    """
    _check_npm(root)
    place = root / "build" / "bundle"
    inputs = _digest_of(inputs_of(root))
    try:
        state = json.loads((place / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        state = {}
    if state.get("inputs") == inputs and (place / state["version"] / MANIFEST).is_file():
        return place / state["version"]
    folder = write(collect(root), place)
    (place / STATE).write_text(json.dumps({"inputs": inputs, "version": folder.name}), encoding="utf-8")
    for old in place.iterdir():
        if old.is_dir() and old != folder:
            shutil.rmtree(old)
    return folder


def collect(root: Path = ROOT) -> dict[str, bytes]:
    """The whole bundle: path → content, the manifest last. Raises bytecode.CompileError."""
    files = {name: path.read_bytes() for name, path in _copied(root).items()}
    files |= figures.bundled()
    python = {name: path.read_bytes() for name, path in wheel.sources(root).items()}
    modules = {name: body for name, body in python.items() if name.endswith(".py")}
    compiled = bytecode.compile_page(root, modules)
    files[STDLIB] = bytecode.standard_library(files[STDLIB], compiled)
    files[WHEEL] = wheel.build(bytecode.with_bytecode(python, compiled))
    files[LOCK] = _trimmed_lock(files[LOCK], files[WHEEL])
    files = dict(sorted(files.items()))
    described = {
        name: {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()} for name, body in files.items()
    }
    contents: dict[str, Any] = {
        "version": _digest_of({name: entry["sha256"].encode() for name, entry in described.items()})[:16],
        "pyodide": _npm_version(root, "pyodide"),
        "package": wheel.NAME,
        "boot": [*(f"pyodide/{name}" for name in CORE), WHEEL],
        "books": [name for name in files if name.startswith("books/")],
        "files": described,
    }
    files[MANIFEST] = (json.dumps(contents, indent=1) + "\n").encode()
    return files


def write(files: Mapping[str, bytes], place: Path) -> Path:
    """Writes a collected bundle into `place` / its version, all of it or nothing. Returns that folder."""
    folder = place / json.loads(files[MANIFEST])["version"]
    if folder.exists():  # of the same content, by its name
        return folder
    place.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix="new-", dir=place))
    temporary.chmod(0o755)
    for name, body in files.items():
        path = temporary / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return temporary.rename(folder)


def inputs_of(root: Path) -> dict[str, bytes]:
    """All that decides what the bundle holds."""
    inputs = {name: path.read_bytes() for name, path in _copied(root).items()}
    inputs |= {f"wheel: {name}": path.read_bytes() for name, path in wheel.sources(root).items()}
    for name in ("build.py", "wheel.py", "zips.py", "bytecode.py", *bytecode.FILES):
        inputs[f"build: {name}"] = (root / "demo" / name).read_bytes()
    site = root / "demo" / "site"
    for path in [site / "figures.py", *(site / "live").rglob("*.py"), *(site / "live").rglob("*.xz")]:
        inputs[f"build: {path.relative_to(root).as_posix()}"] = path.read_bytes()
    for path in (root / "docs" / "checkpoints").glob("*/log.jsonl"):  # which a figure draws
        inputs[f"build: {path.relative_to(root).as_posix()}"] = path.read_bytes()
    return inputs


def _copied(root: Path) -> dict[str, Path]:
    """The files that the bundle takes as they are (of the lock, a part): path in the bundle → source."""
    npm, demo = root / "node_modules", root / "demo"
    found = {f"pyodide/{name}": npm / "pyodide" / name for name in CORE}
    found["page/vendor/uplot.js"] = npm / "uplot" / "dist" / "uPlot.esm.js"
    found["page/vendor/uplot.css"] = npm / "uplot" / "dist" / "uPlot.min.css"
    found["page/vendor/uplot.LICENSE.txt"] = npm / "uplot" / "LICENSE"
    found["NOTICES.txt"] = demo / "NOTICES.txt"
    found["LICENSE"] = root / "LICENSE"
    found["figures/tokenizer-gpt2.LICENSE.txt"] = demo / "site" / "live" / "gpt2" / "LICENSE"
    for path in [*demo.glob("*"), *(demo / "page").rglob("*"), *(demo / "figures").iterdir()]:
        if path.suffix in PAGE_FILES:
            found[path.relative_to(demo).as_posix()] = path
    for book in gutenberg_manifest().values():
        for file in book.files:
            path = root / "docs" / "books" / book.repo / file.name
            if path.is_file():
                found[f"books/{book.repo}/{file.name}"] = path
    return found


def _trimmed_lock(lock: bytes, our_wheel: bytes) -> bytes:
    """Pyodide's lock with our wheel as its only package: nothing else could be loaded from this origin."""
    whole = json.loads(lock)
    whole["packages"] = {
        wheel.NAME: {
            "name": wheel.NAME,
            "version": wheel.FILE_NAME.split("-")[1],
            "file_name": wheel.FILE_NAME,
            "install_dir": "site",
            "sha256": hashlib.sha256(our_wheel).hexdigest(),
            "package_type": "package",
            "imports": list(wheel.PACKAGES),
            "depends": [],
            "unvendored_tests": False,
        }
    }
    return (json.dumps(whole, indent=1) + "\n").encode()


def _check_npm(root: Path) -> None:
    wanted = json.loads((root / "package.json").read_text(encoding="utf-8"))["dependencies"]
    for name, version in wanted.items():
        if _npm_version(root, name) != version:
            here = _npm_version(root, name) or "not installed"
            raise BuildError(
                f"the npm package {name} {version} is needed ({here})", "run: npm ci, or make site"
            )


def _npm_version(root: Path, name: str) -> str:
    try:
        description = (root / "node_modules" / name / "package.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    return json.loads(description)["version"]


def _digest_of(files: Mapping[str, bytes]) -> str:
    total = hashlib.sha256()
    for name, body in sorted(files.items()):
        total.update(f"{name}\0{len(body)}\0".encode() + body)
    return total.hexdigest()


def main() -> int:
    try:
        print(bundle_folder())
    except (BuildError, bytecode.CompileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
