"""Random numbers on the GPU: weights, windows, and the choice of the next token."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from kernel_runs import Case, run

from trainer.devices import Device
from trainer.devices.twins.random import pcg4d
from trainer.devices.twins.sampling import keep
from trainer.ops import random
from trainer.ops.sampling import Sampler, choose
from trainer.plan import Plan, linear_grid

BORDER = 1e-5  # of the cumulative probability, within which float32 may choose either neighbour


# ---------------------------------------------------------------- weights and windows


def test_normal_numbers_have_the_moments_and_shape_of_a_normal_distribution(native: Device) -> None:
    n = 200_000
    constants = {"N": n, "STD": 0.5, "SEED": 1, "STREAM": 2, "FIRST": 0}
    out = np.zeros(n, np.float32)
    case = Case("random.normal", "", constants, {}, {"out": out}, lambda _: linear_grid(-(-n // 64)), ())
    x = asyncio.run(run(native, case, "random"))[0]["out"][:n].astype(np.float64) / 0.5
    assert abs(x.mean()) < 4 / n**0.5
    assert abs(x.std() - 1) < 4 / (2 * n) ** 0.5
    assert abs((x**3).mean()) < 4 * (15 / n) ** 0.5
    assert abs((x**4).mean() - 3) < 0.15  # twelve uniforms: 2.9
    for border, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert abs((abs(x) < border).mean() - share) < 0.005
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 4 / n**0.5


def test_streams_and_seeds_differ_and_pieces_continue(reference32: Device) -> None:
    def draw(seed: int, stream: int, first: int, n: int) -> np.ndarray:
        constants = {"N": n, "STD": 1.0, "SEED": seed, "STREAM": stream, "FIRST": first}
        case = Case(
            "random.normal", "", constants, {}, {"out": np.zeros(n, np.float32)}, lambda _: (1, 1, 1), ()
        )
        return asyncio.run(run(reference32, case, "random"))[0]["out"][:n]

    whole = draw(1, 2, 0, 100)
    assert np.array_equal(whole[60:], draw(1, 2, 60, 40))
    assert abs(np.corrcoef(whole, draw(2, 2, 0, 100))[0, 1]) < 0.4
    assert abs(np.corrcoef(whole, draw(1, 3, 0, 100))[0, 1]) < 0.4


def test_windows_are_spread_evenly_and_lie_in_parts_that_overlap(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataset in three parts gives the windows that one part gives."""
    tokens, B, T = 1000, 64, 8
    data = np.arange(tokens, dtype=np.uint32)

    async def draw(parts: int) -> list[np.ndarray]:
        monkeypatch.setattr(random, "TOKENS_AT_ONCE", -(-(tokens - T) // parts // 2) * 2)
        plan = Plan()
        counters = plan.tensor("counters", (4,), "u32", "state")
        dataset = [
            plan.tensor(f"dataset.{i}", (-(-count // 2),), "u32", "state")
            for i, (_, _, count) in enumerate(random.dataset_parts(tokens, T))
        ]
        assert len(dataset) == parts
        with plan.program("windows"):
            inputs, targets = random.windows(plan, dataset, tokens, counters, (B, T), seed=3)
        plan.finish()
        executable = await device.compile(plan)
        for (first, _, count), tensor in zip(random.dataset_parts(tokens, T), dataset, strict=True):
            some = np.resize(data[first : first + count], -(-count // 2) * 2)
            await executable.write(tensor, (some[0::2] | (some[1::2] << 16)).tobytes())
        found = []
        for step in range(20):
            await executable.write(counters, np.array([step, 0, 0, 0], np.uint32).tobytes())
            executable.run(["windows"])
            x = np.frombuffer(await executable.read(inputs), np.uint32).reshape(B, T)
            y = np.frombuffer(await executable.read(targets), np.uint32).reshape(B, T)
            assert np.array_equal(x, x[:, :1] + np.arange(T))
            assert np.array_equal(y, x + 1)
            found.append(x[:, 0].copy())
        return found

    whole, split = asyncio.run(draw(1)), asyncio.run(draw(3))
    assert np.array_equal(whole, split)
    starts = np.concatenate(whole)
    assert starts.max() < tokens - T
    counts = np.histogram(starts, 16, (0, tokens - T))[0]
    assert ((counts - 80) ** 2 / 80).sum() < 40  # chi-square with 15 degrees of freedom: 37.7 at 0.1%
    assert len({tuple(x) for x in whole}) == 20, "every step has windows of its own"


# ---------------------------------------------------------------- the next token


class Chooser:
    """The choice of tokens from fixed logits, over and over."""

    def __init__(self, device: Device, logits: np.ndarray, draws: int) -> None:
        self.plan, V = Plan(), logits.size
        self.sampler = Sampler(
            self.plan.tensor("settings", (2,), role="state"),
            self.plan.tensor("choices", (2,), "u32", "state"),
            self.plan.tensor("cursor", (2,), "u32", "state"),
            self.plan.tensor("sequence", (draws + 1,), "u32", "state"),
            self.plan.tensor("probabilities", (draws + 1,), role="state"),
            self.plan.tensor("logits", (1, V), role="state"),
        )
        with self.plan.program("choose"):
            choose(self.plan, V, self.sampler)
        self.plan.finish()
        self.draws = draws
        self.values = logits
        self.executable = asyncio.run(device.compile(self.plan))

    async def draw(self, temperature: float, top_k: int, top_p: float, seed: int) -> tuple[np.ndarray, ...]:
        """(tokens, their probabilities), both (draws)."""
        write, sampler = self.executable.write, self.sampler
        await write(sampler.logits, self.values.astype(np.float32).tobytes())
        await write(sampler.settings, np.array([temperature, top_p], np.float32).tobytes())
        await write(sampler.choices, np.array([seed, top_k], np.uint32).tobytes())
        await write(sampler.cursor, bytes(8))
        self.executable.run(["choose"] * self.draws)
        tokens = np.frombuffer(await self.executable.read(sampler.sequence), np.uint32)[1:]
        cursor = np.frombuffer(await self.executable.read(sampler.cursor), np.uint32)
        assert cursor.tolist() == [self.draws, self.draws]
        return tokens, np.frombuffer(await self.executable.read(sampler.probabilities), np.float32)[1:]


def separated(vocab: int, seed: int) -> np.ndarray:
    """Logits whose weights differ by 1% at least, so that float32 ranks them as float64 does."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.arange(vocab) * max(0.01, 12 / vocab)).astype(np.float32).astype(np.float64)


def uniforms(seed: int, draws: int) -> np.ndarray:
    return (pcg4d(seed, 0x64726177, np.arange(draws, dtype=np.uint32), 0)[0] >> np.uint32(8)) / 2**24


SETTINGS = [(0.7, 0, 1.0), (1.0, 5, 1.0), (1.3, 0, 0.9), (1.0, 40, 0.5), (5.0, 1, 1.0), (2.0, 9999, 0.999)]


@pytest.mark.parametrize("vocab", [1, 2, 256, 257, 1021])
def test_choices_agree_with_sorting_in_float64(vocab: int, device: Device) -> None:
    logits = separated(vocab, vocab)
    chooser = Chooser(device, logits, 24)
    softmax = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    for temperature, top_k, top_p in SETTINGS:
        tokens, probabilities = asyncio.run(chooser.draw(temperature, top_k, top_p, seed=8))
        kept = keep(np.exp((logits - logits.max()) / temperature), top_k, top_p)
        upper = np.cumsum(kept) / kept.sum()
        lower = upper - kept / kept.sum()
        u = uniforms(8, tokens.size)
        assert np.all(kept[tokens] > 0), "a token that top-k or top-p leaves out"
        assert np.all((lower[tokens] - BORDER <= u) & (u <= upper[tokens] + BORDER))
        np.testing.assert_allclose(probabilities, softmax[tokens], rtol=1e-4)


def test_greedy_takes_the_first_of_the_largest(device: Device) -> None:
    logits = np.zeros(700)
    for largest in ((699,), (0,), (300, 44, 555), (513, 257)):
        logits[:] = -3.0
        logits[list(largest)] = 2.5
        tokens, _ = asyncio.run(Chooser(device, logits, 2).draw(0.0, 0, 1.0, seed=1))
        assert tokens.tolist() == [min(largest)] * 2


def test_ties_at_the_border_are_kept(device: Device) -> None:
    logits = np.array([1.0, 3.0, 3.0, 3.0, 0.0])
    tokens, _ = asyncio.run(Chooser(device, logits, 64).draw(1.0, 2, 1.0, seed=1))
    assert set(tokens.tolist()) == {1, 2, 3}


def test_draws_are_distributed_as_the_probabilities_say(device: Device) -> None:
    logits = np.log(np.array([0.05, 0.3, 0.15, 0.02, 0.4, 0.08]))
    draws = 2000
    tokens, _ = asyncio.run(Chooser(device, logits, draws).draw(1.0, 0, 1.0, seed=6))
    expected = draws * np.exp(logits)
    counts = np.bincount(tokens, minlength=logits.size)
    assert ((counts - expected) ** 2 / expected).sum() < 20.5  # 5 degrees of freedom, at 0.1%
    assert len(set(map(tuple, tokens.reshape(-1, 20)))) == 100, "draws repeat"
