"""The shader files, what each entry point binds, and which variant of an op runs where.

Kernels are real `.wgsl` files. All that goes in front of one is a generated prologue of lines like
`const NAME: u32 = 8u;`, one for each constant of the dispatch; the file's other entry points, which have
constants of their own, are left out.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

Constant = int | float | bool

# In a wheel the shaders lie inside the package, in a checkout beside it.
_FOLDERS = (Path(__file__).parent / "shaders", Path(__file__).parent.parent / "shaders")


@dataclass(frozen=True)
class Tuning:
    """Which variants a plan uses. `software` says that the device is a CPU in disguise, where workgroup
    barriers are dear; `pinned` fixes an op's variant, for tests and benchmarks.
    """

    software: bool = True
    pinned: Mapping[str, str] = field(default_factory=dict)

    def choose(self, op: str, fitting: Mapping[str, bool]) -> str:
        """The variant of `op` to run: the first of its preferences that fits the shapes at hand."""
        if op in self.pinned:
            return self.pinned[op]
        preferences = SOFTWARE_VARIANTS if self.software else GPU_VARIANTS
        return next(name for name in preferences[op] if fitting.get(name, True))


# Mesa's software renderer (22.3) silently leaves a thread's loops after this many iterations in all.
LOOP_LIMIT = 65_535

# In order of preference. The one that is called like the op is the naive variant, which checks the others.
SOFTWARE_VARIANTS = {
    "matmul": ("matmul_direct", "matmul"),
    "layernorm": ("layernorm",),
    "attention": ("attention", "attention_tiled"),
    "cross_entropy": ("cross_entropy", "cross_entropy_rows"),
}
GPU_VARIANTS = {
    "matmul": ("matmul_tiled", "matmul_direct", "matmul"),
    "layernorm": ("layernorm_rows", "layernorm"),
    "attention": ("attention_tiled", "attention"),
    "cross_entropy": ("cross_entropy_rows", "cross_entropy"),
}


@cache
def source(variant: str) -> str:
    """The text of `shaders/<variant>.wgsl`."""
    for folder in _FOLDERS:
        path = folder / f"{variant}.wgsl"
        if path.exists():
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(f"shaders/{variant}.wgsl")


@cache
def variants() -> tuple[str, ...]:
    """The names of all shader files."""
    folder = next(folder for folder in _FOLDERS if folder.is_dir())
    return tuple(sorted(path.stem for path in folder.glob("*.wgsl")))


def prologue(constants: Mapping[str, Constant]) -> str:
    """WGSL declarations of a dispatch's constants.

    >>> prologue({"N": 8, "ADD": True})
    'const ADD: bool = true;\\nconst N: u32 = 8u;\\n'
    """
    return "".join(f"const {name}: {_declare(constants[name])};\n" for name in sorted(constants))


def module(variant: str, entry: str, constants: Mapping[str, Constant]) -> str:
    """The WGSL module of one kernel: prologue, and the file with no other entry point than `entry`."""
    code = source(variant)
    for match in reversed(list(_ENTRY_POINT.finditer(code))):
        if match[1] != entry:
            code = code[: match.start()] + code[_end_of_body(code, match.end()) :]
    return prologue(constants) + code


def _declare(value: Constant) -> str:
    if isinstance(value, bool):
        return f"bool = {str(value).lower()}"
    if isinstance(value, int):
        return f"u32 = {value}u"
    rounded = struct.unpack("f", struct.pack("f", value))[0]  # the nearest f32, written so that it stays it
    return f"f32 = {rounded.hex()}f"


_BINDING = re.compile(
    r"@group\(0\)\s*@binding\((\d+)\)\s*var<storage,\s*(read|read_write)>\s*(\w+)\s*:", re.MULTILINE
)
_FUNCTION = re.compile(r"\bfn\s+(\w+)\s*\(")
_ENTRY_POINT = re.compile(r"@compute\b[^{;]*?\bfn\s+(\w+)")


@cache
def bindings(variant: str, entry: str) -> dict[str, tuple[int, str]]:
    """What an entry point binds: name → (binding number, "read" or "read_write").

    A binding counts if the entry point's code names it, itself or through functions that it calls, which
    is WebGPU's rule for a pipeline's automatic layout.
    """
    code = re.sub(r"//[^\n]*", "", source(variant))
    bodies = _function_bodies(code)
    reached, queue = set[str](), [entry]
    while queue:
        name = queue.pop()
        if name in reached:
            continue
        reached.add(name)
        queue += [word for word in _words(bodies[name]) if word in bodies]
    words = {word for name in reached for word in _words(bodies[name])}
    return {name: (int(i), mode) for i, mode, name in _BINDING.findall(code) if name in words}


def binding_modes(variant: str, entry: str) -> dict[str, str]:
    """What an entry point binds: name → "read" or "read_write"."""
    return {name: mode for name, (_, mode) in bindings(variant, entry).items()}


@cache
def entry_points(variant: str) -> tuple[str, ...]:
    """The names of a shader file's `@compute` functions."""
    return tuple(_ENTRY_POINT.findall(source(variant)))


def _words(code: str) -> set[str]:
    """Names in `code`, those of members (`id.x`) left out."""
    return set(re.findall(r"(?<![.\w])[A-Za-z_]\w*", code))


def _function_bodies(code: str) -> dict[str, str]:
    return {
        match[1]: code[code.index("{", match.end()) : _end_of_body(code, match.end())]
        for match in _FUNCTION.finditer(code)
    }


def _end_of_body(code: str, start: int) -> int:
    """The place after the brace that closes the first one from `start` on."""
    depth, end = 1, code.index("{", start) + 1
    while depth:
        depth += {"{": 1, "}": -1}.get(code[end], 0)
        end += 1
    return end
