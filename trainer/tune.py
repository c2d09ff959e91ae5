"""The autotuner: measures on a device which way to run each op of a training run is the fastest.

A plan asks questions (trainer/kernels.py): an op on a shape, with candidates. Each question is answered in a
small plan of its own, which holds every candidate as a program, over the same random data of the true shapes:

    checked     what a candidate writes is compared with what the naive variant writes, and a candidate that
                differs is refused
    timed       in turns with the others, on the GPU's own clock where there is one: the median of rounds
    chosen      the fastest one, if it is faster than the one that is taken without measuring by MARGIN

The largest questions come first, until the time is up. Kept answers are in trainer/answers.py.
"""

from __future__ import annotations

import asyncio
import math
import struct
import time
from array import array
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from statistics import median

from trainer.config import ModelConfig, TrainConfig
from trainer.devices import Device, Executable
from trainer.errors import DeviceError
from trainer.events import Notice, Progress, Reader
from trainer.kernels import Choice, Constant, Question, Tuning, binding_modes, needs
from trainer.model import build
from trainer.ops.cast import cast
from trainer.ops.random import normal
from trainer.plan import Asked, Grid, Plan, Tensor, binding_pieces

# Of its time that a candidate has to win. An op that is repeated finds its code and its numbers in caches,
# where a step's often are not: of two that are closer, the one that is not measured is as often the better.
MARGIN = 0.05
ROUNDS = 5  # of which the median counts
ROUND_SECONDS = 0.01  # of launches in a round: a hundred times what a browser rounds its clock to
CLEAR_SECONDS = 0.001  # what the launches take at least that say how many a round has
MOST_LAUNCHES = 4096  # in a round
HOPELESS = 2.0  # times as slow as another one: not timed any further, nor its variant in other tiles
# Operations of the naive kernel: of a larger product, or of more logits, it makes the first rows alone.
CHECKED, CHECKED_SOFTWARE = 1e9, 2e7
SAMPLE = 4096  # elements that are compared at the beginning, and at the end, of what a candidate writes
# |got - expected| <= tolerance · (|expected| + root mean square), in what an op stores: orders of summation
# differ by a tenth of it at most, a wrong kernel by far more.
TOLERANCE = {"f32": 1e-3, "f16": 2.0**-6}

Values = tuple[str, list[float]]  # dtype, and some elements of a tensor


@dataclass(frozen=True)
class Finding:
    """The answer to a question. `seconds` are of one run of the op, forward and backward, each way."""

    question: Question
    winner: Choice
    seconds: dict[str, float]
    refused: dict[str, str] = field(default_factory=dict)  # candidates, and why they are of no use

    @property
    def default(self) -> Choice:
        """What is taken without measuring."""
        return self.question.candidates[0]

    @property
    def speedup(self) -> float:
        """How many times as fast the winner is as the default."""
        default = self.seconds.get(str(self.default))
        return default / self.seconds[str(self.winner)] if default else 1.0


def questions(model: ModelConfig, train: TrainConfig, tuning: Tuning) -> list[Asked]:
    """What a training step asks and there is more than one candidate for, the most work first.

    Raises DeviceError where WebGPU's limits forbid the model.
    """
    plan = build(model, train=train, tokens=model.context + 1, tuning=tuning).plan
    micro = [plan.programs[name] for name in ("micro", "micro_add") if name in plan.programs]
    asked = {key: asked for program in reversed(micro) for key, asked in program.asked.items()}
    open_ones = [one for one in asked.values() if len(one.question.candidates) > 1]
    return sorted(open_ones, key=lambda one: -one.question.work * max(map(len, one.runs.values())))


async def tune(
    device: Device, asked: Iterable[Asked], seconds: float, on_event: Reader | None = None
) -> AsyncIterator[Finding]:
    """Answers to as many of the questions as `seconds` allow, each as soon as it is found. Tells how far it
    is, and what was refused.

    May be cancelled at any time; the device's memory is given back in any case. Raises DeviceError.
    """
    tell = on_event or (lambda event: None)
    asked = list(asked)
    deadline = time.perf_counter() + seconds
    done = 0
    for one in asked:
        tell(Progress("tune", done, len(asked), "questions", one.question.key))
        finding = await _answer(device, one, deadline)
        if finding is None:
            break
        done += 1
        for choice, why in finding.refused.items():
            tell(Notice(f"{choice} is refused for {one.question.key}: {why}"))
        yield finding
    tell(Progress("tune", done, len(asked), "questions"))


async def _answer(device: Device, asked: Asked, deadline: float) -> Finding | None:
    """The answer to one question; None if it was not found in time."""
    if time.perf_counter() >= deadline:
        return None
    enabled = set(device.info.enabled)
    lacking = {str(c): needs(c.variant).features - enabled for c in asked.question.candidates}
    refused = {
        name: f"it takes {', '.join(sorted(features))}, which {device.info.name} does not give"
        for name, features in lacking.items()
        if features
    }
    trials = _Trials(device, asked, refused)
    executable = await device.compile(trials, programs=["fill", NAIVE])
    try:
        return await _Measuring(executable, trials, refused).answer(asked.question, deadline)
    finally:
        executable.close()


# -------------------------------------------------------------------- the plan of a question

NAIVE = "naive"


class _Trials(Plan):
    """The candidates of a question as programs over the same tensors, which are like those of the run. `fill`
    puts random numbers into them. `naive` is what candidates are held against: the naive variant or, where
    that cannot run the shape, the candidate that is taken without measuring.
    """

    def __init__(self, device: Device, asked: Asked, refused: dict[str, str]) -> None:
        """Adds to those that are `refused` those that WebGPU's limits forbid. Raises DeviceError for all."""
        super().__init__(device.info.tuning)
        self.shared: dict[tuple[Tensor, int, tuple[int, ...]], Tensor] = {}
        question = asked.question
        able: list[Choice] = []
        for choice in question.candidates:
            if str(choice) not in refused:
                try:
                    self._append(_program(str(choice)), asked, choice)
                    able.append(choice)
                except DeviceError as error:
                    refused[str(choice)] = str(error)
        if not able:
            raise DeviceError(f"no kernel runs {question.key}", "choose a smaller batch or model")
        naive = [choice for choice in able if choice.variant == question.op]
        self._append(NAIVE, asked, (naive or able)[0])
        if naive:
            self._cut(question.work, CHECKED_SOFTWARE if device.info.software else CHECKED)
        self.written = list(
            dict.fromkeys(
                tensor
                for dispatch in self.programs[NAIVE].dispatches
                for name, mode in binding_modes(dispatch.variant, dispatch.entry).items()
                if mode == "read_write" and (tensor := dispatch.bindings[name]) in self.shared.values()
            )
        )
        self._fill()
        self.finish()

    def _append(self, program: str, asked: Asked, choice: Choice) -> None:
        """A program of all parts of the op, or none. Raises DeviceError."""
        try:
            with self.program(program):
                for runs in asked.runs.values():
                    runs[0](self, choice)
        except DeviceError:
            del self.programs[program]
            raise

    def dispatch(
        self,
        kernel: str,
        *,
        grid: Grid,
        constants: Mapping[str, Constant],
        variant: str = "",
        **bindings: Tensor | None,
    ) -> None:
        """As of any plan, over tensors of its own in place of another plan's."""
        own = {name: tensor and self._own(tensor) for name, tensor in bindings.items()}
        super().dispatch(kernel, grid=grid, constants=constants, variant=variant, **own)

    def _own(self, tensor: Tensor) -> Tensor:
        if self.tensors.get(tensor.root.name) is tensor.root:  # partial sums, made by the op itself
            return tensor
        key = (tensor.root, tensor.offset, tensor.shape)
        if key not in self.shared:
            name = f"shared.{len(self.shared)}"
            self.shared[key] = self.tensor(name, tensor.shape, tensor.dtype, "state")
        return self.shared[key]

    def _cut(self, work: float, most: float) -> None:
        """Let the naive variant, whose threads take a row each, compute no more than the first rows, where an
        op is one kernel. Parts of an op that read each other's results are computed whole.
        """
        program = self.programs[NAIVE]
        if work > most and len(program.dispatches) == 1:
            (dispatch,) = program.dispatches
            x, y, z = dispatch.grid
            fewer = max(1, math.ceil(max(x if y == 1 else y, 1) * most / work))
            program.dispatches = [replace(dispatch, grid=(fewer, 1, z) if y == 1 else (x, fewer, z))]

    def _fill(self) -> None:
        """Random numbers, small enough that the exponentials of what they stand for stay finite in f16."""
        stream = 0
        with self.program("fill"):
            for tensor in self.shared.values():
                if tensor.dtype == "u32":
                    continue
                for _, piece in binding_pieces(tensor):
                    made = piece if tensor.dtype == "f32" else self.activation("made", piece.shape)
                    normal(self, made, std=0.1, seed=1, stream=(stream := stream + 1))
                    if made is not piece:
                        cast(self, made, piece)


def _program(choice: str) -> str:
    """What the program of a candidate is called: a device may be told several names in one text."""
    return choice.replace(" ", ",")


# -------------------------------------------------------------------- checking and timing


class _Measuring:
    """A question's programs on a device."""

    def __init__(self, executable: Executable, trials: _Trials, refused: dict[str, str]) -> None:
        self.executable = executable
        self.trials = trials
        self.refused = refused  # candidates, and why

    async def answer(self, question: Question, deadline: float) -> Finding | None:
        before = await self._results(None)
        expected = await self._results(NAIVE)
        launches: dict[str, int] = {}
        rounds: dict[str, list[float]] = {}
        refused, hopeless, best = self.refused, set[str](), math.inf
        if not self.trials.tuning.software:  # there, compiling what is hopeless would cost more than it saves
            able = [_program(str(choice)) for choice in question.candidates if str(choice) not in refused]
            with suppress(DeviceError):  # of one of them, which is found out below
                await self.executable.compile(able)
        for choice in question.candidates:
            name = str(choice)
            if name in refused or choice.variant in hopeless:
                continue
            if time.perf_counter() >= deadline:
                return None
            try:
                await self.executable.compile([_program(name)])
            except DeviceError as error:
                refused[name] = str(error)
                continue
            if wrong := _difference(before, expected, await self._results(_program(name))):
                refused[name] = wrong
                continue
            launches[name], once = await self._launches(name)
            rounds[name] = [once]
            best = min(best, once)
            if once > HOPELESS * best:  # the first of a variant is the one that should suit it best
                hopeless.add(choice.variant)
            await asyncio.sleep(0)
        if not rounds:
            return Finding(question, question.candidates[0], {}, refused)
        for _ in range(ROUNDS):
            for name, (first, *_) in rounds.items():
                if first <= HOPELESS * best:
                    rounds[name].append(await self._once(name, launches[name]))
            if time.perf_counter() >= deadline:
                break
        seconds = {name: median(times[1:] or times) for name, times in rounds.items()}
        return Finding(question, _winner(question, seconds), seconds, refused)

    async def _results(self, program: str | None) -> list[Values]:
        """What the candidates write, after `program` has run on the data as it was at first: a sample."""
        for tensor in self.trials.shared.values():
            if tensor.dtype == "u32":  # targets: the first few tokens of any vocabulary
                await self.executable.write(tensor, array("I", (i % 7 for i in range(tensor.size))).tobytes())
        self.executable.run(["fill", *([program] if program else [])])
        return [await self._sample(tensor) for tensor in self.trials.written]

    async def _sample(self, tensor: Tensor) -> Values:
        size = min(SAMPLE, tensor.size)
        values: list[float] = []
        for start in {0, (tensor.size - size) // 2 * 2}:
            data = await self.executable.read(tensor.view("sample", start, (size,)))
            values += struct.unpack_from(f"<{size}{'e' if tensor.dtype == 'f16' else 'f'}", data.cast("B"))
        return tensor.dtype, values

    async def _launches(self, name: str) -> tuple[int, float]:
        """How many launches a round has, and the seconds of one."""
        launches = 1
        while (each := await self._once(name, launches)) * launches < CLEAR_SECONDS:
            if launches >= MOST_LAUNCHES:
                break
            launches *= 8
        each = min(each, await self._once(name, launches))  # once more: it decides whether to go on with it
        return max(1, min(MOST_LAUNCHES, int(ROUND_SECONDS / max(each, 1e-9)))), each

    async def _once(self, name: str, launches: int) -> float:
        return sum(await self.executable.times(_program(name), launches))


def _difference(before: list[Values], expected: list[Values], got: list[Values]) -> str:
    """Where a candidate's results are not what the naive variant wrote; nothing where they are."""
    half = any(dtype == "f16" for dtype, _ in expected)
    for (_, start), (dtype, wanted), (_, values) in zip(before, expected, got, strict=True):
        written = [(x, y) for x, y, first in zip(values, wanted, start, strict=True) if y != first]
        scale = math.sqrt(sum(y * y for _, y in written) / max(1, len(written)))
        for x, y in written:
            if not abs(x - y) <= TOLERANCE["f16" if half else dtype] * (abs(y) + scale):
                return f"it computes {x:g} where the naive variant has {y:g}"
    return ""


def _winner(question: Question, seconds: dict[str, float]) -> Choice:
    """The fastest candidate, or the default where that is as fast but for MARGIN."""
    default = question.candidates[0]
    fastest = min(
        (choice for choice in question.candidates if str(choice) in seconds),
        key=lambda choice: seconds[str(choice)],
    )
    if str(default) not in seconds or seconds[str(fastest)] < (1 - MARGIN) * seconds[str(default)]:
        return fastest
    return default
