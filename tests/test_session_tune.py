"""The page measures kernels beside its stages, and a run keeps to those that it began with."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from page_session import QUICK, SMALL, STEPS, VOCAB, Page
from test_tune import MemoryCache

from demo import session_training
from trainer.devices import Device

FIELDS: dict[str, Any] = {"model": {**SMALL, "vocab": VOCAB}, "train": {**QUICK, "batch": 8}}


def used(page: Page) -> set[str]:
    """The variants of the products of the run under way."""
    assert page.session.training is not None
    micro = page.session.training.trainer.runtime.model.plan.programs["micro"]
    return {dispatch.variant for dispatch in micro.dispatches if dispatch.kernel == "matmul.multiply"}


def test_on_a_software_renderer_it_measures_when_asked_alone(
    native: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_training, "TUNE_SECONDS_SOFTWARE", 10.0)

    async def go() -> None:
        page = Page(native, measured=MemoryCache())
        assert await page.send("tune", **FIELDS, force=False) == {"measured": 0, "faster": 0}
        assert page.heard("progress") == []
        assert (await page.send("tune", **FIELDS, force=True))["measured"] > 0
        told = page.heard("progress")
        assert {event["stage"] for event in told} == {"tune"}
        assert told[-1]["total"] >= told[-1]["done"] > 0
        await page.close()

    asyncio.run(go())


def test_on_a_gpu_it_measures_beside_the_stages_and_trains_with_what_it_found(
    native: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor in the disguise of a GPU: what suits one is not what is the fastest. The page that goes on
    with the run knows nothing of what was measured.
    """
    monkeypatch.setattr(native, "info", replace(native.info, software=False))
    monkeypatch.setattr(session_training, "TUNE_SECONDS", 20.0)

    async def go() -> None:
        first = Page(native, measured=MemoryCache())
        tuning = first.sending("tune", **FIELDS, force=False)
        await first.prepare()
        run = await first.train(batch=8)
        assert tuning.done(), "training waits for it"
        assert tuning.result()["faster"] > 0
        assert "matmul_direct" in used(first)
        await first.until("step", step=3)
        await first.send("pause")
        await first.close()

        plain = Page(native)
        await plain.prepare()
        await plain.train(batch=8)
        assert used(plain) == {"matmul_tiled"}
        await plain.close()

        second = Page(native, first.files)
        await second.train(run)
        assert used(second) == used(first)
        await second.until("run_ended", reason="finished")
        await second.close()
        assert sorted({**first.losses, **second.losses}) == list(range(1, STEPS + 1))

    asyncio.run(go())
