"""Kernels whose workgroups outnumber one dimension of a grid: 65,535."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pytest
from kernel_runs import Case, assert_close, features, poisoned, run
from kernel_table import halved, normal, u32

from trainer import kernels
from trainer.devices import Device
from trainer.errors import DeviceError
from trainer.ops import cross_entropy, layernorm, linear, matmul
from trainer.plan import MAX_GRID, Grid, linear_grid

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
        return fold_linear(name)
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


def fold_linear(name: str) -> Case:
    """With tiles, sums for dx in so many parts that their workgroups do not fit into one row."""
    rows, inputs, part = {"linear": (N, C, 4), "linear_tiled": (4, 4, 32), "linear_units": (8, 8, 32)}[name]
    outputs = 4 if name == "linear" else part * (MAX_GRID + 3)
    parts = outputs // part

    def launch(units: kernels.MatrixUnits) -> tuple[Grid, dict[str, kernels.Constant]]:
        tile = min(matmul.tiles("matmul_units" if name == "linear_units" else "matmul_tiled", units))
        workgroups = linear.workgroups_of(name, (rows, inputs, outputs), (tile, parts, 1), table=False)
        own = linear.own_constants(name, units)
        return linear_grid(sum(workgroups)), {"TILE_M": tile[0], "TILE_N": tile[1], **own}

    grid, tiles = launch(kernels.MatrixUnits())
    constants = {"N": rows, "INPUTS": inputs, "OUTPUTS": outputs, "LD": outputs, "PART_X": part}
    constants |= {"PART_WEIGHT": rows, "SHORT": False, "TABLE": False, "GELU_BACKWARD": False}
    constants |= {"ADD_X": False, "ADD_WEIGHT": False, "SUM_ROWS": False, "ROWS": 8, "STRIDE": 0}
    constants |= {"WIDTH": 0, **tiles}
    read = {"dout": normal(rows, outputs), "weight": normal(inputs, outputs), "x": normal(rows, inputs)}
    return Case(
        "linear.backward",
        "folded",
        constants,
        {**halved(read, kernels.needs(name).half), "before": None},
        {"dx": poisoned(parts * rows * inputs), "dweight": poisoned(inputs * outputs), "sums": None},
        lambda _: grid,
        (name,),
        for_units=launch,
    )


FOLDING = (
    ("random.normal", "random"),
    ("random.fill", "random"),
    ("embedding.forward", "embedding"),
    ("embedding.backward_tokens", "embedding"),
    ("embedding.backward_positions", "embedding"),
    ("linear.backward", "linear"),
    ("linear.backward", "linear_tiled"),
    ("linear.backward", "linear_units"),
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
    missing = features(case, variant) - set(native.info.enabled)
    if missing:  # that a device is not given what it cannot compute is tested then
        with pytest.raises(DeviceError, match=min(missing)):
            asyncio.run(run(native, case, variant))
        return
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
