"""What can be configured: frozen, commented dataclasses. The CLI's flags and the page's form come from them.

Every field carries its help text in `metadata["help"]`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from trainer.errors import ConfigError

T = TypeVar("T")

MAX_VOCAB = 65_535  # token ids are stored as u16, and 65,535 of them leave one value free


def option(default: Any, help: str) -> Any:
    """A dataclass field with a default and the help text that the CLI and the page show."""
    return field(default=default, metadata={"help": help})


def check_positive(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            flag = name.replace("_", "-")
            raise ConfigError(f"{flag} is {getattr(config, name)}", f"give --{flag} a value above 0")


@dataclass(frozen=True)
class ModelConfig:
    """GPT-2's architecture: pre-LayerNorm, learned positions, GELU (tanh), head tied to the embedding."""

    layers: int = option(2, "transformer blocks (L)")
    width: int = option(48, "channels of the residual stream (C); a multiple of --heads")
    heads: int = option(3, "attention heads (NH); each has width / heads channels (HS)")
    context: int = option(64, "tokens the model looks back on (T)")
    vocab: int = option(1024, "tokens in the vocabulary (V), at most 65,535")

    def __post_init__(self) -> None:
        check_positive(self, "layers", "width", "heads", "context", "vocab")
        if self.width % self.heads:
            raise ConfigError(
                f"width {self.width} is not a multiple of heads {self.heads}",
                f"try --width {(self.width // self.heads + 1) * self.heads}",
            )
        if self.vocab > MAX_VOCAB:
            raise ConfigError(
                f"vocab {self.vocab} is over {MAX_VOCAB:,}",
                "token ids are stored in 16 bits: choose a smaller vocabulary",
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

    steps: int = option(300, "optimiser steps in all")
    batch: int = option(8, "windows in one micro-batch (B)")
    accumulate: int = option(1, "micro-batches whose gradients one step averages")
    learning_rate: float = option(3e-3, "peak learning rate")
    min_learning_rate: float = option(0.1, "learning rate at the end, as a share of the peak")
    warmup: int = option(20, "steps of linear warm-up")
    weight_decay: float = option(0.1, "decoupled weight decay, on matrices only")
    beta1: float = option(0.9, "AdamW's decay of the gradient's mean")
    beta2: float = option(0.95, "AdamW's decay of the squared gradient's mean")
    epsilon: float = option(1e-8, "AdamW's term against division by zero")
    clip: float = option(1.0, "largest global gradient norm; longer gradients are scaled down to it")
    seed: int = option(1337, "seed of weights, windows and samples")
    eval_every: int = option(50, "steps between validation losses (0: only at the end)")
    eval_batches: int = option(8, "batches averaged for a validation loss")
    sample_every: int = option(100, "steps between sample texts (0: never)")
    sample_prompt: str = option("", "text that the samples continue")
    sample_tokens: int = option(48, "length of a sample text, in tokens")
    save_every: int = option(100, "steps between checkpoints (0: only at the end)")
    log_every: int = option(10, "steps between readings of the loss from the GPU")

    def __post_init__(self) -> None:
        check_positive(
            self,
            "steps",
            "batch",
            "accumulate",
            "learning_rate",
            "clip",
            "epsilon",
            "eval_batches",
            "log_every",
        )
        if self.warmup >= self.steps:
            raise ConfigError(
                f"warmup {self.warmup} does not end before step {self.steps}", "choose a smaller --warmup"
            )
        for name in ("beta1", "beta2", "min_learning_rate"):
            if not 0 <= getattr(self, name) <= 1:
                flag = name.replace("_", "-")
                raise ConfigError(f"{flag} is {getattr(self, name)}", f"give --{flag} a value from 0 to 1")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed is {self.seed}", "choose a seed from 0 to 4,294,967,295")


@dataclass(frozen=True)
class SampleConfig:
    """How the next token is chosen."""

    tokens: int = option(128, "tokens to generate")
    temperature: float = option(0.8, "0 is greedy; 1 keeps the model's own probabilities")
    top_k: int = option(0, "keep the k likeliest tokens (0: all)")
    top_p: float = option(1.0, "keep the likeliest tokens that reach this probability together (1: all)")
    seed: int = option(1337, "seed of the choices")

    def __post_init__(self) -> None:
        check_positive(self, "tokens")
        if self.temperature < 0:
            raise ConfigError(f"temperature is {self.temperature}", "give --temperature a value from 0 up")
        if self.top_k < 0:
            raise ConfigError(f"top-k is {self.top_k}", "give --top-k a value from 0 up")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top-p is {self.top_p}", "give --top-p a value above 0, up to 1")


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
    return cls(**data)
