"""What a training run will take: parameters, memory, floating-point operations, dispatches. Known before it
starts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from trainer.config import ModelConfig, TrainConfig
from trainer.model import Model

BYTES_A_PARAMETER = 16  # of the device: weight, gradient and two moments, in f32

# Main memory of the process beside what is counted below, measured on Linux with wgpu 0.32: the interpreter,
# wgpu, and the driver with its compiled kernels (NVIDIA's on an H100; Mesa's software renderer).
HOST_BASE = 260 << 20
HOST_BASE_SOFTWARE = 190 << 20


@dataclass(frozen=True)
class Budget:
    """Sizes in bytes, work in floating-point operations (a multiply-add is two)."""

    parameters: int
    device_memory: int
    host_memory: int
    tokens_per_step: int
    flops_per_step: float
    total_tokens: int
    total_flops: float

    def seconds(self, flops_per_second: float) -> float:
        """How long training takes at a rate."""
        return self.total_flops / flops_per_second


def flops_per_token(model: ModelConfig) -> float:
    """Operations of the matrix products for one token, forward.

    2 for each weight of the blocks and of the head, and q·k and p·v over half of the context (causal):
    2 · 2 · C · T / 2 in each layer. (PaLM, arXiv 2204.02311, appendix B, with the causal half.)
    """
    C, T = model.width, model.context
    return 2 * (12 * model.layers * C * C + model.vocab * C) + 2 * model.layers * C * T


def estimate(model: Model, train: TrainConfig, *, software: bool, text_bytes: int = 0) -> Budget:
    """The budget of training with a built model; backward costs twice what forward does.

    `text_bytes` is the size of the corpus, which stays in main memory while its tokens are made.
    """
    tokens = train.batch * train.accumulate * model.config.context
    flops = 3.0 * flops_per_token(model.config) * tokens
    dataset = model.training.tokens if model.training else 0
    host = 2 * dataset + 2 * text_bytes
    host += HOST_BASE_SOFTWARE + model.plan.nbytes if software else HOST_BASE  # a CPU has no other memory
    return Budget(
        parameters=model.config.parameters,
        device_memory=model.plan.nbytes,
        host_memory=host,
        tokens_per_step=tokens,
        flops_per_step=flops,
        total_tokens=tokens * train.steps,
        total_flops=flops * train.steps,
    )


def dispatches(model: Model, train: TrainConfig) -> Counter[str]:
    """Dispatches of a training step by kernel ("<op>.<entry point>")."""
    found: Counter[str] = Counter()
    for name, times in (("micro", 1), ("micro_add", train.accumulate - 1), ("update", 1)):
        for dispatch in model.plan.programs[name].dispatches if times else []:
            found[dispatch.kernel] += times
    return found


def op_of(kernel: str) -> str:
    """The op of `least_dispatches` that a kernel counts as: the gradients of a linear layer are products, and
    several sums over rows are such sums.
    """
    op = kernel.split(".")[0]
    return {"linear": "matmul", "column_sums": "column_sum"}.get(op, op)


def least_dispatches(model: ModelConfig, train: TrainConfig) -> dict[str, int]:
    """What `dispatches` would be by op, were every op one launch forward and one backward.

    A block is two LayerNorms, four products (with bias, GELU and residual in their epilogues) and attention;
    around the blocks stand the embedding, a LayerNorm and the head's product. The choice of the windows, the
    cross-entropy, whose gradient comes with it, and the optimiser are one each. Sums over rows are a part of
    the ops that want them.
    """
    L = model.layers
    each = {
        "random": 1,
        "embedding": 2,
        "layernorm": 2 * (2 * L + 1),
        "matmul": 2 * (4 * L + 1),
        "attention": 2 * L,
        "column_sum": 0,
        "cross_entropy": 1,
    }
    return {**{op: n * train.accumulate for op, n in each.items()}, "adamw": 1}
