"""Kernels whose workgroups outnumber one dimension of a grid: 65,535."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pytest
from kernel_runs import Case, assert_arrays_close, assert_close, poisoned, run
from kernel_table import normal, u32

from trainer import kernels
from trainer.devices import Device
from trainer.ops import cross_entropy, layernorm
from trainer.plan import MAX_GRID, Plan, linear_grid

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
    elif kernel == "cast.convert":
        size = MAX_GRID * 256 + 70
        constants["N"], grid = size, linear_grid(-(-size // 256))
        read, written = {"x": normal(size)}, {"out": poisoned(size, np.float16)}
    elif kernel == "embedding.forward":
        constants |= {"T": N, "FIRST": 0, "COUNT": 3}
        read = {"tokens": u32(*(i % 3 for i in range(N)))}
        read |= {"token_table": normal(3, C), "position_table": normal(N, C)}
        written = {"out": poisoned(N * C)}
    elif kernel == "embedding.backward_tokens":
        constants |= {"FIRST": 0, "COUNT": N}
        read = {"tokens": u32(*range(N)), "chains": u32(*[N | 0x80000000] * N), "dout": normal(N, C)}
        written = {"dtoken_table": normal(N, C)}
    elif kernel == "embedding.backward_positions":
        constants |= {"T": N, "ADD": False}
        read, written = {"dout": normal(N, C)}, {"dposition_table": poisoned(N * C)}
    elif kernel.startswith("layernorm."):
        rows, grid = MAX_GRID + 3, layernorm.grid(name, MAX_GRID + 3)
        constants = {"N": rows, "C": 3, "ADD": False}
        read = {"x": normal(rows, 3), "weight": normal(3), "bias": normal(3)}
        written = {"out": poisoned(rows * 3), "statistics": poisoned(rows * 2)}
        if kernel == "layernorm.backward":
            read["kept"] = np.abs(normal(rows, 2))
            read["dout"] = normal(rows, 3)
            del read["bias"]
            written = {"dx": poisoned(rows * 3)}
    elif kernel == "cross_entropy.forward_backward":
        rows, grid = MAX_GRID + 3, cross_entropy.grid(name, MAX_GRID + 3)
        constants = {"N": rows, "V": 2, "LD": 4, "SCALE": 0.5, "GRADIENT": True, "LOSS_SCALING": False}
        read = {"targets": u32(*(i % 2 for i in range(rows))), "loss_scale": None}
        written = {"logits": normal(rows, 4), "losses": poisoned(rows)}
    return Case(kernel, "folded", constants, read, written, lambda _: grid, (name,))


FOLDING = {
    "random.normal": "random",
    "random.fill": "random",
    "cast.convert": "cast",
    "embedding.forward": "embedding",
    "embedding.backward_tokens": "embedding",
    "embedding.backward_positions": "embedding",
    "layernorm.forward": "layernorm_rows",
    "layernorm.backward": "layernorm_rows",
    "cross_entropy.forward_backward": "cross_entropy_rows",
}


@pytest.mark.parametrize(("kernel", "variant"), FOLDING.items())
def test_a_grid_folds_into_two_dimensions(
    kernel: str, variant: str, native: Device, reference64: Device
) -> None:
    case = fold(kernel, variant)
    assert case.grid(variant)[1] > 1
    expected = asyncio.run(run(reference64, case, variant))[0]
    assert_close(case, asyncio.run(run(native, case, variant))[0], expected)


def test_adamw_folds_into_two_dimensions(device: Device) -> None:
    """Of 17 million elements only the last are given values, and looked at."""
    size, tail = MAX_GRID * 256 + 300, 600
    plan = Plan()
    whole = {name: plan.tensor(name, (size,), role="state") for name in ("gradient", "parameter", "mean")}
    whole["variance"] = plan.tensor("variance", (size,), role="state")
    settled = plan.tensor("settled", (7,), role="state")
    constants = {
        "N": size,
        "DECAYED": size - 10,
        "MEAN_RATE": 0.1,
        "BETA2": 0.95,
        "VARIANCE_RATE": 0.05,
        "EPSILON": 1e-8,
        "DECAY": 0.1,
        "COPY": False,
    }
    with plan.program("update"):
        plan.dispatch(
            "adamw.update",
            grid=linear_grid(-(-size // 256)),
            constants=constants,
            settled=settled,
            gradient=whole["gradient"],
            parameter=whole["parameter"],
            mean=whole["mean"],
            variance=whole["variance"],
            copy=None,
        )
    plan.finish()
    values = {name: np.abs(normal(tail)) for name in whole}

    async def go() -> np.ndarray:
        executable = await device.compile(plan)
        ends = {name: tensor.view(name, size - tail, (tail,)) for name, tensor in whole.items()}
        for name, end in ends.items():
            await executable.write(end, values[name].tobytes())
        await executable.write(settled, np.array([0, 0, 1, 1, 0.01, 10, 20], np.float32).tobytes())
        executable.run(["update"])
        found = np.frombuffer(await executable.read(ends["parameter"]), np.float32).copy()
        executable.close()
        return found

    g, p = values["gradient"].astype(np.float64), values["parameter"].astype(np.float64)
    m = values["mean"] + 0.1 * (g - values["mean"])
    v = 0.95 * values["variance"] + 0.05 * g * g
    decay = np.where(np.arange(tail) < tail - 10, 0.1, 0.0)
    expected = p - 0.01 * (decay * p + 10 * m / (np.sqrt(20 * v) + 1e-8))
    assert_arrays_close("parameter", asyncio.run(go()), expected.astype(np.float32), values["parameter"])


def test_every_kernel_that_folds_is_tested_here() -> None:
    found = set()
    for variant in kernels.variants():
        for entry in kernels.entry_points(variant):
            code = kernels.source(variant)
            start = code.index(f"fn {entry}(")
            if re.search(r"group\.y \* 65535u", code[start : code.index("\n}\n", start)]):
                found.add((variant, entry))
    tested = {(variant, kernel.split(".")[1]) for kernel, variant in FOLDING.items()}
    assert found == tested | {("adamw", "update")}
