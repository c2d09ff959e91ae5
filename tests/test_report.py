"""The report of an evaluation: complete, readable back, and free of this machine's folders."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from evaluate_oracle import open_runtime, random_weights, tensors

from trainer import __version__, checkpoint, corpus, provenance, report
from trainer.benchmarks import blimp, lambada, read_blimp, read_lambada
from trainer.config import ModelConfig, SampleConfig, to_dict
from trainer.devices import Device
from trainer.errors import ConfigError, CorpusError
from trainer.evaluate import bits_per_byte
from trainer.tokenizer import Tokenizer

FIXTURES = Path(__file__).parent / "fixtures" / "evaluate"
TOKENIZER = Tokenizer.train(["the cat sat on the mat " * 5], vocab=262)
CONFIG = ModelConfig(layers=1, width=8, heads=2, context=16, vocab=262)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Checkpoint:
    run = tmp_path_factory.mktemp("secret") / "my-run"
    weights = tensors(random_weights(CONFIG))
    checkpoint.save(run, 300, model=CONFIG, weights=weights, tokenizer=TOKENIZER)
    return checkpoint.load(run)


@pytest.fixture(scope="module")
def data(saved: checkpoint.Checkpoint, reference32: Device) -> dict[str, Any]:
    """A whole report, as its reader finds it."""
    runtime = open_runtime(reference32, CONFIG, random_weights(CONFIG), batch=8)
    text = "the mat sat on the cat, naïvely"
    made = report.make(
        saved,
        TOKENIZER,
        reference32.info,
        seconds=12.3456,
        data=[
            *report.file_facts(FIXTURES / "lambada.jsonl"),
            *report.file_facts(FIXTURES / "blimp"),
            report.document_facts("books", [corpus.Document("t", text, "here")]),
        ],
        text=asyncio.run(bits_per_byte(runtime, TOKENIZER, [text])),
        lambada=asyncio.run(lambada(runtime, TOKENIZER, read_lambada(FIXTURES / "lambada.jsonl"), limit=4)),
        blimp=asyncio.run(blimp(runtime, TOKENIZER, read_blimp(FIXTURES / "blimp"), limit=2)),
        seed=1337,
        sampling=SampleConfig(),
    )
    return json.loads(made.to_json())


def test_the_report_says_what_was_evaluated(data: dict[str, Any], saved: checkpoint.Checkpoint) -> None:
    assert data["format"] == report.FORMAT
    assert data["trainer"] == __version__
    assert data["seconds"] == 12.346
    assert abs(datetime.now(UTC) - datetime.fromisoformat(data["date"])) < timedelta(minutes=10)
    assert data["date"].endswith("+00:00")
    weights = hashlib.sha256((saved.folder / "model.safetensors").read_bytes()).hexdigest()
    assert data["checkpoint"] == {"path": "my-run/step-000300", "step": 300, "sha256": weights}
    tokenizer = hashlib.sha256((saved.folder / "tokenizer.json").read_bytes()).hexdigest()
    assert data["tokenizer"] == {"vocabulary": 262, "sha256": tokenizer}
    assert data["model"] == to_dict(CONFIG)
    assert data["parameters"] == CONFIG.parameters
    assert data["device"]["backend"] == "numpy"
    assert data["seed"] == 1337
    assert data["sampling"] == to_dict(SampleConfig())
    assert data["lambada"]["limit"] == 4
    assert len(data["blimp"]["paradigms"]) == 2
    assert data["text"]["baselines"]["zlib_bits_per_byte"] > 0


def test_data_files_are_named_and_hashed(data: dict[str, Any]) -> None:
    files = [FIXTURES / "lambada.jsonl", *sorted((FIXTURES / "blimp").glob("*.jsonl"))]
    expected = [
        {
            "name": f"{file.parent.name}/{file.name}",
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in files
    ]
    assert data["data"][:-1] == expected
    text = "the mat sat on the cat, naïvely"
    total = hashlib.sha256(hashlib.sha256(text.encode()).digest()).hexdigest()
    assert data["data"][-1] == {"name": "books", "bytes": len(text.encode()), "sha256": total}
    with pytest.raises(CorpusError, match=r"nothing\.txt cannot be read"):
        report.file_facts("nothing.txt")


def test_no_folder_of_this_machine_is_in_it(data: dict[str, Any], saved: checkpoint.Checkpoint) -> None:
    text = json.dumps(data)
    assert str(saved.folder.parent.parent) not in text
    assert str(FIXTURES.parent) not in text
    assert report.shown("runs/nano") == "runs/nano"
    assert report.shown("/home/me/runs/nano/step-000300") == "nano/step-000300"
    assert report.shown("../x/../nano") == "../x/../nano"
    assert report.shown("/nano") == "/nano"


def test_a_report_is_read_back_equal(data: dict[str, Any]) -> None:
    assert json.loads(report.validate(data).to_json()) == data
    empty = {**data, "text": None, "lambada": None, "blimp": None, "sampling": None, "commit": None}
    assert json.loads(report.validate(empty).to_json()) == empty


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if items is None:
        return [path]
    return [leaf for key, item in items for leaf in _leaves(item, (*path, key))]


def test_a_wrong_value_anywhere_is_named(data: dict[str, Any]) -> None:
    leaves = _leaves(data)
    assert len(leaves) > 60
    for path in leaves:
        broken = copy.deepcopy(data)
        at = broken
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = ["wrong"]
        with pytest.raises(ConfigError) as caught:
            report.validate(broken)
        assert str(path[-1]) in str(caught.value), path


def test_what_is_no_report_is_refused(data: dict[str, Any]) -> None:
    incomplete = {name: value for name, value in data.items() if name != "device"}
    extra = copy.deepcopy(data)
    extra["text"]["more"] = 1
    impossible = copy.deepcopy(data)
    impossible["model"]["heads"] = 3
    not_finite = copy.deepcopy(data)
    not_finite["text"]["loss"] = float("nan")
    for broken, message in (
        ([], "format is 'list', not 1"),
        ({"format": 99}, "format is 99, not 1: evaluate again"),
        (incomplete, "report has no field 'device'"),
        (extra, r"report\.text has an unknown field 'more'"),
        (impossible, "not a multiple of heads 3"),
        (not_finite, r"report\.text\.loss is 'nan', not float"),
    ):
        with pytest.raises(ConfigError, match=message):
            report.validate(broken)


def test_the_commit_is_the_checkout_s_own(
    data: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = provenance.commit()
    if (Path(provenance.__file__).parent.parent / ".git").exists():
        assert found is not None
        assert re.fullmatch(r"[0-9a-f]{40,64}(-dirty)?", found)
    else:
        assert found is None
    assert (data["commit"] is None) == (found is None)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "site-packages" / "trainer" / "provenance.py"))
    assert provenance.commit() is None


def test_weights_of_another_program_have_a_hash_too(saved: checkpoint.Checkpoint) -> None:
    other = checkpoint.Checkpoint(saved.folder, None, CONFIG, saved.weights, TOKENIZER, None, None)
    first, second = report.weights_sha256(saved), report.weights_sha256(other)
    assert re.fullmatch("[0-9a-f]{64}", second)
    assert first != second  # the trainer's own file says its step
