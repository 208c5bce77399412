"""Serves a dialect or a look-up as an ASGI app: every step of a request, from head to log line."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Final

from starlette.types import Receive, Scope, Send
from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.gateway.api.access_log import RequestRecord
from services.gateway.api.body import ClientGoneError
from services.gateway.api.error_responses import error_headers
from services.gateway.api.head import (
    check_media_type,
    id_headers,
    model_in,
    read_head,
)
from services.gateway.api.request import RequestScope
from services.gateway.api.services import GatewayServices, RequestQueries
from services.gateway.dialects.common import work_class
from services.gateway.dialects.dialect import (
    Collected,
    DecodedRequest,
    Detached,
    Dialect,
    Envelope,
    Head,
)
from services.gateway.dialects.lookup import Lookup
from services.gateway.dialects.mount import Mount
from services.gateway.http1.direct import DirectResponse
from services.gateway.http1.pumped import direct_response
from services.gateway.streaming.choice import ChoiceSink
from services.gateway.streaming.collect import CollectSink
from services.gateway.streaming.stream import ResponseStream, StreamLimits
from services.gateway.streaming.stream_sink import StreamSink

_JSON: Final = (b"content-type", b"application/json")
# The second keeps nginx from collecting the events.
_STREAM: Final = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


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


class _Endpoint:
    """What every request goes through: id, API key, errors, one log line."""

    def __init__(self, services: GatewayServices, name: str, envelope: Envelope) -> None:
        self._services = services
        self._name = name
        self._envelope = envelope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request; never raises for anything that the client did."""
        incoming = self._services.incoming_body()
        head = read_head(scope, incoming)
        record = RequestRecord(self._name, head.request_id)
        request_scope = RequestScope(self._services.settings, record, incoming)
        self._services.metrics.requests_open.rise()
        self._services.ticker.watch(request_scope)
        response: DirectResponse | None = None
        body = b""
        try:
            self._services.doors.check(head.headers)
            record.principal = self._services.auth.principal(head.headers)
            if scope["method"] != "GET":
                check_media_type(head)
                body = await incoming.read(receive)
            request_scope.is_unread = False
            if record.principal:
                head = dataclasses.replace(head, principal=record.principal)
            response = direct_response(scope, receive, send)
            response.on_close(request_scope.leave)
            await self._serve(body, head, request_scope, response)
        except ClientGoneError:
            record.client_gone = True
        except FleetError as failure:
            record.name = record.name or model_in(body)
            response = response or direct_response(scope, receive, send)
            self._fail(failure, head, request_scope, response)
        except asyncio.CancelledError:
            if request_scope.ended_by is None:
                raise
            request_scope.uncancel()
            response = response or direct_response(scope, receive, send)
            self._fail(request_scope.ended_by, head, request_scope, response)
        except RecursionError:  # only the nesting of a body decides how deep its reading goes
            too_deep = FleetError(Reason.BAD_REQUEST, "The body is nested too deeply.")
            response = response or direct_response(scope, receive, send)
            self._fail(too_deep, head, request_scope, response)
        except Exception as error:  # noqa: BLE001 - must not look like a broken connection
            bug = self._services.faults.note("request", error, request_id=head.request_id)
            response = response or direct_response(scope, receive, send)
            self._fail(bug, head, request_scope, response)
        finally:
            request_scope.close()
            self._services.ticker.forget(request_scope)
            self._services.metrics.requests_open.fall()
            self._services.access_log.write(record)
            if response is not None:
                await response.aclose()

    async def _serve(
        self, body: bytes, head: Head, request_scope: RequestScope, response: DirectResponse
    ) -> None:
        raise NotImplementedError

    def _fail(
        self, error: FleetError, head: Head, request_scope: RequestScope, response: DirectResponse
    ) -> None:
        record = request_scope.record
        if record.client_gone:
            return
        record.error = error
        stream = request_scope.stream
        if stream is not None and stream.is_committed:
            stream.fail(error)
            return
        record.status = error.reason.row.http
        response.start(record.status, error_headers(error, head.request_id))
        response.finish(self._envelope.error(error, head))


class LookupEndpoint(_Endpoint):
    """Serves a look-up: a listing, a count, embeddings."""

    def __init__(self, services: GatewayServices, lookup: Lookup) -> None:
        super().__init__(services, lookup.name, lookup)
        self._lookup = lookup

    @override
    async def _serve(
        self, body: bytes, head: Head, request_scope: RequestScope, response: DirectResponse
    ) -> None:
        record = request_scope.record
        answer = await self._lookup.answer(body, head, RequestQueries(self._services, record))
        record.status = 200
        response.start(200, [_JSON, *id_headers(head)])
        response.finish(answer)


class GenerationEndpoint(_Endpoint):
    """The ASGI app that serves generations of one dialect."""

    def __init__(self, services: GatewayServices, dialect: Dialect) -> None:
        super().__init__(services, dialect.name, dialect)
        self._dialect = dialect
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
        decoded = await self._services.decoding.run(self._dialect.decode, body, head)
        record.name = decoded.model
        record.stream = decoded.stream
        terms = self._services.auth.class_terms(record.principal)
        for request in decoded.requests:
            request.request_id = request.request_id or head.request_id
            request.principal = record.principal
            request.work_class = work_class.settled(request.work_class, head.headers, terms)
        if decoded.detached is not None:
            self._detach(decoded, decoded.detached, head, request_scope, response)
        elif decoded.stream:
            await self._serve_stream(decoded, head, request_scope, response)
        else:
            await self._serve_whole(decoded, head, record, response)

    async def _serve_whole(
        self, decoded: DecodedRequest, head: Head, record: RequestRecord, response: DirectResponse
    ) -> None:
        answer = self._dialect.body(decoded, head, await self._collect(decoded, record))
        record.status = 200
        response.start(200, [_JSON, *id_headers(head)])
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
        task = self._services.detached.start(self._run_detached(decoded, detached, head))
        request_scope.record.status = 200
        response.start(200, [_JSON, *id_headers(head)])
        response.finish(detached.accepted(task.cancel))

    async def _run_detached(self, decoded: DecodedRequest, detached: Detached, head: Head) -> None:
        """Runs a generation that nobody waits for; it has a log line of its own."""
        record = RequestRecord(self._name, head.request_id)
        record.name, record.principal = decoded.model, head.principal
        request_scope = RequestScope(self._services.settings, record)
        request_scope.is_unread = False
        self._services.ticker.watch(request_scope)
        try:
            detached.finished(await self._collect(decoded, record))
            record.status = 200
        except FleetError as failure:
            record.error = failure
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
        headers = [(b"content-type", self._dialect.content_type), *_STREAM, *id_headers(head)]
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
            await self._services.dispatch.generate(
                decoded.model,
                decoded.requests,
                sinks,
                record.served_by,
                keep_alive_seconds=decoded.keep_alive_seconds,
            )
        except FleetError as error:
            if error.field == "constraint":
                # what the client did not ask for, its tools do
                error.field = decoded.constraint_field or "tools"
            raise
