"""What the tables of cases are written with: random arrays, and `case`, which adds one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
from kernel_runs import Case, variants_of

from trainer.kernels import Constant, MatrixUnits, needs
from trainer.plan import Grid

CASES: list[Case] = []
_generator = np.random.default_rng(20240611)


def section(seed: int) -> None:
    """From here on, random numbers that the cases before do not move. A few draws are unlucky: a sample falls
    between two tokens, or a sum cancels, within what rounding does.
    """
    _generator.bit_generator.state = np.random.default_rng(seed).bit_generator.state


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * _generator.standard_normal(shape)).astype(np.float32)


def ints(below: int, *shape: int) -> np.ndarray:
    return _generator.integers(0, below, shape, dtype=np.uint32)


def u32(*values: int) -> np.ndarray:
    return np.array(values, np.uint32)


def case(
    kernel: str,
    label: str,
    grid: Grid | Callable[[str], Grid],
    constants: Mapping[str, Constant],
    read: Mapping[str, np.ndarray | None],
    written: Mapping[str, np.ndarray | None],
    *,
    exact: bool = False,
    floor: float = 0.0,
    only: Callable[[str], bool] = lambda variant: True,
    half: Collection[str] = (),
    fits: Callable[[str, MatrixUnits], bool] = lambda variant, units: True,
    for_units: Callable[[MatrixUnits], tuple[Grid, dict[str, Constant]]] | None = None,
) -> None:
    """Adds a case for all variants that it fits; with `half`, another one whose bindings of these names are
    stored as f16.
    """
    by_variant = grid if callable(grid) else lambda variant: grid
    arrays = {**read, **written}
    stored = {name for name, array in arrays.items() if array is not None and array.dtype == np.float16}
    names = tuple(
        name
        for name in variants_of(kernel)
        if only(name) and fits(name, MatrixUnits()) and needs(name).half & set(arrays) <= stored
    )
    CASES.append(
        Case(kernel, label, constants, read, written, by_variant, names, exact, floor, fits, for_units)
    )
    if half:
        case(
            kernel,
            f"{label}-half",
            grid,
            constants,
            halved(read, half),
            halved(written, half),
            exact=exact,
            floor=floor,
            only=only,
            fits=fits,
            for_units=for_units,
        )


def halved(arrays: Mapping[str, np.ndarray | None], names: Collection[str]) -> dict[str, np.ndarray | None]:
    """`arrays`, those of `names` rounded to f16."""
    return {
        name: array.astype(np.float16) if array is not None and name in names else array
        for name, array in arrays.items()
    }


def groups(threads: int, size: int = 64) -> Grid:
    return -(-threads // size), 1, 1
