"""Timing the tokenizer: learning BPE, and encoding with it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import TypeVar

from trainer import corpus
from trainer.bench.records import Record, provenance
from trainer.provenance import machine
from trainer.tokenizer import Tokenizer

BPE_BYTES = 10_000_000
BPE_VOCAB = 8192
ROUNDS = 5  # of which the median counts

T = TypeVar("T")


async def time_tokenizer(sources: list[str]) -> Record:
    """Training BPE on the first 10 MB of `sources`, 8,192 tokens, and encoding the same text: medians of
    ROUNDS, so that what else the processor does counts little.
    """
    texts = _first_bytes((d.text for d in await corpus.load(sources, on_event=lambda _: None)), BPE_BYTES)
    train_s, tokenizer = _timed(lambda: Tokenizer.train(texts, BPE_VOCAB))
    encode_s, ids = _timed(lambda: tokenizer.encode_documents(texts))
    size = sum(len(text.encode()) for text in texts)
    print(
        f"BPE {size / 1e6:.1f} MB, {tokenizer.vocab_size:,} tokens: trained in {train_s:.2f} s, "
        f"encoded in {encode_s:.2f} s, {size / len(ids):.2f} bytes a token"
    )
    return {
        **provenance(machine(), f"Python {sys.version.split()[0]}"),
        "impl": "tabula",
        "workload": f"BPE {round(size / 1e6, 1)} MB {tokenizer.vocab_size}",
        "train_s": round(train_s, 3),
        "encode_s": round(encode_s, 3),
        "bytes_per_token": round(size / len(ids), 4),
    }


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds that `work` takes, and what it makes."""

    def once() -> tuple[float, T]:
        began = time.perf_counter()
        made = work()
        return time.perf_counter() - began, made

    seconds, made = zip(*(once() for _ in range(ROUNDS)), strict=True)
    return median(seconds), made[0]


def _first_bytes(texts: Iterable[str], most: int) -> list[str]:
    chosen: list[str] = []
    for text in texts:
        if most <= 0:
            break
        chosen.append(text[:most])
        most -= len(chosen[-1].encode())
    return chosen
