"""The same products and training steps through PyTorch, where it is installed, on its best device.

f32 is without TF32; mixed precision is f16 for products, and autocast's bf16 for steps.
"""

from __future__ import annotations

import importlib
import time
from importlib.util import find_spec
from statistics import median
from typing import Any

from trainer.bench.matmul import (
    BATCHES,
    BURST_SECONDS,
    BURSTS,
    MEASURE_SECONDS,
    REST_SECONDS,
    Product,
    told,
)
from trainer.bench.records import Record, digits, provenance
from trainer.bench.steps import WARM_UP, configured
from trainer.budget import flops_per_token
from trainer.config import ModelConfig, TrainConfig
from trainer.errors import ConfigError
from trainer.provenance import machine


def check_installed() -> None:
    """Raise ConfigError where there is no PyTorch."""
    if find_spec("torch") is None:
        raise ConfigError("PyTorch is not installed", "pip install torch, or leave out --compare")


def _torch() -> tuple[Any, str]:
    """PyTorch, and the device that it is timed on."""
    torch = importlib.import_module("torch")
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch, "cuda" if torch.cuda.is_available() else "cpu"


def _wait(torch: Any) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _theirs(torch: Any) -> Record:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else machine()
    return {**provenance(name, f"torch {torch.__version__}"), "impl": "torch"}


# -------------------------------------------------------------------- matmul


def time_torch_matmul(product: Product, precision: str) -> Record:
    """The same product through PyTorch (cuBLAS on NVIDIA), on its best device: f32 without TF32, or f16."""
    torch, where = _torch()
    M, N, K = product.size
    dtype = torch.float16 if precision == "mixed" else torch.float32
    transpose_a, transpose_b = product.flags
    a, b = torch.randn(M, K, device=where, dtype=dtype), torch.randn(K, N, device=where, dtype=dtype)
    a = a.T.contiguous().T if transpose_a else a
    b = b.T.contiguous().T if transpose_b else b

    def batch(repeats: int) -> float:
        began = time.perf_counter()
        for _ in range(repeats):
            torch.matmul(a, b)
        _wait(torch)
        return (time.perf_counter() - began) / repeats

    def burst(repeats: int) -> float:
        time.sleep(REST_SECONDS)
        if where != "cuda":
            return batch(repeats)
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        for _ in range(repeats):
            torch.matmul(a, b)
        ended.record()
        _wait(torch)
        return began.elapsed_time(ended) / 1e3 / repeats

    batch(3)
    each = batch(3)
    seconds = median([batch(max(1, int(MEASURE_SECONDS / each))) for _ in range(BATCHES)])
    bursts = median([burst(max(1, int(BURST_SECONDS / each))) for _ in range(BURSTS)])
    return {
        **_theirs(torch),
        "workload": product.label,
        "variant": where,
        "precision": precision,
        **told(product, precision, "torch", seconds, bursts),
    }


# -------------------------------------------------------------------- training steps


def time_torch_steps(name: str, precision: str, batch: int | None, steps: int) -> list[Record]:
    """Training steps of a workload's model, eager and by torch.compile, which is left out where it fails (for
    want of a compiler, say).
    """
    torch, where = _torch()
    model, train = configured(name, precision, batch)
    records = []
    for variant in ("eager", "compiled"):
        try:
            seconds, memory = _time_steps(torch, where, model, train, steps, compiled=variant == "compiled")
        except Exception as error:
            if variant == "eager":
                raise
            print(f"step {name:8} {precision:5} torch, compiled: left out, {_first_line(error)}")
            continue
        tokens = train.batch * model.context
        record = {
            **_theirs(torch),
            "workload": name,
            "variant": variant,
            "precision": precision,
            "batch": train.batch,
            "ms_per_step": round(1e3 * seconds, 4),
            "tokens_per_s": round(tokens / seconds),
            "tflops": digits(3 * flops_per_token(model) * tokens / seconds / 1e12),
            **({"device_memory_bytes": memory} if memory else {}),
        }
        print(
            f"step {name:8} {precision:5} {record['ms_per_step']:9.2f} ms  "
            f"{record['tokens_per_s']:>9,} tokens/s  {1e3 * record['tflops']:.1f} GFLOP/s  torch, {variant}"
        )
        records.append(record)
    return records


def _time_steps(
    torch: Any, where: str, model: ModelConfig, train: TrainConfig, steps: int, *, compiled: bool
) -> tuple[float, int]:
    """Seconds of a step, and the most bytes that were on the device at once (0 on a processor)."""
    torch.manual_seed(train.seed)
    network = gpt2(torch, model).to(where)
    decayed = [p for p in network.parameters() if p.dim() >= 2]
    plain = [p for p in network.parameters() if p.dim() < 2]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": train.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=train.learning_rate,
        betas=(train.beta1, train.beta2),
        eps=train.epsilon,
        fused=where == "cuda",
    )
    loss_of = torch.compile(network) if compiled else network
    tokens = torch.randint(model.vocab, (train.batch, model.context + 1), device=where)

    def step() -> None:
        with torch.autocast(where, torch.bfloat16, enabled=train.precision == "mixed"):
            loss = loss_of(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), train.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def run(steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        _wait(torch)
        return (time.perf_counter() - began) / steps

    run(WARM_UP)
    seconds = median(run(steps) for _ in range(BATCHES))
    return seconds, torch.cuda.max_memory_allocated() if where == "cuda" else 0


def gpt2(torch: Any, config: ModelConfig) -> Any:
    """model.py's model as a PyTorch module: tokens and targets (B, T) to the mean loss, in nats a token."""
    nn, F = torch.nn, torch.nn.functional
    C, NH, V, T = config.width, config.heads, config.vocab, config.context

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
            self.c_attn, self.c_proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
            self.mlp = nn.Sequential(nn.Linear(C, 4 * C), nn.GELU("tanh"), nn.Linear(4 * C, C))

        def forward(self, x: Any) -> Any:
            B, T, _ = x.shape
            q, k, v = (
                part.view(B, T, NH, C // NH).transpose(1, 2) for part in self.c_attn(self.ln_1(x)).split(C, 2)
            )
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.c_proj(mixed.transpose(1, 2).reshape(B, T, C))
            return x + self.mlp(self.ln_2(x))

    class GPT2(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(T, C)
            self.blocks = nn.Sequential(*(Block() for _ in range(config.layers)))
            self.ln_f, self.head = nn.LayerNorm(C), nn.Linear(C, V, bias=False)
            self.head.weight = self.wte.weight
            for parameter in self.parameters():
                if parameter.dim() >= 2:
                    nn.init.normal_(parameter, std=0.02)

        def forward(self, tokens: Any, targets: Any) -> Any:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
            x = self.blocks(self.wte(tokens) + self.wpe(positions))
            logits = self.head(self.ln_f(x))
            return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    return GPT2()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__} {error}".splitlines()[0]
