"""A fleet per test, with both transports where a test asks for it."""

import pathlib
from collections.abc import AsyncIterator

import pytest

from tests.doubles.scripted_upstream import ScriptedUpstream
from tests.integration.gateway.far import KEY, far_fleet
from tests.integration.gateway.fleet import Fleet
from tests.integration.gateway.gateway_process import Process


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """A started fleet with one model and no neuron."""
    one = Fleet()
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def bare() -> AsyncIterator[Fleet]:
    """A fleet that the test starts with settings of its own."""
    one = Fleet()
    yield one
    await one.stop()


@pytest.fixture
async def gateway(tmp_path: pathlib.Path) -> AsyncIterator[Process]:
    """A gateway as a process of its own, which the test starts."""
    one = Process(tmp_path)
    yield one
    if one.process.returncode is None:
        one.process.kill()
        await one.process.wait()


@pytest.fixture
async def far(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    """Another fleet, with the model `vast`, to be asked by its key."""
    monkeypatch.setenv("FAR_KEY", KEY)
    async with far_fleet() as one:
        yield one


@pytest.fixture
async def there() -> AsyncIterator[ScriptedUpstream]:
    """Another server, which answers as it is told."""
    async with ScriptedUpstream() as one:
        yield one


@pytest.fixture
async def other() -> AsyncIterator[ScriptedUpstream]:
    """A second one."""
    async with ScriptedUpstream() as one:
        yield one
