"""Generation: tokens from a prompt, one after another, with a KV cache on the device."""

from __future__ import annotations

import codecs
import heapq
import math
from array import array
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from trainer.config import SampleConfig
from trainer.errors import ConfigError
from trainer.model import GENERATION
from trainer.runtime import Runtime, floats, ints, pack_floats, pack_ints
from trainer.tokenizer import Tokenizer

AT_ONCE = 8  # tokens between two looks at the device


@dataclass(frozen=True)
class Token:
    """A generated token, and the probability that the model itself (at temperature 1) gave it."""

    id: int
    probability: float
    alternatives: tuple[tuple[int, float], ...] = ()  # (id, probability), the likeliest first, if asked for


async def generate(
    runtime: Runtime, prompt: Sequence[int], config: SampleConfig, alternatives: int = 0
) -> AsyncIterator[Token]:
    """Yield `config.tokens` tokens that continue the token ids `prompt`.

    With `alternatives`, each comes with that many of the tokens that the model held likeliest in its place,
    itself perhaps among them; the device is then looked at after every token.

    The same seed gives the same tokens on the same device. When the context is full, the second half of it
    becomes the prompt of a new one. Close the iterator to stop early. Needs a model that was built with
    `generate`. Raises ConfigError for an empty prompt or ids outside the vocabulary.
    """
    sampler = runtime.model.sampler
    assert sampler is not None, "build the model with generate=True"
    model = runtime.model.config
    if not prompt or not all(0 <= id < model.vocab for id in prompt):
        raise ConfigError("the prompt is empty or holds ids outside the vocabulary", "begin with end_of_text")
    device = runtime.executable
    await device.compile(GENERATION)
    await device.write(sampler.settings, pack_floats([config.temperature, config.top_p]))
    await device.write(sampler.choices, pack_ints([config.seed, config.top_k]))
    history, left = list(prompt), config.tokens
    window = history[-model.context :]
    while left > 0:
        sequence = array("I", window) + array("I", bytes(4 * (model.context + 1 - len(window))))
        await device.write(sampler.sequence, sequence.tobytes())
        await device.write(sampler.cursor, pack_ints([len(window) - 1, config.tokens - left]))
        if len(window) > 1:
            device.run(["prefill"])
        end = len(window)  # where the next token goes; the sequence has room for context + 1
        while left > 0 and end <= model.context:
            count = min(1 if alternatives else AT_ONCE, left, model.context + 1 - end)
            device.run(["decode"] * count)
            ids = ints(await device.read(sampler.sequence))[end : end + count]
            probabilities = floats(await device.read(sampler.probabilities))[end : end + count]
            end += count
            left -= count
            history += ids
            others: tuple[tuple[int, float], ...] = ()
            if alternatives:
                others = likeliest(floats(await device.read(sampler.logits))[: model.vocab], alternatives)
            for id, probability in zip(ids, probabilities, strict=True):
                yield Token(id, probability, others)
        window = history[-max(1, model.context // 2) :]


def likeliest(logits: Sequence[float], count: int) -> tuple[tuple[int, float], ...]:
    """The `count` likeliest tokens and their softmax probabilities."""
    best = heapq.nlargest(count, range(len(logits)), key=logits.__getitem__)
    total = math.fsum(math.exp(value - logits[best[0]]) for value in logits)
    return tuple((id, math.exp(logits[id] - logits[best[0]]) / total) for id in best)


async def stream_text(
    runtime: Runtime, tokenizer: Tokenizer, prompt: str, config: SampleConfig
) -> AsyncIterator[str]:
    """Yield the text that continues `prompt`, piece by piece; ends where the model ends the text.

    The prompt is the beginning of a document, as in training: end_of_text stands before it. A character
    whose bytes are spread over several tokens comes when it is complete.
    """
    ids = [tokenizer.end_of_text, *tokenizer.encode(prompt)]
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    async for token in generate(runtime, ids, config):
        if token.id == tokenizer.end_of_text:
            break
        if text := decoder.decode(tokenizer.token_bytes(token.id)):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest


async def complete(runtime: Runtime, tokenizer: Tokenizer, prompt: str, config: SampleConfig) -> str:
    """The whole text that continues `prompt`."""
    return "".join([piece async for piece in stream_text(runtime, tokenizer, prompt, config)])
