"""The objects that every endpoint uses, and what look-ups may ask of the fleet through them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from typing_extensions import override

from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.backplane.faults import Faults
from services.gateway.api.access_log import AccessLog
from services.gateway.api.auth import Auth
from services.gateway.api.background import DetachedTasks
from services.gateway.dialects.dialect import FleetQueries, ListedModel
from services.gateway.routing.dispatch import Dispatch
from services.gateway.routing.fleet_view import FleetView
from services.gateway.routing.model_list import list_models
from services.gateway.settings import GatewaySettings
from services.gateway.streaming.ticker import Ticker
from services.gateway.telemetry.metrics import GatewayMetrics


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GatewayServices(FleetQueries):
    """What every endpoint is given.

    Attributes:
        settings: the `[gateway]` section.
        auth: checks API keys.
        view: what the gateway knows of the fleet.
        dispatch: runs requests on instances.
        ticker: looks after the open requests.
        metrics: counts requests.
        access_log: writes one line per request.
        detached: owns the generations that nobody waits for.
        faults: notes what nobody foresaw.
    """

    settings: GatewaySettings
    auth: Auth
    view: FleetView
    dispatch: Dispatch
    ticker: Ticker
    metrics: GatewayMetrics
    access_log: AccessLog
    detached: DetachedTasks
    faults: Faults

    @override
    async def count_tokens(self, request: neuron.CountTokensRequest) -> neuron.CountTokensResponse:
        return await self.dispatch.count_tokens(request)

    @override
    async def embed(self, request: neuron.EmbedRequest) -> neuron.EmbedResponse:
        return await self.dispatch.embed(request)

    @override
    def models(self) -> Sequence[ListedModel]:
        if not self.view.is_known:
            raise FleetError(
                Reason.REGISTRY_UNAVAILABLE, "The fleet's registry has not been reached yet."
            )
        return list_models(self.view.catalogue, self.view.neurons)
