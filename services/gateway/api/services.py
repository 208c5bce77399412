"""The objects that every endpoint uses, and what look-ups may ask of the fleet through them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

from typing_extensions import override

from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.gateway.api.access_log import AccessLog, RequestRecord
from services.gateway.api.auth import Auth
from services.gateway.api.background import DetachedTasks
from services.gateway.api.body import IncomingBody
from services.gateway.api.decoding import Decoding
from services.gateway.api.doors import Doors
from services.gateway.dialects.dialect import Head
from services.gateway.dialects.lookup import FleetQueries, ListedModel
from services.gateway.http1.budget import BodyBudget, Pace
from services.gateway.routing.dispatch import Dispatch
from services.gateway.routing.fleet_view import FleetView
from services.gateway.routing.model_list import list_models
from services.gateway.settings import GatewaySettings
from services.gateway.streaming.ticker import Ticker
from services.gateway.telemetry.metrics import GatewayMetrics

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GatewayServices:
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
        doors: refuses the requests of foreign pages.
        bodies: the bytes that all bodies share.
        pace: how slowly a body may come.
        decoding: runs the decoders of bodies.
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
    doors: Doors
    bodies: BodyBudget
    pace: Pace
    decoding: Decoding
    faults: Faults

    def incoming_body(self) -> IncomingBody:
        """A body that is about to be read."""
        return IncomingBody(
            max_bytes=self.settings.max_body_bytes,
            most_items=self.settings.max_body_items,
            budget=self.bodies,
            pace=self.pace,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class RequestQueries(FleetQueries):
    """What one look-up asks of the fleet; its record learns of which model, and who answered."""

    services: GatewayServices
    record: RequestRecord

    @override
    async def decoded(self, read: Callable[[bytes, Head], T], body: bytes, head: Head) -> T:
        return await self.services.decoding.run(read, body, head)

    @override
    async def count_tokens(self, request: neuron.CountTokensRequest) -> neuron.CountTokensResponse:
        self.record.name = request.model
        request.principal = self.record.principal
        return await self.services.dispatch.count_tokens(request, self.record.served_by)

    @override
    async def embed(self, request: neuron.EmbedRequest) -> neuron.EmbedResponse:
        self.record.name = request.model
        request.principal = self.record.principal
        return await self.services.dispatch.embed(request, self.record.served_by)

    @override
    def models(self) -> Sequence[ListedModel]:
        view = self.services.view
        if not view.is_known:
            raise FleetError(
                Reason.REGISTRY_UNAVAILABLE, "The fleet's registry has not been reached yet."
            )
        return list_models(view.catalogue, view.neurons)
