"""The report of an evaluation: one JSON object with the scores and all that made them.

    report = make(checkpoint, tokenizer, device.info, text=score, data=[file_facts(path)], seconds=12.3)
    report.to_json()

`validate` reads one back, and refuses what is not a whole report.
"""

from __future__ import annotations

import hashlib
import json
import math
import types
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from trainer import __version__, checkpoint, corpus, safetensors
from trainer.benchmarks import BlimpScore, LambadaScore
from trainer.checkpoint import Checkpoint
from trainer.config import ModelConfig, SampleConfig
from trainer.devices import DeviceInfo
from trainer.errors import ConfigError, CorpusError
from trainer.evaluate import TextScore
from trainer.gpt2_format import parameter_shapes
from trainer.provenance import commit
from trainer.tokenizer import Tokenizer

FORMAT = 1  # raised when a field changes its meaning


@dataclass(frozen=True)
class TokenizerFacts:
    """Which tokenizer it was."""

    vocabulary: int
    sha256: str  # of its tokenizer.json


@dataclass(frozen=True)
class CheckpointFacts:
    """Which weights they were."""

    path: str  # as the user gave it; of an absolute path the last two names
    step: int | None  # None where another program made them
    sha256: str  # of model.safetensors as `checkpoint.save` writes these weights


@dataclass(frozen=True)
class DataFacts:
    """Which data it was: a file, or a source whose documents were cleaned."""

    name: str  # as the user gave it; of an absolute path the last two names
    bytes: int
    sha256: str  # of the file; of documents, `corpus.fingerprint`


@dataclass(frozen=True)
class Report:
    """An evaluation. A score that was not asked for is None."""

    format: int
    trainer: str  # version
    commit: str | None  # of the trainer's checkout, "-dirty" with changes; None outside one
    date: str  # UTC, ISO 8601
    seconds: float  # that the scores took
    checkpoint: CheckpointFacts
    model: ModelConfig
    parameters: int
    tokenizer: TokenizerFacts
    device: dict[str, str | bool]  # DeviceInfo.summary()
    seed: int | None  # of the run that made the weights, where it is known
    sampling: SampleConfig | None  # where text was generated
    text: TextScore | None
    lambada: LambadaScore | None
    blimp: BlimpScore | None
    data: list[DataFacts]

    def to_json(self) -> str:
        """This report as JSON text."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def make(
    weights: Checkpoint,
    tokenizer: Tokenizer,
    device: DeviceInfo,
    *,
    seconds: float,
    data: Sequence[DataFacts],
    text: TextScore | None = None,
    lambada: LambadaScore | None = None,
    blimp: BlimpScore | None = None,
    seed: int | None = None,
    sampling: SampleConfig | None = None,
) -> Report:
    """The report of scores that took `device` so many `seconds`. Hashes the weights, asks git."""
    return Report(
        format=FORMAT,
        trainer=__version__,
        commit=commit(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        checkpoint=CheckpointFacts(shown(weights.folder), weights.step, weights_sha256(weights)),
        model=weights.model,
        parameters=sum(math.prod(shape) for shape in parameter_shapes(weights.model).values()),
        tokenizer=TokenizerFacts(
            tokenizer.vocab_size, hashlib.sha256(tokenizer.to_json().encode()).hexdigest()
        ),
        device=device.summary(),
        seed=seed,
        sampling=sampling,
        text=text,
        lambada=lambada,
        blimp=blimp,
        data=list(data),
    )


def shown(path: Path | str) -> str:
    """A path as a report says it: no other machine has this one's folders.

    >>> shown("runs/nano"), shown("/home/me/runs/nano/step-000300")
    ('runs/nano', 'nano/step-000300')
    """
    path = Path(path)
    return (
        Path(*path.parts[-2:]).as_posix() if len(path.parts) > 2 and path.is_absolute() else path.as_posix()
    )


def weights_sha256(weights: Checkpoint) -> str:
    """Of model.safetensors as `checkpoint.save` writes these weights, 64 hexadecimal digits."""
    if weights.step is None:  # another program's, perhaps in several files or in 16 bits
        chunks = safetensors.serialize_chunks(weights.weights, {"format": "pt"})
    else:
        chunks = checkpoint.to_files(weights.step, weights.model, weights.weights)[checkpoint.WEIGHTS]
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def file_facts(path: Path | str) -> list[DataFacts]:
    """The facts of a data file, or of each JSONL file in a folder. Raises CorpusError."""
    path = Path(path)
    files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
    facts = []
    for file in files:
        try:
            with file.open("rb") as body:
                digest = hashlib.file_digest(body, "sha256").hexdigest()
                facts.append(DataFacts(shown(file), body.tell(), digest))
        except OSError as error:
            raise CorpusError(
                f"{file} cannot be read ({error.strerror or error})", "check the path"
            ) from error
    return facts


def document_facts(name: str, documents: Sequence[corpus.Document]) -> DataFacts:
    """The facts of the documents of a source."""
    size = sum(len(document.text.encode()) for document in documents)
    return DataFacts(shown(name), size, corpus.fingerprint(documents))


# -------------------------------------------------------------------- reading one back


def validate(data: Any) -> Report:
    """The report that JSON `data` holds. Raises ConfigError for anything but a whole one of this format."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise ConfigError(
            f"the report's format is {found!r}, not {FORMAT}", "evaluate again with this trainer"
        )
    return _parse(Report, data, "report")


def _parse(kind: Any, value: Any, where: str) -> Any:
    """`value` as a `kind`: a dataclass, a union, a list, a dict of str, or a plain type."""
    arguments = get_args(kind)
    if is_dataclass(kind) and isinstance(value, dict):
        return _parse_fields(kind, value, where)
    if get_origin(kind) is list and isinstance(value, list):
        return [_parse(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if get_origin(kind) is dict and isinstance(value, dict):
        return {key: _parse(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if get_origin(kind) is types.UnionType:
        for option in arguments:
            if option is type(value) or (value is not None and is_dataclass(option)):
                return _parse(option, value, where)
    if kind is float and type(value) is not bool and isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    if kind is not float and type(value) is kind:
        return value
    raise ConfigError(
        f"{where} is {str(value)[:80]!r}, not {getattr(kind, '__name__', kind)}", "was it edited by hand?"
    )


def _parse_fields(kind: Any, value: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    names = {f.name for f in fields(kind)}
    wrong = sorted(names ^ set(value))
    if wrong:
        has = "no" if wrong[0] in names else "an unknown"
        raise ConfigError(f"{where} has {has} field {wrong[0]!r}", "was it written by another version?")
    return kind(**{name: _parse(hints[name], value[name], f"{where}.{name}") for name in names})
