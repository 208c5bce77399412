"""Serves a dialect as an ASGI app, and makes the endpoints of all dialects and look-ups."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine, Sequence
from typing import Final

import structlog
from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.gateway.api import alias_rules
from services.gateway.api.decoding import is_short
from services.gateway.api.endpoint import JSON, Endpoint, LookupEndpoint, answer_headers
from services.gateway.api.request import RequestRecord, RequestScope
from services.gateway.api.services import GatewayServices
from services.gateway.auth.holder import KeyHolder
from services.gateway.dialects.common import work_class
from services.gateway.dialects.dialect import Collected, DecodedRequest, Detached, Dialect, Head
from services.gateway.dialects.lookup import Lookup
from services.gateway.dialects.mount import Mount
from services.gateway.http1.direct import DirectResponse
from services.gateway.limits.requests import bounded
from services.gateway.limits.reservation import Reservation
from services.gateway.routing.upstreams.unserved import is_unable, is_unserved
from services.gateway.streaming.choice import ChoiceSink
from services.gateway.streaming.collect import CollectSink
from services.gateway.streaming.stream import ResponseStream, StreamLimits
from services.gateway.streaming.stream_sink import StreamSink
from services.gateway.transports.upstream.hops import hops_of

# The second keeps nginx from collecting the events.
_STREAM: Final = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


log = structlog.get_logger()


class Endpoints(Mount):
    """Makes the endpoints of dialects and look-ups.

    Args:
        services: what all of them use.
    """

    def __init__(self, services: GatewayServices) -> None:
        self._services = services

    @override
    def generation(self, dialect: Dialect) -> GenerationEndpoint:
        return GenerationEndpoint(self._services, dialect)

    @override
    def lookup(self, lookup: Lookup) -> LookupEndpoint:
        return LookupEndpoint(self._services, lookup)


class GenerationEndpoint(Endpoint):
    """The ASGI app that serves generations of one dialect.

    Attributes:
        streamed_type: the media type of its streams.
    """

    def __init__(self, services: GatewayServices, dialect: Dialect) -> None:
        super().__init__(services, dialect.name, dialect)
        self._dialect = dialect
        self.streamed_type = dialect.content_type.decode().partition(";")[0]
        settings = services.settings
        self._limits = StreamLimits(
            keepalive_seconds=settings.keepalive_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
            slow_reader_seconds=settings.slow_reader_seconds,
            slow_reader_bytes=settings.slow_reader_bytes,
        )

    @override
    async def _serve(
        self, body: bytes, head: Head, request_scope: RequestScope, response: DirectResponse
    ) -> None:
        record = request_scope.record
        decoding, decode = self._services.decoding, self._dialect.decode
        decoded = decoding.at_once(decode, body, head)
        if decoded is None:
            decoded = await decoding.generation(decode, body, head)
        record.name = decoded.model
        record.served_by.hops = hops_of(head.headers)
        record.stream = decoded.stream
        self._services.require_model(record.holder, decoded.model)
        if decoded.keep_alive_seconds is not None:
            record.holder.require_keep_alive(decoded.keep_alive_seconds)
        alias_rules.follow(self._services.view.rules(decoded.model), decoded.requests)
        terms = record.holder.terms
        for request in decoded.requests:
            request.request_id = request.request_id or head.request_id
            request.principal = record.principal
            request.work_class = work_class.settled(request.work_class, head.headers, terms)
        if record.account is not None:
            limiter = self._services.limiter
            costs = limiter.device_costs if record.account.open.devices else None
            cost = bounded(decoded.requests, record.account.limits, costs)
            record.reservation = limiter.reserve(record.account, cost) or await limiter.wait(
                record.account, cost
            )
        if decoded.detached is not None:
            self._detach(decoded, decoded.detached, head, request_scope, response)
        elif decoded.stream:
            await self._serve_stream(decoded, head, request_scope, response)
        else:
            await self._serve_whole(decoded, head, record, response)

    async def _serve_whole(
        self, decoded: DecodedRequest, head: Head, record: RequestRecord, response: DirectResponse
    ) -> None:
        choices = await self._collect(decoded, record)
        if is_short(choices):
            answer = self._dialect.body(decoded, head, choices)
        else:
            word = functools.partial(self._dialect.body, decoded, head, choices)
            answer = await self._services.decoding.word(word)
        record.status = 200
        response.start(200, answer_headers(record, head, JSON))
        response.finish(answer)

    async def _collect(self, decoded: DecodedRequest, record: RequestRecord) -> Sequence[Collected]:
        window = self._services.settings.window_tokens
        sinks = [CollectSink(i, window_tokens=window) for i in range(len(decoded.requests))]
        record.sinks = sinks
        await self._run(decoded, sinks, record)
        return [sink.collected() for sink in sinks]

    def _detach(
        self,
        decoded: DecodedRequest,
        detached: Detached,
        head: Head,
        request_scope: RequestScope,
        response: DirectResponse,
    ) -> None:
        record = request_scope.record
        # it goes on with what this request has reserved
        reservation, record.reservation = record.reservation, None
        running = self._run_detached(
            decoded, detached, head, holder=record.holder, reservation=reservation
        )
        task = self._services.detached.start(running)
        if reservation is not None:  # one that is stopped before it begins has used nothing
            task.add_done_callback(lambda _: reservation.settle(0))
        record.status = 200
        response.start(200, answer_headers(record, head, JSON))
        response.finish(detached.accepted(task.cancel))

    async def _run_detached(
        self,
        decoded: DecodedRequest,
        detached: Detached,
        head: Head,
        *,
        holder: KeyHolder,
        reservation: Reservation | None,
    ) -> None:
        """Runs a generation that nobody waits for; it has a log line of its own."""
        trace = self._services.traces.begin(self.name, head.headers)
        record = RequestRecord(self.name, head.request_id, trace)
        record.name, record.principal, record.holder = decoded.model, head.principal, holder
        record.reservation = reservation
        record.served_by.hops = hops_of(head.headers)
        request_scope = RequestScope(self._services.settings, record)
        request_scope.is_unread = False
        self._services.ticker.watch(request_scope)
        try:
            detached.finished(await self._collect(decoded, record))
            record.status = 200
        except FleetError as failure:
            record.error = failure.without_frames()
            detached.failed(failure)
        except asyncio.CancelledError:
            record.error = request_scope.ended_by or FleetError(Reason.CANCELLED, "It was stopped.")
            detached.failed(record.error)
            raise
        except Exception as error:  # noqa: BLE001 - the root of a task that nobody awaits
            faults = self._services.faults
            record.error = faults.note("background-response", error, request_id=head.request_id)
            with faults.contained("background-response", request_id=head.request_id):
                detached.failed(record.error)
        finally:
            record.status = record.status or Reason.INTERNAL.row.http
            request_scope.close()
            self._services.ticker.forget(request_scope)
            self._services.access_log.write(record)

    async def _serve_stream(
        self,
        decoded: DecodedRequest,
        head: Head,
        request_scope: RequestScope,
        response: DirectResponse,
    ) -> None:
        projector = self._dialect.projector(decoded, head)
        kind = (b"content-type", self._dialect.content_type)
        headers = answer_headers(request_scope.record, head, kind, *_STREAM)
        choices = len(decoded.requests)
        stream = ResponseStream(
            response, projector, headers=headers, choices=choices, pace=self._limits
        )
        window = self._services.settings.window_tokens
        sinks: list[ChoiceSink] = [
            StreamSink(i, stream, projector, window_tokens=window) for i in range(choices)
        ]
        record = request_scope.record
        record.sinks = sinks
        record.status = 200
        request_scope.begin_stream(stream, decoded.requests)
        self._services.metrics.streams_open.rise()
        try:
            await self._run(decoded, sinks, record)
        finally:
            self._services.metrics.streams_open.fall()

    async def _run(
        self, decoded: DecodedRequest, sinks: Sequence[ChoiceSink], record: RequestRecord
    ) -> None:
        try:
            await self._run_or_fall_back(decoded, sinks, record)
        except FleetError as error:
            if error.field == "constraint":
                # what the client did not ask for, its tools do
                error.field = decoded.constraint_field or "tools"
            raise

    async def _run_or_fall_back(
        self, decoded: DecodedRequest, sinks: Sequence[ChoiceSink], record: RequestRecord
    ) -> None:
        rules = self._services.view.rules(decoded.model)

        def run(model: str) -> Coroutine[object, object, None]:
            return self._services.destinations.generate(
                model,
                decoded.requests,
                sinks,
                record.served_by,
                keep_alive_seconds=decoded.keep_alive_seconds,
                characters=decoded.characters,
            )

        try:
            await run(decoded.model)
        except FleetError as error:
            if rules is None or not rules.fallback or not is_unserved(error, sinks):
                raise
            if not self._services.may_fall_back(record.holder, decoded.model, rules.fallback):
                raise
            log.info(
                "request.fell_back",
                request_id=decoded.requests[0].request_id,
                model=decoded.model,
                to=rules.fallback,
                reason=error.reason.value,
            )
            try:
                await run(rules.fallback)
            except FleetError as other:
                if is_unable(other):
                    # the client knows nothing of that model: it mends nothing by what is said of it
                    raise error from other
                raise
