"""How `transformers` describes a GPT-2: the names and shapes of its weights, and its config.json."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.config import ModelConfig
from trainer.errors import CheckpointError, ConfigError
from trainer.safetensors import TensorData

EMBEDDING = "transformer.wte.weight"
HEAD = "lm_head.weight"
END_OF_TEXT = "<|endoftext|>"

SIZES = {
    "layers": "n_layer",
    "width": "n_embd",
    "heads": "n_head",
    "context": "n_positions",
    "vocab": "vocab_size",
}
# What the model computes: option → values that mean it. The first is written, and is the default of an option
# that is left out.
OPTIONS: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),  # three names of one function
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}
DROPOUTS = ("attn_pdrop", "embd_pdrop", "resid_pdrop")
CAUSAL_MASK = re.compile(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)")  # constants, no parameters


def parameter_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its name in GPT2LMHeadModel, in the order of the forward pass.

    Matrices of the blocks are (in, out), as GPT-2's Conv1D keeps them; the head is the token embedding.
    """
    return dict(parameters(model))


def parameters(model: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """`parameter_shapes` one by one: a damaged config's billion layers need never be listed."""
    C = model.width
    yield EMBEDDING, (model.vocab, C)
    yield "transformer.wpe.weight", (model.context, C)
    for layer in range(model.layers):
        block = f"transformer.h.{layer}"
        yield from _with_bias(f"{block}.ln_1", (C,))
        yield from _with_bias(f"{block}.attn.c_attn", (C, 3 * C))
        yield from _with_bias(f"{block}.attn.c_proj", (C, C))
        yield from _with_bias(f"{block}.ln_2", (C,))
        yield from _with_bias(f"{block}.mlp.c_fc", (C, 4 * C))
        yield from _with_bias(f"{block}.mlp.c_proj", (4 * C, C))
    yield from _with_bias("transformer.ln_f", (C,))


def _with_bias(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[-1:]


def canonical(tensors: Mapping[str, TensorData], where: Path) -> dict[str, TensorData]:
    """The parameters among `tensors`, under their full names: the `transformer.` may be left out.

    Causal masks go, and so does a head that equals the embedding. Raises CheckpointError for another head.
    """
    weights: dict[str, TensorData] = {}
    for name, tensor in tensors.items():
        if CAUSAL_MASK.fullmatch(name):
            continue
        full = name if name == HEAD or name.startswith("transformer.") else f"transformer.{name}"
        if full in weights:
            raise CheckpointError(f"{where}: tensor {full!r} stands there twice", "remove one of the two")
        weights[full] = tensor
    head = weights.pop(HEAD, None)
    if head is not None and head != weights.get(EMBEDDING):
        raise CheckpointError(f"{where}: {HEAD} differs from {EMBEDDING}", "choose a model that ties the two")
    return weights


def config_from_model(model: ModelConfig, end_of_text: int | None) -> dict[str, Any]:
    """What config.json says of `model`; `end_of_text` is the token that begins and ends a text, if known."""
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        **{theirs: getattr(model, ours) for ours, theirs in SIZES.items()},
        "n_inner": None,
        **{option: values[0] for option, values in OPTIONS.items()},
        **dict.fromkeys(DROPOUTS, 0.0),
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
    }


def model_from_config(config: Mapping[str, Any], where: Path) -> ModelConfig:
    """The model that `config`, read from `where`, describes. Raises CheckpointError for unsupported ones."""
    if config.get("model_type") != "gpt2":
        raise CheckpointError(
            f"{where}: model_type is {config.get('model_type')!r}", "choose a model of type 'gpt2'"
        )
    for option, values in OPTIONS.items():
        if config.get(option, values[0]) not in values:
            raise CheckpointError(
                f"{where}: {option} is {config[option]!r}", f"choose a model with {values[0]!r}"
            )
    sizes: dict[str, int] = {}
    for ours, theirs in SIZES.items():
        size = config.get(theirs)
        if type(size) is not int:
            raise CheckpointError(f"{where}: {theirs} is {size!r}", "it must be a whole number")
        sizes[ours] = size
    try:
        model = ModelConfig(**sizes)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error.problem}", "choose a model within these limits") from error
    if config.get("n_inner") not in (None, 4 * model.width):
        raise CheckpointError(
            f"{where}: n_inner is {config['n_inner']!r}",
            f"choose a model with 4 * n_embd = {4 * model.width}",
        )
    return model


def tokenizer_config(model: ModelConfig) -> dict[str, Any]:
    """What tokenizer_config.json says, so that AutoTokenizer takes tokenizer.json as it is."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model.context,
    }
