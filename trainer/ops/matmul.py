"""Matrix products in three transposes with fused epilogues."""

from __future__ import annotations

from typing import NamedTuple

from trainer.kernels import MATRIX_UNITS, Choice, Constant, MatrixUnits, Question, Tuning, needs
from trainer.ops import column_sum
from trainer.plan import MAX_BINDING, MAX_GRID, Grid, Plan, Tensor, round_up

PROCESSORS = 132  # of an H100, over which workgroups are spread; other large GPUs have about as many
MAX_PARTS = 16
LEAST_PART = 64  # columns of op(a) that are worth a part of their own: eight slices, whose latencies add up
# Variants that may sum up K in parts, and how many columns of op(a) one processor multiplies in the time in
# which the GPU writes a tile of partial sums and reads it again. This and what follows was fitted to the
# times of all tilings in their places in whole training steps on an H100, where code and numbers come from
# memory, and not to those of one product repeated.
IN_PARTS = {"matmul_tiled": 1.2, "matmul_units": 6.0}
# Tiles of partial sums that could be added up while the dispatch that adds them up is started
LAUNCH = {"matmul_tiled": 120, "matmul_units": 80}
# Two of matmul_units' workgroups share a processor, and one takes as long as both. Beside its columns, a
# workgroup is busy for as long as this many take, with its start and its epilogue.
ENDS = 48

Tile = tuple[int, int]  # rows and columns of the outputs that a workgroup makes


class Workgroup(NamedTuple):
    """How an H100 runs workgroups of matmul_tiled, which make tiles of one size."""

    slower: float  # how much longer the same work takes than in tiles of 128×128, but for latencies
    threads: int
    held: int  # how many a processor runs at once: as many as it has registers for


TILES = {
    (128, 128): Workgroup(1.0, 256, 2),
    (64, 128): Workgroup(1.03, 128, 4),
    (64, 64): Workgroup(1.2, 128, 4),
    (64, 192): Workgroup(0.96, 128, 3),
}
# Each time that a processor is filled with workgroups, latencies add this / threads to the time of one.
LATENCY = 230

# Floating-point operations: with fewer of them, a turn of matmul_tiled's loop takes one slice and not two,
# since a large GPU has half as much code then, and is done almost as soon as it has it from memory.
SHORT_WORK = 5e9


def matmul(
    plan: Plan,
    a: Tensor,
    b: Tensor,
    out: Tensor,
    size: tuple[int, int, int],
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    strides: tuple[int, int, int] | None = None,
    bias: Tensor | None = None,
    gelu_keep: Tensor | None = None,
    gelu_of: Tensor | None = None,
    residual: Tensor | None = None,
    add: bool = False,
) -> None:
    """out (M, N) = op(a) (M, K) · op(b) (K, N), with `size` = (M, N, K), each stored as f32 or f16.

    Epilogues, in this order: `+ bias`; GELU, keeping its input in `gelu_keep`; times GELU's derivative at
    `gelu_of`; `+ residual`; `add` to what is in `out`. `strides` are the rows' of a, b and out, where they
    are not just their widths.
    """
    M, N, K = size
    lda, ldb, ldo = strides or (M if transpose_a else K, K if transpose_b else N, N)
    assert gelu_of is None or residual is None, "both would be bound as `aux`"
    half = a.dtype == b.dtype == "f16"
    fits = fitting(M, N, K, lda, ldb, ldo, transpose_a, transpose_b, half=half)
    in_parts = ldo == N and not (gelu_keep or gelu_of)
    epilogues = {"bias": bias, "gelu": gelu_keep, "gelu_of": gelu_of, "residual": residual}
    words = [
        "NT"[transpose_a] + "NT"[transpose_b],
        "x".join(map(str, size)),
        *(["/".join(map(str, strides))] if strides else []),
        *(tensor.dtype for tensor in (a, b, out)),
        *(f"{name}:{tensor.dtype}" for name, tensor in epilogues.items() if tensor),
        *(["add"] if add else []),
    ]
    question = Question(
        "matmul",
        " ".join(words),
        candidates(plan.tuning, size, fits, in_parts=in_parts),
        work=2.0 * M * N * K,
    )

    def multiply(plan: Plan, choice: Choice) -> None:
        units = plan.tuning.units
        columns, rows, _ = grid(M, N, (choice.constants["TILE_M"], choice.constants["TILE_N"]))
        parts = -(-K // choice.constants["PART"])
        split = parts > 1
        target = plan.activation("partial_products", (parts, M * N)) if split else out
        plan.dispatch(
            "matmul.multiply",
            variant=choice.variant,
            grid=(columns, rows, parts),
            constants={
                "M": M,
                "N": N,
                "K": K,
                "LDA": lda,
                "LDB": ldb,
                "LDO": ldo,
                "TRANSPOSE_A": transpose_a,
                "TRANSPOSE_B": transpose_b,
                "BIAS": bias is not None,
                "GELU": gelu_keep is not None,
                "GELU_BACKWARD": gelu_of is not None,
                "RESIDUAL": residual is not None,
                "ADD": add and not split,
                "SHORT": question.work < SHORT_WORK,
                **choice.constants,
                **own_constants(choice.variant, units),
            },
            a=a,
            b=b,
            bias=bias,
            aux=gelu_of or residual,
            out=target,
            extra=gelu_keep,
        )
        if split:
            column_sum.total(plan, target, out, add=add)

    plan.ask(question, multiply)


def fitting(
    M: int,
    N: int,
    K: int,
    lda: int,
    ldb: int,
    ldo: int,
    transpose_a: bool,
    transpose_b: bool,
    *,
    half: bool = False,
) -> dict[str, bool]:
    """Which variants can compute this shape, and are meant for it; `half` says that a and b are f16."""
    widths = (N, lda, ldb, ldo, M if transpose_a else K)
    once = not (transpose_a and transpose_b)
    vectors = once and M >= 4 and not any(n % 4 for n in widths)
    units = once and M >= 8 and not any(n % 8 for n in widths) and half
    return {"matmul_units": units, "matmul_tiled": vectors, "matmul_direct": vectors}


def own_constants(variant: str, units: MatrixUnits) -> dict[str, Constant]:
    """What a variant's prologue has beyond the naive one's."""
    on_units = MATRIX_UNITS in needs(variant).features
    return {"SIDE": units.side, "LANES": units.lanes} if on_units else {}


def candidates(
    tuning: Tuning, size: tuple[int, int, int], fits: dict[str, bool], *, in_parts: bool
) -> tuple[Choice, ...]:
    """All ways to make a product that are worth a try: the best variant in its best tiling first."""
    return tuple(
        Choice(variant, {"TILE_M": tile[0], "TILE_N": tile[1], "PART": part})
        for variant in tuning.variants("matmul", fits)
        for tile, part in tilings(variant, size, tuning.units, in_parts=in_parts)
    )


def tiles(variant: str, units: MatrixUnits) -> dict[Tile, float]:
    """A variant's tiles, and how much longer the same work takes with them."""
    if variant == "matmul_tiled":
        return {tile: workgroup.slower for tile, workgroup in TILES.items()}
    if variant == "matmul_units":
        return {(8 * units.side, 8 * units.side): 1.0, (8 * units.side, 6 * units.side): 1.16}
    return {(32, 32) if variant == "matmul_direct" else (8, 16): 1.0}


def tilings(
    variant: str, size: tuple[int, int, int], units: MatrixUnits, *, in_parts: bool
) -> list[tuple[Tile, int]]:
    """(tile, columns of op(a) that a workgroup sums up): that with which a large GPU should be done first,
    then others. With `in_parts`, the sums over K may be made in parts: for each tile in the best number of
    them, and in half and twice as many.
    """
    M, N, K = size
    most = most_parts(M, N, K) if in_parts and variant in IN_PARTS else 1

    def cost(choice: tuple[Tile, int]) -> float:
        """The workgroups of the processor that has most, times the columns that each sums up, and what
        adding up parts costs.
        """
        tile, parts = choice
        columns, rows, _ = grid(M, N, tile)
        rounds, ends, latencies = -(-columns * rows * parts // PROCESSORS), 0, 0.0
        if variant == "matmul_units":
            rounds, ends = round_up(rounds, 2), ENDS
        if variant == "matmul_tiled":
            workgroup = TILES[tile]
            latencies = -(-rounds // workgroup.held) * LATENCY / workgroup.threads
        total = IN_PARTS[variant] * (columns * rows * parts + LAUNCH[variant]) if parts > 1 else 0
        return ((rounds + latencies) * (K / parts + ends) + total) * tile[0] * tile[1] * slower[tile]

    slower = tiles(variant, units)
    found: list[tuple[Tile, int]] = []
    for tile in slower:
        _, best = min(((tile, n) for n in range(1, most + 1)), key=cost)
        found += [(tile, n) for n in sorted({best // 2, best, 2 * best}) if 1 <= n <= most]
    parts = [(tile, part_of(K, n)) for tile, n in sorted(found, key=cost)]
    return list(dict.fromkeys(parts))


def most_parts(M: int, N: int, K: int) -> int:
    """In how many parts an M × N product over K may be made."""
    if M * N > column_sum.TOTALS * MAX_GRID:
        return 1
    return max(1, min(MAX_PARTS, K // LEAST_PART, MAX_BINDING // (4 * M * N)))


def part_of(K: int, parts: int) -> int:
    """Columns of op(a) in each of some parts."""
    return round_up(-(-K // parts), 32) if parts > 1 else K


def grid(M: int, N: int, tile: Tile) -> Grid:
    """Workgroups for an M × N output."""
    return -(-N // tile[1]), -(-M // tile[0]), 1
