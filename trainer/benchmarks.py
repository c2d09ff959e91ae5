"""Benchmarks: LAMBADA (what is the last word?) and BLiMP (which of two sentences is grammatical?).

Scores are of `runtime`'s model as `evaluate.py` says. `limit` takes only the first examples, for a quick
look; the score says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from trainer.config import ModelConfig
from trainer.errors import ConfigError, CorpusError
from trainer.evaluate import Window, check_vocabulary, perplexity, score, windows
from trainer.events import Pacer, Reader
from trainer.runtime import Runtime
from trainer.safetensors import TensorData
from trainer.tokenizer import Tokenizer

POSITIONS = "transformer.wpe.weight"

Item = TypeVar("Item")


@dataclass(frozen=True)
class LambadaScore:
    """How well a model finds the last word of a passage."""

    accuracy: float  # share of passages whose last word is right in all its tokens
    perplexity: float  # exp(loss)
    loss: float  # nats a last word, all its tokens together; the mean over passages
    correct: int
    examples: int  # passages scored
    available: int  # passages in the data
    limit: int | None
    truncated: int  # passages that were longer than the context: their beginnings were left out


@dataclass(frozen=True)
class Paradigm:
    """Pairs of (good, bad) sentences that show one grammatical contrast."""

    name: str
    field: str  # "" where the data does not say it
    phenomenon: str  # likewise
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ParadigmScore:
    """How often the good sentence of a pair is the likelier one."""

    name: str
    field: str
    phenomenon: str
    accuracy: float
    correct: int
    pairs: int


@dataclass(frozen=True)
class BlimpScore:
    """How often a model finds the grammatical sentence likelier. In means, each paradigm counts once."""

    accuracy: float
    fields: dict[str, float]
    phenomena: dict[str, float]
    pairs: int  # scored
    available: int  # pairs in the data
    limit: int | None  # pairs of each paradigm
    split: int  # sentences longer than the context, scored in several windows
    paradigms: list[ParadigmScore]


# -------------------------------------------------------------------- LAMBADA


async def lambada(
    runtime: Runtime,
    tokenizer: Tokenizer,
    passages: Sequence[str],
    *,
    limit: int | None = None,
    on_event: Reader | None = None,
) -> LambadaScore:
    """Accuracy and perplexity of the last words, as EleutherAI's lm-evaluation-harness counts them in
    `lambada_openai`: see `last_word`. A word is right if each of its tokens is the likeliest one after the
    true tokens before it.

    Raises CorpusError for no passage or one without a last word, ConfigError for a limit below 1,
    CheckpointError for a model that has diverged or another tokenizer's.
    """
    check_vocabulary(runtime, tokenizer)
    chosen = _first(passages, limit, "passages")
    context = runtime.model.config.context
    progress = Pacer(on_event, "evaluate", "passages", len(chosen))
    truncated = correct = done = 0
    nats = 0.0

    def items() -> Iterator[tuple[None, Window]]:
        nonlocal truncated
        for number, text in enumerate(chosen, 1):
            tokens, scored = last_word(tokenizer, text, f"LAMBADA passage {number}")
            if scored > context:
                raise CorpusError(
                    f"the last word of LAMBADA passage {number} takes {scored} tokens, over the context's "
                    f"{context}",
                    "evaluate a model with a longer context",
                )
            truncated += len(tokens) > context + 1
            yield None, Window(tokens[-context - 1 :], scored)

    async for _, losses, hits in score(runtime, items()):
        nats += sum(losses)
        correct += all(hits)
        done += 1
        progress(done, f"{correct / done:.1%} right")
    progress.last(len(chosen), f"{correct / len(chosen):.1%} right")
    return LambadaScore(
        accuracy=correct / done,
        perplexity=perplexity(nats / done),
        loss=nats / done,
        correct=correct,
        examples=done,
        available=len(passages),
        limit=limit,
        truncated=truncated,
    )


def last_word(tokenizer: Tokenizer, text: str, where: str = "the passage") -> tuple[list[int], int]:
    """The tokens of `text`, and how many at the end are the last word's.

    The last word is what follows the last space, punctuation and line ends included, and the white space
    before it; its tokens are those of the whole text that the text before it does not have. No end_of_text
    comes first: a passage is cut from the midst of a book. Raises CorpusError for fewer than two words.
    """
    before, _, word = text.rpartition(" ")
    if not before.strip() or not word.strip():
        raise CorpusError(f"{where} has no last word after others", "give each passage two words or more")
    tokens = tokenizer.encode(text)
    return tokens, len(tokens) - len(tokenizer.encode(before.rstrip()))


def read_lambada(path: Path | str) -> list[str]:
    """The passages of a JSONL file of {"text": ...}. Raises CorpusError for anything else."""
    path = Path(path)
    passages = [_string(record, "text", where) for where, record in _records(path)]
    if not passages:
        raise CorpusError(f"{path} is empty", 'give a JSONL file with lines like {"text": "..."}')
    return passages


# -------------------------------------------------------------------- BLiMP


async def blimp(
    runtime: Runtime,
    tokenizer: Tokenizer,
    paradigms: Sequence[Paradigm],
    *,
    limit: int | None = None,
    on_event: Reader | None = None,
) -> BlimpScore:
    """How often the good sentence has the higher probability, all its tokens after end_of_text together
    (Warstadt et al. 2020, the simple LM method). Of equal ones neither is right: such a pair is not correct.

    A sentence that is longer than the context is scored in windows that overlap by half. `limit` counts
    pairs of each paradigm. Raises CorpusError for no pair, ConfigError for a limit below 1, CheckpointError
    for another tokenizer's model or one with a loss that is not finite.
    """
    check_vocabulary(runtime, tokenizer)
    chosen = [replace(p, pairs=_first(p.pairs, limit, f"pairs in {p.name}")) for p in paradigms]
    context = runtime.model.config.context
    sentences = 2 * sum(len(paradigm.pairs) for paradigm in _first(chosen, None, "paradigms"))
    nats = [[[0.0, 0.0] for _ in paradigm.pairs] for paradigm in chosen]
    progress = Pacer(on_event, "evaluate", "sentences", sentences)
    done = split = 0

    def items() -> Iterator[tuple[tuple[int, int, int], Window]]:
        nonlocal done, split
        for p, paradigm in enumerate(chosen):
            for i, pair in enumerate(paradigm.pairs):
                for side, sentence in enumerate(pair):
                    tokens = tokenizer.encode_documents([sentence])
                    split += len(tokens) > context + 1
                    for window in windows(tokens, context, max(1, context // 2)):
                        yield (p, i, side), window
                    done += 1

    async for (p, i, side), losses, _ in score(runtime, items()):
        nats[p][i][side] += sum(losses)
        progress(done, chosen[p].name)
    progress.last(sentences, chosen[-1].name)
    scores = [_paradigm_score(*both) for both in zip(chosen, nats, strict=True)]
    return BlimpScore(
        accuracy=fmean(paradigm.accuracy for paradigm in scores),
        fields=_means((paradigm.field, paradigm.accuracy) for paradigm in scores),
        phenomena=_means((paradigm.phenomenon, paradigm.accuracy) for paradigm in scores),
        pairs=sentences // 2,
        available=sum(len(paradigm.pairs) for paradigm in paradigms),
        limit=limit,
        split=split,
        paradigms=scores,
    )


def _paradigm_score(paradigm: Paradigm, nats: list[list[float]]) -> ParadigmScore:
    correct = sum(good < bad for good, bad in nats)
    accuracy = correct / len(nats)
    return ParadigmScore(
        paradigm.name, paradigm.field, paradigm.phenomenon, accuracy, correct, len(paradigm.pairs)
    )


def _means(accuracies: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Mean accuracy by group, in alphabetical order; the group "" is what the data does not tell."""
    groups: dict[str, list[float]] = {}
    for group, accuracy in accuracies:
        if group:
            groups.setdefault(group, []).append(accuracy)
    return {group: fmean(groups[group]) for group in sorted(groups)}


def longest_sentence(tokenizer: Tokenizer, paradigms: Sequence[Paradigm]) -> int:
    """Tokens of the longest sentence: the context that scores every one in one window."""
    sentences = (sentence for paradigm in paradigms for pair in paradigm.pairs for sentence in pair)
    return max(len(tokenizer.encode(sentence)) for sentence in sentences)


def with_context(
    model: ModelConfig, weights: Mapping[str, TensorData], context: int
) -> tuple[ModelConfig, dict[str, TensorData]]:
    """The same model for at most `context` tokens: it predicts them as before, and wastes less on padding.

    Exact, because positions are learned one by one: with 64 positions instead of its 1,024, GPT-2 scores
    BLiMP's short sentences for a 16th of the work. A `context` beyond the model's own changes nothing.
    """
    context = min(context, model.context)
    positions = weights[POSITIONS]
    shorter = TensorData(
        "F32", (context, model.width), memoryview(positions.data).cast("B")[: 4 * context * model.width]
    )
    return replace(model, context=context), {**weights, POSITIONS: shorter}


def read_blimp(path: Path | str) -> list[Paradigm]:
    """The paradigms in a folder's JSONL files at any depth, or in one file, by name.

    A line is an object with `sentence_good` and `sentence_bad`, and, if known, `UID` (the paradigm; else the
    file's name is), `field` and `linguistics_term`. Raises CorpusError for anything else.
    """
    path = Path(path)
    files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
    found: dict[str, Paradigm] = {}
    pairs: dict[str, list[tuple[str, str]]] = {}
    for file in files:
        for where, record in _records(file):
            pair = _string(record, "sentence_good", where), _string(record, "sentence_bad", where)
            name = str(record.get("UID") or file.stem)
            pairs.setdefault(name, []).append(pair)
            if name not in found:
                # one file of the 67 writes the field syntax_semantics with a slash
                field = str(record.get("field") or "").replace("/", "_")
                phenomenon = str(record.get("linguistics_term") or "")
                found[name] = Paradigm(name, field, phenomenon, pairs[name])
    if not found:
        raise CorpusError(f"{path} holds no BLiMP pair", "unpack BLiMP, and give its folder data")
    return [found[name] for name in sorted(found)]


# -------------------------------------------------------------------- both


def _first(things: Sequence[Item], limit: int | None, what: str) -> Sequence[Item]:
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}", "give --limit a value from 1 up, or leave it out")
    if not things:
        raise CorpusError(f"there are no {what} to evaluate", "give data with some")
    return things[:limit]


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path:line, object) of each line of a JSONL file; blank lines are passed over."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise CorpusError(f"{path} does not exist", "check the path") from error
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error.strerror or error})", "check the path") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 ({error.reason})", "give a JSONL file in UTF-8") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where} is not JSON ({error})", "write one JSON object a line") from error
        if not isinstance(record, dict):
            raise CorpusError(f"{where} is not a JSON object", "write one JSON object a line")
        yield where, record


def _string(record: dict[str, Any], name: str, where: str) -> str:
    """A text of a record. Raises CorpusError if it is missing, empty, or has half a surrogate pair."""
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise CorpusError(f"{where} has no {name!r}", f'each line is an object with a text "{name}"')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(f"{where} holds half a surrogate pair", "remove that \\ud... escape") from error
    return value
