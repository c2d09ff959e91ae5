"""Which devices have the subgroups that kernels count on, and what plans make of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from trainer.devices import Device, reference
from trainer.devices.reference import ReferenceDevice
from trainer.devices.subgroups import tried
from trainer.devices.twins import subgroups as twin
from trainer.errors import DeviceError
from trainer.kernels import HALF, SUBGROUPS, MatrixUnits, Tuning
from trainer.ops import attention

Meet = Callable[[SimpleNamespace, np.ndarray], None]


def of_four(k: SimpleNamespace, met: np.ndarray) -> None:
    """What a thread of a subgroup of four hears: of those beyond it, of itself."""
    threads, others = np.arange(64)[:, None], np.arange(8)
    met[:512] = np.where(others < 4, threads ^ others, threads).ravel()


def in_pairs(k: SimpleNamespace, met: np.ndarray) -> None:
    """Neighbours in a subgroup are two apart in the workgroup."""
    met[:512] = (np.arange(64)[:, None] ^ 2 * np.arange(8)).ravel()


@pytest.mark.parametrize(
    ("meet", "kept"), [(twin.meet, True), (of_four, False), (in_pairs, False)], ids=["eight", "four", "pairs"]
)
def test_subgroups_are_only_enabled_where_eight_threads_in_a_row_share_one(
    meet: Meet, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "twin", lambda kernel: meet)
    device = ReferenceDevice()
    device.info = replace(device.info, enabled=(HALF, SUBGROUPS))
    assert asyncio.run(tried(device)).info.enabled == ((HALF, SUBGROUPS) if kept else (HALF,))


def test_a_device_that_cannot_compile_shuffles_has_no_subgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    device = ReferenceDevice()
    device.info = replace(device.info, enabled=(SUBGROUPS,))

    async def compile(plan: object) -> None:
        raise DeviceError("the GPU refuses the kernel subgroups.meet", "update the graphics driver")

    monkeypatch.setattr(device, "compile", compile)
    assert asyncio.run(tried(device)).info.enabled == ()


def test_a_device_without_subgroups_is_not_asked() -> None:
    device = ReferenceDevice()
    device.info = replace(device.info, enabled=(HALF,))
    assert asyncio.run(tried(device)) is device
    assert device.info.enabled == (HALF,)


def test_a_gpu_with_subgroups_takes_the_kernels_that_use_them() -> None:
    def first(features: frozenset[str], head_size: int = 64) -> str:
        fits = attention.fitting(1024, head_size, MatrixUnits())
        return Tuning(software=False, features=features).variants("attention", fits)[0]

    assert first(frozenset()) == "attention_tiled"
    assert first(frozenset({SUBGROUPS})) == "attention_subgroups"
    assert first(frozenset({SUBGROUPS}), head_size=128) == "attention_tiled"


def test_the_device_of_these_tests_has_them(native: Device) -> None:
    """Mesa's software renderer has subgroups of eight threads, so the kernels' tests run on it."""
    assert SUBGROUPS in native.info.enabled
