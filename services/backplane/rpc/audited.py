"""Which RPCs are operations that the audit log tells of, and what it tells of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec

from services.backplane.errors import Reason
from services.backplane.security.access import Access
from services.backplane.security.audit import AuditEntry, AuditLog, result_of
from services.backplane.security.roles import Peer, Role

ON_BEHALF: Final = "x-cortex-on-behalf"
"""Metadata by which a gateway says who has asked it."""
# Fields of requests that name what an operation is about; others may be secrets.
_TELLING: Final = ("neuron", "model", "key", "name", "principal")
_PLAIN: Final = " :()=.,_@-"


class RpcAudit:
    """Writes an audit entry for each call of one server that is an operation.

    Args:
        audit_log: where they are told.
        access: says who has called.
        operations: by method, `/package.Service/Method`: what it is called in the log.
        refusals: also of calls that failed; not where strangers may make as many as they like.
        is_done: whether an answer says that something was done; of others nothing is told.
    """

    def __init__(
        self,
        audit_log: AuditLog,
        access: Access,
        operations: Mapping[str, str],
        *,
        refusals: bool = True,
        is_done: Callable[[Any], bool] = lambda _answer: True,
    ) -> None:
        self._audit_log = audit_log
        self._access = access
        self._operations = operations
        self._refusals = refusals
        self._is_done = is_done

    def begun(self, method: str, context: Any, source: str) -> AuditEntry | None:
        """The entry of a call, before the call is served; None for methods that are not audited.

        Args:
            method: that is called.
            context: of the call. Behind the end of one that was cut, gRPC answers nothing any more.
            source: its caller's address, as gRPC has it.
        """
        operation = self._operations.get(method)
        if operation is None:
            return None
        peer = self._access.shown(context)
        metadata = {str(key): value for key, value in context.invocation_metadata() or ()}
        is_believed = peer is None or Role.GATEWAY in peer.roles
        return AuditEntry(
            operation=operation,
            who=_who(peer),
            source=source,
            on_behalf=unquote(str(metadata.get(ON_BEHALF, ""))) if is_believed else "",
            request_id=str(metadata.get("x-request-id", "")),
        )

    def ended(self, entry: AuditEntry, request: Any, answer: Any, reason: Reason | None) -> None:
        """A call has ended.

        Args:
            entry: as `begun` has made it.
            request: where it came so far.
            answer: likewise.
            reason: why it failed.
        """
        if self._is_done(answer) if reason is None else self._refusals:
            target, result = _target(request, answer), result_of(reason)
            self._audit_log.record(msgspec.structs.replace(entry, target=target, result=result))


def as_metadata(words: str) -> str:
    """A text percent-encoded, because gRPC metadata holds only printable ASCII."""
    return quote(words, safe=_PLAIN)


def _who(peer: Peer | None) -> str:
    if peer is None:
        return "anybody"
    held = [role.value for role in peer.roles if role is not Role.NEURON]
    held += [f"neuron {name}" for name in peer.neurons]
    return f"certificate {peer.serial or 'none'} ({', '.join(sorted(held)) or 'no role'})"


def _target(request: Any, answer: Any) -> str:
    """What an operation was about: names in its request, and the id of the key that it made."""
    inner = getattr(request, "group", None)
    named = [request, *([inner] if hasattr(inner, "DESCRIPTOR") else [])]
    found: dict[str, str] = {}
    for message in named:
        for field in _TELLING:
            value = getattr(message, field, "")
            if value and isinstance(value, str):
                found[field] = value
    made: Any = getattr(answer, "key", None)
    if hasattr(made, "DESCRIPTOR"):
        found["id"] = made.id
    return ", ".join(f"{name}={value}" for name, value in found.items())
