"""Tokens of a large corpus, made on all cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from array import array
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from trainer.events import Pacer, Reader
from trainer.provenance import cores
from trainer.tokenizer import Tokenizer

LEAST_CHARACTERS = 32 << 20  # of text, from which on more processes are worth their start
AT_ONCE = 8  # documents that a process is handed together


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str], on_event: Reader) -> array[int]:
    """What `tokenizer.encode_documents` gives and tells; of a large text, by as many processes as there are
    cores. What `on_event` raises ends the work.
    """
    total = sum(map(len, texts))
    if total < LEAST_CHARACTERS:
        return tokenizer.encode_documents(texts, on_event)
    progress = Pacer(on_event, "tokenize", "characters", total)
    ids, done = array("H"), 0
    # Spawned, because a fork takes along what the GPU's threads hold, but not the threads.
    pool = ProcessPoolExecutor(
        cores(),
        multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(tokenizer.to_json(),),
    )
    try:
        for text, encoded in zip(texts, pool.map(_encode, texts, chunksize=AT_ONCE), strict=True):
            ids.frombytes(encoded)
            done += len(text)
            progress(done, f"{len(ids):,} tokens")
    finally:
        pool.shutdown(cancel_futures=True)
    progress.last(done, f"{len(ids):,} tokens")
    return ids


# ---------------------------------------------------------------- in the other processes

_tokenizers: list[Tokenizer] = []


def _begin(tokenizer: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that hands out the work
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _tokenizers.append(Tokenizer.from_json(tokenizer))


def _end_with_parent() -> None:
    """A parent that was killed has told nobody: without it, the wait for work has no end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode(text: str) -> bytes:
    return _tokenizers[0].encode_documents([text]).tobytes()
