"""The shader files, what each entry point binds, and which way of running an op is taken where.

Kernels are real `.wgsl` files, one a variant, or two where one would be too long. All that goes in front is a
generated prologue of lines like `const NAME: u32 = 8u;`, one for each constant of the dispatch, and like
`alias x_type = f16;`, which say what the numbers of a binding are stored as; other entry points, which have
constants of their own, are left out. So one source serves f32 and f16: it reads `f32(x[i])`, computes in f32,
and writes `x_type(value)`.
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


HALF = "shader-f16"  # the feature that f16 takes
SUBGROUPS = "subgroups"  # shuffles among threads; where it is enabled, eight in a row share a subgroup
MATRIX_UNITS = "chromium-experimental-subgroup-matrix"


@dataclass(frozen=True)
class MatrixUnits:
    """Units that multiply fragments of f16 and add up in f32: the sizes of the device's own."""

    side: int = 16  # rows and columns of a fragment
    lanes: int = 32  # threads of a subgroup


@dataclass(frozen=True)
class Needs:
    """What a variant asks of a device beyond WebGPU's defaults."""

    features: frozenset[str] = frozenset()
    directives: tuple[str, ...] = ()  # lines that stand before everything else in its modules
    half: frozenset[str] = frozenset()  # bindings that store f16 and nothing else


UNIFORMITY = "diagnostic(off, subgroup_uniformity);"  # which compilers cannot see where it is there


def _needs_units(*half: str) -> Needs:
    """What a variant on matrix units asks for, whose bindings called `half` store f16."""
    return Needs(
        features=frozenset({HALF, MATRIX_UNITS, SUBGROUPS}),
        directives=(
            "diagnostic(off, chromium.subgroup_matrix_uniformity);",
            UNIFORMITY,
            "enable f16;",
            "enable subgroups;",
            "enable chromium_experimental_subgroup_matrix;",
        ),
        half=frozenset(half),
    )


_NEEDS_SUBGROUPS = Needs(frozenset({SUBGROUPS}), (UNIFORMITY, "enable subgroups;"))

NEEDS = {
    "attention_subgroups": _NEEDS_SUBGROUPS,
    "attention_units": _needs_units("qkv", "out", "result", "dout", "dqkv"),
    "linear_units": _needs_units("dout", "weight", "x"),
    "matmul_units": _needs_units("a", "b"),
    "subgroups": _NEEDS_SUBGROUPS,
}


def needs(variant: str) -> Needs:
    """What a variant asks of a device."""
    return NEEDS.get(variant, Needs())


@dataclass(frozen=True)
class Choice:
    """A way to run an op: a variant, and the constants that it leaves open (a product's tiles and parts).

    >>> str(Choice("matmul_tiled", {"TILE_N": 64, "PART": 512}))
    'matmul_tiled TILE_N=64 PART=512'
    """

    variant: str
    constants: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([self.variant, *(f"{name}={value}" for name, value in self.constants.items())])


@dataclass(frozen=True)
class Question:
    """What a plan asks of its tuning: which of several ways to run an op on a shape."""

    op: str
    shape: str  # sizes, transposes, dtypes, epilogues: all that a way's time depends on
    candidates: tuple[Choice, ...]  # what the device can run; the one that is taken for the fastest first
    work: float  # floating-point operations, about

    @property
    def key(self) -> str:
        """What measured answers are kept under."""
        return f"{self.op} {self.shape}"


@dataclass(frozen=True)
class Tuning:
    """How a plan's ops run. `software` says that the device is a CPU in disguise, where workgroup barriers
    are dear; `features` are those that kernels may use, and `units` the sizes of its matrix units. `answers`
    are what was measured to be the fastest (trainer/tune.py): a question's key → a candidate as text.
    `pinned` fixes an op's variant, for tests and benchmarks.
    """

    software: bool = True
    pinned: Mapping[str, str] = field(default_factory=dict)
    features: frozenset[str] = frozenset()
    units: MatrixUnits = MatrixUnits()
    answers: Mapping[str, str] = field(default_factory=dict)

    def variants(self, op: str, fitting: Mapping[str, bool]) -> list[str]:
        """The variants of `op` that fit the shapes at hand, and that the device has the features for: those
        for its kind of device first, in order of preference.
        """
        kinds = (SOFTWARE_VARIANTS.get(op, ()), GPU_VARIANTS[op])
        ordered = dict.fromkeys(name for kind in (kinds if self.software else kinds[::-1]) for name in kind)
        return [name for name in ordered if fitting.get(name, True) and needs(name).features <= self.features]

    def choose(self, question: Question) -> Choice:
        """The answer that was measured, where there is one that the device can run, else the first candidate.

        Raises ValueError where the op's variant is pinned and is none of the candidates.
        """
        candidates = question.candidates
        if pinned := self.pinned.get(question.op):
            candidates = tuple(choice for choice in candidates if choice.variant == pinned)
            if not candidates:
                raise ValueError(f"{pinned} cannot run {question.key}")
        answer = self.answers.get(question.key)
        return next((choice for choice in candidates if str(choice) == answer), candidates[0])


# Mesa's software renderer (22.3) silently leaves a thread's loops after this many iterations in all. The one
# that finds a loop at its end counts, too: n turns are n + 1. A short loop that is unrolled has none.
LOOP_LIMIT = 65_535

# In order of preference. The one that is called like the op is the naive variant, which checks the others. An
# op that is missing is taken apart on such devices.
SOFTWARE_VARIANTS = {
    "matmul": ("matmul_direct", "matmul"),
    "column_sum": ("column_sum",),
    "layernorm": ("layernorm",),
    "attention": ("attention_direct", "attention", "attention_subgroups", "attention_tiled"),
    "cross_entropy": ("cross_entropy", "cross_entropy_rows"),
}
GPU_VARIANTS = {
    "matmul": ("matmul_units", "matmul_tiled", "matmul_direct", "matmul"),
    "linear": ("linear_units", "linear_tiled", "linear"),
    "column_sum": ("column_sum_strips", "column_sum"),
    "layernorm": ("layernorm_rows", "layernorm"),
    "attention": ("attention_units", "attention_subgroups", "attention_tiled", "attention"),
    "cross_entropy": ("cross_entropy_held", "cross_entropy_rows", "cross_entropy"),
}


# A variant is the shader file of its name; these have further ones, which may be shared. What stands behind a
# file's name is put behind names in it (see `suffixed`): so a kernel reads one file several times.
FILES = {
    "attention_subgroups": ("attention_subgroups", "attention_subgroups_backward"),
    "attention_units": ("attention_units", "attention_units_backward"),
    "column_sum": ("column_sum", "column_total"),
    "column_sums": (
        "column_sums",
        "column_total _0",
        "column_total _1",
        "column_total _2",
        "column_total _3",
    ),
    "linear_tiled": (
        "linear_tiled",
        "linear_gradients",
        "matmul_slices",
        "matmul_order _of_x",
        "matmul_product _of_x",
        "matmul_order _of_weight",
        "matmul_product _of_weight",
    ),
    "linear_units": (
        "linear_units",
        "linear_gradients",
        "matmul_fragments",
        "matmul_order _of_x",
        "matmul_units_product _of_x",
        "matmul_order _of_weight",
        "matmul_units_product _of_weight",
    ),
    "matmul_tiled": ("matmul_tiled", "matmul_slices", "matmul_order", "matmul_product"),
    "matmul_units": ("matmul_units", "matmul_fragments", "matmul_order", "matmul_units_product"),
}


def files(variant: str) -> tuple[str, ...]:
    """The names of the shader files that a variant is made of, in their order."""
    return tuple(dict.fromkeys(name.split()[0] for name in FILES.get(variant, (variant,))))


@cache
def file_text(name: str) -> str:
    """The text of `shaders/<name>.wgsl`."""
    for folder in _FOLDERS:
        path = folder / f"{name}.wgsl"
        if path.exists():
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(f"shaders/{name}.wgsl")


@cache
def source(variant: str) -> str:
    """The text of a variant's shader files, one behind the other."""
    names = (name.split() for name in FILES.get(variant, (variant,)))
    return "\n".join(suffixed(file_text(name), *suffix) for name, *suffix in names)


def suffixed(code: str, suffix: str = "") -> str:
    """`code` with `suffix` behind each name that it declares, or is given by a line "// Given: <names>", and
    in the types of bindings that it is given.

    >>> suffixed("// Given: M\\nconst TWICE = 2u * M;\\nfn f(x: Box) -> u32 { return x.M + TWICE; }", "_b")
    '// Given: M_b\\nconst TWICE_b = 2u * M_b;\\nfn f_b(x: Box) -> u32 { return x.M + TWICE_b; }'
    """
    given = _GIVEN.search(code)
    names = {*_DECLARED.findall(code), *(given[1].split() if given else ())}

    def renamed(name: re.Match[str]) -> str:
        stem = name[0].removesuffix("_type")
        return stem + suffix + name[0][len(stem) :] if stem in names else name[0]

    return _NAME.sub(renamed, code)


@cache
def variants() -> tuple[str, ...]:
    """The names of all variants."""
    folder = next(folder for folder in _FOLDERS if folder.is_dir())
    further = {name for variant in FILES for name in files(variant)[1:]}
    return tuple(sorted({path.stem for path in folder.glob("*.wgsl")} - further))


def prologue(constants: Mapping[str, Constant], dtypes: Mapping[str, str] | None = None) -> str:
    """WGSL declarations of a dispatch's constants, and of what its bindings store.

    >>> prologue({"N": 8, "ADD": True}, {"x": "f16"})
    'enable f16;\\nalias x_type = f16;\\nconst ADD: bool = true;\\nconst N: u32 = 8u;\\n'
    """
    dtypes = dtypes or {}
    lines = ["enable f16;"] if "f16" in dtypes.values() else []
    lines += [f"alias {name}_type = {dtypes[name]};" for name in sorted(dtypes)]
    lines += [f"const {name}: {_declare(constants[name])};" for name in sorted(constants)]
    return "".join(f"{line}\n" for line in lines)


def module(
    variant: str,
    entry: str,
    constants: Mapping[str, Constant],
    dtypes: Mapping[str, str] | None = None,
) -> str:
    """The WGSL module of one kernel: prologue, and the files without what `entry` does not call.

    `dtypes` says what bindings store: "f32" or "f16" where the file has a type `<binding>_type`. Raises
    ValueError for f16 elsewhere, and where the file wants it and does not get it.
    """
    typed, half = typed_bindings(variant), needs(variant).half
    stored = {name: (dtypes or {}).get(name, "f32") for name in typed}
    for name, dtype in (dtypes or {}).items():
        if name not in typed and (dtype == "f16") != (name in half):
            raise ValueError(f"{variant} takes no {name} in {dtype}")
    directives = "".join(f"{line}\n" for line in needs(variant).directives)
    return directives + prologue(constants, stored) + _source_for(variant, entry)


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
_TYPED = re.compile(r"\b([a-z]\w*)_type\b")
_GIVEN = re.compile(r"^// Given: (.*)$", re.MULTILINE)
_DECLARED = re.compile(r"^(?:alias|const|fn|struct) (\w+)", re.MULTILINE)
_NAME = re.compile(r"(?<![.\w])[A-Za-z_]\w*")  # but those of members (`id.x`)
_FUNCTION = re.compile(r"(?:@compute\b[^{;]*?)?\bfn\s+(\w+)\s*\(")
_ENTRY_POINT = re.compile(r"@compute\b[^{;]*?\bfn\s+(\w+)")


@cache
def bindings(variant: str, entry: str) -> dict[str, tuple[int, str]]:
    """What an entry point binds: name → (binding number, "read" or "read_write").

    A binding counts if the entry point's code names it, itself or through functions that it calls, which
    is WebGPU's rule for a pipeline's automatic layout.
    """
    words = {word for body in _reached(variant, entry).values() for word in _words(body)}
    found = _BINDING.findall(_uncommented(variant))
    return {name: (int(i), mode) for i, mode, name in found if name in words}


def binding_modes(variant: str, entry: str) -> dict[str, str]:
    """What an entry point binds: name → "read" or "read_write"."""
    return {name: mode for name, (_, mode) in bindings(variant, entry).items()}


@cache
def typed_bindings(variant: str) -> tuple[str, ...]:
    """The bindings of a shader file that may store f32 or f16: those that have a type of their own."""
    return tuple(sorted(set(_TYPED.findall(_uncommented(variant)))))


@cache
def entry_points(variant: str) -> tuple[str, ...]:
    """The names of a shader file's `@compute` functions."""
    return tuple(_ENTRY_POINT.findall(source(variant)))


def _words(code: str) -> set[str]:
    """Names in `code`, those of members (`id.x`) left out."""
    return set(_NAME.findall(code))


def _uncommented(variant: str) -> str:
    return re.sub(r"//[^\n]*", "", source(variant))


@cache
def _source_for(variant: str, entry: str) -> str:
    """The text of a variant's files without the functions that an entry point does not reach. These may name
    constants that only other entry points are told.
    """
    code, reached = source(variant), _reached(variant, entry)
    for match in reversed(list(_FUNCTION.finditer(code))):
        if match[1] not in reached:
            code = code[: match.start()] + code[_end_of_body(code, match.end()) :]
    return code


@cache
def _reached(variant: str, entry: str) -> dict[str, str]:
    """An entry point, and the functions that it calls, itself or through others: name → body."""
    code = _uncommented(variant)
    bodies = {
        match[1]: code[code.index("{", match.end()) : _end_of_body(code, match.end())]
        for match in _FUNCTION.finditer(code)
    }
    reached, queue = dict[str, str](), [entry]
    while queue:
        name = queue.pop()
        if name not in reached:
            reached[name] = bodies[name]
            queue += [word for word in _words(bodies[name]) if word in bodies]
    return reached


def _end_of_body(code: str, start: int) -> int:
    """The place after the brace that closes the first one from `start` on."""
    depth, end = 1, code.index("{", start) + 1
    while depth:
        depth += {"{": 1, "}": -1}.get(code[end], 0)
        end += 1
    return end
