"""Where a generation runs: on the fleet, or on another server."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Sequence

import structlog

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason, Retry
from services.gateway.limits.estimate import prompt_tokens
from services.gateway.routing.dispatch import Dispatch
from services.gateway.routing.fleet_view import FleetView
from services.gateway.routing.retry import ServedBy
from services.gateway.routing.upstreams.directory import UpstreamDirectory
from services.gateway.routing.upstreams.queries import Queries
from services.gateway.routing.upstreams.unserved import is_unable, is_unserved, is_untouched
from services.gateway.routing.upstreams.upstreams import Upstreams
from services.gateway.streaming.at_once import some_at_once
from services.gateway.streaming.choice import ChoiceSink
from services.gateway.transports.upstream.upstream import Upstream

log = structlog.get_logger()


class Destinations:
    """Runs generations on the fleet, and where it cannot serve them, or is not to, on upstreams.

    1. A model of an upstream with `when = "always"` is never asked of the fleet.
    2. Any other is asked of the fleet first; an upstream that has it is asked where the fleet does
       not know it or cannot serve it, and nothing of the answer has come.
    3. Several upstreams are asked one after the other, in the order of the settings, as long as
       nothing of the answer has come.
    4. A request that several gateways have sent on already is not sent on again (see `hops.py`).
    5. Where an upstream cannot do what was asked for, and the fleet knows the model, the client is
       told why the fleet does not serve it.

    Args:
        dispatch: runs on the fleet.
        upstreams: the other servers.
        view: what is known of the fleet.

    Attributes:
        directory: which models the other servers answer for.
        queries: embeds and counts by the same rules.
    """

    def __init__(self, dispatch: Dispatch, upstreams: Upstreams, view: FleetView) -> None:
        self._dispatch = dispatch
        self._upstreams = upstreams
        self.directory = UpstreamDirectory(upstreams, view)
        self.queries = Queries(dispatch, self.directory)

    def generate(
        self,
        name: str,
        requests: Sequence[generation.GenerateRequest],
        sinks: Sequence[ChoiceSink],
        record: ServedBy,
        *,
        keep_alive_seconds: float | None = None,
        characters: int = 0,
    ) -> Coroutine[object, object, None]:
        """Runs every choice of a request to its end; arguments and errors as `Dispatch.generate`.

        Raises:
            FleetError: also of an upstream: UPSTREAM_FAILED, QUEUE_FULL, UNSUPPORTED_FIELD, …
        """
        model = self.directory.model_there(name, record)
        if model and self._upstreams.is_never_here(model):
            return self._there(model, requests, sinks, record)
        here = self._dispatch.generate(
            name,
            requests,
            sinks,
            record,
            keep_alive_seconds=keep_alive_seconds,
            characters=characters,
        )
        return self._here_or_there(here, model, requests, sinks, record) if model else here

    async def _here_or_there(
        self,
        here: Coroutine[object, object, None],
        model: str,
        requests: Sequence[generation.GenerateRequest],
        sinks: Sequence[ChoiceSink],
        record: ServedBy,
    ) -> None:
        try:
            await here
        except FleetError as error:
            is_unknown = error.reason is Reason.MODEL_UNKNOWN
            if not (is_unknown or is_unserved(error, sinks)):
                raise
            if not is_unknown:
                log.info(
                    "request.sent_upstream",
                    request_id=requests[0].request_id,
                    model=model,
                    reason=error.reason.value,
                )
            try:
                await self._there(model, requests, sinks, record)
            except FleetError as other:
                if is_unable(other) and not is_unknown:
                    raise error from other
                raise

    async def _there(
        self,
        model: str,
        requests: Sequence[generation.GenerateRequest],
        sinks: Sequence[ChoiceSink],
        record: ServedBy,
    ) -> None:
        """Asks one upstream after the other.

        Raises:
            FleetError: of the last that was asked.
        """
        serving = self._upstreams.serving(model)
        for upstream in serving:
            try:
                await self._ask(upstream, model, requests, sinks, record)
            except FleetError as error:
                may_another = error.reason.row.retry is Retry.ELSEWHERE or is_unable(error)
                if upstream is serving[-1] or not (may_another and is_untouched(sinks)):
                    raise
            else:
                return

    async def _ask(
        self,
        upstream: Upstream,
        model: str,
        requests: Sequence[generation.GenerateRequest],
        sinks: Sequence[ChoiceSink],
        record: ServedBy,
    ) -> None:
        known = self.directory.counted_as(model)

        def run(index: int) -> Coroutine[object, object, None]:
            return _run(upstream, model, requests[index], sinks[index], record, counted_as=known)

        with self._upstreams.asking(upstream, len(requests)) as most:
            began = time.monotonic()
            try:
                if len(requests) == 1:
                    await run(0)
                else:
                    await some_at_once(run, len(requests), most=most)
            finally:
                if first := sinks[0].first_token_at:
                    name = upstream.settings.name
                    self._upstreams.metrics.first_token(name, first - began)


async def _run(
    upstream: Upstream,
    model: str,
    request: generation.GenerateRequest,
    sink: ChoiceSink,
    record: ServedBy,
    *,
    counted_as: str,
) -> None:
    """Runs one choice; cancelling it closes the request to the upstream.

    Raises:
        FleetError: why it failed there.
    """
    estimate = prompt_tokens(request)
    with record.attempt_upstream(upstream.settings.name, counted_as) as hop:
        encoded = await upstream.encoded(request, model=model, prompt_tokens=estimate)
        ended = sink.begin()
        sink.tells_tokens, sink.keeps_time = False, True
        call = upstream.start(
            encoded,
            sink,
            request_id=request.request_id,
            traceparent=hop.traceparent,
            prompt_tokens=estimate,
            hops=record.hops + 1,
        )
        try:
            sink.attach(call)
            error = await ended
        finally:
            if call.is_admitted and sink.started_event is None:
                # the prompt is paid for there, though its client did not wait for a token, or the
                # answer failed before one: as on a neuron that has begun with it
                sink.started_event = generation.GenerationStarted(prompt_tokens=estimate)
            sink.detach()
        if error is not None:
            raise error
