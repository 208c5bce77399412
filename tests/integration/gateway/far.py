"""Another gateway as the upstream of the one that is tested."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from services.gateway.settings import ApiKey, AuthSettings
from services.gateway.transports.upstream.settings import UpstreamSettings
from tests.doubles.scripted_neuron import ScriptedNeuron
from tests.integration.gateway.fleet import Fleet

KEY = "sk-far-away"


@contextlib.asynccontextmanager
async def far_fleet() -> AsyncGenerator[Fleet]:
    """A fleet that has the model `vast` and wants a key."""
    one = Fleet()
    await one.start(AuthSettings(keys=(ApiKey(name="near", key=KEY),)))
    one.registry.add_model("vast")
    await one.add_neuron("far", models=("vast",))
    yield one
    await one.stop()


def upstream(far: Fleet, **more: Any) -> UpstreamSettings:
    """That fleet as an upstream; its key is in the variable FAR_KEY."""
    made = {"models": {"tiny": "vast", "big": "vast"}, "extra_fields": "cortex", **more}
    url = f"http://{far.gateway.address}/v1"
    return UpstreamSettings(name="far", url=url, key_variable="FAR_KEY", **made)


def only(far: Fleet) -> ScriptedNeuron:
    """Its neuron."""
    return far.neurons[0]


async def near(bare: Fleet, far: Fleet, **more: Any) -> Fleet:
    """Starts a fleet whose upstream it is."""
    await bare.start(upstreams=(upstream(far, **more),))
    return bare
