"""How long each dispatch takes: by the GPU's clock, by the wall clock, in NumPy. In the page: see
test_browser_device.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from dispatch_times import check_times

from trainer.devices import Device, open_device


@pytest.mark.parametrize("name", ["auto", "reference"])
def test_dispatches_are_timed(name: str) -> None:
    device = asyncio.run(open_device(name))
    assert device.info.clock == (name == "auto")
    asyncio.run(check_times(device))


def test_without_a_clock_on_the_gpu_the_wall_clock_serves(
    native: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "info", replace(native.info, clock=False))
    asyncio.run(check_times(native))
