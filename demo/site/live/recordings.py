"""The recorded runs in demo/page/recorded/, which `python -m demo.record` makes: an index of them for the
page, and what the figures draw. They draw the runs that made the models in docs/checkpoints/, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trainer.config import PRESETS, ModelConfig
from trainer.events import json_lines

RECORDED = Path(__file__).resolve().parents[2] / "page" / "recorded"
MODELS = Path(__file__).resolve().parents[3] / "docs" / "checkpoints"
LOG = "log.jsonl"  # of a model
REPORT = ".report.jsonl"
INDEX = "page/recorded/index.json"  # in the bundle
SPACING = 1.03  # ratio of two drawn steps at least: even on a logarithmic axis
SMOOTHED = 0.15  # of the steps so far, over which the drawn loss is averaged

Event = dict[str, Any]


@dataclass(frozen=True)
class Recording:
    """One run: its events, and its name, which is the file's."""

    name: str
    events: list[Event]
    has_report: bool

    @property
    def start(self) -> Event:
        """The run_started event, with the `recording`'s machine, date and commit."""
        return self.events[0]

    @property
    def preset(self) -> str | None:
        """The preset whose model this is."""
        model = ModelConfig(**self.start["model"])
        return next((name for name, preset in PRESETS.items() if preset.model == model), None)

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def sample(self) -> Event | None:
        """The last text that it wrote."""
        return next(reversed(self.of("sample")), None)

    @property
    def bits_per_byte(self) -> float | None:
        """Of the held-out text, at the end."""
        held = self.of("validation")
        return held[-1]["bits_per_byte"] if held else None

    @cached_property
    def series(self) -> dict[str, Any]:
        """What is drawn: of the training text and of held-out text, steps, seconds of training and bits per
        byte.

        Losses are a token's and tokens differ between vocabularies, so that runs compare by bits per byte;
        how many those are to a nat a token is told by the evaluations.
        """
        held = [e for e in self.of("validation") if e["step"] and e["loss"] and e["bits_per_byte"]]
        factor = held[-1]["bits_per_byte"] / held[-1]["loss"] if held else 0
        steps = [e for e in self.of("step") if e["loss"] is not None and not e["skipped"]]
        drawn, last = list[tuple[int, float, float]](), 0.0
        for i, event in enumerate(steps):
            if event["step"] >= last * SPACING or i == len(steps) - 1:
                last = event["step"]
                around = [e["loss"] for e in steps[max(0, i - int(SMOOTHED * i)) : i + 1]]
                drawn.append((last, event["seconds"], round(factor * sum(around) / len(around), 4)))
        evaluated = [(e["step"], self._seconds_at(steps, e["step"]), e["bits_per_byte"]) for e in held]
        return {
            "tokens_per_step": self.start["tokens_per_step"],
            "flops_per_step": self.start["flops_per_step"],
            "training": list(zip(*drawn, strict=True)),
            "held_out": list(zip(*evaluated, strict=True)),
        }

    @staticmethod
    def _seconds_at(steps: list[Event], step: int) -> float:
        return next((e["seconds"] for e in steps if e["step"] >= step), steps[-1]["seconds"])


def all_runs(folder: Path = RECORDED) -> list[Recording]:
    """The recorded runs, the smallest first."""
    paths = [path for path in folder.glob("*.jsonl") if not path.name.endswith(REPORT)]
    runs = [Recording(path.stem, _lines(path), path.with_suffix(REPORT).is_file()) for path in paths]
    return sorted(runs, key=_size)


def of_models(folder: Path = MODELS) -> list[Recording]:
    """The runs that made the models that come with the site, the smallest first, by the models' names."""
    runs = [Recording(path.parent.name, _lines(path), True) for path in folder.glob(f"*/{LOG}")]
    return sorted(runs, key=_size)


def drawn() -> list[Recording]:
    """All that the figures draw, the smallest first."""
    return sorted([*all_runs(), *of_models()], key=_size)


def index(runs: list[Recording]) -> list[dict[str, Any]]:
    """What the page knows of the recorded runs before it loads one; files lie beside the index."""
    return [
        {
            "name": run.name,
            "file": f"{run.name}.jsonl",
            "report": f"{run.name}{REPORT}" if run.has_report else None,
            "preset": run.preset,
            "model": run.start["model"],
            "parameters": run.start["parameters"],
            "steps": run.start["steps"],
            "device": run.start["device"]["name"],
            **run.start["recording"],
        }
        for run in runs
    ]


def _size(run: Recording) -> tuple[int, str]:
    return run.start["parameters"], run.name


def _lines(path: Path) -> list[Event]:
    return [json.loads(line) for line in json_lines(path.read_text(encoding="utf-8"))]
