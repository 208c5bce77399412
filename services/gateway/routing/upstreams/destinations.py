"""Where a generation runs: on the fleet, or on another server."""

from __future__ import annotations

import functools
import time
from collections.abc import Coroutine, Sequence

import structlog

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.limits.estimate import prompt_tokens
from services.gateway.routing.dispatch import Dispatch
from services.gateway.routing.fleet_view import FleetView
from services.gateway.routing.retry import ServedBy
from services.gateway.routing.upstreams.directory import UpstreamDirectory
from services.gateway.routing.upstreams.fallback import first_able, here_or_there
from services.gateway.routing.upstreams.queries import Queries
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
            ask = functools.partial(self._ask, model, requests, sinks, record)
            return first_able(self._upstreams.serving(model), ask, sinks=sinks)
        here = self._dispatch.generate(
            name,
            requests,
            sinks,
            record,
            keep_alive_seconds=keep_alive_seconds,
            characters=characters,
        )
        if not model:
            return here
        return here_or_there(
            here,
            functools.partial(self._upstreams.serving, model),
            functools.partial(self._ask, model, requests, sinks, record),
            sinks=sinks,
            on_unserved=functools.partial(_note_unserved, requests[0].request_id, model),
        )

    async def _ask(
        self,
        model: str,
        requests: Sequence[generation.GenerateRequest],
        sinks: Sequence[ChoiceSink],
        record: ServedBy,
        upstream: Upstream,
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


def _note_unserved(request_id: str, model: str, error: FleetError) -> None:
    log.info("request.sent_upstream", request_id=request_id, model=model, reason=error.reason.value)


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
