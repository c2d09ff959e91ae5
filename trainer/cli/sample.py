"""`trainer sample`: a model continues a text, or many. Only what it writes goes to stdout."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from trainer.cleaning import normalise_newlines
from trainer.cli.options import add_device, add_flags, given
from trainer.cli.texts import load_with_tokenizer
from trainer.config import SampleConfig
from trainer.devices import open_device
from trainer.errors import ConfigError
from trainer.generate import complete, stream_text
from trainer.model import build
from trainer.runtime import Runtime

EPILOG = """\
examples:
  trainer sample runs/nano --prompt "Once upon a time"
  trainer sample runs/nano --tokens 500 --temperature 0.7 --top-k 40 --seed 7
  trainer sample gpt2/ --prompt - < beginning.txt
  trainer sample runs/nano --prompts prompts.json > samples.jsonl

A checkpoint is a run's folder (its latest one counts), one of the folders in it, or a GPT-2 as it is
downloaded. The same seed gives the same text on the same device.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `trainer sample`."""
    parser.epilog = EPILOG
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's or a model's folder")
    parser.add_argument(
        "--prompt", default="", metavar="TEXT", help="text to continue; - reads stdin (default: none)"
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help='continue each of a JSON list of texts: {"prompt", "text"}, a line each',
    )
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FILE", help="tokenizer.json, where the checkpoint has none"
    )
    add_device(parser)
    add_flags(parser, "sampling", SampleConfig())


async def main(args: argparse.Namespace) -> int:
    """Write as the model writes. Raises CheckpointError, DeviceError and ConfigError."""
    config = SampleConfig(**given(args, SampleConfig))
    if args.prompt and args.prompts:
        raise ConfigError("--prompt and --prompts exclude each other", "leave one out")
    prompts = _prompts(args.prompts) if args.prompts else []
    prompt = _stdin() if args.prompt == "-" else args.prompt
    loaded, tokenizer = load_with_tokenizer(args.checkpoint, args.tokenizer)
    device = await open_device(args.device)
    model = build(loaded.model, generate=True, tuning=device.info.tuning)
    runtime = await Runtime.open(device, model)
    await runtime.load(loaded.weights)
    if args.prompts:
        for one in prompts:
            text = await complete(runtime, tokenizer, one, config)
            print(json.dumps({"prompt": one, "text": text}, ensure_ascii=False), flush=True)
    else:
        async for piece in stream_text(runtime, tokenizer, prompt, config):
            sys.stdout.write(piece)
            sys.stdout.flush()
        if sys.stdout.isatty():
            print()
    runtime.close()
    return 0


def _prompts(path: Path) -> list[str]:
    """The texts that a file lists. Raises ConfigError."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error.strerror})", "name a JSON file") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error})", 'write ["a text", "another"]') from error
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise ConfigError(f"{path} is no list of texts", 'write ["a text", "another"]')
    return listed


def _stdin() -> str:
    """What stdin holds, with the line ends that the text of the training had. Raises ConfigError."""
    try:
        return normalise_newlines(sys.stdin.buffer.read().decode())
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the prompt is not UTF-8 (byte {error.start:,})", "convert it with iconv"
        ) from error
