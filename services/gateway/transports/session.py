"""One bidirectional stream per neuron that carries all generations in batches: the fast transport.

A gRPC message costs about 50 us of Python whatever its size. So what waits to be sent leaves as
one message, and each message received carries a whole step of the engine.
"""

from __future__ import annotations

from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from services.backplane.process.faults import Faults
from services.gateway.transports.connect import Connect, open_call
from services.gateway.transports.session_stream import SessionStream
from services.gateway.transports.transport import NeuronSequence, NeuronTransport, Sink


class SessionTransport(NeuronTransport):
    """Opens the stream at the first generation, and again at the first one after it was lost.

    Where the neuron does not know `Session`, everything goes through `plain` from then on, also
    what was already sent: such a neuron has run none of it.

    Args:
        address: of the neuron.
        window_tokens: how many tokens of one generation the neuron may send ahead of its client.
        plain: what serves a neuron without `Session`.
        faults: notes what a sink raises, which ends its own generation and no other.
        connect: opens the call; by default in plain text.
    """

    def __init__(
        self,
        address: str,
        *,
        window_tokens: int,
        plain: NeuronTransport,
        faults: Faults,
        connect: Connect = open_call,
    ) -> None:
        self._connect = connect
        self._faults = faults
        self._address = address
        self._window_tokens = window_tokens
        self._plain = plain
        self._stream: SessionStream | None = None

    @override
    def start(self, request: generation.GenerateRequest, sink: Sink) -> NeuronSequence:
        stream = self._stream
        if stream is None or stream.is_over:
            if stream is not None and stream.is_unknown:
                return self._plain.start(request, sink)
            stream = self._stream = SessionStream(
                self._address,
                window_tokens=self._window_tokens,
                plain=self._plain,
                faults=self._faults,
                connect=self._connect,
            )
        return stream.start(request, sink)

    @override
    async def close(self) -> None:
        if self._stream is not None:
            await self._stream.close()
