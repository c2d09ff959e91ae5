"""Runs one kernel on a device, and compares what two devices wrote. Tolerances are here, and only here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from trainer.devices import Device
from trainer.kernels import GPU_VARIANTS, SOFTWARE_VARIANTS, Constant, entry_points, variants
from trainer.plan import Grid, Plan

GUARD = 64  # elements behind every binding: NaN where it is read, and not to be touched where it is written
POISON = {np.dtype(np.float32): -12345.0, np.dtype(np.uint32): 0xDEADBEEF}
# |got - expected| <= TOLERANCE · (|expected| + root mean square of what the kernel wrote)
TOLERANCE = 2e-5


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


async def run(device: Device, case: Case, variant: str, times: int = 1) -> list[dict[str, np.ndarray]]:
    """What the written bindings hold, guards included, after each of `times` runs from the same start."""
    plan = Plan()
    start: dict[str, np.ndarray] = {}
    for name, values in {**case.read, **case.written}.items():
        if values is not None:
            guard = np.float32(np.nan) if values.dtype == np.float32 else np.uint32(0xFFFFFFFF)
            if name in case.written:
                guard = values.dtype.type(POISON[values.dtype])
            start[name] = np.concatenate([values.ravel(), np.full(GUARD, guard, values.dtype)])
    tensors = {
        name: plan.tensor(name, values.shape, "f32" if values.dtype == np.float32 else "u32", "state")
        for name, values in start.items()
    }
    with plan.program("case"):
        plan.dispatch(
            case.kernel,
            variant=variant,
            grid=case.grid(variant),
            constants=case.constants,
            **{name: tensors.get(name) for name in (*case.read, *case.written)},
        )
    plan.finish()
    executable = await device.compile(plan)
    results = []
    for _ in range(times):
        for name, values in start.items():
            await executable.write(tensors[name], values.tobytes())
        executable.run(["case"])
        results.append(
            {
                name: np.frombuffer(await executable.read(tensors[name]), start[name].dtype)
                for name, values in case.written.items()
                if values is not None
            }
        )
    executable.close()
    return results


def assert_close(case: Case, got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Every written binding within tolerance, and nothing behind its end touched."""
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
            case.floor / TOLERANCE,
        )
    assert wrote, f"{case.name} changes nothing, so it tests nothing"


def assert_arrays_close(
    name: str,
    got: np.ndarray,
    expected: np.ndarray,
    before: np.ndarray | None = None,
    exact: bool = False,
    least_scale: float = 0.0,
) -> None:
    """Equal within the tolerance; the message names the worst element. `before` says what was changed."""
    if exact or got.dtype == np.uint32:
        wrong = np.flatnonzero(got.view(np.uint32) != expected.view(np.uint32))
        assert not wrong.size, f"{name}[{wrong[0]}] is {got[wrong[0]]!r}, not {expected[wrong[0]]!r}"
        return
    finite = np.isfinite(expected)
    changed = expected[finite if before is None else finite & (expected != before)]
    scale = np.sqrt(np.mean(np.square(changed, dtype=np.float64))) if changed.size else 0.0
    scale = max(scale, least_scale)
    with np.errstate(invalid="ignore"):
        error = np.abs(got.astype(np.float64) - expected) / (np.abs(expected) + scale + 1e-30)
    error = np.where(np.isfinite(got) & finite, error, np.where(np.isfinite(got) == finite, 0.0, np.inf))
    worst = int(error.argmax())
    assert error[worst] <= TOLERANCE, (
        f"{name}[{worst}] is {got[worst]!r}, not {expected[worst]!r}: "
        f"off by {error[worst]:.1e} of its scale, over {TOLERANCE:.0e}"
    )
