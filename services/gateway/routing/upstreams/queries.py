"""Where texts are embedded and tokens are counted: on the fleet, or on another server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason, Retry
from services.gateway.limits.estimate import embedding_tokens
from services.gateway.routing.dispatch import Dispatch
from services.gateway.routing.retry import ServedBy
from services.gateway.routing.upstreams.directory import UpstreamDirectory
from services.gateway.routing.upstreams.unserved import is_unable, is_unserved
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

        serving = self._directory.upstreams.serving(model) if model else ()
        return await self._run(
            model, serving, lambda: self._dispatch.embed(request, record), ask, record
        )

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

        serving: Sequence[Upstream] = self._directory.upstreams.serving(model) if model else ()
        serving = [one for one in serving if one.settings.counts != "none"]
        if not serving:
            self._directory.refuse_elsewhere(name, "to count tokens")

        def here() -> Awaitable[neuron.CountTokensResponse]:
            return self._dispatch.count_tokens(request, record, characters=characters)

        return await self._run(model, serving, here, ask, record)

    async def _run(
        self,
        model: str,
        serving: Sequence[Upstream],
        here: Callable[[], Awaitable[T]],
        ask: _Ask[T],
        record: ServedBy,
    ) -> T:
        if not serving:
            return await here()
        if self._directory.upstreams.is_never_here(model):
            return await self._there(model, serving, ask, record)
        try:
            return await here()
        except FleetError as error:
            is_unknown = error.reason is Reason.MODEL_UNKNOWN
            if not (is_unknown or is_unserved(error, ())):
                raise
            try:
                return await self._there(model, serving, ask, record)
            except FleetError as other:
                if is_unable(other) and not is_unknown:
                    raise error from other
                raise

    async def _there(
        self, model: str, serving: Sequence[Upstream], ask: _Ask[T], record: ServedBy
    ) -> T:
        """Asks one upstream after the other.

        Raises:
            FleetError: of the last that was asked.
        """
        for upstream in serving[:-1]:
            try:
                return await self._asked(upstream, model, ask, record)
            except FleetError as error:
                if not (error.reason.row.retry is Retry.ELSEWHERE or is_unable(error)):
                    raise
        return await self._asked(serving[-1], model, ask, record)

    async def _asked(self, upstream: Upstream, model: str, ask: _Ask[T], record: ServedBy) -> T:
        name, known = upstream.settings.name, self._directory.counted_as(model)
        asking = self._directory.upstreams.asking(upstream)
        with asking, record.attempt_upstream(name, known) as hop:
            return await ask(upstream, hop)
