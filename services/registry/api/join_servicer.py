"""JoinService: gives certificates to hosts that have none yet, on a port of its own."""

from __future__ import annotations

import math
import time
from typing import Any, Final

import grpc
import structlog

from cortex.v1 import join_service_pb2 as pb
from cortex.v1 import join_service_pb2_grpc
from services.backplane.errors import FleetError
from services.backplane.rpc.server import Bounds
from services.registry.holder import LeaderHolder
from services.registry.term import LeaderTerm

Context = grpc.aio.ServicerContext[Any, Any]

JOIN_SERVICE: Final = "cortex.v1.JoinService"
# A request is two kilobytes, and is answered within milliseconds. Who opens calls and says nothing
# needs many connections, and new ones all the time, to take all the places.
BOUNDS: Final = Bounds(
    calls=256,
    calls_each=8,
    message_bytes=16 << 10,
    patience_seconds=5.0,
    connection_seconds=20.0,
)


_TELL_SECONDS: Final = 1.0

log = structlog.get_logger()


class JoinServicer(join_service_pb2_grpc.JoinServiceServicer):
    """Decodes requests, asks the term under way, encodes answers.

    Args:
        holder: says whether this registry leads.
    """

    def __init__(self, holder: LeaderHolder[LeaderTerm]) -> None:
        self._holder = holder
        self._refused = 0
        self._told_at = -math.inf

    async def GetAuthority(
        self, request: pb.GetAuthorityRequest, context: Context
    ) -> pb.GetAuthorityResponse:
        """The fleet's authority; whoever asks compares its fingerprint with the token's."""
        return pb.GetAuthorityResponse(certificate=self._holder.leading_term().joining.authority())

    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinResponse:
        """A certificate for a token, or none while an operator has not approved."""
        term = self._holder.leading_term()
        try:
            neuron, certificate = await term.joining.join(
                request.secret,
                request.certificate_request,
                neuron=request.neuron,
                source=context.peer(),
            )
        except FleetError as error:
            self._note_refused(error, context.peer())
            raise
        return pb.JoinResponse(
            neuron=neuron, certificate=certificate, registry_address=self._holder.leader_address
        )

    def _note_refused(self, error: FleetError, peer: str) -> None:
        """Tells of refusals once a second at most: strangers must not fill the log."""
        self._refused += 1
        now = time.monotonic()
        if now - self._told_at >= _TELL_SECONDS:
            log.warning("join.refused", peer=peer, reason=error.message, refused=self._refused)
            self._told_at, self._refused = now, 0
