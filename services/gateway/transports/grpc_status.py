"""The status in the trailers of a gRPC call, as an error of the fleet. Pure.

Source: gRPC over HTTP/2 (doc/PROTOCOL-HTTP2.md and doc/http-grpc-status-mapping.md in grpc/grpc).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.status import from_status

_OK: Final = "0"
_UNKNOWN: Final = 2
_MOST_DIGITS: Final = 2


def lost(message: str) -> FleetError:
    """NEURON_LOST with a message: the neuron or the connection to it is gone."""
    return FleetError(Reason.NEURON_LOST, message)


def end_of_call(headers: Mapping[str, str]) -> FleetError | None:
    """The error that a call ended with; None where its status is OK.

    Args:
        headers: the last headers of the call, or its only ones.
    """
    code = headers.get("grpc-status")
    if code is None:
        http = headers.get(":status", "none")
        # Whoever has nothing at this path is a server of something else, or of an earlier time.
        reason = Reason.NOT_SUPPORTED if http == "404" else Reason.NEURON_LOST
        return FleetError(reason, f"The neuron answered with HTTP status {http}.")
    if code == _OK:
        return None
    return from_status(_detailed(headers) or _plain(code, headers))


def _detailed(headers: Mapping[str, str]) -> status_pb2.Status | None:
    """The whole google.rpc.Status, where the peer sent it and it can be read."""
    packed = headers.get("grpc-status-details-bin", "")
    try:
        data = base64.b64decode(packed + "=" * (-len(packed) % 4))
        return status_pb2.Status.FromString(data) if data else None
    except (ValueError, DecodeError):
        return None


def _plain(code: str, headers: Mapping[str, str]) -> status_pb2.Status:
    number = int(code) if code.isdecimal() and len(code) <= _MOST_DIGITS else _UNKNOWN
    return status_pb2.Status(code=number, message=unquote(headers.get("grpc-message", "")))
