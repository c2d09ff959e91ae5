"""Kernels whose workgroups outnumber one dimension of a grid: 65,535."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pytest
from kernel_runs import Case, assert_close, poisoned, run
from kernel_table import normal, u32

from trainer import kernels
from trainer.devices import Device
from trainer.ops import cross_entropy, layernorm, linear
from trainer.plan import MAX_GRID, linear_grid

BEYOND = MAX_GRID * 64 + 70  # threads, of workgroups of 64, that take a second row of workgroups
C = 1024
N = BEYOND // C + 1  # rows of C
GRID = linear_grid(N * C // 64)


def fold(kernel: str, variant: str = "") -> Case:
    """A case of `kernel` that is just large enough."""
    name = variant or kernel.split(".")[0]
    constants: dict[str, kernels.Constant] = {"N": N, "C": C}
    read: dict[str, np.ndarray | None] = {}
    written: dict[str, np.ndarray | None] = {}
    grid = GRID
    if kernel in ("random.normal", "random.fill"):
        constants = {"N": BEYOND, "VALUE": 0.5, "STD": 1.0, "SEED": 1, "STREAM": 2, "FIRST": 0}
        written = {"out": poisoned(BEYOND)}
    elif kernel == "embedding.forward":
        rows, grid = MAX_GRID + 3, linear_grid(MAX_GRID + 3)
        constants = {"N": rows, "C": 2, "T": rows, "FIRST": 0, "COUNT": 3}
        read = {"tokens": u32(*(i % 3 for i in range(rows)))}
        read |= {"token_table": normal(3, 2), "position_table": normal(rows, 2)}
        written = {"out": poisoned(rows * 2)}
    elif kernel == "embedding.backward_tokens":
        rows = 4 * N
        grid = linear_grid(rows * C // 256)
        constants = {"N": rows, "C": C, "FIRST": 0, "COUNT": rows}
        read = {"tokens": u32(*range(rows)), "chains": u32(*[rows | 0x80000000] * rows)}
        read |= {"dout": normal(rows, C)}
        written = {"dtoken_table": normal(rows, C)}
    elif kernel == "embedding.backward_positions":
        constants |= {"T": N, "ADD": False}
        read, written = {"dout": normal(N, C)}, {"dposition_table": poisoned(N * C)}
    elif kernel == "linear.backward":
        rows, outputs, part = (4, 16 * (MAX_GRID + 3), 16) if name == "linear_tiled" else (N, 4, 4)
        inputs = 4 if name == "linear_tiled" else C
        flags = ("TABLE", "GELU_BACKWARD", "ADD_X", "ADD_WEIGHT", "SHORT")
        constants = {
            "N": rows,
            "INPUTS": inputs,
            "OUTPUTS": outputs,
            "LD": outputs,
            "TILE_M": 64,
            "TILE_N": 64,
        }
        constants |= {"PART_X": part, "PART_WEIGHT": rows, **dict.fromkeys(flags, False)}
        tiling = ((64, 64), outputs // part, 1)
        grid = linear_grid(sum(linear.workgroups_of(name, (rows, inputs, outputs), tiling, table=False)))
        read = {"dout": normal(rows, outputs), "weight": normal(inputs, outputs), "x": normal(rows, inputs)}
        read |= {"before": None}
        written = {"dx": poisoned(outputs // part * rows * inputs), "dweight": poisoned(inputs * outputs)}
    elif kernel == "layernorm.forward":
        rows = MAX_GRID * layernorm.THREADS // layernorm.LANES[0] + 3
        grid = layernorm.grid(name, rows, 4)
        constants = {"N": rows, "C": 4, **layernorm.own_constants(name, 4)}
        read = {"x": normal(rows, 4), "weight": normal(4), "bias": normal(4)}
        written = {"out": poisoned(rows * 4), "statistics": poisoned(rows * 2)}
    elif kernel == "cross_entropy.forward_backward":
        rows, grid = MAX_GRID + 3, cross_entropy.grid(name, MAX_GRID + 3)
        constants = {"N": rows, "V": 2, "LD": 4, "SCALE": 0.5, "GRADIENT": True, "LOSS_SCALING": False}
        read = {"targets": u32(*(i % 2 for i in range(rows))), "loss_scale": None}
        written = {"logits": normal(rows, 4), "losses": poisoned(rows)}
    return Case(kernel, "folded", constants, read, written, lambda _: grid, (name,))


FOLDING = (
    ("random.normal", "random"),
    ("random.fill", "random"),
    ("embedding.forward", "embedding"),
    ("embedding.backward_tokens", "embedding"),
    ("embedding.backward_positions", "embedding"),
    ("linear.backward", "linear"),
    ("linear.backward", "linear_tiled"),
    ("layernorm.forward", "layernorm_rows"),
    ("cross_entropy.forward_backward", "cross_entropy_rows"),
    ("cross_entropy.forward_backward", "cross_entropy_held"),
)


@pytest.mark.parametrize(("kernel", "variant"), FOLDING)
def test_a_grid_folds_into_two_dimensions(
    kernel: str, variant: str, native: Device, reference64: Device
) -> None:
    case = fold(kernel, variant)
    assert case.grid(variant)[1] > 1
    expected = asyncio.run(run(reference64, case, variant))[0]
    assert_close(case, asyncio.run(run(native, case, variant))[0], expected)


def test_every_kernel_that_folds_is_tested_here() -> None:
    found = set()
    for variant in kernels.variants():
        for entry in kernels.entry_points(variant):
            code = kernels.source(variant)
            start = code.index(f"fn {entry}(")
            if re.search(r"group\.y \* 65535u", code[start : code.index("\n}\n", start)]):
                found.add((variant, entry))
    tested = {(variant, kernel.split(".")[1]) for kernel, variant in FOLDING}
    assert found == tested
