"""Where texts are embedded and tokens are counted: on the fleet, or on another server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.limits.estimate import embedding_tokens
from services.gateway.routing.dispatch import Dispatch
from services.gateway.routing.retry import ServedBy
from services.gateway.routing.upstreams.directory import UpstreamDirectory
from services.gateway.routing.upstreams.fallback import first_able, here_or_there
from services.gateway.telemetry.request_trace import Hop
from services.gateway.transports.upstream.upstream import Upstream

T = TypeVar("T")

# Asks one server; the hop is its part of the trace.
_Ask = Callable[[Upstream, Hop], Awaitable[T]]


class Queries:
    """Embeds and counts by the rules of `Destinations`.

    Args:
        dispatch: asks the fleet.
        directory: which models the other servers answer for.
    """

    def __init__(self, dispatch: Dispatch, directory: UpstreamDirectory) -> None:
        self._dispatch = dispatch
        self._directory = directory

    async def embed(self, request: neuron.EmbedRequest, record: ServedBy) -> neuron.EmbedResponse:
        """Embeds texts; `model` may be an alias. `record` is told where.

        Raises:
            FleetError: as for a generation.
        """
        name = request.model
        model = self._directory.model_there(name, record)
        tokens = embedding_tokens(request.inputs)

        async def ask(upstream: Upstream, hop: Hop) -> neuron.EmbedResponse:
            if not request.inputs:  # a model there is always loaded
                return neuron.EmbedResponse()
            return await upstream.embed(
                request,
                model=model,
                tokens=tokens,
                traceparent=hop.traceparent,
                hops=record.hops + 1,
            )

        def serving() -> Sequence[Upstream]:
            return self._directory.upstreams.serving(model) if model else ()

        def here() -> Awaitable[neuron.EmbedResponse]:
            return self._dispatch.embed(request, record)

        return await self._run(model, serving, here, ask, record)

    async def count_tokens(
        self,
        request: neuron.CountTokensRequest,
        record: ServedBy,
        *,
        request_id: str,
        characters: int = 0,
    ) -> neuron.CountTokensResponse:
        """Counts a prompt's tokens; arguments as of `Dispatch.count_tokens`.

        Args:
            request: has the prompt.
            record: told where it was counted.
            request_id: as every log line carries it.
            characters: that the prompt has at least, where it may be too long.

        Raises:
            FleetError: as for a generation; NOT_SUPPORTED: upstreams alone have the model, and none
                of them counts.
        """
        name = request.model
        model = self._directory.model_there(name, record)

        async def ask(upstream: Upstream, hop: Hop) -> neuron.CountTokensResponse:
            return await upstream.count_tokens(
                request,
                model=model,
                request_id=request_id,
                traceparent=hop.traceparent,
                hops=record.hops + 1,
            )

        def serving() -> Sequence[Upstream]:
            found = self._directory.upstreams.serving(model) if model else ()
            return [one for one in found if one.settings.counts != "none"]

        if not serving():
            self._directory.refuse_elsewhere(name, "to count tokens")

        def here() -> Awaitable[neuron.CountTokensResponse]:
            return self._dispatch.count_tokens(request, record, characters=characters)

        return await self._run(model, serving, here, ask, record)

    async def _run(
        self,
        model: str,
        serving: Callable[[], Sequence[Upstream]],
        here: Callable[[], Awaitable[T]],
        ask: _Ask[T],
        record: ServedBy,
    ) -> T:
        found = serving()
        if not found:
            return await here()

        async def asked(upstream: Upstream) -> T:
            name, known = upstream.settings.name, self._directory.counted_as(model)
            asking = self._directory.upstreams.asking(upstream)
            with asking, record.attempt_upstream(name, known) as hop:
                return await ask(upstream, hop)

        if self._directory.upstreams.is_never_here(model):
            return await first_able(found, asked)
        return await here_or_there(here(), serving, asked)
