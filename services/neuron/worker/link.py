"""The socket to the daemon, with a thread for each direction beside the engine loop."""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
from collections.abc import Callable
from typing import Final

import msgspec

from services.backplane.process.lifecycle import EX_SOFTWARE
from services.backplane.tracebacks import describe
from services.neuron.engine_api.frames import (
    COMMANDS,
    HEADER,
    MAX_FRAME_BYTES,
    Command,
    Report,
    pack,
)

_OUTBOX_FRAMES: Final = 4096
_RECEIVE_BYTES: Final = 1 << 20
_JOIN_SECONDS: Final = 2.0


class DaemonLink:
    """Sends and receives frames.

    Bound: 4096 reports wait to be sent; beyond that `send` waits, which holds the engine until the
    daemon reads again.

    Attributes:
        fault: why no more frames are read, in words, or None.
    """

    def __init__(self, daemon: socket.socket) -> None:
        self.fault: str | None = None
        self._socket = daemon
        self._outbox: queue.Queue[Report | None] = queue.Queue(_OUTBOX_FRAMES)
        self._is_broken = threading.Event()
        self._writer = threading.Thread(target=self._write, name="writer", daemon=True)

    def start(self, on_command: Callable[[Command], None], on_closed: Callable[[], None]) -> None:
        """Starts both threads.

        Args:
            on_command: called by the reader thread for every command, in order.
            on_closed: called once by the reader thread when nothing more can come.
        """
        self._writer.start()
        threading.Thread(
            target=self._read, args=(on_command, on_closed), name="reader", daemon=True
        ).start()

    def send(self, report: Report) -> None:
        """Queues a report; dropped where the daemon is gone."""
        while not self._is_broken.is_set():
            try:
                self._outbox.put(report, timeout=0.5)
            except queue.Full:
                continue
            return

    def flush(self) -> None:
        """Sends what is queued and ends the writer; waits two seconds at most."""
        try:
            self._outbox.put(None, timeout=_JOIN_SECONDS)
        except queue.Full:
            return
        self._writer.join(_JOIN_SECONDS)

    def _write(self) -> None:
        while True:
            reports = [self._outbox.get()]
            # All that waits goes out in one write.
            while not self._outbox.empty():
                reports.append(self._outbox.get())
            try:
                self._socket.sendall(b"".join(pack(r) for r in reports if r is not None))
            except OSError:
                self._is_broken.set()
                return
            except BaseException as error:  # noqa: BLE001 - a worker that cannot answer is useless
                sys.stderr.write(f"{describe(error)}\n")
                os._exit(EX_SOFTWARE)
            if None in reports:
                return

    def _read(self, on_command: Callable[[Command], None], on_closed: Callable[[], None]) -> None:
        try:
            self._receive(on_command)
        except (msgspec.MsgspecError, ValueError) as error:
            self.fault = f"The daemon sent what is no frame: {error}"
        except BaseException as error:  # noqa: BLE001 - the process ends of it, and has to say why
            sys.stderr.write(f"{describe(error)}\n")
            self.fault = "The thread that reads has failed."
        finally:
            on_closed()

    def _receive(self, on_command: Callable[[Command], None]) -> None:
        buffer = bytearray()
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except OSError:
                return
            if not data:
                return
            buffer += data
            for body in _whole_frames(buffer):
                on_command(COMMANDS.decode(body))


def _whole_frames(buffer: bytearray) -> list[bytes]:
    """Takes all complete frames out of the buffer."""
    frames: list[bytes] = []
    start = 0
    while len(buffer) - start >= HEADER.size:
        (length,) = HEADER.unpack_from(buffer, start)
        if length > MAX_FRAME_BYTES:
            raise ValueError(f"A frame of {length} bytes is over the bound.")
        end = start + HEADER.size + length
        if len(buffer) < end:
            break
        frames.append(bytes(buffer[start + HEADER.size : end]))
        start = end
    del buffer[:start]
    return frames
