"""Serves requests of operators: who asks, the body, errors, and answers that go on."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import msgspec
from google.protobuf.descriptor import Descriptor
from starlette.types import Receive, Scope, Send

from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.rpc.audited import ON_BEHALF, as_metadata
from services.backplane.security.audit import AuditEntry, AuditLog, result_of
from services.backplane.timeouts import timeout
from services.gateway.api.body import ClientGoneError, IncomingBody
from services.gateway.api.head import client_address, read_head
from services.gateway.api.operators.access import ConsoleAccess, Visitor
from services.gateway.api.operators.call import OpenCalls, OperatorCall
from services.gateway.api.services import GatewayServices
from services.gateway.auth.holder import ConsoleLevel
from services.gateway.dialects.dialect import Head
from services.gateway.http1.budget import BodyBudget, Pace
from services.gateway.http1.pumped import direct_response

# An operation is a few names.
MOST_BODY_BYTES: Final = 64 << 10
_BODY_SECONDS: Final = 10.0


class Bodies(NamedTuple):
    """What an endpoint reads and answers, each a struct or a message of the contract.

    Attributes:
        reads: None: no body.
        answers: where it is no stream; None: an object of which nothing is told.
    """

    reads: type[msgspec.Struct] | Descriptor | None = None
    answers: type[msgspec.Struct] | Descriptor | None = None


NOT_TOLD: Final = Bodies()


class OperatorEndpoint:
    """An ASGI app: one path of `/ui` or `/admin`.

    Args:
        access: lets visitors in.
        calls: those under way.
        faults: notes what nobody foresaw.
        needs: what a visitor must be allowed to do.
        work: answers the call. What it raises is told; a stream that it has begun ends with it.
        audit_log: is told of an operation, unless nobody knows who has asked for it.
        operation: what it is called there; empty: it changes nothing.
        bodies: what is read and answered, for those who want it described.
    """

    def __init__(
        self,
        access: ConsoleAccess,
        calls: OpenCalls,
        faults: Faults,
        needs: ConsoleLevel,
        work: Callable[[OperatorCall], Awaitable[None]],
        *,
        audit_log: AuditLog,
        operation: str = "",
        bodies: Bodies,
    ) -> None:
        self.bodies = bodies
        self._audit_log = audit_log
        self._operation = operation
        self._access = access
        self._calls = calls
        self._faults = faults
        self._needs = needs
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        head = read_head(scope)
        admit = functools.partial(self._access.visitor, scope, head.headers, self._needs)
        body, visitor, refusal = b"", Visitor("", ConsoleLevel.NONE), None
        try:
            await self._access.prepare(scope, head.headers)
            visitor = admit()
            if scope["method"] in {"POST", "PUT"}:
                body = await _read(head, receive)
        except FleetError as error:
            refusal = error
        except ClientGoneError:
            return
        response = direct_response(scope, receive, send)
        call = OperatorCall(visitor, head, body, response, admit)
        is_known = refusal is None or refusal.reason is Reason.FORBIDDEN
        entry = self._entry(scope, head) if self._operation and is_known else None
        if entry is not None:
            asked_by = as_metadata(f"{entry.who} ({entry.principal}) {entry.source}")
            call.metadata = ((ON_BEHALF, asked_by), ("x-request-id", as_metadata(head.request_id)))
        response.on_close(call.leave)
        try:
            self._calls.begin(call, refusal)
            await self._work(call)
        except FleetError as error:
            call.fail(error)
        except asyncio.CancelledError:
            ended_by = call.cancelled()
            if ended_by is None:
                raise
            call.fail(ended_by)
        except Exception as error:  # noqa: BLE001 - must not look like a broken connection
            bug = self._faults.note("console", error, request_id=head.request_id)
            call.fail(bug)
        finally:
            call.close()
            self._calls.forget(call)
            if entry is not None:
                result = result_of(None if call.error is None else call.error.reason)
                self._audit_log.record(
                    msgspec.structs.replace(entry, target=call.target, result=result)
                )
            await response.aclose()

    def _entry(self, scope: Scope, head: Head) -> AuditEntry | None:
        """Who has asked for an operation; None where nobody knows."""
        holder = self._access.holder(scope, head.headers)
        if holder is None:
            return None
        return AuditEntry(
            operation=self._operation,
            who=f"key {holder.key_id}" if holder.key_id else "anybody",
            principal=holder.principal,
            source=client_address(scope),
            request_id=head.request_id,
        )


class OperatorEndpoints:
    """Makes the endpoints of `/ui` and `/admin`. Together they have a bound on open calls.

    Args:
        services: of the gateway: its keys, its check of foreign pages, its faults.
        audit_log: is told of every operation.
    """

    def __init__(self, services: GatewayServices, audit_log: AuditLog) -> None:
        self._access = ConsoleAccess(services.auth, services.cross_site)
        self._faults = services.faults
        self._audit_log = audit_log
        self._calls = OpenCalls()

    def endpoint(
        self,
        needs: ConsoleLevel,
        work: Callable[[OperatorCall], Awaitable[None]],
        *,
        operation: str = "",
        bodies: Bodies = NOT_TOLD,
    ) -> OperatorEndpoint:
        """Makes the endpoint of one path.

        Args:
            needs: what a visitor must be allowed to do.
            work: answers the call; what it raises becomes the answer.
            operation: what the audit log calls it; empty: it changes nothing and is not logged.
            bodies: what it reads and answers.
        """
        return OperatorEndpoint(
            self._access,
            self._calls,
            self._faults,
            needs,
            work,
            audit_log=self._audit_log,
            operation=operation,
            bodies=bodies,
        )

    def close(self, error: FleetError) -> None:
        """Ends all calls under way with an error, and refuses new ones with it."""
        self._calls.close(error)


async def _read(head: Head, receive: Receive) -> bytes:
    """The body of an operation.

    Raises:
        FleetError: it is no JSON by its type, too large, or too slow.
    """
    kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_empty = head.headers.get("content-length", "0") == "0"
    if not kind and is_empty and "transfer-encoding" not in head.headers:
        return b""
    if kind != "application/json":
        told = f"The body is {kind or 'of no type'!r}; the console reads application/json."
        raise FleetError(Reason.UNSUPPORTED_MEDIA_TYPE, told)
    incoming = IncomingBody(
        max_bytes=MOST_BODY_BYTES,
        budget=BodyBudget(MOST_BODY_BYTES),
        pace=Pace(grace_seconds=_BODY_SECONDS, bytes_per_second=MOST_BODY_BYTES),
    )
    try:
        async with timeout(_BODY_SECONDS):
            return await incoming.read(receive)
    except TimeoutError:
        told = f"The body did not come within {_BODY_SECONDS:g} seconds."
        raise FleetError(Reason.BODY_TOO_SLOW, told) from None
