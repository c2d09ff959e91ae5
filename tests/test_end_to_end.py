"""The whole way, as a user goes it: ten real books, a tokenizer, a model trained on the GPU (a software
renderer where there is no other), its evaluation, its writing.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest
from cli_tools import Result, losses, read_log, run
from safetensors import safe_open

from trainer import checkpoint, corpus
from trainer.checkpoint import parameter_shapes
from trainer.config import PRESETS
from trainer.report import Report, validate

FREQUENT = {"the", "and", "to", "a", "of", "in", "it", "was", "he", "she", "said", "that", "you", "his", "i"}


def test_ten_books_become_a_model_that_writes(tmp_path: Path) -> None:
    """`nano` as it is: 300 steps. One test, so that the model is trained once."""
    folder, path = tmp_path / "nano", tmp_path / "report.json"
    trained = run("train", "--preset", "nano", "--sources", "books", "--out", folder)
    assert (trained.code, trained.err) == (0, "")
    evaluated = run("eval", folder, "--out", path)
    assert (evaluated.code, evaluated.err) == (0, "")
    entropy = unigram_entropy(folder)
    check_validation_loss(folder, entropy)
    check_report(validate(json.loads(path.read_text(encoding="utf-8"))), entropy)
    check_samples(folder)
    check_checkpoint(folder)
    check_progress(folder, trained)


def unigram_entropy(folder: Path) -> float:
    """Nats a token that the best model without any context needs for the validation tokens."""
    tokenizer = checkpoint.load(folder).tokenizer
    assert tokenizer is not None
    _, validation = corpus.split(corpus.read_bundled())
    counts = Counter(tokenizer.encode_documents([document.text for document in validation]))
    total = counts.total()
    return -sum(count / total * math.log(count / total) for count in counts.values())


def check_validation_loss(folder: Path, entropy: float) -> None:
    """It falls below the unigram entropy."""
    validations = [event for event in read_log(folder) if event["event"] == "validation"]
    assert 5 < entropy < math.log(1024)  # what is to be beaten is no trifle
    assert validations[0]["loss"] == pytest.approx(math.log(1024), abs=0.1)
    assert validations[-1]["step"] == 300
    assert validations[-1]["loss"] < entropy - 0.2
    steps = losses(folder)
    assert set(steps) == set(range(1, 301))
    assert sum(list(steps.values())[-30:]) / 30 < entropy


def check_report(report: Report, entropy: float) -> None:
    """It is complete."""
    assert report.text is not None
    assert report.text.documents == len(corpus.split(corpus.read_bundled())[1])
    assert report.text.loss < entropy
    assert report.text.bits_per_byte < report.text.baselines.unigram_bits_per_byte
    assert report.text.perplexity == pytest.approx(math.exp(report.text.loss))
    assert report.model == PRESETS["nano"].model
    assert report.checkpoint.step == 300
    assert report.tokenizer.vocabulary == 1024
    assert report.seed == PRESETS["nano"].train.seed
    assert report.device["name"]
    assert re.fullmatch("[0-9a-f]{64}", report.checkpoint.sha256)


def check_samples(folder: Path) -> None:
    """They are text, and repeat with their seed."""
    flags = ("--prompt", "Once upon a time", "--tokens", "200", "--seed", "3")
    first, again = (run("sample", folder, *flags) for _ in range(2))
    assert (first.code, first.err) == (0, "")
    assert first == again
    text = first.out
    assert len(text) > 200
    assert "\ufffd" not in text
    assert sum(c.isalpha() or c.isspace() for c in text) > 0.8 * len(text)
    words = re.findall("[a-z]+", text.lower())
    assert len(words) > 30
    assert len(FREQUENT & set(words)) >= 5
    other = run("sample", folder, *flags[:-1], "4")
    assert other.out != text


def check_checkpoint(folder: Path) -> None:
    """It opens with the `safetensors` package."""
    loaded = checkpoint.load(folder)
    with safe_open(str(loaded.folder / "model.safetensors"), framework="numpy") as file:
        names = list(file.keys())
        shapes = {name: tuple(file.get_tensor(name).shape) for name in names}
        embedding = file.get_tensor("transformer.wte.weight")
    assert shapes == parameter_shapes(loaded.model)
    assert embedding.tobytes() == bytes(loaded.weights["transformer.wte.weight"].data)
    assert 0.02 < float(embedding.std()) < 1  # it has moved from where it began


def check_progress(folder: Path, result: Result) -> None:
    """What was printed says what mattered."""
    for line in ("parameters  108,864\n", "step 300/300  loss ", "step 300 writes: ", "finished at step 300"):
        assert line in result.out
    assert result.out.endswith(f"let it write: trainer sample {folder}\n")
