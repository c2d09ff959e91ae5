"""The page's text becomes tokens in small pieces: between any two, a message of the page can come in."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from demo import material
from demo.material import Material
from trainer.corpus import Document
from trainer.tokenizer import Tokenizer

WORDS = 20_000
NUMBERS = " ".join(map(str, range(WORDS)))  # all different; two chunks of text


@pytest.fixture(autouse=True)
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "YIELD_SECONDS", 0.0)


def pieces(work: Coroutine[Any, Any, Any]) -> tuple[int, Any]:
    """How often others had their turn while `work` was done, and its result."""

    async def count() -> tuple[int, Any]:
        turns = 0
        task = asyncio.create_task(work)
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        return turns, await task

    return asyncio.run(count())


def ignore(message: Any) -> None: ...


def test_counted_words_are_looked_at_a_few_at_a_time() -> None:
    turns, _ = pieces(material.train_tokenizer([NUMBERS], 257, ignore, ignore))
    assert turns > WORDS / material.WORDS


def test_tokens_are_counted_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "COUNTED", 1000)
    text = Material.of([Document("Numbers", NUMBERS, "text:Numbers")], [])
    text = replace(text, tokenizer=Tokenizer.from_merges([]))
    _, dataset = pieces(material.tokenize(text, ignore))
    turns, summary = pieces(replace(text, dataset=dataset).tokens_summary())
    assert turns >= len(dataset.train) // 1000
    counts = {Tokenizer.from_merges([]).decode([id]): n for id, n in Counter(dataset.train).items()}
    assert {entry["text"]: entry["count"] for entry in summary["frequent"]} == counts
