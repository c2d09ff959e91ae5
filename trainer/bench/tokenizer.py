"""Timing the tokenizer: learning BPE, and encoding with it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

from trainer import corpus
from trainer.bench.records import Record, provenance
from trainer.provenance import machine
from trainer.tokenizer import Tokenizer

BPE_BYTES = 10_000_000
BPE_VOCAB = 8192


async def time_tokenizer(sources: list[str]) -> Record:
    """Training BPE on the first 10 MB of `sources`, 8,192 tokens, and encoding the same text."""
    texts = _first_bytes((d.text for d in await corpus.load(sources, on_event=lambda _: None)), BPE_BYTES)
    size = sum(len(text.encode()) for text in texts)
    began = time.perf_counter()
    tokenizer = Tokenizer.train(texts, BPE_VOCAB)
    trained = time.perf_counter()
    ids = tokenizer.encode_documents(texts)
    encoded = time.perf_counter()
    print(
        f"BPE {size / 1e6:.1f} MB, {tokenizer.vocab_size:,} tokens: trained in {trained - began:.1f} s, "
        f"encoded in {encoded - trained:.1f} s, {size / len(ids):.2f} bytes a token"
    )
    return {
        **provenance(machine(), f"Python {sys.version.split()[0]}"),
        "impl": "tabula",
        "workload": f"BPE {round(size / 1e6, 1)} MB {tokenizer.vocab_size}",
        "train_s": round(trained - began, 3),
        "encode_s": round(encoded - trained, 3),
        "bytes_per_token": round(size / len(ids), 4),
    }


def _first_bytes(texts: Iterable[str], most: int) -> list[str]:
    chosen: list[str] = []
    for text in texts:
        if most <= 0:
            break
        chosen.append(text[:most])
        most -= len(chosen[-1].encode())
    return chosen
