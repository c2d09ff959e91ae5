"""How well a model predicts text: loss, perplexity and bits per byte of whole documents, and baselines.

score = await bits_per_byte(runtime, tokenizer, [document.text for document in validation])
score.bits_per_byte  ->  1.93

The benchmarks are in `benchmarks.py`, the report of an evaluation in `report.py`. All of it needs a runtime
whose model was built with `evaluation_batch`, and runs in the page too. It lets other tasks run between two
batches: cancel the task, or raise from `on_event`, to end it.
"""

from __future__ import annotations

import asyncio
import math
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from trainer.errors import CheckpointError, ConfigError, CorpusError
from trainer.events import Pacer, Reader
from trainer.runtime import Runtime
from trainer.tokenizer import Tokenizer

LARGEST_LOSS = 700.0  # nats whose exponential is still a number
EVALUATED = "the evaluated text"
GIVEN = "the training text, add-one smoothed"

Key = TypeVar("Key")


@dataclass(frozen=True)
class Baselines:
    """What the same text costs without a neural network."""

    uniform_loss: float  # nats a token: ln V
    uniform_bits_per_byte: float
    unigram_loss: float  # nats a token
    unigram_bits_per_byte: float
    unigram_counts: str  # where the token counts come from: EVALUATED or GIVEN
    zlib_bits_per_byte: float  # zlib at level 9, each document by itself, as the model reads them


@dataclass(frozen=True)
class TextScore:
    """How well a model predicts documents, each read from its beginning."""

    loss: float  # nats a token
    perplexity: float  # exp(loss)
    bits_per_byte: float  # Σ nats / ln 2 / bytes: comparable between tokenizers
    documents: int
    bytes: int  # of the text in UTF-8
    tokens: int  # scored: all of the text; end_of_text before a document is context, and is not scored
    context: int  # T: tokens that the model sees at most
    stride: int  # every token is scored with at least T - stride tokens before it, where they exist
    baselines: Baselines


@dataclass(frozen=True)
class Window:
    """Consecutive tokens, at most T + 1. The model reads all but the last and is scored on the last ones."""

    tokens: Sequence[int]
    scored: int  # how many of them, at least 1 and fewer than there are


def windows(tokens: Sequence[int], context: int, stride: int) -> Iterator[Window]:
    """Windows that score each of `tokens` but the first once.

    The first window scores as many as the context T holds; from then on windows move by `stride`, so that a
    token is scored with at least T - stride tokens of context. The last one ends with the tokens, and has a
    full context too.

    >>> [(list(w.tokens), w.scored) for w in windows([0, 1, 2, 3, 4, 5, 6, 7], context=4, stride=2)]
    [([0, 1, 2, 3, 4], 4), ([2, 3, 4, 5, 6], 2), ([3, 4, 5, 6, 7], 1)]
    """
    done = 1
    while done < len(tokens):
        stop = min(done + (context if done == 1 else stride), len(tokens))
        yield Window(tokens[max(0, stop - context - 1) : stop], stop - done)
        done = stop


async def score(
    runtime: Runtime, items: Iterable[tuple[Key, Window]]
) -> AsyncIterator[tuple[Key, list[float], list[int]]]:
    """Score windows, a batch at a time. Yields in their order (key, losses, hits), of the scored tokens.

    A loss is in nats; a hit is 1 where the token had the largest logit, else 0. Raises CheckpointError for a
    loss that is not finite.
    """
    evaluation = runtime.model.evaluation
    assert evaluation is not None, "build the model with evaluation_batch"
    left = iter(items)
    while batch := list(islice(left, evaluation.inputs.shape[0])):
        losses, hits = await runtime.scores([(w.tokens[:-1], w.tokens[1:]) for _, w in batch])
        for (key, window), nats, firsts in zip(batch, losses, hits, strict=True):
            nats = nats[-window.scored :]
            if not all(map(math.isfinite, nats)):
                raise CheckpointError(
                    "the model's loss is not finite", "its weights are damaged: evaluate another checkpoint"
                )
            yield key, nats, firsts[-window.scored :]
        await asyncio.sleep(0)


async def bits_per_byte(
    runtime: Runtime,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    stride: int | None = None,
    unigram_counts: Mapping[int, int] | None = None,
    on_event: Reader | None = None,
) -> TextScore:
    """Score whole documents: end_of_text, then the tokens of the text, in windows moved by `stride`.

    `stride` is half the context unless given: smaller gives more context, and takes longer. `unigram_counts`
    are how often the training text has each token, for the baseline; without them the baseline is the
    entropy of the evaluated tokens themselves, which no unigram model beats. Raises ConfigError for a stride
    that is not from 1 to T, CorpusError when there is no text, CheckpointError for a model that has diverged
    or another tokenizer's.
    """
    check_vocabulary(runtime, tokenizer)
    context = runtime.model.config.context
    stride = max(1, context // 2) if stride is None else stride
    if not 1 <= stride <= context:
        raise ConfigError(
            f"stride is {stride}", f"give --stride a value from 1 to the model's context, {context}"
        )
    sizes = [len(text.encode(errors="surrogatepass")) for text in texts]  # the tokenizer refuses surrogates
    size = sum(sizes)
    if not size:
        raise CorpusError("there is no text to evaluate", "name a text that is not empty")
    counts: Counter[int] = Counter()

    def items() -> Iterator[tuple[float, Window]]:
        for text, text_size in zip(texts, sizes, strict=True):
            tokens = tokenizer.encode_documents([text])
            counts.update(tokens[1:])
            for window in windows(tokens, context, stride):
                yield text_size * window.scored / (len(tokens) - 1), window

    progress = Pacer(on_event, "evaluate", "bytes", size)
    nats, done = 0.0, 0.0
    async for window_size, losses, _ in score(runtime, items()):
        nats += math.fsum(losses)
        done += window_size
        progress(done, f"{_bits(nats, done):.3f} bits per byte")
    progress.last(size, f"{_bits(nats, done):.3f} bits per byte")
    tokens = counts.total()
    return TextScore(
        loss=nats / tokens,
        perplexity=perplexity(nats / tokens),
        bits_per_byte=_bits(nats, size),
        documents=len(texts),
        bytes=size,
        tokens=tokens,
        context=context,
        stride=stride,
        baselines=baselines(texts, counts, tokenizer.vocab_size, unigram_counts),
    )


def baselines(
    texts: Sequence[str], counts: Mapping[int, int], vocab: int, trained: Mapping[int, int] | None = None
) -> Baselines:
    """Baselines of `texts`, whose tokens of a vocabulary of `vocab` occur `counts` times, at least one of
    them. `trained` are the counts in the training text, if known: see `unigram_loss`.
    """
    size = sum(len(text.encode()) for text in texts)
    tokens = sum(counts.values())
    unigram = unigram_loss(counts, vocab, trained)
    compressed = sum(len(zlib.compress(text.encode(), 9)) for text in texts)
    return Baselines(
        uniform_loss=math.log(vocab),
        uniform_bits_per_byte=_bits(tokens * math.log(vocab), size),
        unigram_loss=unigram,
        unigram_bits_per_byte=_bits(tokens * unigram, size),
        unigram_counts=EVALUATED if trained is None else GIVEN,
        zlib_bits_per_byte=8 * compressed / size,
    )


def unigram_loss(counts: Mapping[int, int], vocab: int, trained: Mapping[int, int] | None = None) -> float:
    """Nats a token of text whose tokens occur `counts` times, under the frequencies of its tokens alone.

    The frequencies are the text's own, so this is the entropy of the tokens; or those of `trained`, add-one
    smoothed over the vocabulary (Laplace), so that a token that was never seen has a probability too.
    """
    extra = 0 if trained is None else 1
    frequencies = counts if trained is None else trained
    total = sum(frequencies.values()) + extra * vocab
    nats = (
        -count * math.log((frequencies.get(token, 0) + extra) / total)
        for token, count in counts.items()
        if count
    )
    return math.fsum(nats) / sum(counts.values())


def perplexity(loss: float) -> float:
    """exp(loss). Raises CheckpointError where that is no number: the model has diverged."""
    if loss > LARGEST_LOSS:
        raise CheckpointError(
            f"the model's loss is {loss:.3g} nats", "it has diverged: evaluate an earlier checkpoint"
        )
    return math.exp(loss)


def check_vocabulary(runtime: Runtime, tokenizer: Tokenizer) -> None:
    """Raise CheckpointError unless the tokenizer has as many tokens as the model."""
    vocab = runtime.model.config.vocab
    if tokenizer.vocab_size != vocab:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model {vocab:,}",
            "use the tokenizer that the model was trained with",
        )


def _bits(nats: float, size: float) -> float:
    """Bits per byte."""
    return nats / math.log(2) / size
