"""One transport per neuron, opened on first use."""

from __future__ import annotations

from typing import Final, Literal

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2_grpc as neuron_grpc
from services.backplane.channels import ChannelPool
from services.gateway.transports.generate import GenerateTransport
from services.gateway.transports.session import SessionTransport
from services.gateway.transports.transport import NeuronSequence, NeuronTransport, Sink

# A message holds up everything behind it on a shared stream: what is larger has a call of its own.
LARGE_REQUEST_BYTES: Final = 256 << 10


class NeuronLink:
    """The ways to one neuron."""

    def __init__(
        self, channels: ChannelPool, address: str, *, kind: str, window_tokens: int
    ) -> None:
        self.stub = neuron_grpc.NeuronServiceStub(channels.get(address))
        self._generate: NeuronTransport = GenerateTransport(self.stub, window_tokens=window_tokens)
        self._session: NeuronTransport = (
            SessionTransport(address, window_tokens=window_tokens, plain=self._generate)
            if kind == "session"
            else self._generate
        )

    def start(self, request: generation.GenerateRequest, sink: Sink) -> NeuronSequence:
        """Begins a generation on the transport that fits it."""
        large = request.ByteSize() > LARGE_REQUEST_BYTES
        return (self._generate if large else self._session).start(request, sink)

    async def close(self) -> None:
        """Ends everything that runs."""
        await self._session.close()
        await self._generate.close()


class NeuronLinks:
    """All links of this gateway."""

    def __init__(
        self,
        channels: ChannelPool,
        *,
        kind: Literal["session", "generate"],
        window_tokens: int,
    ) -> None:
        self._channels = channels
        self._kind = kind
        self._window_tokens = window_tokens
        self._links: dict[str, NeuronLink] = {}

    def to(self, address: str) -> NeuronLink:
        """The link to a neuron."""
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = NeuronLink(
                self._channels, address, kind=self._kind, window_tokens=self._window_tokens
            )
        return link

    async def keep_only(self, addresses: set[str]) -> None:
        """Closes the links to neurons that have left the fleet."""
        for address in [a for a in self._links if a not in addresses]:
            await self._links.pop(address).close()
            await self._channels.discard(address)

    async def close(self) -> None:
        """Closes all."""
        for link in self._links.values():
            await link.close()
        self._links.clear()
