"""Runs one kernel on a device, and compares what two devices wrote. Tolerances are here, and only here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from trainer.devices import Device
from trainer.kernels import (
    GPU_VARIANTS,
    HALF,
    MATRIX_UNITS,
    SOFTWARE_VARIANTS,
    Constant,
    MatrixUnits,
    entry_points,
    needs,
    variants,
)
from trainer.plan import Grid, Plan

GUARD = 64  # elements behind every binding: NaN where it is read, and not to be touched where it is written
POISON = {np.dtype(np.float32): -12345.0, np.dtype(np.float16): -12344.0, np.dtype(np.uint32): 0xDEADBEEF}
DTYPES = {np.dtype(np.float32): "f32", np.dtype(np.float16): "f16", np.dtype(np.uint32): "u32"}
# |got - expected| <= tolerance · (|expected| + root mean square of what the kernel wrote)
TOLERANCE = 2e-5
# Kernels compute in f32 whatever they store, so got and expected are the f16 nearest to two numbers that
# differ by less than TOLERANCE: the same one, or neighbours, which are 2^-10 apart at most.
HALF_TOLERANCE = 2.0**-10
# attention_units also rounds P and dS to f16, for its units to multiply. That moves each term of a sum by
# 2^-11/sqrt(3) of it on average, in any direction, so the sum by that much of its terms' root sum of squares:
# in some rows twice the root mean square of all results. The worst of tens of thousands of results lies 4 to
# 5 such deviations out, 2.5e-3, and is rounded once more, 0.5e-3 (on an H100, 2.1e-3 was the worst).
WEIGHTS_TOLERANCE = 2.0**-8


@dataclass(frozen=True)
class Case:
    """One kernel on one shape. Arrays are what the bindings hold before it runs; None is an unused one."""

    kernel: str
    label: str
    constants: Mapping[str, Constant]
    read: Mapping[str, np.ndarray | None]
    written: Mapping[str, np.ndarray | None]
    grid: Callable[[str], Grid]  # by variant
    variants: tuple[str, ...]
    exact: bool = False  # equal to the bit on every device
    floor: float = 0.0  # absolute error to allow where results are differences of larger terms
    fits: Callable[[str, MatrixUnits], bool] = lambda variant, units: True
    # grid and own constants of the variant on matrix units
    for_units: Callable[[MatrixUnits], tuple[Grid, dict[str, Constant]]] | None = None

    @property
    def name(self) -> str:
        return f"{self.kernel}-{self.label}"


def poisoned(size: int, dtype: type = np.float32) -> np.ndarray:
    """What an output holds before a kernel writes it."""
    return np.full(size, POISON[np.dtype(dtype)], dtype)


def variants_of(kernel: str) -> tuple[str, ...]:
    """The shader files that have this kernel, the naive one first."""
    op, entry = kernel.split(".")
    named = {op, *SOFTWARE_VARIANTS.get(op, ()), *GPU_VARIANTS.get(op, ())}
    found = [name for name in variants() if name in named and entry in entry_points(name)]
    return tuple(sorted(found, key=lambda name: (name != op, name)))


def features(case: Case, variant: str) -> frozenset[str]:
    """What a device must have to run this."""
    arrays = (*case.read.values(), *case.written.values())
    half = any(array is not None and array.dtype == np.float16 for array in arrays)
    return needs(variant).features | ({HALF} if half else set())


async def run(device: Device, case: Case, variant: str, times: int = 1) -> list[dict[str, np.ndarray]]:
    """What the written bindings hold, guards included, after each of `times` runs from the same start."""
    plan = Plan()
    start: dict[str, np.ndarray] = {}
    for name, values in {**case.read, **case.written}.items():
        if values is not None:
            guard = values.dtype.type(0xFFFFFFFF if values.dtype == np.uint32 else np.nan)
            if name in case.written:
                guard = values.dtype.type(POISON[values.dtype])
            start[name] = np.concatenate([values.ravel(), np.full(GUARD, guard, values.dtype)])
    tensors = {
        name: plan.tensor(name, values.shape, DTYPES[values.dtype], "state") for name, values in start.items()
    }
    grid, own = case.grid(variant), {}
    if MATRIX_UNITS in needs(variant).features:
        assert case.for_units is not None
        grid, own = case.for_units(device.info.units)
    with plan.program("case"):
        plan.dispatch(
            case.kernel,
            variant=variant,
            grid=grid,
            constants={**case.constants, **own},
            **{name: tensors.get(name) for name in (*case.read, *case.written)},
        )
    plan.finish()
    executable = await device.compile(plan)
    results = []
    for _ in range(times):
        for name, values in start.items():
            await executable.write(tensors[name], values.tobytes().ljust(tensors[name].nbytes, b"\0"))
        executable.run(["case"])
        results.append(
            {
                name: np.frombuffer(await executable.read(tensors[name]), start[name].dtype)[
                    : start[name].size
                ]
                for name, values in case.written.items()
                if values is not None
            }
        )
    executable.close()
    return results


def assert_close(
    case: Case, got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], variant: str = ""
) -> None:
    """Every written binding within the tolerance of `variant`, and nothing behind its end touched."""
    half_tolerance = WEIGHTS_TOLERANCE if variant == "attention_units" else HALF_TOLERANCE
    wrote = False
    for name, before in case.written.items():
        if before is None:
            continue
        size = before.size
        assert np.all(got[name][size:] == POISON[before.dtype]), f"{case.name} wrote behind the end of {name}"
        wrote = wrote or bool(np.any(expected[name][:size] != before.ravel()))
        assert_arrays_close(
            f"{case.name}: {name}",
            got[name][:size],
            expected[name][:size],
            before.ravel(),
            case.exact,
            case.floor,
            half_tolerance,
        )
    assert wrote, f"{case.name} changes nothing, so it tests nothing"


def assert_arrays_close(
    name: str,
    got: np.ndarray,
    expected: np.ndarray,
    before: np.ndarray | None = None,
    exact: bool = False,
    floor: float = 0.0,
    half_tolerance: float = HALF_TOLERANCE,
) -> None:
    """Equal within the tolerance; the message names the worst element. `before` says what was changed."""
    if exact or got.dtype == np.uint32:
        wrong = np.flatnonzero(got.view(np.uint32) != expected.view(np.uint32))
        assert not wrong.size, f"{name}[{wrong[0]}] is {got[wrong[0]]!r}, not {expected[wrong[0]]!r}"
        return
    finite = np.isfinite(expected)
    changed = expected[finite if before is None else finite & (expected != before)]
    scale = np.sqrt(np.mean(np.square(changed, dtype=np.float64))) if changed.size else 0.0
    tolerance = half_tolerance if got.dtype == np.float16 else TOLERANCE
    scale = max(scale, floor / tolerance)
    with np.errstate(invalid="ignore"):
        error = np.abs(got.astype(np.float64) - expected) / (np.abs(expected) + scale + 1e-30)
    error = np.where(np.isfinite(got) & finite, error, np.where(np.isfinite(got) == finite, 0.0, np.inf))
    worst = int(error.argmax())
    assert error[worst] <= tolerance, (
        f"{name}[{worst}] is {got[worst]!r}, not {expected[worst]!r}: "
        f"off by {error[worst]:.1e} of its scale, over {tolerance:.0e}"
    )
