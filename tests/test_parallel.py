"""Tokens made by several processes are those that one makes, in the same order."""

from __future__ import annotations

import pytest
from cli_tools import start, wait_for

from trainer.cli import parallel
from trainer.corpus import read_bundled
from trainer.events import Event, Progress
from trainer.tokenizer import Tokenizer

TEXTS = [book.text[:20_000] for book in read_bundled()] * 3
TOKENIZER = Tokenizer.train(TEXTS[:10], 400)


def test_several_processes_give_the_tokens_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Event] = []
    monkeypatch.setattr(parallel, "LEAST_CHARACTERS", 0)
    ids = parallel.encode_documents(TOKENIZER, TEXTS, heard.append)
    assert ids == TOKENIZER.encode_documents(TEXTS)
    last = heard[-1]
    assert isinstance(last, Progress)
    assert last.done == last.total == sum(map(len, TEXTS))
    assert last.detail == f"{len(ids):,} tokens"


def test_what_the_reader_raises_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parallel, "LEAST_CHARACTERS", 0)
    with pytest.raises(KeyboardInterrupt):
        parallel.encode_documents(TOKENIZER, TEXTS, interrupt)


KILLED = """
import signal, sys
from trainer.cli import parallel
from trainer.tokenizer import Tokenizer
def wait(event):
    print("at work", flush=True)
    signal.pause()
parallel.LEAST_CHARACTERS = 0
parallel.encode_documents(Tokenizer.train(["a tale of tales"], 257), ["a tale"] * 100, wait)
"""


def test_processes_end_with_one_that_is_killed() -> None:
    """They hold its stdout, which ends with the last of them."""
    process = start(program=["-c", KILLED])
    wait_for(process, "at work")
    process.kill()
    process.communicate(timeout=30)
    assert process.returncode < 0


def test_a_small_text_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", None)
    assert parallel.encode_documents(TOKENIZER, ["a tale"], print) == TOKENIZER.encode_documents(["a tale"])
