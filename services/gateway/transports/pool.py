"""The connections to the neurons: one link per neuron, opened when first used."""

from __future__ import annotations

import functools
from typing import Final, Literal

import grpc

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2_grpc as neuron_grpc
from services.backplane.process.faults import Faults
from services.backplane.rpc.channels import ChannelPool
from services.gateway.transports.connect import open_call
from services.gateway.transports.generate import GenerateTransport
from services.gateway.transports.session import SessionTransport
from services.gateway.transports.transport import NeuronSequence, NeuronTransport, Sink

# On a shared stream a message delays all behind it: larger requests get a call of their own.
LARGE_REQUEST_BYTES: Final = 256 << 10


class NeuronLink:
    """Both transports to one neuron, and its stub for calls with one answer."""

    def __init__(
        self,
        channels: ChannelPool,
        address: str,
        *,
        neuron: str = "",
        kind: str,
        window_tokens: int,
        faults: Faults,
    ) -> None:
        self._channels = channels
        self._address = address
        self._neuron = neuron
        self._channel: grpc.aio.Channel | None = None
        self._stub: neuron_grpc.NeuronServiceAsyncStub
        self._generate: NeuronTransport = GenerateTransport(
            lambda: self.stub, window_tokens=window_tokens, faults=faults
        )
        self._session: NeuronTransport = (
            SessionTransport(
                address,
                window_tokens=window_tokens,
                plain=self._generate,
                faults=faults,
                connect=functools.partial(
                    open_call, credentials=channels.credentials, neuron=neuron
                ),
            )
            if kind == "session"
            else self._generate
        )

    @property
    def stub(self) -> neuron_grpc.NeuronServiceAsyncStub:
        """For `CountTokens` and `Embed`; on the channel of the newest certificate."""
        channel = self._channels.get(self._address, neuron=self._neuron)
        if channel is not self._channel:  # a stub takes longer to make than many a call
            self._channel, self._stub = channel, neuron_grpc.NeuronServiceStub(channel)
        return self._stub

    def start(self, request: generation.GenerateRequest, sink: Sink) -> NeuronSequence:
        """Begins a generation on the transport that fits its size."""
        large = request.ByteSize() > LARGE_REQUEST_BYTES
        return (self._generate if large else self._session).start(request, sink)

    async def close(self) -> None:
        """Fails everything that runs with NEURON_LOST."""
        await self._session.close()
        await self._generate.close()


class NeuronLinks:
    """The links to all neurons, by address.

    Args:
        channels: gRPC channels, one per address.
        kind: the transport for requests of ordinary size.
        window_tokens: how many tokens of one generation a neuron may send ahead of its client.
        faults: notes what a sink raises.
    """

    def __init__(
        self,
        channels: ChannelPool,
        *,
        kind: Literal["session", "generate"],
        window_tokens: int,
        faults: Faults,
    ) -> None:
        self._faults = faults
        self._channels = channels
        self._kind = kind
        self._window_tokens = window_tokens
        self._links: dict[str, NeuronLink] = {}
        self._members: set[str] = set()

    def to(self, address: str, neuron: str = "") -> NeuronLink:
        """The link to a neuron, whose certificate has to be that neuron's."""
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = NeuronLink(
                self._channels,
                address,
                neuron=neuron,
                kind=self._kind,
                window_tokens=self._window_tokens,
                faults=self._faults,
            )
        return link

    async def follow(self, members: set[str]) -> None:
        """Closes the links to neurons that have left since the last time.

        Args:
            members: addresses of all neurons of the fleet.
        """
        if self._members - members:
            await self.keep_only(members)
        self._members = members

    async def keep_only(self, addresses: set[str]) -> None:
        """Closes the links to all other neurons."""
        for address in [a for a in self._links if a not in addresses]:
            await self._links.pop(address).close()
            await self._channels.discard(address)

    async def close(self) -> None:
        """Closes all links."""
        for link in self._links.values():
            await link.close()
        self._links.clear()
