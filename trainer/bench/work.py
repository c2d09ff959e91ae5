"""What a kernel has to do: floating-point operations, and bytes of memory that it moves at least.

    work(dispatch).flops / seconds      is held against the device's fastest matrix product
    work(dispatch).nbytes / seconds     against its fastest copy

Counted from a dispatch's constants and the sizes of what it binds, each number read once and written once: a
kernel that reads its input twice moves more than is counted, and one that finds it in a cache moves less.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from trainer.kernels import binding_modes
from trainer.plan import ITEM_SIZE, Dispatch, Tensor

# Attention's products of a (T, HS) and a (HS, T) or (T, T) matrix, half of each of which counts, since it is
# causal. Both parts of backward make the scores anew.
ATTENTION_PRODUCTS = {"forward": 2, "backward_query": 3, "backward_key_value": 4, "backward": 7}
# Bindings that a kernel both reads and writes, beside those that the constant ADD (for out_1, ADD_1) makes so
UPDATED = {
    "adamw.update": {"parameter", "mean", "variance"},
    "cross_entropy.forward_backward": {"logits"},
    "embedding.backward_tokens": {"dtoken_table"},
}
# Tables of which a kernel touches the rows of its tokens: no more than there are tokens
GATHERED = {"token_table", "dtoken_table"}
# The parts of dq, dk and dv that a kernel writes, if not all
WRITTEN = {"attention.backward_query": 1 / 3, "attention.backward_key_value": 2 / 3}


@dataclass(frozen=True)
class Work:
    """Of one dispatch or several. `flops` is 0 for kernels that do little but move bytes."""

    flops: float = 0.0
    nbytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.nbytes + other.nbytes)


def work(dispatch: Dispatch) -> Work:
    """The work of one dispatch."""
    if dispatch.kernel == "matmul.multiply":
        return _matmul(dispatch)
    if dispatch.kernel == "linear.backward":
        return _linear_backward(dispatch)
    return Work(_attention(dispatch), sum(_moved(dispatch, name) for name in dispatch.bindings))


def _matmul(dispatch: Dispatch) -> Work:
    """The operands may be parts of larger tensors, so that the constants tell their sizes."""
    k, bound = dispatch.constants, dispatch.bindings
    M, N, K = (int(k[name]) for name in "MNK")
    parts = dispatch.grid[2]  # each has a sum of its own
    numbers = {
        "a": M * K,
        "b": K * N,
        "bias": N if k["BIAS"] else 0,
        "aux": M * N if k["RESIDUAL"] or k["GELU_BACKWARD"] else 0,
        "out": M * N * (parts + (1 if k["ADD"] else 0)),
        "extra": M * N if k["GELU"] else 0,
    }
    return Work(2.0 * M * N * K, sum(ITEM_SIZE[bound[name].dtype] * count for name, count in numbers.items()))


def _linear_backward(dispatch: Dispatch) -> Work:
    """Two products, which read the gradient of the layer's outputs once between them."""
    k, bound = dispatch.constants, dispatch.bindings
    N, inputs, outputs = (int(k[name]) for name in ("N", "INPUTS", "OUTPUTS"))
    parts_x, parts_weight = -(-outputs // int(k["PART_X"])), -(-N // int(k["PART_WEIGHT"]))
    numbers = {
        "dout": N * outputs,
        "weight": inputs * outputs,
        "x": N * inputs,
        "before": N * inputs if k["GELU_BACKWARD"] else 0,
        "dx": N * inputs * (parts_x + (1 if k["ADD_X"] else 0)),
        "dweight": inputs * outputs * (parts_weight + (1 if k["ADD_WEIGHT"] else 0)),
        "sums": N // int(k["ROWS"]) * inputs if k["SUM_ROWS"] else 0,
    }
    nbytes = sum(ITEM_SIZE[bound[name].dtype] * count for name, count in numbers.items())
    return Work(4.0 * N * inputs * outputs, nbytes)


def _attention(dispatch: Dispatch) -> float:
    op, entry = dispatch.kernel.split(".")
    if op != "attention" or entry not in ATTENTION_PRODUCTS:
        return 0.0
    B, T, NH, HS = (int(dispatch.constants[name]) for name in ("B", "T", "NH", "HS"))
    return ATTENTION_PRODUCTS[entry] * 2.0 * B * NH * T * T * HS / 2


def _moved(dispatch: Dispatch, name: str) -> float:
    """Bytes of a binding that a kernel reads and writes."""
    tensor, k = dispatch.bindings[name], dispatch.constants
    if tensor.role == "state":  # counters, settings, a row of a table, what is not used: a few numbers
        return 0
    writes = binding_modes(dispatch.variant, dispatch.entry)[name] == "read_write" and name != "sums"
    added = writes and (k.get("ADD") or k.get(name.replace("out", "ADD")))
    times = 2 if added or name in UPDATED.get(dispatch.kernel, ()) else 1
    return times * _touched(dispatch, name, tensor)


def _touched(dispatch: Dispatch, name: str, tensor: Tensor) -> float:
    k = dispatch.constants
    if name in GATHERED:
        return min(tensor.nbytes, ITEM_SIZE[tensor.dtype] * int(k["N"]) * int(k["C"]))
    if name == "logits":  # the memory of a chunk of rows, of which the last chunk fills a part
        return ITEM_SIZE[tensor.dtype] * int(k["N"]) * tensor.shape[1]
    if name == "sums":  # strided: columns of one to three vectors in what holds all vectors' partial sums
        vectors = 2 + bool(k.get("SUM_DX")) if "BIAS" in k else 1
        parts = int(k["B"]) * int(k["T"]) // int(k["PART"]) if "PART" in k else dispatch.grid[1]
        return 4.0 * vectors * int(k["WIDTH"]) * parts
    if name == "dqkv":
        return WRITTEN.get(dispatch.kernel, 1) * tensor.nbytes
    return ITEM_SIZE[tensor.dtype] * prod(tensor.shape)
