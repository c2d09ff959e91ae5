"""Twin of shaders/linear.wgsl and its variants."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from trainer.devices.twins.column_sum import write_partials
from trainer.devices.twins.matmul import multiply

NOTHING = np.empty(0)
PLAIN = {"BIAS": False, "GELU": False, "RESIDUAL": False}


def backward(
    k: SimpleNamespace,
    dout: np.ndarray,
    weight: np.ndarray,
    x: np.ndarray,
    before: np.ndarray,
    dx: np.ndarray,
    dweight: np.ndarray,
    sums: np.ndarray,
) -> None:
    of_x = SimpleNamespace(
        M=k.N,
        N=k.INPUTS,
        K=k.OUTPUTS,
        LDA=k.LD,
        LDB=k.INPUTS if k.TABLE else k.OUTPUTS,
        LDO=k.INPUTS,
        PART=k.PART_X,
        TRANSPOSE_A=False,
        TRANSPOSE_B=not k.TABLE,
        GELU_BACKWARD=k.GELU_BACKWARD,
        ADD=k.ADD_X,
        **PLAIN,
    )
    rows, columns = (k.OUTPUTS, k.INPUTS) if k.TABLE else (k.INPUTS, k.OUTPUTS)
    of_weight = SimpleNamespace(
        M=rows,
        N=columns,
        K=k.N,
        LDA=k.LD if k.TABLE else k.INPUTS,
        LDB=k.INPUTS if k.TABLE else k.LD,
        LDO=columns,
        PART=k.PART_WEIGHT,
        TRANSPOSE_A=True,
        TRANSPOSE_B=False,
        GELU_BACKWARD=False,
        ADD=k.ADD_WEIGHT,
        **PLAIN,
    )
    multiply(of_x, dout, weight, NOTHING, before, dx, NOTHING)
    if k.SUM_ROWS:
        parts = dx[: k.N * k.INPUTS].reshape(-1, k.ROWS, k.INPUTS).sum(axis=1)
        write_partials(k, sums, parts)
    left, right = (dout, x) if k.TABLE else (x, dout)
    multiply(of_weight, left, right, NOTHING, NOTHING, dweight, NOTHING)
