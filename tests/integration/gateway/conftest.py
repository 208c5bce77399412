"""A fleet per test, with both transports where a test asks for it."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.gateway.fleet import Fleet


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
