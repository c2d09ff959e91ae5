"""What can be configured: frozen, commented dataclasses. The CLI's flags and the page's form come from them.

Every field carries its help text in `metadata["help"]`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from trainer.errors import ConfigError

T = TypeVar("T")

# Type of a field → what may stand there, and the largest number that the GPU has room for
KINDS = {"int": ((int,), 2**32 - 1), "float": ((int, float), 3.4028234663852886e38), "str": ((str,), 0)}
PRECISIONS = ("f32", "mixed")
AUTO = "auto"  # the precision that suits a device: see trainer/model.py
MAX_VOCAB = 65_535  # token ids are stored as u16, and 65,535 of them leave one value free
MAX_STEPS = 2**27 // 16  # the optimiser looks into a table of 16 bytes a step, and a binding ends at 128 MiB
LEAST_EPSILON = 1e-37  # about the smallest f32 that no GPU takes for 0


def option(
    default: Any,
    help: str,
    *,
    low: float = 0,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with a default, the help text that the CLI and the page show, and its range:
    from `low` (or only above `above`) to `high` (or only below `below`), or the `choices` there are.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "low": low,
            "high": high,
            "above": above,
            "below": below,
            "choices": choices,
        },
    )


def check(config: Any) -> None:
    """Raise ConfigError for the first field of `config` that is of another type or out of its range."""
    for f in fields(config):
        name, value = f.name.replace("_", "-"), getattr(config, f.name)
        kinds, most = KINDS[str(f.type)]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ConfigError(f"{name} is {value!r}", f"give --{name} a value of type {f.type}")
        choices = f.metadata["choices"]
        if choices and value not in choices:
            raise ConfigError(f"{name} is {value!r}", f"give --{name} one of {', '.join(choices)}")
        if isinstance(value, str):
            if value != value.encode(errors="replace").decode():
                raise ConfigError(f"{name} is {value!r}, which is no text", f"give --{name} text in UTF-8")
            continue
        low, high, above, below = (f.metadata[bound] for bound in ("low", "high", "above", "below"))
        inside = (above is None or value > above) and (below is None or value < below)
        if inside and low <= value <= (high or most):
            continue
        start = f"from {low:,}" if above is None else f"above {above:,}"
        end = f"to {high:,}" if high else f"to below {below:,}" if below else "up"
        raise ConfigError(f"{name} is {value}", f"give --{name} a value {start} {end}")


@dataclass(frozen=True)
class ModelConfig:
    """GPT-2's architecture: pre-LayerNorm, learned positions, GELU (tanh), head tied to the embedding."""

    layers: int = option(2, "transformer blocks (L)", low=1)
    width: int = option(48, "channels of the residual stream (C); a multiple of --heads", low=1)
    heads: int = option(3, "attention heads (NH); each has width / heads channels (HS)", low=1)
    context: int = option(64, "tokens the model looks back on (T)", low=1)
    vocab: int = option(1024, "tokens in the vocabulary (V), at most 65,535", low=1, high=MAX_VOCAB)

    def __post_init__(self) -> None:
        check(self)
        if self.width % self.heads:
            raise ConfigError(
                f"width {self.width} is not a multiple of heads {self.heads}",
                f"try --width {(self.width // self.heads + 1) * self.heads}",
            )
        if self.head_size > 128:
            raise ConfigError(
                f"head size {self.head_size} (width / heads) is over 128", "use more heads or a smaller width"
            )

    @property
    def head_size(self) -> int:
        """HS: channels of one attention head."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """Trainable parameters; the head shares the token embedding's."""
        C = self.width
        block = 12 * C * C + 13 * C  # qkv, proj, fc, fc_proj with biases, two LayerNorms
        return (self.vocab + self.context) * C + self.layers * block + 2 * C


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained: AdamW with linear warm-up and cosine decay."""

    steps: int = option(300, "optimiser steps in all", low=1, high=MAX_STEPS)
    batch: int = option(8, "windows in one micro-batch (B)", low=1)
    accumulate: int = option(1, "micro-batches whose gradients one step averages", low=1, high=65_536)
    learning_rate: float = option(3e-3, "peak learning rate", above=0)
    min_learning_rate: float = option(0.1, "learning rate at the end, as a share of the peak", high=1)
    warmup: int = option(20, "steps of linear warm-up")
    weight_decay: float = option(0.1, "decoupled weight decay, on matrices only")
    beta1: float = option(0.9, "AdamW's decay of the gradient's mean", below=1)
    beta2: float = option(0.95, "AdamW's decay of the squared gradient's mean", below=1)
    epsilon: float = option(1e-8, "AdamW's term against division by zero", low=LEAST_EPSILON)
    clip: float = option(1.0, "largest global gradient norm; longer gradients are scaled down to it", above=0)
    precision: str = option(
        "f32",
        "f32; mixed: products in f16, weights and optimiser in f32, on a device with shader-f16; "
        "or auto: mixed on a GPU with matrix units",
        choices=(*PRECISIONS, AUTO),
    )
    seed: int = option(1337, "seed of weights, windows and samples")
    eval_every: int = option(50, "steps between validation losses (0: only at the end)")
    eval_batches: int = option(8, "batches averaged for a validation loss", low=1)
    sample_every: int = option(100, "steps between sample texts (0: never)")
    sample_prompt: str = option("", "text that the samples continue")
    sample_tokens: int = option(48, "length of a sample text, in tokens", low=1)
    save_every: int = option(100, "steps between checkpoints (0: only at the end)")
    log_every: int = option(10, "steps between readings of the loss from the GPU", low=1)

    def __post_init__(self) -> None:
        check(self)
        if self.warmup >= self.steps:
            raise ConfigError(
                f"warmup {self.warmup} does not end before step {self.steps}", "choose a smaller --warmup"
            )


@dataclass(frozen=True)
class SampleConfig:
    """How the next token is chosen."""

    tokens: int = option(128, "tokens to generate", low=1)
    temperature: float = option(0.8, "0 is greedy; 1 keeps the model's own probabilities")
    top_k: int = option(0, "keep the k likeliest tokens (0: all)")
    top_p: float = option(1.0, "keep the likeliest tokens that reach this share (1: all)", high=1, above=0)
    seed: int = option(1337, "seed of the choices")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Preset:
    """A named size: the model, and training defaults that suit it."""

    model: ModelConfig
    train: TrainConfig
    note: str


PRESETS: dict[str, Preset] = {
    "nano": Preset(
        ModelConfig(layers=2, width=48, heads=3, context=64, vocab=1024),
        TrainConfig(steps=300, batch=8, learning_rate=3e-3, warmup=20),
        "0.1M parameters: trains on a software renderer in minutes",
    ),
    "micro": Preset(
        ModelConfig(layers=4, width=128, heads=4, context=128, vocab=2048),
        TrainConfig(
            steps=2000,
            batch=16,
            learning_rate=2e-3,
            warmup=100,
            eval_every=200,
            sample_every=400,
            save_every=400,
        ),
        "1M parameters: minutes on a laptop's GPU",
    ),
    "mini": Preset(
        ModelConfig(layers=5, width=256, heads=4, context=256, vocab=4096),
        TrainConfig(
            steps=5000,
            batch=32,
            learning_rate=1e-3,
            warmup=200,
            eval_every=250,
            sample_every=500,
            save_every=500,
        ),
        "5M parameters: an hour on a laptop's GPU",
    ),
    "small": Preset(
        ModelConfig(layers=6, width=384, heads=6, context=256, vocab=8192),
        TrainConfig(
            steps=20000,
            batch=64,
            learning_rate=1e-3,
            warmup=500,
            eval_every=500,
            sample_every=1000,
            save_every=1000,
        ),
        "14M parameters: an evening on a good GPU, minutes on a rented one",
    ),
    "gpt2": Preset(
        ModelConfig(layers=12, width=768, heads=12, context=1024, vocab=50257),
        TrainConfig(
            steps=19000,
            batch=8,
            accumulate=64,
            learning_rate=6e-4,
            warmup=700,
            eval_every=250,
            sample_every=1000,
            save_every=500,
        ),
        "GPT-2 124M: needs a data-centre GPU",
    ),
}


def preset(name: str) -> Preset:
    """The preset called `name`. Raises ConfigError with the names there are."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}", f"choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def to_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain JSON data."""
    return asdict(config)


def from_dict(cls: type[T], data: dict[str, Any]) -> T:
    """The config dataclass `cls` from JSON data. Raises ConfigError for unknown names."""
    names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - names)
    if unknown:
        raise ConfigError(f"unknown setting {unknown[0]!r}", f"{cls.__name__} has {', '.join(sorted(names))}")
    floating = {f.name for f in fields(cls) if f.type == "float"}  # type: ignore[arg-type]
    return cls(  # JSON that has been through JavaScript has 1 for 1.0
        **{k: float(v) if k in floating and type(v) is int else v for k, v in data.items()}
    )
