"""A socket between rank 0 and one of the others: whole messages, blocking, with a deadline."""

from __future__ import annotations

import contextlib
import socket
from typing import Generic, TypeVar

import msgspec

from services.neuron.engine_api.frames import HEADER, MAX_FRAME_BYTES, pack
from services.neuron.engine_api.task import Value

T = TypeVar("T")
_SEND_SECONDS = 60.0


class ClosedError(Exception):
    """The other side is gone, stands still, or talks nonsense."""


class Channel(Generic[T]):
    """Sends messages of one kind and receives those of another."""

    def __init__(self, connection: socket.socket, decoder: msgspec.msgpack.Decoder[T]) -> None:
        self._socket = connection
        self._decoder = decoder

    def send(self, *messages: Value) -> None:
        """Sends messages.

        Raises:
            ClosedError: the other side is gone.
        """
        try:
            self._socket.settimeout(_SEND_SECONDS)
            self._socket.sendall(b"".join(map(pack, messages)))
        except OSError as error:
            raise ClosedError(f"nothing can be sent: {error.strerror or error}") from error

    def receive(self, *, seconds: float | None = None) -> T | None:
        """The next message; None where none has begun to come in that time.

        Raises:
            ClosedError: the other side is gone, or stopped within a message.
        """
        try:
            self._socket.settimeout(seconds)
            head = bytearray(self._socket.recv(HEADER.size))
        except TimeoutError:
            return None
        except OSError as error:
            raise ClosedError(f"nothing can be received: {error.strerror}") from error
        if not head:
            raise ClosedError("it is gone")
        head += self._more(HEADER.size - len(head))
        (length,) = HEADER.unpack(head)
        if length > MAX_FRAME_BYTES:
            raise ClosedError(f"a message of {length} bytes")
        try:
            return self._decoder.decode(self._more(length))
        except msgspec.MsgspecError as error:
            raise ClosedError(f"a message that cannot be read: {error}") from error

    def close(self) -> None:
        """Closes the socket, which the other side sees."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _more(self, count: int) -> bytes:
        """So many bytes, which are on their way."""
        data = bytearray()
        while len(data) < count:
            try:
                part = self._socket.recv(count - len(data))
            except OSError as error:
                raise ClosedError("it stopped within a message") from error
            if not part:
                raise ClosedError("it is gone")
            data += part
        return bytes(data)
