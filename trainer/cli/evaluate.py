"""`trainer eval`: how well a model predicts text, and two benchmarks, as lines and as a JSON report."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import checkpoint, corpus, storage
from trainer.benchmarks import (
    BlimpScore,
    LambadaScore,
    Paradigm,
    blimp,
    lambada,
    longest_sentence,
    read_blimp,
    read_lambada,
    with_context,
)
from trainer.checkpoint import Checkpoint
from trainer.cli.display import open_display
from trainer.cli.options import add_device, whole
from trainer.cli.run_folder import created
from trainer.cli.texts import TextConfig, add_sources, load_split, load_with_tokenizer
from trainer.config import ModelConfig, from_dict
from trainer.corpus import Document
from trainer.devices import Device, open_device
from trainer.errors import CheckpointError, ConfigError
from trainer.evaluate import TextScore, bits_per_byte
from trainer.events import Reader
from trainer.model import build
from trainer.report import DataFacts, Report, document_facts, file_facts, make
from trainer.runtime import Runtime
from trainer.safetensors import TensorData
from trainer.tokenizer import Tokenizer

EPILOG = """\
examples:
  trainer eval runs/nano                              (the texts that training kept for validation)
  trainer eval runs/nano --text gutenberg:84 --out report.json
  trainer eval gpt2/ --lambada lambada_test.jsonl --blimp blimp/data --limit 100

Losses are in nats a token; bits per byte compare between tokenizers. Documents are read whole, in windows
that overlap by half. LAMBADA is OpenAI's JSONL of {"text": ...}; BLiMP is its folder of JSONL files.
"""


@dataclass(frozen=True)
class Inputs:
    """All that is evaluated, read before the model is."""

    documents: Sequence[Document]
    counts: Counter[int] | None  # of tokens in the training text, where it is known
    passages: Sequence[str]
    paradigms: Sequence[Paradigm]
    facts: list[DataFacts]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `trainer eval`."""
    parser.epilog = EPILOG
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's or a model's folder")
    add_sources(parser, "--text", default=None)
    parser.add_argument("--lambada", type=Path, metavar="FILE", help="score the last words of these passages")
    parser.add_argument(
        "--blimp", type=Path, nargs="+", metavar="PATH", help="score these pairs: folders or files"
    )
    parser.add_argument(
        "--limit",
        type=whole,
        metavar="N",
        help="of the benchmarks, the first N passages, and pairs of each kind",
    )
    parser.add_argument(
        "--stride", type=whole, metavar="N", help="tokens between windows (default: half of them)"
    )
    parser.add_argument("--batch", type=whole, default=8, metavar="N", help="windows at a time (default: 8)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the report, as JSON")
    parser.add_argument("--tokenizer", type=Path, metavar="FILE", help="where the checkpoint has none")
    add_device(parser)


async def main(args: argparse.Namespace) -> int:
    """Evaluate. Raises CheckpointError, CorpusError, DeviceError, ConfigError and StorageError."""
    for flag in ("batch", "limit", "stride"):
        if getattr(args, flag) == 0:
            raise ConfigError(f"--{flag} is 0", "give a value from 1 up")
    if args.out and args.out.is_dir():
        raise ConfigError(f"--out {args.out} is a folder", "name a file")
    loaded, tokenizer = load_with_tokenizer(args.checkpoint, args.tokenizer)
    with open_display() as display, created(args.out.parent) if args.out else contextlib.nullcontext():
        device = await open_device(args.device)
        inputs = await read_inputs(args, loaded, tokenizer, display)
        began = time.perf_counter()
        text, words, pairs = await scores(args, loaded, tokenizer, device, inputs, display)
        report = make(
            loaded,
            tokenizer,
            device.info,
            seconds=time.perf_counter() - began,
            data=inputs.facts,
            text=text,
            lambada=words,
            blimp=pairs,
            seed=(_state(loaded) or {}).get("train", {}).get("seed"),
        )
        if args.out:
            storage.write_file(args.out, [report.to_json().encode()])
        for line in report_lines(report):
            display.say(line)
        if args.out:
            display.say(f"report written to {args.out}")
    return 0


async def read_inputs(
    args: argparse.Namespace, loaded: Checkpoint, tokenizer: Tokenizer, on_event: Reader
) -> Inputs:
    """What the flags name; without any, the validation texts of the run that made the checkpoint, to compare
    with the token frequencies of its training texts.
    """
    documents: Sequence[Document] = []
    counts: Counter[int] | None = None
    facts: list[DataFacts] = []
    if args.text is not None:
        documents = await corpus.load(args.text, on_event=on_event)
        facts.append(document_facts(" ".join(args.text), documents))
    elif not (args.lambada or args.blimp):
        training, documents = await _texts_of_run(loaded, on_event)
        counts = Counter(tokenizer.encode_documents([d.text for d in training], on_event))
        facts.append(document_facts("validation", documents))
    passages = read_lambada(args.lambada) if args.lambada else []
    paradigms = [paradigm for path in args.blimp or [] for paradigm in read_blimp(path)]
    for path in [*([args.lambada] if args.lambada else []), *(args.blimp or [])]:
        facts += file_facts(path)
    return Inputs(documents, counts, passages, paradigms, facts)


async def _texts_of_run(loaded: Checkpoint, on_event: Reader) -> tuple[list[Document], list[Document]]:
    """The (training, validation) texts of the run that made a checkpoint."""
    state = _state(loaded)
    if not state or "text" not in state:
        raise ConfigError(
            f"{loaded.folder} does not say what it was trained on", "give --text, --lambada or --blimp"
        )
    return await load_split(from_dict(TextConfig, state["text"]), on_event)


def _state(loaded: Checkpoint) -> dict[str, Any] | None:
    """What the trainer noted of the run, without the optimiser's part; None for a model made elsewhere."""
    path = loaded.folder / checkpoint.STATE
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))["state"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error})", "copy the checkpoint again") from error
    return state if isinstance(state, dict) else None


async def scores(
    args: argparse.Namespace,
    loaded: Checkpoint,
    tokenizer: Tokenizer,
    device: Device,
    inputs: Inputs,
    on_event: Reader,
) -> tuple[TextScore | None, LambadaScore | None, BlimpScore | None]:
    """The scores of what there is to score."""
    text = words = pairs = None
    if inputs.documents or inputs.passages:
        runtime = await _runtime(device, loaded.model, loaded.weights, args.batch)
        if inputs.documents:
            texts = [document.text for document in inputs.documents]
            text = await bits_per_byte(
                runtime,
                tokenizer,
                texts,
                stride=args.stride,
                unigram_counts=inputs.counts,
                on_event=on_event,
            )
        if inputs.passages:
            words = await lambada(runtime, tokenizer, inputs.passages, limit=args.limit, on_event=on_event)
        runtime.close()
    if inputs.paradigms:
        context = longest_sentence(tokenizer, inputs.paradigms)
        model, weights = with_context(loaded.model, loaded.weights, context)
        runtime = await _runtime(device, model, weights, args.batch)
        pairs = await blimp(runtime, tokenizer, inputs.paradigms, limit=args.limit, on_event=on_event)
        runtime.close()
    return text, words, pairs


async def _runtime(device: Device, model: ModelConfig, weights: dict[str, TensorData], batch: int) -> Runtime:
    built = build(model, evaluation_batch=batch, tuning=device.info.tuning)
    runtime = await Runtime.open(device, built)
    await runtime.load(weights)
    return runtime


def report_lines(report: Report) -> list[str]:
    """The scores in a few lines."""
    lines = []
    if text := report.text:
        base = text.baselines
        lines += [
            f"text     {text.loss:.4f} nats a token, perplexity {text.perplexity:,.2f}, "
            f"{text.bits_per_byte:.4f} bits per byte ({text.documents} documents, {text.tokens:,} tokens)",
            f"  against {base.unigram_bits_per_byte:.4f} of the tokens' frequencies alone, "
            f"{base.zlib_bits_per_byte:.4f} of zlib, {base.uniform_bits_per_byte:.4f} of chance",
        ]
    if words := report.lambada:
        lines.append(
            f"LAMBADA  {words.accuracy:.2%} of the last words, perplexity {words.perplexity:,.2f} "
            f"({words.examples:,} passages)"
        )
    if pairs := report.blimp:
        lines.append(
            f"BLiMP    {pairs.accuracy:.2%} ({pairs.pairs:,} pairs, {len(pairs.paradigms)} paradigms)"
        )
        lines += [f"  {name:32} {accuracy:.2%}" for name, accuracy in pairs.phenomena.items()]
    return lines
