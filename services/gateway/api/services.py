"""The objects that every endpoint uses, and what look-ups may ask of the fleet through them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.gateway.api import alias_rules
from services.gateway.api.access_log import AccessLog
from services.gateway.api.background import DetachedTasks
from services.gateway.api.body import IncomingBody
from services.gateway.api.cross_site import CrossSiteCheck
from services.gateway.api.decoding import Decoding
from services.gateway.api.request import RequestRecord
from services.gateway.auth.auth import Auth
from services.gateway.auth.holder import KeyHolder
from services.gateway.auth.scoped_models import within
from services.gateway.dialects.dialect import Head
from services.gateway.dialects.lookup import ComparedInstance, FleetQueries, ListedModel
from services.gateway.http1.budget import BodyBudget, Pace
from services.gateway.limits.account import Cost
from services.gateway.limits.estimate import embedding_tokens
from services.gateway.limits.limiter import Limiter
from services.gateway.routing.dispatch import Dispatch
from services.gateway.routing.fleet_view import FleetView, unknown_model
from services.gateway.routing.model_list import list_models
from services.gateway.routing.upstreams.destinations import Destinations
from services.gateway.settings import GatewaySettings
from services.gateway.streaming.ticker import Ticker
from services.gateway.telemetry.metrics import GatewayMetrics
from services.gateway.telemetry.request_trace import RequestTraces

T = TypeVar("T")

# Of a smaller prompt it is cheaper to let the neuron see whether it is too long.
_MEASURED_BYTES: Final = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GatewayServices:
    """What every endpoint is given.

    Attributes:
        settings: the `[gateway]` section.
        auth: checks API keys.
        limiter: holds principals to their limits.
        view: what the gateway knows of the fleet.
        dispatch: compares what instances hold.
        destinations: runs requests, on instances or on other servers.
        ticker: looks after the open requests.
        metrics: counts requests.
        access_log: writes one line per request.
        detached: owns the generations that nobody waits for.
        cross_site: refuses the requests of foreign pages.
        bodies: the bytes that all bodies share.
        pace: how slowly a body may come.
        decoding: runs the decoders of bodies.
        traces: begins the trace of a request.
        faults: notes what nobody foresaw.
    """

    settings: GatewaySettings
    auth: Auth
    limiter: Limiter
    view: FleetView
    dispatch: Dispatch
    destinations: Destinations
    ticker: Ticker
    metrics: GatewayMetrics
    access_log: AccessLog
    detached: DetachedTasks
    cross_site: CrossSiteCheck
    bodies: BodyBudget
    pace: Pace
    decoding: Decoding
    traces: RequestTraces
    faults: Faults

    def require_model(self, holder: KeyHolder, asked: str) -> None:
        """Checks that a key is for a model.

        Raises:
            FleetError: as for a model that does not exist.
        """
        if holder.scopes.have_models:
            directory = self.destinations.directory
            model = directory.model_named(asked)
            if model is None:
                model = asked if directory.take(asked) else self.view.resolve(asked).model
            if not holder.scopes.allow_model(asked, model):
                raise unknown_model(asked)

    def may_fall_back(self, holder: KeyHolder, alias: str, other: str) -> bool:
        """Whether a key is for the model that an alias falls back to.

        What an alias leads to is part of it where a scope names the alias. Who may ask for it
        because its model is in scope gets no model by it that is not.
        """
        scopes = holder.scopes
        if not scopes.have_models or scopes.allow_model(alias, alias):
            return True
        model = self.view.model_named(other)
        return model is not None and scopes.allow_model(other, model)

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
        self.services.require_model(self.record.holder, request.model)
        request.principal = self.record.principal
        alias_rules.follow_in_chat(self.services.view.rules(request.model), request.chat)
        await self._admit(Cost())
        characters = 0
        if request.ByteSize() > _MEASURED_BYTES:
            characters = await self.services.decoding.measured(request.chat)
        return await self.services.destinations.queries.count_tokens(
            request,
            self.record.served_by,
            request_id=self.record.request_id,
            characters=characters,
        )

    @override
    async def embed(self, request: neuron.EmbedRequest) -> neuron.EmbedResponse:
        self.record.name = request.model
        self.services.require_model(self.record.holder, request.model)
        request.principal = self.record.principal
        tokens = embedding_tokens(request.inputs)
        devices = 0
        if self.record.account is not None and self.record.account.open.devices:
            costs = self.services.limiter.device_costs
            devices = costs.milliseconds(request.model, prompt_tokens=tokens, output_tokens=0)
        await self._admit(Cost(tokens=tokens, device_milliseconds=devices))
        answer = await self.services.destinations.queries.embed(request, self.record.served_by)
        self.record.embedded_tokens = answer.prompt_tokens
        return answer

    @override
    async def compare(self, request: generation.GenerateRequest) -> Sequence[ComparedInstance]:
        self.record.name = request.model
        self.services.require_model(self.record.holder, request.model)
        self.services.destinations.directory.refuse_elsewhere(
            request.model, "what it holds of a prompt"
        )
        request.principal = self.record.principal
        alias_rules.follow(self.services.view.rules(request.model), [request])
        await self._admit(Cost())
        return await self.services.dispatch.compare(request)

    async def _admit(self, cost: Cost) -> None:
        account = self.record.account
        if account is not None:
            self.record.reservation = await self.services.limiter.wait(account, cost)

    @override
    def models(self) -> Sequence[ListedModel]:
        view = self.services.view
        if not view.is_known:
            raise FleetError(
                Reason.REGISTRY_UNAVAILABLE, "The fleet's registry has not been reached yet."
            )
        listed = self.services.destinations.directory.with_theirs(
            list_models(view.catalogue, view.neurons)
        )
        return within(self.record.holder.scopes, listed)
