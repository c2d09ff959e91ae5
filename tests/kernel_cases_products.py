"""Products and linear layers on odd shapes: 1, primes, sizes beside those of every tile, and presets'."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from kernel_runs import poisoned
from kernel_table import case, halved, normal, section

from trainer.kernels import Constant, MatrixUnits
from trainer.ops import linear, matmul
from trainer.plan import Grid, linear_grid

# ---------------------------------------------------------------- matmul
section(1)

EPILOGUES = ("BIAS", "GELU", "GELU_BACKWARD", "RESIDUAL", "ADD")


def whole(*shape: int) -> np.ndarray:
    """-2 to 2: f16 holds sums of a few hundred products of these exactly."""
    return np.clip(np.round(normal(*shape)), -2, 2)


def stored(
    rows: int, columns: int, stride: int, draw: Callable[[int, int], np.ndarray] = normal
) -> np.ndarray:
    """A matrix under a row stride; what lies between its rows is NaN, as nothing may read it."""
    matrix = np.full((rows, stride), np.nan, np.float32)
    matrix[:, :columns] = draw(rows, columns)
    return matrix.ravel()[: (rows - 1) * stride + columns]


def matmul_case(
    M: int,
    N: int,
    K: int,
    transposes: str,
    *epilogues: str,
    pads: tuple[int, int, int] = (0, 0, 0),
    part: int = 0,
    half: tuple[str, ...] = (),
    tile: int = 0,
) -> None:
    """`transposes` has two of N and T, for a and b; `pads` widens the rows of a, b and out; with `part`, each
    such part of K gives a product of its own. What `half` names is f16. Adds the same in other tiles.
    """
    ta, tb = (letter == "T" for letter in transposes)
    lda, ldb, ldo = ((M if ta else K) + pads[0], (K if tb else N) + pads[1], N + pads[2])
    fits = matmul.fitting(M, N, K, lda, ldb, ldo, ta, tb, half={"a", "b"} <= set(half))
    parts = -(-K // part) if part else 1
    span = (parts * M - 1) * ldo + N
    uses_aux = "GELU_BACKWARD" in epilogues or "RESIDUAL" in epilogues
    flags = {"TRANSPOSE_A": ta, "TRANSPOSE_B": tb} | {name: name in epilogues for name in EPILOGUES}

    def tiles(variant: str, units: MatrixUnits) -> list[matmul.Tile]:
        return list(matmul.tiles(variant, units)) * (tile + 1)

    def launch(variant: str, units: MatrixUnits) -> tuple[Grid, dict[str, Constant]]:
        of_tile = dict(zip(("TILE_M", "TILE_N"), tiles(variant, units)[tile], strict=True))
        columns, rows, _ = matmul.grid(M, N, tiles(variant, units)[tile])
        return (columns, rows, parts), {**of_tile, **matmul.own_constants(variant, units)}

    case(
        "matmul.multiply",
        "-".join(
            [
                transposes,
                f"{M}x{N}x{K}",
                *epilogues,
                *(["strided"] if any(pads) else []),
                *([f"{parts}parts"] if part else []),
                *(["half", *half] if half else []),
                *([f"tile{tile}"] if tile else []),
            ]
        ),
        lambda variant: launch(variant, MatrixUnits())[0],
        {
            "M": M,
            "N": N,
            "K": K,
            "LDA": lda,
            "LDB": ldb,
            "LDO": ldo,
            "PART": part or K,
            "SHORT": (part or K) <= 128,
            **dict(zip(("TILE_M", "TILE_N"), list(matmul.TILES)[tile], strict=True)),
            **flags,
        },
        halved(
            {
                "a": stored(K, M, lda) if ta else stored(M, K, lda),
                "b": stored(N, K, ldb) if tb else stored(K, N, ldb),
                "bias": normal(N) if "BIAS" in epilogues else None,
                "aux": normal(span) if uses_aux else None,
            },
            half,
        ),
        halved(
            {
                "out": normal(span) if "ADD" in epilogues else poisoned(span),
                "extra": poisoned(span) if "GELU" in epilogues else None,
            },
            half,
        ),
        only=lambda variant: (
            fits.get(variant, True)
            and (not part or variant in matmul.IN_PARTS)
            and tile < len(tiles(variant, MatrixUnits()))
        ),
        for_units=lambda units: launch("matmul_units", units),
    )
    if tile + 1 < len(matmul.TILES):
        matmul_case(M, N, K, transposes, *epilogues, pads=pads, part=part, half=half, tile=tile + 1)


for _transposes in ("NN", "NT", "TN"):
    for _size in (
        (1, 1, 1),
        (1, 13, 7),
        (17, 19, 5),
        (4, 4, 4),
        (132, 68, 36),
        (67 + (_transposes == "TN"), 12, 8),
    ):
        matmul_case(*_size, _transposes)
    matmul_case(36, 20, 16, _transposes, "ADD", pads=(8, 4, 12))
    matmul_case(132, 68, 100, _transposes, part=48)
    matmul_case(132, 196, 36, _transposes, "BIAS", "RESIDUAL", part=16)
    for _size in (
        (8, 8, 8),
        (17, 24, 40) if _transposes != "TN" else (24, 24, 37),
        (136, 264, 104),
        (1104, 136, 64),  # more rows of tiles than are grouped together
    ):
        matmul_case(*_size, _transposes, half=("a", "b", "out"))
        matmul_case(*_size, _transposes, half=("a", "b"))
    matmul_case(40, 24, 16, _transposes, "ADD", pads=(8, 16, 24), half=("a", "b", "out"))
    matmul_case(136, 72, 168, _transposes, part=64, half=("a", "b"))
    matmul_case(136, 72, 168, _transposes, "BIAS", "RESIDUAL", part=64, half=("a", "b"))
matmul_case(7, 5, 3, "NN", half=("a", "b", "out"))
matmul_case(70, 192, 48, "NN", "BIAS", "GELU", half=("a", "b", "out", "extra"))
matmul_case(70, 48, 192, "NN", "BIAS", "RESIDUAL", half=("a", "b"))
matmul_case(70, 192, 48, "NT", "GELU_BACKWARD", half=("a", "b", "aux", "out"))
matmul_case(70, 192, 48, "NT", "ADD", half=("a", "b", "out"))
matmul_case(48, 192, 521, "TN", "ADD", half=("a", "b"))
matmul_case(5, 3, 2, "TT")
matmul_case(128, 64, 16, "NN")  # one tile, exactly
matmul_case(128, 128, 17, "TN")
matmul_case(260, 264, 40, "NT")
matmul_case(1, 144, 48, "NN", "BIAS")  # decoding with nano
matmul_case(130, 144, 48, "NN", "BIAS")  # nano's qkv
matmul_case(70, 192, 48, "NN", "BIAS", "GELU")
matmul_case(70, 48, 192, "NN", "BIAS", "RESIDUAL")
matmul_case(70, 192, 48, "NT", "GELU_BACKWARD")
matmul_case(48, 192, 521, "TN", "ADD")
matmul_case(70, 1024, 48, "NT")
matmul_case(9, 256, 768, "NT")
matmul_case(9, 768, 256, "NN", "BIAS", "GELU", "RESIDUAL", "ADD")
matmul_case(7, 5, 3, "NN", "BIAS", "GELU", "RESIDUAL", "ADD")
matmul_case(7, 5, 3, "NT", "GELU_BACKWARD", "ADD")
matmul_case(1100, 132, 12, "NN")  # more rows of tiles than are grouped together

# Long sums, whole and in parts, with some slices over
for _transposes in ("NN", "NT", "TN"):
    matmul_case(68, 132, 148, _transposes)
    matmul_case(68, 132, 388, _transposes, part=160)


# ---------------------------------------------------------------- linear
section(4)


def linear_case(
    N: int,
    inputs: int,
    outputs: int,
    *flags: str,
    pad: int = 0,
    parts: tuple[int, int] = (0, 0),
    rows: int = 0,
    half: tuple[str, ...] = (),
    tile: int = 0,
) -> None:
    """`flags` are of TABLE, GELU_BACKWARD, ADD_X and ADD_WEIGHT; `pad` widens the rows of dout; `parts` are
    the columns of each part of the sums for dx and for dweight, where they are made in parts. With `rows`,
    each such number of rows of dx is summed up. What `half` names is f16; dx, too, has whole numbers with
    `rows` then, since a sum tells one that was rounded the other way. Adds the same in other tiles.
    """
    size, table = (N, inputs, outputs), "TABLE" in flags
    columns_x, columns_weight = parts[0] or outputs, parts[1] or N
    parts_x, parts_weight = -(-outputs // columns_x), -(-N // columns_weight)
    fits = linear.fitting(N, inputs, outputs, outputs + pad, half={"dout", "weight", "x"} <= set(half))
    width, stride = inputs + (8 if inputs % 64 else 0), inputs + 64
    draw = whole if rows and "dx" in half else normal

    def tiles(variant: str, units: MatrixUnits) -> list[matmul.Tile]:
        return list(matmul.tiles("matmul_units" if variant == "linear_units" else "matmul_tiled", units))

    def launch(variant: str, units: MatrixUnits) -> tuple[Grid, dict[str, Constant]]:
        of_tile = tiles(variant, units)[tile]
        workgroups = linear.workgroups_of(variant, size, (of_tile, parts_x, parts_weight), table=table)
        own = dict(zip(("TILE_M", "TILE_N"), of_tile, strict=True)) | linear.own_constants(variant, units)
        return linear_grid(sum(workgroups)), own

    def fits_case(variant: str) -> bool:
        of_tiles = tiles(variant, MatrixUnits())
        return (
            fits.get(variant, True)
            and (not any(parts) or variant != "linear")
            and tile < len(of_tiles)
            and (not rows or linear.sums_rows(variant, size, of_tiles[tile], rows, width))
        )

    case(
        "linear.backward",
        "-".join(
            [
                f"{N}x{inputs}x{outputs}",
                *flags,
                *(["strided"] if pad else []),
                *([f"{parts_x}and{parts_weight}parts"] if any(parts) else []),
                *([f"sums-of-{rows}"] if rows else []),
                *(["half", *half] if half else []),
                *([f"tile{tile}"] if tile else []),
            ]
        ),
        lambda variant: launch(variant, MatrixUnits())[0],
        {
            "N": N,
            "INPUTS": inputs,
            "OUTPUTS": outputs,
            "LD": outputs + pad,
            "PART_X": columns_x,
            "PART_WEIGHT": columns_weight,
            "SHORT": N <= 128,
            "SUM_ROWS": rows > 0,
            "ROWS": rows or 8,
            "STRIDE": stride,
            "WIDTH": width,
            **dict(zip(("TILE_M", "TILE_N"), list(matmul.TILES)[tile], strict=True)),
            **{name: name in flags for name in ("TABLE", "GELU_BACKWARD", "ADD_X", "ADD_WEIGHT")},
        },
        halved(
            {
                "dout": stored(N, outputs, outputs + pad, draw),
                "weight": draw(inputs, outputs),
                "x": normal(N, inputs),
                "before": normal(N, inputs) if "GELU_BACKWARD" in flags else None,
            },
            half,
        ),
        halved(
            {
                "dx": normal(N, inputs) if "ADD_X" in flags else poisoned(parts_x * N * inputs),
                "dweight": normal(inputs, outputs)
                if "ADD_WEIGHT" in flags
                else poisoned(parts_weight * inputs * outputs),
                "sums": poisoned(N // rows * stride) if rows else None,
            },
            half,
        ),
        only=fits_case,
        for_units=lambda units: launch("linear_units", units),
    )
    if tile + 1 < len(matmul.TILES) - bool(rows):  # the widest has no room for sums
        linear_case(N, inputs, outputs, *flags, pad=pad, parts=parts, rows=rows, half=half, tile=tile + 1)


linear_case(1, 1, 1)
linear_case(7, 5, 3, "GELU_BACKWARD", "ADD_WEIGHT")
linear_case(7, 5, 3, "TABLE", "ADD_X", pad=2)
linear_case(4, 4, 4)
linear_case(65, 68, 132)
linear_case(130, 48, 144, "ADD_WEIGHT")  # nano's qkv
linear_case(70, 192, 48, "GELU_BACKWARD")
linear_case(521, 36, 20, "ADD_X", "ADD_WEIGHT")
linear_case(133, 12, 260, "TABLE", pad=8)
linear_case(68, 48, 256, "TABLE", "ADD_X", "ADD_WEIGHT")
linear_case(148, 132, 388, parts=(160, 64))
linear_case(388, 68, 132, "GELU_BACKWARD", parts=(0, 160))
linear_case(388, 68, 132, "TABLE", parts=(96, 160))
linear_case(1100, 12, 1060, "TABLE")  # more rows of tiles than are grouped together
linear_case(128, 64, 20, "GELU_BACKWARD", rows=8)
linear_case(256, 452, 36, "GELU_BACKWARD", "ADD_WEIGHT", rows=16)
linear_case(256, 68, 132, "ADD_X", parts=(0, 64), rows=64)
_HALF = ("dout", "weight", "x", "before", "dx")
linear_case(70, 192, 48, "GELU_BACKWARD", half=_HALF)
linear_case(136, 72, 168, "ADD_X", "ADD_WEIGHT", half=_HALF)
linear_case(136, 72, 168, "TABLE", half=_HALF)
linear_case(136, 72, 168, parts=(64, 64), half=("dout", "weight", "x"))
linear_case(8, 8, 8, half=_HALF)
linear_case(13, 24, 40, pad=8, half=("dout", "weight", "x"))
linear_case(37, 136, 264, "ADD_WEIGHT", half=_HALF)
linear_case(133, 16, 136, "TABLE", "ADD_X", "ADD_WEIGHT", pad=24, half=("dout", "weight", "x"))
linear_case(388, 72, 136, "GELU_BACKWARD", parts=(0, 160), half=_HALF)
linear_case(388, 72, 136, "TABLE", parts=(96, 160), half=("dout", "weight", "x"))
linear_case(1100, 8, 1064, "TABLE", half=_HALF)  # more rows of tiles than are grouped together
linear_case(128, 64, 24, "ADD_WEIGHT", rows=8, half=_HALF)
linear_case(1152, 456, 40, rows=64, half=_HALF)
linear_case(256, 456, 136, "GELU_BACKWARD", parts=(0, 64), rows=16, half=("dout", "weight", "x", "before"))
