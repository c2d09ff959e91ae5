"""Twin of shaders/column_sums.wgsl."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from trainer.devices.twins import column_sum
from trainer.ops.column_sum import SHARING


def totals(k: SimpleNamespace, **bound: np.ndarray) -> None:
    for i in range(SHARING):
        one = SimpleNamespace(**{name: getattr(k, f"{name}_{i}") for name in ("P", "C", "ADD")})
        column_sum.total(one, bound[f"parts_{i}"], bound[f"out_{i}"])
