"""A neuron in this process with two scripted models; a hub on this machine."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from services.neuron.sources.hub import HubSource
from tests.doubles import vulkan_library
from tests.doubles.hub_server import Hub, serving_hub
from tests.doubles.neuron_host import running_neuron


@pytest.fixture
async def host(tmp_path: pathlib.Path):
    async with running_neuron(tmp_path) as host:
        host.script("bravo")
        host.script("endless", words=("la", " li", " lu"), is_endless=True)
        yield host


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving_hub() as served:
        yield served


@pytest.fixture
def source(hub: Hub, tmp_path: pathlib.Path) -> HubSource:
    return HubSource(tmp_path / "store", stall_seconds=30, endpoint=hub.endpoint)


@pytest.fixture
def vulkan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers see the GPU in software; skips where there is none."""
    if (why := vulkan_library.missing()) is not None:
        pytest.skip(why)
    for name, value in vulkan_library.environment().items():
        if name != "CORTEX_LLAMACPP_LIBRARY":
            monkeypatch.setenv(name, value)
