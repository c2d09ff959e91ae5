"""`trainer train`: from text to a trained model in a run folder."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from trainer import checkpoint
from trainer.answers import answers, from_run
from trainer.budget import estimate
from trainer.checkpoint import Checkpoint
from trainer.cli import run_folder
from trainer.cli.budget import MOST_MEMORY, budget_lines, check_size
from trainer.cli.display import Display, open_display
from trainer.cli.interrupt import Interrupt, handled
from trainer.cli.options import add_device, add_flags, given
from trainer.cli.settings import (
    DEFAULT_PRESET,
    add_resume,
    add_settings,
    described,
    exclude,
    refuse,
    resumed,
)
from trainer.cli.texts import (
    TextConfig,
    absolute,
    add_sources,
    load_split,
    load_tokenizer,
    text_bytes,
    tokenize,
)
from trainer.cli.texts import load_with_tokenizer as load_start
from trainer.cli.tune import SECONDS, kept_answers
from trainer.config import AUTO, PRESETS, ModelConfig, TrainConfig, from_dict, preset
from trainer.devices import Device, check_fits, open_device
from trainer.errors import CheckpointError, ConfigError
from trainer.events import Stream
from trainer.model import Model, build, settled
from trainer.safetensors import TensorData
from trainer.tokenizer import Tokenizer
from trainer.train import Trainer

TUNE = ("auto", "off", "force")
TUNE_SECONDS = 10.0  # of measuring before a run begins
BYTES_A_TOKEN = 3  # before the text is tokenized: from 2.6 (1,024 tokens) to 4.5 (50,257)

EPILOG = """\
presets:
{presets}
  `trainer train --preset small --help` shows small's values as the defaults.

examples:
  trainer train --preset nano --sources books --out runs/nano
  trainer train --preset micro --sources my/stories gutenberg:84 --steps 4000 --out runs/mine
  trainer train --resume runs/nano            (needs nothing else; goes on bit by bit as if never stopped)
  trainer train --from gpt2/ --sources notes/ --out runs/notes      (fresh optimiser, same tokenizer)
  trainer train --preset small --device dawn --precision auto       (mixed where that is the fast way)

units: batches in windows of --context tokens, losses in nats a token. Ctrl-C saves and says how to go on; a
second Ctrl-C quits at once. The run folder gets log.jsonl (an event a line) and the last two checkpoints,
which `transformers` loads too.
"""


@dataclass(frozen=True)
class Job:
    """All that a run is made of, before any text is read."""

    out: Path
    model: ModelConfig
    train: TrainConfig
    text: TextConfig
    tokenizer: Tokenizer | None = None  # None: train one
    weights: dict[str, TensorData] | None = None  # to begin with
    resume: Checkpoint | None = None
    tune: str = "auto"  # one of TUNE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `trainer train`."""
    parser.epilog = EPILOG.format(presets="\n".join(f"  {name:6} {p.note}" for name, p in PRESETS.items()))
    add_settings(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="the run's folder (default: runs/ and the preset's name)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run that --out holds")
    add_resume(parser, "go on with the run in this folder")
    parser.add_argument(
        "--from",
        type=Path,
        metavar="CHECKPOINT",
        help="begin with the weights and the tokenizer of a checkpoint, and a fresh optimiser",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="tokenizer.json, or a folder that holds one (default: train one of --vocab tokens on the text)",
    )
    add_device(parser)
    parser.add_argument(
        "--tune",
        choices=TUNE,
        help="auto: take the kernels that were measured to be the fastest on this device and, on a GPU, "
        f"measure what is missing for {TUNE_SECONDS:g} s at most; force: measure all anew; off: take what is "
        "usually the fastest (default: auto)",
    )
    add_sources(parser, "--sources")
    add_flags(parser, "text", TextConfig(), leave_out=["sources"])


async def main(args: argparse.Namespace) -> int:
    """Train; returns 0 when the run is finished or was stopped and saved. Raises TrainerError."""
    with open_display() as display, handled() as interrupt:
        out = out_of(args)
        with run_folder.created(out), run_folder.held(out):  # held before what it holds is looked at
            job = resumed_job(args, out) if args.resume else new_job(args, out)
            device = await open_device(args.device)
            await train(job, device, display, interrupt)
    return 0


def out_of(args: argparse.Namespace) -> Path:
    """The run folder. Raises CheckpointError where there is none to go on with, ConfigError."""
    if args.resume:
        return run_folder.folder_of_run(args.resume)
    name = args.preset or DEFAULT_PRESET
    preset(name)  # refuses the name of a folder that is no preset
    return args.out or Path("runs") / name


def new_job(args: argparse.Namespace, out: Path) -> Job:
    """The job of a run that begins."""
    model, train = described(args)
    text = replace(TextConfig(), **given(args, TextConfig))
    tune = args.tune or "auto"
    run_folder.check_new(out, args.overwrite)
    if start := getattr(args, "from"):
        refuse(args, ModelConfig, "the model comes from --from")
        loaded, tokenizer = load_start(start, args.tokenizer)
        return Job(out, loaded.model, train, text, tokenizer, loaded.weights, tune=tune)
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    if tokenizer:
        model = with_vocab(model, tokenizer, "vocab" in given(args, ModelConfig))
    return Job(out, model, train, text, tokenizer, tune=tune)


def with_vocab(model: ModelConfig, tokenizer: Tokenizer, asked: bool) -> ModelConfig:
    """`model` with the tokenizer's vocabulary. Raises ConfigError where another size was asked for."""
    if asked and tokenizer.vocab_size != model.vocab:
        raise ConfigError(
            f"--vocab is {model.vocab:,} and the tokenizer has {tokenizer.vocab_size:,} tokens",
            "leave --vocab out",
        )
    return replace(model, vocab=tokenizer.vocab_size)


def resumed_job(args: argparse.Namespace, out: Path) -> Job:
    """The job of a run that goes on. Raises ConfigError for flags that would change what was done."""
    exclude(args, "resume", "out", "overwrite", "from", "tokenizer", "tune")
    loaded = checkpoint.load(args.resume, resume=True)
    train = resumed(args, loaded)
    if train.steps < (loaded.step or 0):
        raise ConfigError(
            f"--steps {train.steps} is before step {loaded.step} of {loaded.folder}", "give more --steps"
        )
    assert loaded.state is not None
    if loaded.tokenizer is None or "text" not in loaded.state:
        raise CheckpointError(
            f"{loaded.folder} does not say what it was trained on", "begin a new run with --from"
        )
    text = replace(from_dict(TextConfig, loaded.state["text"]), **given(args, TextConfig))
    return Job(out, loaded.model, train, text, tokenizer=loaded.tokenizer, resume=loaded)


def resumable(job: Job) -> dict[str, Any]:
    """What checkpoints keep of a job, beside what the trainer itself keeps."""
    return {"text": asdict(replace(job.text, sources=absolute(job.text.sources)))}


async def train(job: Job, device: Device, display: Display, interrupt: Interrupt) -> None:
    """Check that the run fits, read the text, make its tokens, and train."""
    if job.train.precision == AUTO:
        job = replace(job, train=settled(job.train, device.info.tuning))
        units = "a GPU with" if job.train.precision == "mixed" else "no GPU with"
        display.say(f"precision   {job.train.precision}: {device.info.name} is {units} matrix units to use")
    plan(device, job, job.model.context + 1)
    training, validation = await load_split(job.text, display)
    size = text_bytes(training) + text_bytes(validation)
    planned = plan(device, job, max(size // BYTES_A_TOKEN, job.model.context + 1))
    budget = estimate(planned, job.train, software=device.info.software, text_bytes=size)
    for line in budget_lines(budget, job.train, size // BYTES_A_TOKEN):
        display.say(line)
    tokenizer = job.tokenizer or Tokenizer.train([d.text for d in training], job.model.vocab, display)
    model = replace(job.model, vocab=tokenizer.vocab_size)  # fewer than asked for, where the text has no more
    dataset = tokenize(tokenizer, training, validation, display)
    del training, validation  # the text is not needed any more, and may be large
    stream = Stream(display)
    trainer = await Trainer.create(
        device,
        model,
        job.train,
        tokenizer,
        dataset,
        on_event=stream,
        save=partial(run_folder.save, job.out),
        extra_state=resumable(job),
        resume=job.resume,
        answers=await measured(job, device, model, display),
    )
    if job.weights:
        await trainer.runtime.load(job.weights)
    if not job.resume:
        run_folder.clear(job.out)
    await run(trainer, stream, job.out, display, interrupt)


async def measured(job: Job, device: Device, model: ModelConfig, display: Display) -> dict[str, str]:
    """Which kernels to take, as --tune says; a run that goes on takes those that it began with."""
    known = from_run(job.resume.state, device.info, job.train) if job.resume else None
    if known is not None or job.tune == "off":
        return known or {}
    seconds = 0.0 if device.info.software else TUNE_SECONDS
    force = job.tune == "force"
    found, _ = await answers(
        device,
        model,
        job.train,
        kept_answers(),
        SECONDS if force else seconds,
        force=force,
        on_event=display,
    )
    return found


async def run(trainer: Trainer, stream: Stream, out: Path, display: Display, interrupt: Interrupt) -> None:
    """Train with a log, stop when interrupted, and say what to do next."""

    def stop() -> None:
        display.say("stopping after the work under way; once more quits at once")
        trainer.stop()

    log = run_folder.Log(out, trainer.step)
    stream.readers.append(log)
    interrupt.stop = display.lost = stop
    try:
        reason = await trainer.run()
    finally:
        interrupt.stop = display.lost = None
        log.close()
        trainer.runtime.close()
    if reason == "stopped":
        display.say(f"go on with: trainer train --resume {out}")
    else:
        display.say(f"let it write: trainer sample {out}")


def plan(device: Device, job: Job, tokens: int) -> Model:
    """The run's plan with a dataset of `tokens` tokens. Raises DeviceError where it does not fit."""
    check_size(job.model, device.info.memory or MOST_MEMORY, f"{device.info.name} has")
    built = build(
        job.model,
        train=job.train,
        tokens=tokens,
        evaluation_batch=job.train.batch,
        generate=True,
        tuning=device.info.tuning,
    )
    check_fits(built.plan, device.info)
    return built
