"""A checkpoint to hand on: half the size, in files that any static host takes, and no optimiser state.

    folder/config.json, tokenizer.json, tokenizer_config.json
           model.safetensors, or model-00001-of-00002.safetensors ... and model.safetensors.index.json

`transformers` loads such a folder, as do `checkpoint.load` and the page.
"""

from __future__ import annotations

import json

from trainer import checkpoint, safetensors
from trainer.checkpoint import WEIGHTS, WEIGHTS_INDEX, Checkpoint
from trainer.errors import CheckpointError
from trainer.safetensors import TensorData
from trainer.storage import Chunks

DTYPES = ("F16", "F32")
SHARD_BYTES = 16 << 20  # the largest file that every host of static sites takes is 25 MiB


def to_files(loaded: Checkpoint, dtype: str = "F16", shard_bytes: int = SHARD_BYTES) -> dict[str, Chunks]:
    """File name → chunks of bytes. Weights in `dtype` ("F16" rounds to the nearest), `shard_bytes` a file at
    most, of which each holds a tensor at least. Raises CheckpointError for a weight that F16 cannot hold.
    """
    files = checkpoint.to_files(loaded.step or 0, loaded.model, loaded.weights, loaded.tokenizer)
    del files[WEIGHTS]
    weights = loaded.weights if dtype == "F32" else {n: _halved(n, t) for n, t in loaded.weights.items()}
    shards = _shards(weights, shard_bytes)
    step = {} if loaded.step is None else {"step": str(loaded.step)}
    metadata = {"format": "pt", **step}
    if len(shards) == 1:
        files[WEIGHTS] = safetensors.serialize_chunks(weights, metadata)
        return files
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        files[name] = safetensors.serialize_chunks(shard, metadata)
        places.update(dict.fromkeys(shard, name))
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in weights.values()), **step},
        "weight_map": dict(sorted(places.items())),
    }
    files[WEIGHTS_INDEX] = [(json.dumps(index, indent=2) + "\n").encode()]
    return files


def _halved(name: str, tensor: TensorData) -> TensorData:
    try:
        return TensorData("F16", tensor.shape, safetensors.f32_to_f16(tensor.data))
    except OverflowError:
        raise CheckpointError(f"{name} holds a number too large for F16", "export it as F32") from None


def _shards(weights: dict[str, TensorData], shard_bytes: int) -> list[dict[str, TensorData]]:
    shards: list[dict[str, TensorData]] = [{}]
    size = 0
    for name, tensor in weights.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards
