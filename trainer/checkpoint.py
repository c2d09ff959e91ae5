"""Checkpoints: folders in the ecosystem's own format, written as a set.

    run/latest                       the name of the newest checkpoint
    run/log.jsonl                    the run's events (cli/run_folder.py)
    run/step-000300/config.json      what `transformers` needs: GPT2LMHeadModel
                    model.safetensors
                    tokenizer.json, tokenizer_config.json
                    trainer_state.json, optimizer.safetensors    what resuming needs besides

A new checkpoint is a new folder that appears under its name when it is whole; then `latest` flips to it;
then old ones go. A reader never sees new weights beside an old optimiser state.

`to_files` and `from_files` are the format, over bytes: the page keeps the same files in browser storage.
`save` and `load` put them on a disk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

from trainer import gpt2_format, safetensors, storage
from trainer.config import ModelConfig, to_dict
from trainer.errors import CheckpointError, ConfigError, TokenizerError
from trainer.gpt2_format import parameter_shapes, parameters
from trainer.safetensors import Buffer, TensorData

if TYPE_CHECKING:
    from trainer.tokenizer import Tokenizer

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
STATE = "trainer_state.json"
OPTIMIZER = "optimizer.safetensors"
LATEST = "latest"
LOG = "log.jsonl"

MOMENTS = ("m", "v")  # AdamW's running means of the gradient and of its square
STEP = re.compile(r"[0-9]{1,15}")
FOLDER_NAME = re.compile(r"step-\d{6,}(-\d+)?")


@dataclass(frozen=True)
class Checkpoint:
    """A model, and what it takes to go on training it."""

    folder: Path
    step: int | None  # steps trained; None where another program wrote the weights
    model: ModelConfig
    weights: dict[str, TensorData]  # F32; names, shapes and order of parameter_shapes(model)
    tokenizer: Tokenizer | None
    state: dict[str, Any] | None  # the trainer's own JSON data: None unless loaded to resume
    optimizer: dict[str, TensorData] | None  # F32, `m.<weight>` and `v.<weight>`; None unless resuming


def to_files(
    step: int,
    model: ModelConfig,
    weights: Mapping[str, TensorData],
    tokenizer: Tokenizer | None = None,
    state: Mapping[str, Any] | None = None,
    optimizer: Mapping[str, TensorData] | None = None,
) -> dict[str, storage.Chunks]:
    """A checkpoint as file name → chunks of bytes, to iterate over once; the tensors are not copied.

    `state` is any JSON data. Raises CheckpointError where the parts disagree.
    """
    _check_tensors(weights, parameters(model), "the weights to save", dtypes=("F32",))
    _check_vocab(tokenizer, model, "the tokenizer to save")
    step_metadata = {"format": "pt", "step": str(step)}  # transformers wants to read whose format it is
    end_of_text = None if tokenizer is None else tokenizer.end_of_text
    files: dict[str, storage.Chunks] = {
        CONFIG: [_json(gpt2_format.config_from_model(model, end_of_text))],
        WEIGHTS: safetensors.serialize_chunks(weights, step_metadata),
    }
    if tokenizer is not None:
        files[TOKENIZER] = [tokenizer.to_json().encode()]
        files[TOKENIZER_CONFIG] = [_json(gpt2_format.tokenizer_config(model))]
    if state is not None:
        files[STATE] = [_json({"step": step, "model": to_dict(model), "state": dict(state)})]
    if optimizer is not None:
        _check_tensors(optimizer, _moments(model), "the optimiser state to save", dtypes=("F32",))
        files[OPTIMIZER] = safetensors.serialize_chunks(optimizer, step_metadata)
    return files


def from_files(
    files: Mapping[str, Buffer], folder: Path = Path("checkpoint"), *, resume: bool = False
) -> Checkpoint:
    """The checkpoint that `files` (name → bytes) hold; `folder` names it in errors.

    With `resume`, the trainer's state and the optimiser's are required and read; else they are left alone.
    A checkpoint made elsewhere may be sharded, leave out the `transformer.` of the names, and hold causal
    masks, a head equal to the embedding, and F16 or BF16 (converted to F32).
    Raises CheckpointError for what is missing, unsupported or disagrees.
    """
    tensors, metadata = _read_weights(files, folder)
    config = _required(files, folder, CONFIG, "it says what model the weights are of: copy it too")
    model = gpt2_format.model_from_config(_read_json(config, folder / CONFIG), folder / CONFIG)
    weights = gpt2_format.canonical(tensors, folder / WEIGHTS)
    _check_tensors(weights, parameters(model), folder / WEIGHTS, dtypes=("F32", "F16", "BF16"))
    weights = {name: safetensors.to_f32(weights[name]) for name in parameter_shapes(model)}
    tokenizer = _read_tokenizer(files, folder)
    _check_vocab(tokenizer, model, folder / TOKENIZER)
    step = int(metadata["step"]) if STEP.fullmatch(metadata.get("step", "")) else None
    state = optimizer = None
    if resume:
        state = _read_state(files, folder, step, model)
        optimizer = _read_optimizer(files, folder, step, model)
    return Checkpoint(folder, step, model, weights, tokenizer, state, optimizer)


def save(
    run: Path,
    step: int,
    *,
    model: ModelConfig,
    weights: Mapping[str, TensorData],
    tokenizer: Tokenizer | None,
    state: Mapping[str, Any] | None = None,
    optimizer: Mapping[str, TensorData] | None = None,
    keep: int = 2,
) -> Path:
    """Write a checkpoint into the run folder `run`, make it the latest and return its folder.

    Of the others, the `keep` - 1 that were written last stay. Raises CheckpointError where the parts
    disagree, StorageError where the disk refuses; the checkpoint before is the latest then.
    """
    if keep < 1:
        raise ConfigError(f"keep is {keep}", "keep at least 1 checkpoint")
    files = to_files(step, model, weights, tokenizer, state, optimizer)
    with storage.storage_errors(run):
        run.mkdir(parents=True, exist_ok=True)
        with storage.locked(run):
            storage.remove_leftovers(run)
            folder = _free_folder(run, step)
            storage.write_folder(folder, files)
            storage.write_file(run / LATEST, [f"{folder.name}\n".encode()])
            _remove_old(run, folder, keep)
    return folder


def load(path: str | Path, *, resume: bool = False) -> Checkpoint:
    """The checkpoint in the folder `path`, or the latest one of the run folder `path`. See `from_files`."""
    folder = find(Path(path))
    try:
        files = {
            file.name: storage.map_file(file)
            for file in folder.iterdir()
            if file.suffix in (".json", ".safetensors") and file.is_file()
        }
    except OSError as error:
        raise CheckpointError(
            f"cannot read {error.filename or folder} ({error.strerror})", "check its permissions"
        ) from error
    return from_files(files, folder, resume=resume)


def find(path: Path) -> Path:
    """`path` itself, or the folder that its `latest` names. Raises CheckpointError."""
    if not path.is_dir():
        if path.exists():
            raise CheckpointError(f"{path} is a file", f"give the folder that holds it: {path.parent}")
        raise CheckpointError(f"there is no folder {path}", "give a run folder or a checkpoint's folder")
    pointer = path / LATEST
    if not pointer.is_file():
        if (path / LOG).is_file() and not ((path / WEIGHTS).exists() or (path / WEIGHTS_INDEX).exists()):
            raise CheckpointError(f"the run in {path} saved no checkpoint", "begin it anew with --overwrite")
        return path
    name = pointer.read_bytes().decode(errors="replace").strip()
    if not FOLDER_NAME.fullmatch(name) or not (path / name).is_dir():
        raise CheckpointError(
            f"{pointer} names {name[:80]!r}, which is no checkpoint there",
            f"give one of the folders in {path}",
        )
    return path / name


def _moments(model: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    return ((f"{moment}.{name}", shape) for moment in MOMENTS for name, shape in parameters(model))


def _check_tensors(
    tensors: Mapping[str, TensorData],
    expected: Iterable[tuple[str, tuple[int, ...]]],
    where: str | Path,
    dtypes: tuple[str, ...],
) -> None:
    """Raise CheckpointError unless `tensors` are the `expected` ones, of one of `dtypes`."""
    known = set()
    for name, shape in expected:
        if name not in tensors:
            raise CheckpointError(
                f"{where}: tensor {name!r} is missing", f"does {CONFIG} belong to these weights?"
            )
        tensor = tensors[name]
        if tensor.shape != shape:
            raise CheckpointError(
                f"{where}: tensor {name!r} has shape {list(tensor.shape)} instead of {list(shape)}",
                f"does {CONFIG} belong to these weights?",
            )
        if tensor.dtype not in dtypes:
            raise CheckpointError(
                f"{where}: tensor {name!r} is {tensor.dtype}", f"convert it to {' or '.join(dtypes)}"
            )
        known.add(name)
    extra = tensors.keys() - known
    if extra:
        raise CheckpointError(
            f"{where}: tensor {min(extra)!r} is no part of this model",
            f"does {CONFIG} belong to these weights?",
        )


def _check_vocab(tokenizer: Tokenizer | None, model: ModelConfig, where: str | Path) -> None:
    if tokenizer is not None and tokenizer.vocab_size != model.vocab:
        raise CheckpointError(
            f"{where} has {tokenizer.vocab_size} tokens, the model's vocabulary {model.vocab}",
            "use the tokenizer that the model was trained with",
        )


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _required(files: Mapping[str, Buffer], folder: Path, name: str, remedy: str) -> Buffer:
    if name not in files:
        raise CheckpointError(f"{folder} has no {name}", remedy)
    return files[name]


def _read_json(data: Buffer, where: Path) -> dict[str, Any]:
    try:
        value = json.loads(str(data, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is not JSON ({error})", "copy or download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} is not a JSON object", "copy or download it again")
    return value


def _read_weights(files: Mapping[str, Buffer], folder: Path) -> tuple[dict[str, TensorData], dict[str, str]]:
    """Tensors of model.safetensors, or of the shards that the index lists, and the former's metadata."""
    if WEIGHTS in files or WEIGHTS_INDEX not in files:
        remedy = "give a run folder, or a model folder with config.json and safetensors weights"
        return safetensors.parse(_required(files, folder, WEIGHTS, remedy), folder / WEIGHTS)
    where = folder / WEIGHTS_INDEX
    shard_of = _read_json(files[WEIGHTS_INDEX], where).get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        raise CheckpointError(f"{where} has no weight_map from tensors to files", "copy or download it again")
    tensors: dict[str, TensorData] = {}
    for shard in sorted(set(shard_of.values())):
        data = _required(files, folder, shard, f"{WEIGHTS_INDEX} lists it: copy or download it too")
        for name, tensor in safetensors.parse(data, folder / shard)[0].items():
            if shard_of.get(name) != shard:
                raise CheckpointError(
                    f"{folder / shard} has tensor {name!r}, which {WEIGHTS_INDEX} places in "
                    f"{shard_of.get(name)!r}",
                    "copy or download the whole folder again",
                )
            tensors[name] = tensor
    return tensors, {}


def _read_tokenizer(files: Mapping[str, Buffer], folder: Path) -> Tokenizer | None:
    if TOKENIZER not in files:
        return None
    from trainer.tokenizer import Tokenizer

    where = folder / TOKENIZER
    try:
        return Tokenizer.from_json(str(files[TOKENIZER], "utf-8"), str(where))
    except TokenizerError as error:
        # Of a damaged file it is the damage that is told, not what a tokenizer would have been.
        _read_json(files[TOKENIZER], where)
        raise CheckpointError(error.problem, error.remedy) from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{where} is not UTF-8 ({error})", "copy or download it again") from error


def _read_state(
    files: Mapping[str, Buffer], folder: Path, step: int | None, model: ModelConfig
) -> dict[str, Any]:
    where = folder / STATE
    remedy = "without it training cannot be resumed: start a new run from these weights"
    data = _read_json(_required(files, folder, STATE, remedy), where)
    for name, expected in (("step", step), ("model", to_dict(model))):
        if data.get(name) != expected:
            raise CheckpointError(
                f"{where}: {name} is {data.get(name)!r}, the weights' is {expected!r}",
                "the files are of different checkpoints: copy one checkpoint whole",
            )
    if not isinstance(data.get("state"), dict):
        raise CheckpointError(f"{where}: state is no JSON object", "copy the checkpoint again")
    _check_state(data["state"], where)
    return data["state"]


def _check_state(state: dict[str, Any], where: Path) -> None:
    """Raise CheckpointError unless a run can go on with `state`; the values of `train` are TrainConfig's to
    check. What stands in `loss_scale` and after it is not in every run's state.
    """

    def u32(value: Any) -> bool:
        return type(value) is int and 0 <= value < 2**32

    def number(value: Any) -> bool:
        return type(value) in (int, float) and 0 <= value < 2**128

    def text(value: Any) -> bool:
        return isinstance(value, str)

    def listed(values: Any, check: Callable[[Any], bool], size: int | None = None) -> bool:
        return isinstance(values, list) and all(map(check, values)) and size in (None, len(values))

    def named(value: Any) -> dict[str, Any]:
        return value if isinstance(value, dict) else {}

    tuning, source = named(state.get("tuning")), named(state.get("text"))
    good = {
        "counters": listed(state.get("counters"), u32, 4),
        "seconds": number(state.get("seconds")),
        "train": isinstance(state.get("train"), dict),
        "loss_scale": listed(state.get("loss_scale"), number, 1),
        "streak": listed(state.get("streak"), u32, 1),
        "tuning": isinstance(tuning.get("device"), dict)
        and isinstance(tuning.get("answers"), dict)
        and all(map(text, tuning["answers"].values())),
        "text": listed(source.get("sources"), text) and number(source.get("validation_share")),
    }
    optional = ("loss_scale", "streak", "tuning", "text")
    for name, whole in good.items():
        if not whole and (name in state or name not in optional):
            raise CheckpointError(f"{where}: {name} is {short(state.get(name))}", "copy the checkpoint again")


def _read_optimizer(
    files: Mapping[str, Buffer], folder: Path, step: int | None, model: ModelConfig
) -> dict[str, TensorData]:
    where = folder / OPTIMIZER
    remedy = "without it training cannot be resumed: start a new run from these weights"
    tensors, metadata = safetensors.parse(_required(files, folder, OPTIMIZER, remedy), where)
    if metadata.get("step") != str(step):
        raise CheckpointError(
            f"{where} is of step {metadata.get('step')}, the weights are of step {step}",
            "the files are of different checkpoints: copy one checkpoint whole",
        )
    _check_tensors(tensors, _moments(model), where, dtypes=("F32",))
    return tensors


def _free_folder(run: Path, step: int) -> Path:
    """`run`/step-000300, with a number after it where a run that was resumed earlier comes by again."""
    plain = run / f"step-{step:06d}"
    names = chain([plain], (plain.with_name(f"{plain.name}-{number}") for number in count(2)))
    return next(folder for folder in names if not folder.exists())


def _remove_old(run: Path, latest: Path, keep: int) -> None:
    """Keep `latest` and the `keep` - 1 checkpoints that were written last before it."""
    others = [folder for folder in run.iterdir() if FOLDER_NAME.fullmatch(folder.name) and folder != latest]
    others.sort(key=lambda folder: (folder.stat().st_mtime_ns, folder.name), reverse=True)
    for folder in others[keep - 1 :]:
        storage.remove_folder(folder)
