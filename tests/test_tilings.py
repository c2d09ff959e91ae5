"""The cost models of products: what is taken without measuring."""

from __future__ import annotations

import pytest

from trainer.kernels import Choice, MatrixUnits, Tuning
from trainer.ops import linear, matmul
from trainer.plan import round_up


@pytest.mark.parametrize(
    ("size", "tile", "parts"),
    [
        ((4096, 4096, 4096), (128, 128), 1),
        ((4096, 1536, 384), (128, 128), 1),
        ((4096, 1152, 384), (64, 192), 1),
        ((4096, 384, 384), (64, 64), 1),
        ((4096, 384, 1536), (64, 192), 3),
        ((384, 1152, 4096), (64, 192), 11),
    ],
)
def test_what_is_taken_without_measuring_was_the_fastest_on_an_h100(
    size: tuple[int, int, int], tile: matmul.Tile, parts: int
) -> None:
    (M, N, K), tuning = size, Tuning(software=False)
    fits = matmul.fitting(M, N, K, K, N, N, False, False)
    choice = matmul.candidates(tuning, size, fits, in_parts=True)[0]
    part = round_up(-(-K // parts), 32)
    assert choice == Choice("matmul_tiled", {"TILE_M": tile[0], "TILE_N": tile[1], "PART": part})


@pytest.mark.parametrize(
    ("size", "tiling"),
    [
        ((4096, 384, 1152), ((128, 128), 1, 6)),
        ((4096, 384, 384), ((64, 128), 1, 11)),
        ((16384, 384, 1536), ((128, 128), 1, 11)),
        ((8192, 768, 768), ((128, 128), 1, 11)),
    ],
)
def test_so_were_the_gradients_of_linear_layers(size: tuple[int, int, int], tiling: linear.Tiling) -> None:
    assert linear.tilings("linear_tiled", size, MatrixUnits(), table=False, split_x=True)[0] == tiling


@pytest.mark.parametrize("first", [(0, 5.0), (3, 5.0), (8, 2.0), (9, 7.0)])
@pytest.mark.parametrize("then", [(0, 1.0), (1, 3.0), (5, 3.0), (17, 4.0)])
def test_when_the_last_of_two_kinds_of_jobs_is_done(
    first: tuple[int, float], then: tuple[int, float]
) -> None:
    idle = [0.0] * 4  # when each of four workers is
    for count, length in (first, then):
        for _ in range(count):
            idle.sort()
            idle[0] += length
    assert linear.makespan(first, then, 4) == max(idle)
