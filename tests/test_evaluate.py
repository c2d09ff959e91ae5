"""Loss, perplexity and bits per byte, against a slow model that predicts one token at a time."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import zlib
from collections import Counter

import numpy as np
import pytest
from evaluate_oracle import next_log_probabilities, open_runtime, random_weights
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import ModelConfig
from trainer.devices import Device
from trainer.errors import CheckpointError, ConfigError, CorpusError, TokenizerError
from trainer.evaluate import EVALUATED, GIVEN, baselines, bits_per_byte, perplexity, unigram_loss, windows
from trainer.events import Event, Progress
from trainer.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the cat sat on the mat and the dog sat on the cat " * 3], vocab=270)
CONFIG = ModelConfig(layers=2, width=12, heads=2, context=16, vocab=TOKENIZER.vocab_size)
LONG = "the dog and the cat – naïve, both of them – sat on a mat; it was Tuesday.\n\n“No!”"
TEXTS = ["the cat sat", LONG, "x", ""]


def slow_loss(weights: dict[str, np.ndarray], tokens: list[int], stride: int) -> float:
    """Nats of all tokens but the first, each from a prefix of its own."""
    T, last = CONFIG.context, len(tokens) - 1
    nats = 0.0
    for i in range(1, len(tokens)):
        moves = max(0, math.ceil((i - T) / stride))
        start = max(0, min(T + moves * stride, last) - T)
        assert i - start >= min(i, T - stride)
        nats -= next_log_probabilities(CONFIG, weights, tokens[start:i])[tokens[i]]
    return nats


@given(count=st.integers(0, 70), context=st.integers(1, 20), move=st.floats(0, 1, exclude_min=True))
def test_every_token_is_scored_once_with_enough_context(count: int, context: int, move: float) -> None:
    stride = max(1, math.ceil(context * move))
    tokens = list(range(count))
    scored: list[int] = []
    for window in windows(tokens, context, stride):
        assert 1 <= window.scored < len(window.tokens) <= context + 1
        first = window.tokens[-window.scored]
        assert first - window.tokens[0] >= min(first, context - stride)
        assert window.tokens == tokens[window.tokens[0] : window.tokens[-1] + 1]
        scored += window.tokens[-window.scored :]
    assert scored == tokens[1:]


@pytest.mark.parametrize("stride", [1, 5, None, 16])
def test_bits_per_byte_equals_the_slow_model(device: Device, stride: int | None) -> None:
    weights = random_weights(CONFIG)
    runtime = open_runtime(device, CONFIG, weights)
    score = asyncio.run(bits_per_byte(runtime, TOKENIZER, TEXTS, stride=stride))
    documents = [[TOKENIZER.end_of_text, *TOKENIZER.encode(text)] for text in TEXTS]
    assert len(documents[0]) < CONFIG.context < 3 * CONFIG.context < len(documents[1])
    nats = sum(slow_loss(weights, tokens, stride or 8) for tokens in documents)
    tokens, size = sum(map(len, documents)) - len(documents), sum(len(text.encode()) for text in TEXTS)
    assert (score.tokens, score.bytes, score.documents) == (tokens, size, 4)
    assert (score.context, score.stride) == (16, stride or 8)
    assert score.loss == pytest.approx(nats / tokens, rel=2e-6)
    assert score.perplexity == pytest.approx(math.exp(nats / tokens), rel=2e-5)
    assert score.bits_per_byte == pytest.approx(nats / math.log(2) / size, rel=2e-6)
    runtime.close()


def test_hits_are_the_argmax(device: Device) -> None:
    weights = random_weights(CONFIG)
    runtime = open_runtime(device, CONFIG, weights)
    tokens = TOKENIZER.encode(LONG)[:12]
    best = [int(next_log_probabilities(CONFIG, weights, tokens[: i + 1]).argmax()) for i in range(12)]
    wrong = [(token + 1) % CONFIG.vocab for token in best]
    mixed = [a if i % 3 else b for i, (a, b) in enumerate(zip(best, wrong, strict=True))]
    losses, hits = asyncio.run(runtime.scores([(tokens, best), (tokens[:5], wrong[:5]), (tokens, mixed)]))
    assert hits == [[1] * 12, [0] * 5, [int(i % 3 > 0) for i in range(12)]]
    assert losses == asyncio.run(runtime.losses([(tokens, best), (tokens[:5], wrong[:5]), (tokens, mixed)]))
    runtime.close()


def test_of_equal_logits_the_first_is_the_hit(device: Device) -> None:
    flat = {name: np.zeros_like(value) for name, value in random_weights(CONFIG).items()}
    flat["transformer.wte.weight"] += 1
    flat["transformer.ln_f.bias"] -= 1  # all logits are -C, below the zeros that pad the vocabulary
    assert CONFIG.vocab % 64
    runtime = open_runtime(device, CONFIG, flat)
    _, hits = asyncio.run(runtime.scores([([1, 2, 3], [0, 1, CONFIG.vocab - 1])]))
    assert hits == [[1, 0, 0]]
    runtime.close()


def test_an_untrained_model_knows_no_more_than_the_uniform_one(device: Device) -> None:
    runtime = open_runtime(device, CONFIG, None)
    score = asyncio.run(bits_per_byte(runtime, TOKENIZER, [LONG]))
    uniform = math.log2(CONFIG.vocab) * score.tokens / score.bytes
    assert score.baselines.uniform_bits_per_byte == pytest.approx(uniform, rel=1e-12)
    assert score.bits_per_byte == pytest.approx(uniform, rel=0.02)
    assert score.bits_per_byte != pytest.approx(uniform, rel=1e-6)
    runtime.close()


def test_baselines_by_hand() -> None:
    texts = [LONG * 9, "é"]
    size = len("".join(texts).encode())
    found = baselines(texts, {0: 2, 1: 1, 2: 1}, vocab=8)
    entropy = 1.5  # bits: a half, two quarters
    assert found.unigram_counts == EVALUATED
    assert found.unigram_loss == pytest.approx(entropy * math.log(2))
    assert found.unigram_bits_per_byte == pytest.approx(entropy * 4 / size)
    assert found.uniform_loss == pytest.approx(3 * math.log(2))
    assert found.uniform_bits_per_byte == pytest.approx(3 * 4 / size)
    sizes = {level: sum(len(zlib.compress(text.encode(), level)) for text in texts) for level in (1, 9)}
    assert sizes[9] < sizes[1]
    assert found.zlib_bits_per_byte == pytest.approx(8 * sizes[9] / size)


def test_unigram_of_the_training_text_gives_unseen_tokens_a_share() -> None:
    # add-one over a vocabulary of 4: probabilities 4/8, 2/8, 1/8, 1/8
    assert unigram_loss({0: 1, 2: 1}, 4, {0: 3, 1: 1}) == pytest.approx(math.log(2) * (1 + 3) / 2)
    found = baselines(["ab"], {0: 1, 2: 1}, 4, {0: 3, 1: 1})
    assert found.unigram_counts == GIVEN
    assert found.unigram_bits_per_byte == pytest.approx(2.0)


def test_given_counts_reach_the_score(reference32: Device) -> None:
    runtime = open_runtime(reference32, CONFIG, None)
    trained = Counter(TOKENIZER.encode("the mat"))
    score = asyncio.run(bits_per_byte(runtime, TOKENIZER, [LONG], unigram_counts=trained))
    expected = unigram_loss(Counter(TOKENIZER.encode(LONG)), CONFIG.vocab, trained)
    assert score.baselines.unigram_loss == pytest.approx(expected)


def test_progress_reaches_the_end_and_can_end_the_work(reference32: Device) -> None:
    runtime = open_runtime(reference32, CONFIG, None)
    seen: list[Event] = []
    asyncio.run(bits_per_byte(runtime, TOKENIZER, TEXTS, on_event=seen.append))
    last = seen[-1]
    assert isinstance(last, Progress)
    size = sum(len(text.encode()) for text in TEXTS)
    assert (last.stage, last.done, last.total, last.unit) == ("evaluate", size, size, "bytes")
    assert last.detail.endswith(" bits per byte")

    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(bits_per_byte(runtime, TOKENIZER, TEXTS, on_event=stop))


def test_a_task_can_be_cancelled(reference32: Device) -> None:
    runtime = open_runtime(reference32, CONFIG, None, batch=1)
    batches = 0

    def count(event: Event) -> None:
        nonlocal batches
        batches += 1

    async def cancelled() -> None:
        task = asyncio.create_task(bits_per_byte(runtime, TOKENIZER, [LONG * 50], on_event=count))
        while not batches:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert batches == 1  # neither went on nor said that it was done


@pytest.mark.parametrize("stride", [0, -1, 17])
def test_a_stride_out_of_range_is_refused(reference32: Device, stride: int) -> None:
    runtime = open_runtime(reference32, CONFIG, None)
    with pytest.raises(ConfigError, match=f"stride is {stride}: .* 16"):
        asyncio.run(bits_per_byte(runtime, TOKENIZER, TEXTS, stride=stride))


def test_text_that_cannot_be_scored_is_refused(reference32: Device) -> None:
    runtime = open_runtime(reference32, CONFIG, None)
    for texts in ([], [""]):
        with pytest.raises(CorpusError, match="no text to evaluate"):
            asyncio.run(bits_per_byte(runtime, TOKENIZER, texts))
    with pytest.raises(TokenizerError):
        asyncio.run(bits_per_byte(runtime, TOKENIZER, ["half a pair: \ud800"]))


def test_another_tokenizer_is_refused(reference32: Device) -> None:
    runtime = open_runtime(reference32, CONFIG, None)
    other = Tokenizer.train(["ab" * 9], vocab=258)
    with pytest.raises(CheckpointError, match=f"tokenizer has 258 tokens, the model {CONFIG.vocab}"):
        asyncio.run(bits_per_byte(runtime, other, TEXTS))


def test_damaged_weights_are_an_error_not_a_score(device: Device) -> None:
    weights = random_weights(CONFIG)
    weights["transformer.ln_f.bias"][3] = np.nan
    runtime = open_runtime(device, CONFIG, weights)
    with pytest.raises(CheckpointError, match="loss is not finite"):
        asyncio.run(bits_per_byte(runtime, TOKENIZER, TEXTS))
    runtime.close()


def test_a_loss_without_a_perplexity_is_an_error() -> None:
    assert perplexity(0.0) == 1.0
    with pytest.raises(CheckpointError, match=r"loss is 1e\+03 nats: it has diverged"):
        perplexity(1000.0)


def test_the_page_can_import_it() -> None:
    code = (
        "import sys\n"
        "for name in ('numpy', 'wgpu', 'rich'): sys.modules[name] = None\n"
        "import trainer.evaluate, trainer.benchmarks, trainer.report\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
