"""Text that a model writes: the pieces of it that are shown, and the log that keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from trainer import generate
from trainer.cli.run_folder import LOG, Log, lines_until
from trainer.config import SampleConfig
from trainer.events import Sample, Step
from trainer.runtime import Runtime
from trainer.tokenizer import Tokenizer


class Counting:
    """A tokenizer of bytes that counts what it decodes."""

    end_of_text = 256
    decoded = 0

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def token_bytes(self, id: int) -> bytes:
        self.decoded += 1
        return bytes([id])

    def decode(self, ids: list[int]) -> str:
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")


def pieces(written: bytes, tokenizer: Counting, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is shown of a model that writes these bytes, a token each."""

    async def tokens(*_: Any) -> AsyncIterator[generate.Token]:
        for id in [*written, tokenizer.end_of_text, *b"never"]:
            yield generate.Token(id, 1.0)

    async def streamed() -> list[str]:
        runtime, cast_tokenizer = cast(Runtime, None), cast(Tokenizer, tokenizer)
        texts = generate.stream_text(runtime, cast_tokenizer, "", SampleConfig())
        return [piece async for piece in texts]

    monkeypatch.setattr(generate, "generate", tokens)
    return asyncio.run(streamed())


def test_text_is_shown_a_character_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pieces("a🦆é!".encode(), Counting(), monkeypatch) == ["a", "🦆", "é", "!"]
    assert pieces("a🦆".encode()[:-1], Counting(), monkeypatch) == ["a", "\ufffd"]
    random = np.random.default_rng(3)
    for _ in range(50):  # most of it no UTF-8
        written = random.choice(np.frombuffer("a🦆é\ufffd\n".encode(), np.uint8), 40).tobytes()
        assert "".join(pieces(written, Counting(), monkeypatch)) == written.decode(errors="replace")


def test_each_token_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Counting()
    pieces(b"word " * 20, tokenizer, monkeypatch)
    assert tokenizer.decoded == 100


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0c", "\r"])
def test_a_log_goes_on_behind_any_text(end: str, tmp_path: Path) -> None:
    """JSON leaves these as they are, and Python takes them for ends of lines."""
    log = Log(tmp_path, 0)
    log(Sample(10, "", f"one{end}two"))
    log(Step(20, 1.0, 1e-3, 1.0, False, 1, 1.0))
    log.close()
    before = (tmp_path / LOG).read_bytes()
    assert len(list(lines_until(tmp_path / LOG, 1000))) == 2
    Log(tmp_path, 20).close()  # a run that goes on
    assert (tmp_path / LOG).read_bytes() == before
