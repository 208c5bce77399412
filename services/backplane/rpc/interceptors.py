"""Server side of every RPC: errors to statuses, one canonical log line, metrics.

Servicers raise `FleetError`; what reaches the wire is a google.rpc.Status. Anything else that
escapes is a bug: it is logged with its traceback and told to the caller as INTERNAL without one.
Bytes that are no message of the method's are BAD_REQUEST.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self, TypeAlias

import grpc
import structlog
from grpc_status import rpc_status

from services.backplane.errors import FleetError, Reason
from services.backplane.metrics import RpcMetrics
from services.backplane.rpc.audited import RpcAudit
from services.backplane.rpc.status import to_status
from services.backplane.security.access import Access
from services.backplane.security.audit import AuditEntry
from services.backplane.timeouts import timeout
from services.backplane.tracing.rpc import end_rpc_span, rpc_span
from services.backplane.tracing.spans import Span, Tracer

REQUEST_ID = "x-request-id"
# Called by tools every few seconds, or by strangers at will; a line each would drown the rest.
_QUIET = ("/grpc.health.v1.Health/", "/grpc.reflection.", "/cortex.v1.JoinService/")

log = structlog.get_logger()

Reader: TypeAlias = "Callable[[bytes], Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # not subscriptable at run time


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler: who may call it, errors as statuses, counts and times.

    Args:
        metrics: counts every call.
        access: who may call what.
        patience_seconds: within it the one request of a call has to come; None waits as long as
            the caller does.
        audit: tells the audit log of operations; None: this server has none.
        tracer: makes a span of each call whose caller traces it; None traces nothing.
    """

    def __init__(
        self,
        metrics: RpcMetrics,
        access: Access,
        *,
        patience_seconds: float | None = None,
        audit: RpcAudit | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._audit = audit
        self._tracer = tracer
        self._metrics = metrics
        self._access = access
        self._patience_seconds = patience_seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Replaces the handler by one that is observed."""
        handler = await continuation(handler_call_details)
        if handler is None:  # a method that nobody serves
            return None
        method = handler_call_details.method
        read = _reader(handler.request_deserializer, method)
        # gRPC waits for a single request without an end, before anybody is asked who he is; one
        # that is taken as a stream is waited for here.
        as_stream = handler.request_streaming or self._patience_seconds is not None
        if handler.response_streaming:
            factory = (
                grpc.stream_stream_rpc_method_handler
                if as_stream
                else grpc.unary_stream_rpc_method_handler
            )
            behaviour = handler.stream_stream or handler.unary_stream
            wrapped: Any = self._stream(
                behaviour, method, read, is_single=not handler.request_streaming
            )
        else:
            factory = (
                grpc.stream_unary_rpc_method_handler
                if as_stream
                else grpc.unary_unary_rpc_method_handler
            )
            behaviour = handler.stream_unary or handler.unary_unary
            wrapped = self._unary(behaviour, method, read, is_single=not handler.request_streaming)
        made: Any = factory(
            wrapped,
            # A single request is read where its errors are told; those of a stream are read while
            # the servicer asks for them, which is there as well.
            read if handler.request_streaming else None,
            handler.response_serializer,
        )
        return made  # type: ignore[no-any-return]

    async def _single(self, request: Any) -> Any:
        """The one request of a call, in bytes.

        Raises:
            FleetError: BAD_REQUEST: it did not come.
        """
        if self._patience_seconds is None:
            return request
        with contextlib.suppress(TimeoutError):
            async with timeout(self._patience_seconds):
                async for data in request:
                    return data
        message = f"No request came within {self._patience_seconds:g} seconds."
        raise FleetError(Reason.BAD_REQUEST, message)

    def _observed(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> _Observed:
        return _Observed(self._metrics, method, context, audit=self._audit, tracer=self._tracer)

    def _unary(self, behaviour: Any, method: str, read: Reader, *, is_single: bool) -> Any:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            async with self._observed(method, context) as observed:
                self._access.admit(method, context)
                if is_single:
                    request = await self._single(request)
                if isinstance(request, bytes):
                    request = observed.request = read(request)
                    _bind_request_id(request)
                answer = observed.answer = await behaviour(request, context)
                return answer

        return call

    def _stream(self, behaviour: Any, method: str, read: Reader, *, is_single: bool) -> Any:
        async def call(
            request: Any, context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            async with self._observed(method, context) as observed:
                peer = self._access.admit(method, context)
                if is_single:
                    request = await self._single(request)
                if isinstance(request, bytes):
                    request = observed.request = read(request)
                    _bind_request_id(request)
                produced = behaviour(request, context)
                if hasattr(produced, "__aiter__"):
                    # a caller that leaves ends this generator; the servicer's must end with it
                    async with contextlib.aclosing(produced):
                        async for item in produced:
                            self._access.recheck(peer)
                            yield item
                else:
                    await produced

        return call


class _Observed:
    """One RPC from its first byte to its end.

    Attributes:
        request: its request, once it was read.
        answer: its answer, where it has one.
    """

    def __init__(
        self,
        metrics: RpcMetrics,
        method: str,
        context: grpc.aio.ServicerContext[Any, Any],
        *,
        audit: RpcAudit | None,
        tracer: Tracer | None,
    ) -> None:
        self._audit = audit
        self._tracer = tracer
        self._span: Span | None = None
        self._entry: AuditEntry | None = None
        self._reason: Reason | None = None
        self.request: Any = None
        self.answer: Any = None
        self._metrics, self._method, self._context = metrics, method, context
        self._started = 0.0
        self._peer = ""
        self._code = grpc.StatusCode.OK.name

    async def __aenter__(self) -> Self:
        self._started = time.monotonic()
        # asked for now: behind the end of a call that was cut, grpc crashes the process over it
        self._peer = self._context.peer()
        if self._audit is not None:
            self._entry = self._audit.begun(self._method, self._context, self._peer)
        if self._tracer is not None:
            self._span = rpc_span(self._tracer, self._method, self._context)
        self._metrics.open.labels(self._method).inc()
        structlog.contextvars.bind_contextvars(request_id=_request_id(self._context))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        try:
            await self._end(error)
        finally:
            if self._audit is not None and self._entry is not None:
                self._audit.ended(self._entry, self.request, self.answer, self._reason)
            if self._tracer is not None and self._span is not None:
                end_rpc_span(self._tracer, self._span, self.request, self._code)
            self._metrics.open.labels(self._method).dec()
            self._metrics.handled.labels(self._method, self._code).inc()
            elapsed = time.monotonic() - self._started
            self._metrics.seconds.labels(self._method).observe(elapsed)
            if not self._method.startswith(_QUIET):
                log.info(
                    "rpc.served",
                    method=self._method,
                    code=self._code,
                    elapsed_ms=round(elapsed * 1000, 1),
                    peer=self._peer,
                )

    async def _end(self, error: BaseException | None) -> None:
        if error is None:
            return
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._code, self._reason = grpc.StatusCode.CANCELLED.name, Reason.CANCELLED
            return
        if isinstance(error, grpc.aio.AbortError):
            code: Any = self._context.code()
            self._code = getattr(code, "name", "UNKNOWN")
            return
        if not isinstance(error, FleetError):
            log.error("rpc.crashed", method=self._method, exc_info=error)
            error = FleetError(Reason.INTERNAL, "The service failed; its log says why.")
        self._code, self._reason = error.reason.row.grpc.name, error.reason
        await self._context.abort_with_status(rpc_status.to_status(to_status(error)))


def _reader(deserialise: Reader | None, method: str) -> Reader:
    """Reads a request; raises BAD_REQUEST for bytes that are none."""

    def read(data: bytes) -> Any:
        if deserialise is None:
            return data
        try:
            return deserialise(data)
        except Exception as error:
            message = f"The bytes are no request of {method}: {error}"
            raise FleetError(Reason.BAD_REQUEST, message) from error

    return read


def _bind_request_id(request: Any) -> None:
    """Has the call's log lines carry the id that the request itself has."""
    if request_id := getattr(request, "request_id", ""):
        structlog.contextvars.bind_contextvars(request_id=request_id)


def _request_id(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return None
