"""JoinService: what strangers may ask of a registry, on a port of its own."""

from __future__ import annotations

from typing import Any, Final

import grpc

from cortex.v1 import join_service_pb2 as pb
from cortex.v1 import join_service_pb2_grpc
from services.backplane.rpc.server import Bounds
from services.registry.holder import LeaderHolder

Context = grpc.aio.ServicerContext[Any, Any]

JOIN_SERVICE: Final = "cortex.v1.JoinService"
# A request is two kilobytes, and is answered within milliseconds.
BOUNDS: Final = Bounds(calls=32, message_bytes=16 << 10, connection_seconds=20.0)


class JoinServicer(join_service_pb2_grpc.JoinServiceServicer):
    """Decodes requests, asks the term under way, encodes answers.

    Args:
        holder: says whether this registry leads.
    """

    def __init__(self, holder: LeaderHolder) -> None:
        self._holder = holder

    async def GetAuthority(
        self, request: pb.GetAuthorityRequest, context: Context
    ) -> pb.GetAuthorityResponse:
        """The fleet's authority; whoever asks compares its fingerprint with the token's."""
        return pb.GetAuthorityResponse(certificate=self._holder.leading_term().joining.authority())

    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinResponse:
        """A certificate for a token."""
        term = self._holder.leading_term()
        neuron, certificate = await term.joining.join(
            request.secret, request.certificate_request, neuron=request.neuron
        )
        return pb.JoinResponse(
            neuron=neuron, certificate=certificate, registry_address=self._holder.leader_address
        )
