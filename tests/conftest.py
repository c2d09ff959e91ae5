"""Devices that the tests share, one of each a process. A missing GPU adapter is an error, never a skip."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import HealthCheck, settings

from trainer.cache import CACHE_VARIABLE
from trainer.devices import Device, open_device

# How long an example takes says what else the machine does, and nothing of the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What this machine's user has fetched and measured is not for tests, nor for what they start."""
    os.environ[CACHE_VARIABLE] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def native() -> Device:
    """The best adapter there is: on a machine without a GPU, Mesa's software renderer. TEST_DEVICE in the
    environment names another, "dawn" for one.
    """
    return asyncio.run(open_device(os.environ.get("TEST_DEVICE", "auto")))


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
