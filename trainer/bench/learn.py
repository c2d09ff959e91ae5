"""Does precision change what is learned? The same run in each precision, and one more with another seed.

Losses of two runs are never equal: rounding differs, and what differs grows. How much is too much is told by
the run with another seed, which differs from the first by nothing that a user would care about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import fmean
from typing import Any

from trainer.bench.records import Record, digits, ours
from trainer.cli.texts import TextConfig, load_split, tokenize
from trainer.config import PRESETS, ModelConfig, TrainConfig
from trainer.dataset import Dataset
from trainer.devices import Device
from trainer.errors import ConfigError
from trainer.events import Event, Notice, RunEnded, Step, Validation
from trainer.tokenizer import Tokenizer
from trainer.train import Trainer

POINTS = 200  # of the training loss, that a record keeps
VALIDATIONS = 20  # in a run

Points = list[tuple[int, float]]  # (step, nats a token)


@dataclass(frozen=True)
class Run:
    """What one run learned."""

    precision: str
    seed: int
    training: list[float]  # nats a token, a step each
    validation: Points
    seconds: float
    skipped: int  # steps that were not finite


def settings(name: str, steps: int) -> tuple[ModelConfig, TrainConfig]:
    """A preset's model and training, for `steps` steps and without samples. Raises ConfigError."""
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r} to learn with", f"choose from {', '.join(PRESETS)}")
    train = PRESETS[name].train
    return PRESETS[name].model, replace(
        train,
        steps=steps,
        warmup=min(train.warmup, steps // 2),
        eval_every=max(1, steps // VALIDATIONS),
        sample_every=0,
        save_every=0,
    )


async def compare_learning(
    device: Device, name: str, precisions: Sequence[str], steps: int, sources: list[str]
) -> list[Record]:
    """Records of a run on `sources` in each of `precisions`, and of the first one's with the next seed: its
    losses, and how far they are from the first run's. Raises TrainerError, also for a run that diverges.
    """
    model, train = settings(name, steps)
    training, validation = await load_split(TextConfig(sources=sources), _ignore)
    tokenizer = Tokenizer.train([document.text for document in training], model.vocab)
    dataset = tokenize(tokenizer, training, validation, _ignore)
    model = replace(model, vocab=tokenizer.vocab_size)
    wanted = [(precision, train.seed) for precision in precisions] + [(precisions[0], train.seed + 1)]
    runs = []
    for precision, seed in wanted:
        runs.append(
            await _learn(device, model, replace(train, precision=precision, seed=seed), tokenizer, dataset)
        )
    records = [
        {
            **ours(device),
            "workload": name,
            "precision": run.precision,
            "batch": train.batch,
            "seed": run.seed,
            "parameters": model.parameters,
            "steps": steps,
            "tokens": steps * train.batch * train.accumulate * model.context,
            "skipped_steps": run.skipped,
            "train_s": digits(run.seconds),
            **_compared(run, runs[0]),
            **_columns("training", thinned(smoothed(run.training), POINTS)),
            **_columns("validation", run.validation),
        }
        for run in runs
    ]
    for record in records:
        print(
            f"learn {record['precision']:5} seed {record['seed']}: validation loss "
            f"{record['validation_loss']:.4f}, in its second half {record['validation_difference_loss']:.4f} "
            f"from the first run's (training {record['training_difference_loss']:.4f})"
        )
    return records


async def _learn(
    device: Device, model: ModelConfig, train: TrainConfig, tokenizer: Tokenizer, dataset: Dataset
) -> Run:
    losses: list[float] = []
    validation: Points = []
    seconds, skipped = 0.0, 0

    def listen(event: Event) -> None:
        nonlocal seconds, skipped
        match event:
            case Step(loss=float(loss)):
                losses.append(loss)
                skipped += event.skipped
            case Validation(loss=float(loss)):
                validation.append((event.step, round(loss, 5)))
                print(
                    f"learn {train.precision:5} seed {train.seed} step {event.step:>6,}: {loss:.4f}",
                    flush=True,
                )
            case Step() | Validation():
                raise ConfigError(
                    f"the loss in {train.precision} is not finite at step {event.step}",
                    "compare a preset that does not diverge",
                )
            case Notice():
                print(f"note: {event.message}")
            case RunEnded():
                seconds = event.seconds

    trainer = await Trainer.create(device, model, train, tokenizer, dataset, on_event=listen)
    try:
        await trainer.run()
    finally:
        trainer.runtime.close()
    return Run(train.precision, train.seed, losses, validation, seconds, skipped)


def _ignore(event: Event) -> None:
    """Reading and tokenizing the text are not what is measured."""


def _compared(run: Run, first: Run) -> dict[str, Any]:
    """A run's losses at the end, and their distance to the first run's over the second half of both."""
    steps, half = len(run.training), len(run.training) // 2
    apart = [abs(x - y) for x, y in zip(smoothed(run.training), smoothed(first.training), strict=True)]
    late = [
        abs(loss - other)
        for (step, loss), (_, other) in zip(run.validation, first.validation, strict=True)
        if step > half
    ]
    found = {
        "training_loss": fmean(run.training[-max(1, steps // 10) :]),
        "validation_loss": run.validation[-1][1],
        "training_difference_loss": fmean(apart[half:]),
        "validation_difference_loss": fmean(late),
    }
    return {key: round(value, 5) for key, value in found.items()}


def _columns(name: str, points: Points) -> dict[str, list[float]]:
    """Points as two lists, of steps and of losses."""
    return {f"{name}_steps": [step for step, _ in points], f"{name}_losses": [loss for _, loss in points]}


def smoothed(losses: Sequence[float]) -> list[float]:
    """The mean of each loss and its neighbours, 1% of all to either side (fewer at the ends)."""
    count, reach, sums = len(losses), max(1, len(losses) // 100), [0.0, *accumulate(losses)]
    around = [(max(0, i - reach), min(count, i + reach + 1)) for i in range(count)]
    return [(sums[stop] - sums[start]) / (stop - start) for start, stop in around]


def thinned(losses: Sequence[float], most: int) -> Points:
    """At most `most` of the losses, which begin with step 1's: evenly spread, with the first and the last."""
    count = min(most, len(losses))
    chosen = [round(i * (len(losses) - 1) / max(1, count - 1)) for i in range(count)]
    return [(i + 1, round(losses[i], 4)) for i in chosen]
