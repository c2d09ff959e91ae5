"""A GPT-2 in a few lines of NumPy, in float64, one token at a time: slow, and by another road."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from trainer.config import ModelConfig
from trainer.devices import Device
from trainer.gpt2_format import EMBEDDING, parameter_shapes
from trainer.model import build
from trainer.runtime import Runtime
from trainer.safetensors import TensorData

Weights = Mapping[str, np.ndarray]


def random_weights(config: ModelConfig, seed: int = 7) -> dict[str, np.ndarray]:
    """Weights large enough that the model has strong opinions."""
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.normal(0, 0.4, shape) + name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight"))
        ).astype(np.float32)
        for name, shape in parameter_shapes(config).items()
    }


def memorised(config: ModelConfig, tokens: Sequence[int]) -> dict[str, np.ndarray]:
    """Weights that predict `tokens[i]` at position i - 1, whatever came before: only positions count."""
    shapes = parameter_shapes(config)
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    table = np.random.default_rng(1).normal(0, 1, shapes[EMBEDDING]).astype(np.float32)
    table -= table.mean(axis=1, keepdims=True)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    weights[EMBEDDING] = table
    weights["transformer.ln_f.weight"] += 1
    weights["transformer.wpe.weight"][: len(tokens) - 1] = 1000 * table[list(tokens[1:])]
    return weights


def open_runtime(device: Device, config: ModelConfig, weights: Weights | None, batch: int = 3) -> Runtime:
    """A runtime with these weights, or with fresh ones."""

    async def opened() -> Runtime:
        runtime = await Runtime.open(device, build(config, evaluation_batch=batch, seed=5))
        await (runtime.initialise() if weights is None else runtime.load(tensors(weights)))
        return runtime

    return asyncio.run(opened())


def tensors(weights: Weights) -> dict[str, TensorData]:
    return {name: TensorData("F32", value.shape, value.tobytes()) for name, value in weights.items()}


def next_log_probabilities(config: ModelConfig, weights: Weights, tokens: Sequence[int]) -> np.ndarray:
    """log p (V) of the token after `tokens`, at most T of them."""
    w = {name.removeprefix("transformer."): value.astype(np.float64) for name, value in weights.items()}
    x = w["wte.weight"][list(tokens)] + w["wpe.weight"][: len(tokens)]
    for i in range(config.layers):
        p = f"h.{i}."
        qkv = _norm(x, w, p + "ln_1") @ w[p + "attn.c_attn.weight"] + w[p + "attn.c_attn.bias"]
        q, k, v = (part.reshape(len(x), config.heads, -1) for part in np.split(qkv, 3, axis=1))
        out = np.zeros_like(x)
        for t in range(len(x)):
            for head in range(config.heads):
                scores = k[: t + 1, head] @ q[t, head] / np.sqrt(config.head_size)
                weight = np.exp(scores - scores.max())
                columns = slice(head * config.head_size, (head + 1) * config.head_size)
                out[t, columns] = weight @ v[: t + 1, head] / weight.sum()
        x = x + out @ w[p + "attn.c_proj.weight"] + w[p + "attn.c_proj.bias"]
        h = _norm(x, w, p + "ln_2") @ w[p + "mlp.c_fc.weight"] + w[p + "mlp.c_fc.bias"]
        h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
        x = x + h @ w[p + "mlp.c_proj.weight"] + w[p + "mlp.c_proj.bias"]
    logits = _norm(x[-1:], w, "ln_f")[0] @ w["wte.weight"].T
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


def _norm(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) * w[name + ".weight"]
        + w[name + ".bias"]
    )
