"""Asks every instance of a model what it holds of a prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError
from services.backplane.rpc.calls import unary
from services.backplane.timeouts import timeout
from services.gateway.dialects.lookup import ComparedInstance
from services.gateway.routing.candidates import Availability, InstanceCandidate
from services.gateway.routing.holdings import Holdings
from services.gateway.routing.prefix import trail_of
from services.gateway.transports.pool import NeuronLinks

_SECONDS: Final = 30.0
MOST_ASKED: Final = 32
"""Instances of one model."""


async def compare(
    candidates: Sequence[InstanceCandidate],
    request: generation.GenerateRequest,
    *,
    links: NeuronLinks,
    holdings: Holdings,
) -> list[ComparedInstance]:
    """What the serving instances hold of a prompt, in their own words; at most `MOST_ASKED`."""
    serving = [one for one in candidates if one.availability is Availability.SERVING]

    async def ask(target: InstanceCandidate) -> ComparedInstance:
        asked = neuron.ComparePromptRequest(request=request)
        asked.request.model, asked.request.instance_id = target.model, target.instance_id
        foretold = holdings.foretold(trail_of(request, target.model), target.instance_id)
        made = ComparedInstance(target.instance_id, target.neuron, foretold)
        try:
            async with timeout(_SECONDS):
                stub = links.to(target.address, target.neuron).stub
                made.found = await unary(stub.ComparePrompt(asked))
        except (FleetError, TimeoutError) as error:
            made.error = str(error) or "The neuron did not answer in time."
        return made

    return list(await asyncio.gather(*map(ask, serving[:MOST_ASKED])))
