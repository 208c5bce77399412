"""Carries a `FleetError` over gRPC and back, as a google.rpc.Status with details.

`ErrorInfo` (domain `cortex`) holds reason and facts, `RetryInfo` the pause, `BadRequest` the field.
Source: google.rpc error model, https://google.aip.dev/193.
"""

from __future__ import annotations

from typing import Any, Final

import grpc
from google.protobuf import any_pb2, message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason

DOMAIN: Final = "cortex"
_BY_CODE: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: Reason.BAD_REQUEST,
    grpc.StatusCode.NOT_FOUND: Reason.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED: Reason.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: Reason.FORBIDDEN,
    grpc.StatusCode.UNAVAILABLE: Reason.NEURON_LOST,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.DEADLINE,
    grpc.StatusCode.CANCELLED: Reason.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.QUEUE_FULL,
    grpc.StatusCode.UNIMPLEMENTED: Reason.NOT_SUPPORTED,
}
# What gRPC itself says of a connection. Whoever of us fails says INTERNAL with details; without
# them it is a write that met the end of its call ("Internal error from Core") or broken HTTP/2.
_CONNECTION_LOST: Final = frozenset((grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL))


def to_status(error: FleetError) -> status_pb2.Status:
    """The error as google.rpc.Status."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.value, domain=DOMAIN, metadata=error.facts
    )
    details: list[message.Message] = [info]
    if error.retry_after_seconds is not None:
        delay = protobuf_time.duration(error.retry_after_seconds)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.field is not None:
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field=error.field, description=error.message)
        details.append(bad)
    code: int = code_pb2.Code.Value(error.reason.row.grpc.name)
    status = status_pb2.Status(code=code, message=error.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def from_status(status: status_pb2.Status) -> FleetError:
    """The error inside a google.rpc.Status; one without our ErrorInfo is read by its code alone."""
    code = _code(status.code)
    error = FleetError(_BY_CODE.get(code, Reason.INTERNAL), status.message or code.name)
    for packed in status.details:
        info = error_details_pb2.ErrorInfo()
        retry = error_details_pb2.RetryInfo()
        bad = error_details_pb2.BadRequest()
        if packed.Unpack(info) and info.domain == DOMAIN:
            error.reason = Reason.__members__.get(info.reason, error.reason)
            error.facts = dict(info.metadata)
        elif packed.Unpack(retry):
            error.retry_after_seconds = protobuf_time.seconds(retry.retry_delay)
        elif packed.Unpack(bad) and bad.field_violations:
            error.field = bad.field_violations[0].field
    return error


def pack(error: FleetError) -> bytes:
    """The error as bytes, as a Session carries it."""
    packed: bytes = to_status(error).SerializeToString()
    return packed


def unpack(packed: bytes) -> FleetError:
    """The inverse of `pack`."""
    return from_status(status_pb2.Status.FromString(packed))


def from_rpc_error(
    error: grpc.aio.AioRpcError, *, unavailable: Reason = Reason.NEURON_LOST
) -> FleetError:
    """The error of a failed call as a `FleetError`.

    Args:
        error: as grpc.aio raised it.
        unavailable: what a dead connection means for this callee.
    """
    call: Any = error  # an error of grpc.aio has all that rpc_status reads of a call
    try:
        status = rpc_status.from_call(call)
    except (ValueError, message.DecodeError):  # details that do not fit the status they come with
        status = None
    if status is not None:
        return from_status(status)
    reason = _BY_CODE.get(error.code(), Reason.INTERNAL)
    if error.code() in _CONNECTION_LOST:
        reason = unavailable
    return FleetError(reason, error.details() or error.code().name)


def _code(number: int) -> grpc.StatusCode:
    for code in grpc.StatusCode:
        if code.value[0] == number:
            return code
    return grpc.StatusCode.UNKNOWN
