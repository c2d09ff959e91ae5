"""LAMBADA and BLiMP: on rigged models whose score is known, and on real excerpts against a slow model."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from evaluate_oracle import memorised, next_log_probabilities, open_runtime, random_weights, tensors
from hypothesis import given
from hypothesis import strategies as st

from trainer.benchmarks import (
    Paradigm,
    blimp,
    lambada,
    last_word,
    longest_sentence,
    read_blimp,
    read_lambada,
    with_context,
)
from trainer.config import ModelConfig
from trainer.devices import Device
from trainer.errors import CheckpointError, ConfigError, CorpusError
from trainer.events import Event, Progress
from trainer.runtime import Runtime, Window
from trainer.tokenizer import Tokenizer

FIXTURES = Path(__file__).parent / "fixtures" / "evaluate"
PASSAGES = read_lambada(FIXTURES / "lambada.jsonl")
PARADIGMS = read_blimp(FIXTURES / "blimp")
SENTENCES = [sentence for paradigm in PARADIGMS for pair in paradigm.pairs for sentence in pair]
TOKENIZER = Tokenizer.train(PASSAGES[:5] + SENTENCES, vocab=400)
CONFIG = ModelConfig(layers=1, width=12, heads=2, context=32, vocab=TOKENIZER.vocab_size)


class Scripted:
    """Stands in for a runtime: a loss for each target token, and a hit where the loss is 0."""

    def __init__(self, losses: dict[int, float]) -> None:
        self.losses = losses
        inputs = SimpleNamespace(shape=(4, CONFIG.context))
        self.model = SimpleNamespace(config=CONFIG, evaluation=SimpleNamespace(inputs=inputs))

    async def scores(self, windows: list[Window]) -> tuple[list[list[float]], list[list[int]]]:
        losses = [[self.losses.get(token, 1.0) for token in targets] for _, targets in windows]
        return losses, [[int(loss == 0) for loss in row] for row in losses]


def scripted(losses: dict[str, float]) -> Runtime:
    """`losses` of single-token texts."""
    ids = {text: TOKENIZER.encode(text) for text in losses}
    assert all(len(tokens) == 1 for tokens in ids.values())
    return cast(Runtime, Scripted({ids[text][0]: loss for text, loss in losses.items()}))


# -------------------------------------------------------------------- LAMBADA


def harness_pair(text: str) -> tuple[list[int], list[int]]:
    """Context and continuation as lm-evaluation-harness encodes them, written from its description."""
    words = text.split(" ")
    context, continuation = " ".join(words[:-1]), " " + words[-1]
    spaces = len(context) - len(context.rstrip())
    if spaces:
        continuation = context[-spaces:] + continuation
        context = context[:-spaces]
    whole = TOKENIZER.encode(context + continuation)
    count = len(TOKENIZER.encode(context))
    return whole[:count], whole[count:]


WORDS = {
    "he said so": " so",
    "he said “No!”": " “No!”",
    "two  spaces": "  spaces",
    "a line\n end": "\n end",
    "one of\n\nPower": " of\n\nPower",
    "a naïve 東京": " 東京",
    "she can't won't": " won't",
    "wide\u00a0space stays\u00a0here": " stays\u00a0here",
}


@pytest.mark.parametrize("text", WORDS)
def test_the_last_word_by_hand(text: str) -> None:
    tokens, scored = last_word(TOKENIZER, text)
    assert tokens == TOKENIZER.encode(text)
    assert TOKENIZER.decode(tokens[-scored:]) == WORDS[text]


@pytest.mark.parametrize("text", PASSAGES)
def test_the_last_words_of_real_passages_are_the_harness_s(text: str) -> None:
    tokens, scored = last_word(TOKENIZER, text)
    assert (tokens[:-scored], tokens[-scored:]) == harness_pair(text)


@given(st.text("ab é\n\t’s1.\u00a0", min_size=1))
def test_any_last_word_is_the_harness_s(text: str) -> None:
    before, word = " ".join(text.split(" ")[:-1]), text.split(" ")[-1]
    if before.strip() and word.strip():
        tokens, scored = last_word(TOKENIZER, text)
        assert (tokens[:-scored], tokens[-scored:]) == harness_pair(text)
    else:
        with pytest.raises(CorpusError, match="no last word"):
            last_word(TOKENIZER, text)


def test_lambada_on_real_passages_equals_the_slow_model(device: Device) -> None:
    weights = random_weights(CONFIG)
    runtime = open_runtime(device, CONFIG, weights)
    score = asyncio.run(lambada(runtime, TOKENIZER, PASSAGES))
    nats = correct = cut = 0
    for text in PASSAGES:
        context, word = harness_pair(text)
        right = True
        sequence = (context + word)[-(CONFIG.context + 1) :]
        for i in range(len(sequence) - len(word), len(sequence)):
            log_p = next_log_probabilities(CONFIG, weights, sequence[:i])
            nats -= log_p[sequence[i]]
            right = right and log_p.argmax() == sequence[i]
        correct += right
        cut += len(context + word) > CONFIG.context + 1
    assert (score.examples, score.available, score.limit, score.correct) == (20, 20, None, correct)
    assert score.truncated == cut > 10
    assert score.loss == pytest.approx(nats / 20, rel=2e-6)
    assert score.perplexity == pytest.approx(math.exp(nats / 20), rel=1e-4)
    runtime.close()


def test_a_memorised_passage_is_right_and_each_changed_token_makes_it_wrong(device: Device) -> None:
    passage = "7 and 3 are extraordinary"
    tokens, scored = last_word(TOKENIZER, passage)
    assert 2 <= scored < len(tokens) <= CONFIG.context
    first, last = len(tokens) - scored, len(tokens) - 1
    runtime = open_runtime(device, CONFIG, memorised(CONFIG, tokens))
    score = asyncio.run(
        lambada(runtime, TOKENIZER, [passage, passage.replace("extra", "exact"), passage + "s"])
    )
    assert (score.correct, score.examples) == (1, 3)
    assert score.accuracy == pytest.approx(1 / 3)
    before = "3 and 7 are extraordinary"  # only the last word is scored, so this is right too
    assert len(TOKENIZER.encode(before)) == len(tokens)
    assert asyncio.run(lambada(runtime, TOKENIZER, [before])).accuracy == 1
    for i in (first, last):
        other = [*tokens[:i], (tokens[i] + 1) % CONFIG.vocab, *tokens[i + 1 :]]
        rigged = open_runtime(device, CONFIG, memorised(CONFIG, other))
        assert asyncio.run(lambada(rigged, TOKENIZER, [passage])).correct == 0
        rigged.close()
    runtime.close()


def test_lambada_s_perplexity_is_of_words_not_tokens() -> None:
    runtime = scripted({" the": 0.0})
    score = asyncio.run(lambada(runtime, TOKENIZER, ["a xyz", "it is the"]))
    _, scored = last_word(TOKENIZER, "a xyz")
    assert scored > 1
    assert score.loss == pytest.approx(scored / 2)
    assert score.perplexity == pytest.approx(math.exp(scored / 2))
    assert score.accuracy == 0.5


def test_lambada_s_limit_is_recorded() -> None:
    seen: list[Event] = []
    score = asyncio.run(lambada(scripted({}), TOKENIZER, PASSAGES, limit=3, on_event=seen.append))
    assert (score.examples, score.available, score.limit) == (3, 20, 3)
    assert seen[-1] == Progress("evaluate", 3, 3, "passages", "0.0% right")


@pytest.mark.parametrize("text", ["word", " word", "word ", "two words ", ""])
def test_a_passage_without_a_last_word_is_refused(text: str) -> None:
    with pytest.raises(CorpusError, match="LAMBADA passage 2 has no last word after others: give each"):
        asyncio.run(lambada(scripted({}), TOKENIZER, ["he said so", text]))


def test_a_last_word_longer_than_the_context_is_refused() -> None:
    fits = "it " + "\x01" * (CONFIG.context - 1)  # bytes that no merge knows: a token each, the space one too
    _, scored = last_word(TOKENIZER, fits)
    assert scored == CONFIG.context
    score = asyncio.run(lambada(scripted({}), TOKENIZER, [fits]))
    assert (score.loss, score.truncated) == (CONFIG.context, 0)
    with pytest.raises(CorpusError, match=r"last word of LAMBADA passage 1 takes 33 tokens, over .* 32"):
        asyncio.run(lambada(scripted({}), TOKENIZER, [fits + "\x01"]))


# -------------------------------------------------------------------- BLiMP


def test_blimp_on_real_pairs_equals_the_slow_model(device: Device) -> None:
    weights = random_weights(CONFIG)
    runtime = open_runtime(device, CONFIG, weights)
    score = asyncio.run(blimp(runtime, TOKENIZER, PARADIGMS))

    def log_p(sentence: str) -> float:
        tokens = [TOKENIZER.end_of_text, *TOKENIZER.encode(sentence)]
        assert len(tokens) <= CONFIG.context
        return sum(
            next_log_probabilities(CONFIG, weights, tokens[:i])[tokens[i]] for i in range(1, len(tokens))
        )

    expected = [sum(log_p(good) > log_p(bad) for good, bad in p.pairs) for p in PARADIGMS]
    assert 0 < sum(expected) < 40
    assert [p.correct for p in score.paradigms] == expected
    assert [(p.name, p.field, p.phenomenon, p.pairs) for p in score.paradigms] == [
        ("anaphor_number_agreement", "morphology", "anaphor_agreement", 20),
        ("wh_vs_that_with_gap", "syntax", "filler_gap_dependency", 20),
    ]
    assert score.accuracy == pytest.approx(sum(expected) / 40)
    assert score.fields == {"morphology": expected[0] / 20, "syntax": expected[1] / 20}
    assert score.phenomena == {
        "anaphor_agreement": expected[0] / 20,
        "filler_gap_dependency": expected[1] / 20,
    }
    assert (score.pairs, score.available, score.limit, score.split) == (40, 40, None, 0)
    runtime.close()


def test_a_memorised_sentence_is_the_likelier_one(device: Device) -> None:
    good, bad = PARADIGMS[0].pairs[0]
    tokens = [TOKENIZER.end_of_text, *TOKENIZER.encode(good)]
    runtime = open_runtime(device, CONFIG, memorised(CONFIG, tokens))
    right, wrong = Paradigm("right", "", "", [(good, bad)]), Paradigm("wrong", "", "", [(bad, good)])
    score = asyncio.run(blimp(runtime, TOKENIZER, [right, wrong]))
    assert [paradigm.accuracy for paradigm in score.paradigms] == [1.0, 0.0]
    runtime.close()


def test_blimp_means_count_each_paradigm_once_and_ties_as_wrong() -> None:
    runtime = scripted({"a": 0.5, "b": 2.0})
    paradigms = [
        Paradigm("one", "syntax", "islands", [("a", "b")]),
        Paradigm("two", "syntax", "binding", [("b", "a"), ("b", "a"), ("a", "a"), ("a", "b")]),
        Paradigm("three", "", "", [("b", "a")]),
    ]
    score = asyncio.run(blimp(runtime, TOKENIZER, paradigms))
    assert [p.accuracy for p in score.paradigms] == [1.0, 0.25, 0.0]
    assert score.accuracy == pytest.approx(1.25 / 3)
    assert score.fields == {"syntax": 0.625}
    assert score.phenomena == {"binding": 0.25, "islands": 1.0}


def test_blimp_s_limit_counts_pairs_of_each_paradigm() -> None:
    seen: list[Event] = []
    score = asyncio.run(blimp(scripted({}), TOKENIZER, PARADIGMS, limit=3, on_event=seen.append))
    assert (score.pairs, score.available, score.limit) == (6, 40, 3)
    assert [p.pairs for p in score.paradigms] == [3, 3]
    assert seen[-1] == Progress("evaluate", 12, 12, "sentences", PARADIGMS[1].name)


def test_sentences_longer_than_the_context_are_scored_whole() -> None:
    good = " ".join(["a"] * 40)
    bad = good + " a"
    tokens = TOKENIZER.encode(good)
    assert len(tokens) > CONFIG.context
    score = asyncio.run(
        blimp(scripted({}), TOKENIZER, [Paradigm("long", "", "", [(good, bad), (bad, good)])])
    )
    assert score.split == 4
    assert score.accuracy == 0.5  # the longer one has more nats, whichever side it is on


def test_a_model_with_fewer_positions_scores_the_same(device: Device) -> None:
    weights = random_weights(CONFIG)
    context = longest_sentence(TOKENIZER, PARADIGMS)
    assert context < CONFIG.context
    small, kept = with_context(CONFIG, tensors(weights), context)
    assert small == replace(CONFIG, context=context)
    assert with_context(CONFIG, tensors(weights), 999) == (CONFIG, tensors(weights))
    arrays = {name: np.frombuffer(t.data, np.float32).reshape(t.shape) for name, t in kept.items()}
    big, little = (
        open_runtime(device, config, values) for config, values in ((CONFIG, weights), (small, arrays))
    )
    scores = [asyncio.run(blimp(runtime, TOKENIZER, PARADIGMS)) for runtime in (big, little)]
    assert scores[0] == scores[1]
    big.close()
    little.close()


def test_limits_and_missing_data_are_refused() -> None:
    runtime = scripted({})
    for limit in (0, -3):
        with pytest.raises(ConfigError, match=f"limit is {limit}"):
            asyncio.run(lambada(runtime, TOKENIZER, PASSAGES, limit=limit))
        with pytest.raises(ConfigError, match=f"limit is {limit}"):
            asyncio.run(blimp(runtime, TOKENIZER, PARADIGMS, limit=limit))
    with pytest.raises(CorpusError, match="no passages"):
        asyncio.run(lambada(runtime, TOKENIZER, []))
    with pytest.raises(CorpusError, match="no paradigms"):
        asyncio.run(blimp(runtime, TOKENIZER, []))
    with pytest.raises(CorpusError, match="no pairs in empty"):
        asyncio.run(blimp(runtime, TOKENIZER, [Paradigm("empty", "", "", [])]))


def test_another_tokenizer_is_refused() -> None:
    other = Tokenizer.train(["ab" * 9], vocab=258)
    for run in (lambada(scripted({}), other, PASSAGES), blimp(scripted({}), other, PARADIGMS)):
        with pytest.raises(CheckpointError, match="use the tokenizer that the model was trained with"):
            asyncio.run(run)


# -------------------------------------------------------------------- files


def test_the_excerpts_are_read_whole() -> None:
    assert len(PASSAGES) == 20
    assert PASSAGES[0].startswith("In my palm is a clear stone")
    assert PASSAGES[0].endswith("I don't care about signs")
    assert [len(paradigm.pairs) for paradigm in PARADIGMS] == [20, 20]
    assert PARADIGMS[0].pairs[0] == ("Susan revealed herself.", "Susan revealed themselves.")


def test_one_file_of_blimp_is_enough_and_fields_are_optional(tmp_path: Path) -> None:
    assert read_blimp(FIXTURES / "blimp" / "wh_vs_that_with_gap.jsonl") == [PARADIGMS[1]]
    plain = tmp_path / "mine.jsonl"
    plain.write_text('\n{"sentence_good": "a", "sentence_bad": "b"}\r\n\n', encoding="utf-8-sig")
    assert read_blimp(plain) == [Paradigm("mine", "", "", [("a", "b")])]
    slashed = {"sentence_good": "a", "sentence_bad": "b", "UID": "x", "field": "syntax/semantics"}
    plain.write_text(json.dumps(slashed))
    assert read_blimp(tmp_path) == [Paradigm("x", "syntax_semantics", "", [("a", "b")])]


BAD_LINES = {
    b"not json\n": r":1 is not JSON \(.*\): write one JSON object a line",
    b'{"text": "fine one"}\n[1, 2]\n': ":2 is not a JSON object",
    b'{"txt": "a b"}\n': ":1 has no 'text'",
    b'{"text": 3}\n': ":1 has no 'text'",
    b'{"text": "  "}\n': ":1 has no 'text'",
    b'{"text": "\\ud800 b"}\n': ":1 holds half a surrogate pair",
    b'{"text": "caf\xe9 x"}\n': "is not UTF-8",
    b"[" * 100_000: ":1 is not JSON",
    b"": "is empty",
    b"\n \n": "is empty",
}


@pytest.mark.parametrize("body", BAD_LINES, ids=lambda body: repr(body[:24]))
def test_a_bad_lambada_file_is_one_line_that_names_it(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(body)
    with pytest.raises(CorpusError, match=f"bad.jsonl ?{BAD_LINES[body]}") as caught:
        read_lambada(path)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_bad_blimp_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="holds no BLiMP pair: unpack BLiMP"):
        read_blimp(tmp_path)
    with pytest.raises(CorpusError, match=r"missing\.jsonl does not exist"):
        read_blimp(tmp_path / "missing.jsonl")
    with pytest.raises(CorpusError, match="cannot be read"):
        read_lambada(tmp_path)
    (tmp_path / "half.jsonl").write_text('{"sentence_good": "a"}')
    with pytest.raises(CorpusError, match=r"half.jsonl:1 has no 'sentence_bad'"):
        read_blimp(tmp_path)
