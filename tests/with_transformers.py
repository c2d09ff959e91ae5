"""A model trained here, loaded by `transformers`: run by `make oracles`, as `make test` has no PyTorch."""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
import torch
from documents import TRANSFORMERS, blocks
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer import checkpoint
from trainer.cli import main
from trainer.devices import open_device
from trainer.model import build
from trainer.runtime import Runtime

TEXT = "The sea was calm, and the old ship came home with the wind.\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a short run; it is runs/mine from the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text(TEXT * 100)
    command = "train --sources story.txt --out runs/mine --vocab 280 --steps 20 --warmup 1 --eval-batches 1"
    assert main(command.split()) == 0
    return Path("runs/mine")


def test_the_readme_loads_and_samples(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = (block for block in blocks("README.md", "python") if TRANSFORMERS in block)
    exec(snippet, {})
    (prompt,) = re.findall(r'tokenizer\("([^"]+)"', snippet)
    assert prompt in capsys.readouterr().out


def test_losses_and_tokens_agree(run: Path) -> None:
    ours = checkpoint.load(run)
    assert ours.tokenizer is not None
    ids = [ours.tokenizer.end_of_text, *ours.tokenizer.encode(TEXT)][: ours.model.context + 1]

    tokenizer = AutoTokenizer.from_pretrained(ours.folder)
    assert tokenizer(f"<|endoftext|>{TEXT}")["input_ids"][: len(ids)] == ids
    model = AutoModelForCausalLM.from_pretrained(ours.folder).eval()
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]])).logits[0]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")

    async def losses() -> list[float]:
        device = await open_device()
        runtime = await Runtime.open(device, build(ours.model, evaluation_batch=1, tuning=device.info.tuning))
        await runtime.load(ours.weights)
        return (await runtime.losses([(ids[:-1], ids[1:])]))[0]

    assert max(abs(a - b) for a, b in zip(asyncio.run(losses()), expected.tolist(), strict=True)) < 1e-4
