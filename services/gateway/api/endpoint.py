"""Serves a dialect or a look-up as an ASGI app: every step of a request, from head to log line."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.gateway.api.body import ClientGoneError
from services.gateway.api.error_responses import error_headers
from services.gateway.api.head import (
    check_media_type,
    client_address,
    id_headers,
    model_in,
    read_head,
)
from services.gateway.api.request import RequestRecord, RequestScope
from services.gateway.api.services import GatewayServices, RequestQueries
from services.gateway.auth.holder import ANYBODY, dialect_of
from services.gateway.dialects.dialect import (
    Envelope,
    Head,
)
from services.gateway.dialects.lookup import Lookup
from services.gateway.http1.direct import DirectResponse
from services.gateway.http1.pumped import direct_response
from services.gateway.limits.headers import limit_headers
from services.gateway.transports.upstream.hops import hops_of

JSON: Final = (b"content-type", b"application/json")


def answer_headers(
    record: RequestRecord, head: Head, *first: tuple[bytes, bytes]
) -> list[tuple[bytes, bytes]]:
    """`first`, the ids of a request, and how the limits of its principal stand."""
    headers = [*first, *id_headers(head)]
    if record.account is not None:
        headers += limit_headers(record.account, record.dialect)
    return headers


class Endpoint:
    """What every request goes through: id, API key, errors, one log line.

    Attributes:
        name: of the dialect or look-up.
        envelope: the dialect or look-up itself, as far as errors and fields of bodies go.
    """

    def __init__(self, services: GatewayServices, name: str, envelope: Envelope) -> None:
        self._services = services
        self.name = name
        self._dialect_name = dialect_of(name)
        self.envelope = envelope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request; never raises for anything that the client did."""
        incoming = self._services.incoming_body()
        head = read_head(scope, incoming)
        trace = self._services.traces.begin(self.name, head.headers)
        record = RequestRecord(self.name, head.request_id, trace)
        request_scope = RequestScope(self._services.settings, record, incoming)
        self._services.metrics.requests_open.rise()
        self._services.ticker.watch(request_scope)
        response: DirectResponse | None = None
        body = b""
        try:
            await self._identify(scope, head, record)
            if scope["method"] != "GET":
                check_media_type(head)
                body = await incoming.read(receive)
            request_scope.is_unread = False
            if record.principal:
                head = msgspec.structs.replace(head, principal=record.principal)
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

    async def _identify(self, scope: Scope, head: Head, record: RequestRecord) -> None:
        """Finds out who asks, whether he may ask this, and how his limits stand."""
        address, auth = client_address(scope), self._services.auth
        self._services.cross_site.check(head.headers)
        if auth.reads_tokens:
            await auth.prepare(head.headers, address)
        holder = auth.holder(head.headers, address)
        record.holder, record.principal = holder, holder.principal
        if holder is not ANYBODY:
            holder.require_dialect(self._dialect_name)
        if record.principal:
            record.account = self._services.limiter.account(record.principal)

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
        record.error = error.without_frames()
        stream = request_scope.stream
        if stream is not None and stream.is_committed:
            stream.fail(error)
            return
        record.status = error.reason.row.http
        headers = error_headers(error, head.request_id)
        if record.account is not None:
            headers += limit_headers(record.account, record.dialect)
        response.start(record.status, headers)
        response.finish(self.envelope.error(error, head))


class LookupEndpoint(Endpoint):
    """Serves a look-up: a listing, a count, embeddings."""

    def __init__(self, services: GatewayServices, lookup: Lookup) -> None:
        super().__init__(services, lookup.name, lookup)
        self._lookup = lookup

    @override
    async def _serve(
        self, body: bytes, head: Head, request_scope: RequestScope, response: DirectResponse
    ) -> None:
        record = request_scope.record
        record.served_by.hops = hops_of(head.headers)
        answer = await self._lookup.answer(body, head, RequestQueries(self._services, record))
        record.status = 200
        response.start(200, answer_headers(record, head, JSON))
        response.finish(answer)
