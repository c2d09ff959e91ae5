"""Devices that the tests share, one of each a process. A missing GPU adapter is an error, never a skip."""

from __future__ import annotations

import asyncio

import pytest

from trainer.devices import Device, open_device
from trainer.devices.native import NativeDevice, list_adapters

DEFAULT_LIMITS = {
    "max-buffer-size": 256 << 20,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-compute-workgroup-size-y": 256,
    "max-compute-workgroup-size-z": 64,
    "max-compute-workgroup-storage-size": 16 << 10,
    "max-storage-buffer-binding-size": 128 << 20,
    "max-storage-buffers-per-shader-stage": 8,
}


@pytest.fixture(scope="session")
def native() -> Device:
    """The best adapter there is (on a machine without a GPU, Mesa's software renderer) with no more than
    WebGPU's default limits, though wgpu would give all that the adapter has.
    """
    adapter = list_adapters()[0]
    device = NativeDevice(adapter)
    device.device = adapter.request_device_sync(required_limits=DEFAULT_LIMITS)
    return device


@pytest.fixture(scope="session")
def reference32() -> Device:
    return asyncio.run(open_device("reference"))


@pytest.fixture(scope="session")
def reference64() -> Device:
    return asyncio.run(open_device("reference64"))


@pytest.fixture(params=["native", "reference32"])
def device(request: pytest.FixtureRequest) -> Device:
    """Each device that is not the oracle."""
    return request.getfixturevalue(request.param)
