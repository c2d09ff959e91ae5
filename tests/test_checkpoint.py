"""The format of checkpoints against transformers' own files, and every way in which one can be bad."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import save_faults
from save_faults import MODEL, TOKENIZER, assert_whole, save

from trainer import checkpoint
from trainer.config import PRESETS, ModelConfig
from trainer.errors import CheckpointError, ConfigError
from trainer.safetensors import TensorData, parse, read_file, serialize

FIXTURES = Path(__file__).parent / "fixtures" / "checkpoint"
WTE = "transformer.wte.weight"
Files = dict[str, bytes]


def floats(tensor: TensorData) -> np.ndarray:
    assert tensor.dtype == "F32"
    return np.frombuffer(tensor.data, np.float32).reshape(tensor.shape)


def files_of(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def ours(step: int = 7) -> Files:
    """A whole checkpoint of this project."""
    moments = save_faults.tensors(step, ("m.", "v."))
    chunks = checkpoint.to_files(
        step, MODEL, save_faults.tensors(step), TOKENIZER, save_faults.state(step), moments
    )
    return {name: b"".join(parts) for name, parts in chunks.items()}


# The format


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_shapes_add_up(name: str) -> None:
    model = PRESETS[name].model
    shapes = checkpoint.parameter_shapes(model)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == model.parameters
    assert len(shapes) == 12 * model.layers + 4


def test_parameters_are_those_of_transformers() -> None:
    tensors, _ = read_file(FIXTURES / "transformers" / "model.safetensors")
    shapes = checkpoint.parameter_shapes(ModelConfig(layers=2, width=8, heads=2, context=16, vocab=29))
    assert {name: tensor.shape for name, tensor in tensors.items()} == shapes
    assert list(shapes)[:4] == [
        WTE,
        "transformer.wpe.weight",
        "transformer.h.0.ln_1.weight",
        "transformer.h.0.ln_1.bias",
    ]


def layer_norm(x: np.ndarray, w: dict[str, np.ndarray], name: str) -> np.ndarray:
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return normal * w[f"{name}.weight"] + w[f"{name}.bias"]


def gpt2_logits(model: ModelConfig, w: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Logits (B, T, V) of `tokens` (B, T): GPT-2, written down once more in float64."""
    (B, T), C, NH, HS = tokens.shape, model.width, model.heads, model.head_size

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w[WTE][tokens] + w["transformer.wpe.weight"][:T]
    for layer in range(model.layers):
        block = f"transformer.h.{layer}"
        qkv = linear(layer_norm(x, w, f"{block}.ln_1"), f"{block}.attn.c_attn")
        q, k, v = qkv.reshape(B, T, 3, NH, HS).transpose(2, 0, 3, 1, 4)  # each (B, NH, T, HS)
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(HS)
        scores[..., ~np.tri(T, dtype=bool)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        attention = (weights @ v).transpose(0, 2, 1, 3).reshape(B, T, C)
        x = x + linear(attention, f"{block}.attn.c_proj")
        hidden = linear(layer_norm(x, w, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        x = x + linear(hidden, f"{block}.mlp.c_proj")
    return layer_norm(x, w, "transformer.ln_f") @ w[WTE].T


@pytest.mark.parametrize("folder", ["transformers", "sharded"])
def test_loads_what_transformers_saved_and_means_the_same_by_it(folder: str) -> None:
    loaded = checkpoint.load(FIXTURES / folder)
    assert loaded.model == ModelConfig(layers=2, width=8, heads=2, context=16, vocab=29)
    assert (loaded.step, loaded.tokenizer, loaded.state, loaded.optimizer) == (None, None, None, None)
    assert list(loaded.weights) == list(checkpoint.parameter_shapes(loaded.model))
    oracle = json.loads((FIXTURES / "logits.json").read_text())
    weights = {name: floats(tensor).astype(np.float64) for name, tensor in loaded.weights.items()}
    logits = gpt2_logits(loaded.model, weights, np.array(oracle["tokens"]))
    np.testing.assert_allclose(logits, np.array(oracle["logits"]), rtol=1e-4, atol=1e-5)


def test_what_is_loaded_can_be_saved_as_transformers_saved_it(tmp_path: Path) -> None:
    theirs = checkpoint.load(FIXTURES / "transformers")
    folder = checkpoint.save(tmp_path, 0, model=theirs.model, weights=theirs.weights, tokenizer=None)
    expected, _ = read_file(FIXTURES / "transformers" / "model.safetensors")
    tensors, metadata = read_file(folder / "model.safetensors")
    assert tensors == expected
    assert metadata["format"] == "pt"
    written = json.loads((folder / "config.json").read_text())
    original = json.loads((FIXTURES / "transformers" / "config.json").read_text())
    for option in set(written) & set(original) - {"attn_pdrop", "embd_pdrop", "resid_pdrop"}:
        expected = None if option in ("bos_token_id", "eos_token_id") else original[option]
        assert written[option] == expected, option
    assert written["torch_dtype"] == "float32"


def test_round_trip(tmp_path: Path) -> None:
    folder = save(tmp_path / "runs" / "first", 300)
    assert folder == tmp_path / "runs" / "first" / "step-000300"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "optimizer.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "trainer_state.json",
    ]
    for path in (folder, folder.parent):
        loaded = checkpoint.load(path, resume=True)
        assert (loaded.folder, loaded.step, loaded.model) == (folder, 300, MODEL)
        assert_whole(loaded)
        assert loaded.tokenizer is not None
        assert loaded.tokenizer.encode("to be") == TOKENIZER.encode("to be")
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == TOKENIZER.end_of_text
    arrays = safetensors.numpy.load_file(folder / "optimizer.safetensors")
    assert set(arrays) == {f"{m}.{name}" for m in "mv" for name in checkpoint.parameter_shapes(MODEL)}


def test_the_format_needs_no_disk() -> None:
    assert_whole(checkpoint.from_files(ours(), resume=True))


def test_state_survives_to_the_bit() -> None:
    state = save_faults.state(1)
    state |= {"loss": 0.1 + 0.2, "rng": [2**64 - 1, 2**53 + 1], "note": "é\u2028", "nested": {"a": None}}
    chunks = checkpoint.to_files(
        1, MODEL, save_faults.tensors(1), TOKENIZER, state, save_faults.tensors(1, ("m.", "v."))
    )
    files = {name: b"".join(parts) for name, parts in chunks.items()}
    assert checkpoint.from_files(files, resume=True).state == state


def test_sampling_needs_no_trainer_state() -> None:
    files = ours() | {"trainer_state.json": b"broken", "optimizer.safetensors": b"broken"}
    loaded = checkpoint.from_files(files)
    assert (loaded.step, loaded.state, loaded.optimizer) == (7, None, None)


def rewrite(files: Files, name: str, change: Callable[[dict[str, TensorData]], Any]) -> Files:
    """`files` with the tensors of one of them changed."""
    tensors, metadata = parse(files[name])
    change(tensors)
    return files | {name: serialize(tensors, metadata)}


def test_loads_the_original_gpt2s_names_masks_and_head() -> None:
    files = files_of(FIXTURES / "transformers")
    whole = checkpoint.from_files(files)

    def like_the_original(tensors: dict[str, TensorData]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = TensorData("BOOL", (1, 1, 2, 2), b"\1\0\1\1")
        tensors["h.1.attn.masked_bias"] = TensorData("F32", (), struct.pack("<f", -1e4))
        tensors["lm_head.weight"] = tensors["wte.weight"]

    assert (
        checkpoint.from_files(rewrite(files, "model.safetensors", like_the_original)).weights == whole.weights
    )


def test_loads_half_precision_as_f32() -> None:
    files = files_of(FIXTURES / "transformers")
    whole = checkpoint.from_files(files).weights

    def halve(tensors: dict[str, TensorData]) -> None:
        for name, tensor in tensors.items():
            if name.endswith("bias"):
                bf16 = (np.frombuffer(tensor.data, np.uint32) >> 16).astype(np.uint16)
                tensors[name] = TensorData("BF16", tensor.shape, bf16.tobytes())
            else:
                tensors[name] = TensorData("F16", tensor.shape, floats(tensor).astype(np.float16).tobytes())

    loaded = checkpoint.from_files(rewrite(files, "model.safetensors", halve)).weights
    for name, tensor in loaded.items():
        tolerance = 2**-7 if name.endswith("bias") else 2**-10
        np.testing.assert_allclose(floats(tensor), floats(whole[name]), rtol=tolerance, atol=1e-7)


# Bad input


def config(**changes: Any) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        return files | {"config.json": json.dumps(json.loads(files["config.json"]) | changes).encode()}

    return change


def weights(change: Callable[[dict[str, TensorData]], Any]) -> Callable[[Files], Files]:
    return lambda files: rewrite(files, "model.safetensors", change)


def moments(change: Callable[[dict[str, TensorData]], Any]) -> Callable[[Files], Files]:
    return lambda files: rewrite(files, "optimizer.safetensors", change)


def without(name: str) -> Callable[[Files], Files]:
    return lambda files: {key: data for key, data in files.items() if key != name}


def replaced(name: str, data: bytes) -> Callable[[Files], Files]:
    return lambda files: files | {name: data}


def from_another_step(name: str) -> Callable[[Files], Files]:
    return lambda files: files | {name: ours(8)[name]}


def tensor(name: str, dtype: str, *shape: int) -> dict[str, TensorData]:
    size = int(np.prod(shape)) * {"F32": 4, "F64": 8, "I32": 4}[dtype]
    return {name: TensorData(dtype, shape, bytes(size))}


BAD: dict[str, tuple[Callable[[Files], Files], str]] = {
    "no weights": (without("model.safetensors"), "has no model.safetensors"),
    "no config": (without("config.json"), "has no config.json"),
    "no state": (without("trainer_state.json"), "has no trainer_state.json: without it"),
    "no optimiser": (without("optimizer.safetensors"), "has no optimizer.safetensors: without it"),
    "config is not JSON": (replaced("config.json", b"{"), "config.json is not JSON"),
    "config is not text": (replaced("config.json", b"\xff"), "config.json is not JSON"),
    "config is a list": (replaced("config.json", b"[]"), "config.json is not a JSON object"),
    "config is nested deeply": (replaced("config.json", b"[" * 100_000), "config.json is not JSON"),
    "config of many digits": (replaced("config.json", b"9" * 5000), "config.json is not JSON"),
    "another model": (config(model_type="llama"), "config.json: model_type is 'llama'"),
    "no model type": (replaced("config.json", b"{}"), "config.json: model_type is None"),
    "exact GELU": (config(activation_function="gelu"), "activation_function is 'gelu'"),
    "another epsilon": (config(layer_norm_epsilon=1e-6), "layer_norm_epsilon is 1e-06"),
    "unscaled attention": (config(scale_attn_weights=False), "scale_attn_weights is False"),
    "scaled by layer": (
        config(scale_attn_by_inverse_layer_idx=True),
        "scale_attn_by_inverse_layer_idx is True",
    ),
    "cross-attention": (config(add_cross_attention=True), "add_cross_attention is True"),
    "untied head": (config(tie_word_embeddings=False), "tie_word_embeddings is False"),
    "another MLP": (config(n_inner=12), "n_inner is 12: choose a model with 4 * n_embd = 16"),
    "size is text": (config(n_layer="1"), "n_layer is '1'"),
    "size is true": (config(n_layer=True), "n_layer is True"),
    "size is a fraction": (config(n_embd=4.0), "n_embd is 4.0"),
    "size is missing": (config(n_positions=None), "n_positions is None"),
    "no heads": (config(n_head=0), "config.json: heads is 0"),
    "heads that do not divide": (config(n_head=3), "config.json: width 4 is not a multiple of heads 3"),
    "large vocabulary": (
        config(vocab_size=70_000),
        "config.json: vocab is 70000: choose a model",
    ),
    "more layers than weights": (config(n_layer=2), "'transformer.h.1.ln_1.weight' is missing"),
    "a billion layers": (config(n_layer=10**9), "'transformer.h.1.ln_1.weight' is missing"),
    "more weights than layers": (
        weights(lambda t: t.update(tensor("h.1.ln_1.bias", "F32", 4))),
        "no part of",
    ),
    "another width": (config(n_embd=8), "'transformer.wte.weight' has shape [258, 4] instead of [258, 8]"),
    "a weight missing": (weights(lambda t: t.pop(WTE)), "'transformer.wte.weight' is missing"),
    "a weight twice": (weights(lambda t: t.update(tensor("wte.weight", "F32", 1))), "stands there twice"),
    "a weight too many": (
        weights(lambda t: t.update(tensor("extra", "F32", 1))),
        "'transformer.extra' is no part",
    ),
    "a weight of float64": (weights(lambda t: t.update(tensor(WTE, "F64", 258, 4))), "is F64"),
    "a weight of integers": (weights(lambda t: t.update(tensor(WTE, "I32", 258, 4))), "is I32"),
    "another head": (
        weights(lambda t: t.update(tensor("lm_head.weight", "F32", 258, 4))),
        "lm_head.weight differs from transformer.wte.weight",
    ),
    "damaged weights": (
        lambda files: files | {"model.safetensors": files["model.safetensors"][:-1]},
        "bytes of t",
    ),
    "tokenizer is not JSON": (replaced("tokenizer.json", b"{"), "7/tokenizer.json is not JSON ("),
    "tokenizer is a list": (replaced("tokenizer.json", b"[]"), "7/tokenizer.json is not a JSON object: copy"),
    "tokenizer of another kind": (
        replaced("tokenizer.json", b'{"model": {"type": "WordPiece"}}'),
        "step-000007/tokenizer.json: pre_tokenizer.type is",
    ),
    "tokenizer is not text": (replaced("tokenizer.json", b"\xff"), "tokenizer.json is not UTF-8"),
    "tokenizer of another model": (
        replaced("tokenizer.json", save_faults.Tokenizer.train(["to be to be"], 257).to_json().encode()),
        "tokenizer.json has 257 tokens, the model's vocabulary 258",
    ),
    "state is not JSON": (replaced("trainer_state.json", b""), "trainer_state.json is not JSON"),
    "state of another step": (from_another_step("trainer_state.json"), "step is 8, the weights' is 7"),
    "state of another model": (
        replaced("trainer_state.json", b'{"step": 7, "model": {"layers": 9}, "state": {}}'),
        "trainer_state.json: model is {'layers': 9}",
    ),
    "state without the state": (
        lambda files: (
            files | {"trainer_state.json": files["trainer_state.json"].replace(b'"state"', b'"stat"')}
        ),
        "trainer_state.json: state is no JSON object",
    ),
    "optimiser of another step": (
        from_another_step("optimizer.safetensors"),
        "is of step 8, the weights are of step 7",
    ),
    "weights of another step": (from_another_step("model.safetensors"), "step is 7, the weights' is 8"),
    "a moment missing": (moments(lambda t: t.pop(f"v.{WTE}")), "'v.transformer.wte.weight' is missing"),
    "a moment too many": (
        moments(lambda t: t.update(tensor("m.extra", "F32", 1))),
        "'m.extra' is no part of",
    ),
    "a moment of another shape": (
        moments(lambda t: t.update(tensor(f"m.{WTE}", "F32", 4, 258))),
        "has shape [4, 258]",
    ),
    "damaged optimiser": (replaced("optimizer.safetensors", b""), "optimizer.safetensors has 0 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_checkpoints_are_one_clear_error(name: str) -> None:
    change, says = BAD[name]
    with pytest.raises(CheckpointError) as caught:
        checkpoint.from_files(change(ours()), Path("run/step-000007"), resume=True)
    message = str(caught.value)
    assert says in message
    assert message.startswith("run/step-000007")
    assert "\n" not in message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("model-00002-of-00003.safetensors"), "has no model-00002-of-00003.safetensors"),
        (replaced("model.safetensors.index.json", b"{}"), "has no weight_map"),
        (replaced("model.safetensors.index.json", b'{"weight_map": {"a": 1}}'), "has no weight_map"),
        (replaced("model.safetensors.index.json", b'{"weight_map": {"a": "../x"}}'), "has no ../x"),
        (
            lambda files: (
                files | {"model-00003-of-00003.safetensors": files["model-00001-of-00003.safetensors"]}
            ),
            "model-00003-of-00003.safetensors has tensor",
        ),
    ],
)
def test_bad_shards_are_one_clear_error(change: Callable[[Files], Files], says: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.from_files(change(files_of(FIXTURES / "sharded")))
    assert says in str(caught.value)


def test_refuses_to_save_parts_that_disagree(tmp_path: Path) -> None:
    good = save_faults.tensors(1)
    wider = ModelConfig(layers=1, width=8, heads=2, context=8, vocab=MODEL.vocab)
    smaller = ModelConfig(layers=1, width=4, heads=2, context=8, vocab=100)
    with pytest.raises(CheckpointError, match="the weights to save"):
        checkpoint.save(tmp_path, 1, model=wider, weights=good, tokenizer=TOKENIZER)
    with pytest.raises(CheckpointError, match="the optimiser state to save"):
        checkpoint.save(tmp_path, 1, model=MODEL, weights=good, tokenizer=TOKENIZER, optimizer=good)
    few = good | tensor(WTE, "F32", 100, 4)
    with pytest.raises(CheckpointError, match="the tokenizer to save has 258 tokens"):
        checkpoint.save(tmp_path, 1, model=smaller, weights=few, tokenizer=TOKENIZER)
    with pytest.raises(ConfigError, match="keep is 0"):
        save(tmp_path, 1, keep=0)
    assert list(tmp_path.iterdir()) == []
