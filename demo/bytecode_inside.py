"""Compiles what the page imports; demo/bytecode.mjs runs this in the Pyodide that will load the result.

Reads /stdlib.zip and /sources.zip, writes /compiled.zip: of both, the modules that the page imports, each as
NAME.pyc. (What it never imports stays source, which is smaller.)
"""

import importlib
import importlib.util
import pkgutil
import sys
import zipfile
from importlib._bootstrap_external import _code_to_hash_pyc  # type: ignore

SITE = "/lib/python3.14/site-packages/"
STDLIB = "/lib/python314.zip/"


def compiled(body: bytes, path: str) -> bytes:
    """A .pyc without times, which is taken unchecked: the same source makes the same bytes.

    The library's goes without its docstrings and assertions (a seventh of its size); not Pyodide's own part,
    which documents JavaScript's objects with them.
    """
    library = path.startswith(STDLIB) and "pyodide" not in path
    code = compile(body, path, "exec", dont_inherit=True, optimize=2 if library else 0)
    return _code_to_hash_pyc(code, importlib.util.source_hash(body), False)


def import_the_page() -> set[str]:
    """Imports what the page does. Returns the paths of all modules that are then there."""
    import demo

    for module in pkgutil.iter_modules(demo.__path__, "demo."):
        importlib.import_module(module.name)
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    return {spec.origin for spec in specs if spec and spec.origin}


with zipfile.ZipFile("/sources.zip") as sources:
    sources.extractall(SITE)
importlib.invalidate_caches()
imported = import_the_page()
with (
    zipfile.ZipFile("/stdlib.zip") as stdlib,
    zipfile.ZipFile("/sources.zip") as sources,
    zipfile.ZipFile("/compiled.zip", "w") as output,
):
    for archive, place in ((sources, SITE), (stdlib, STDLIB)):
        for name in archive.namelist():
            if place + name in imported:
                output.writestr(f"{name}c", compiled(archive.read(name), place + name))
