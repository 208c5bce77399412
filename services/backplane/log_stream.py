"""Standard error that never holds a program up: a reader that is gone or stands still costs lines.

A write that would block is kept, up to a bound, and goes out with the next one; what is beyond the
bound is dropped and counted. A write that fails is dropped.
"""

from __future__ import annotations

import collections
import io
import os
import select
import stat
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STANDARD_ERROR: Final = 2
# What a pipe or terminal that is ready for writing takes without blocking (POSIX: at least 512).
_SHARED_CHUNK_BYTES: Final = select.PIPE_BUF
_MOST_BYTES: Final = 1 << 20


class UnblockedFile(io.RawIOBase):
    """A descriptor for writing that neither blocks nor raises.

    Args:
        descriptor: stays open, and stays as it is for others who hold it.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._target = _own_pipe(descriptor)
        never_blocks = self._target != descriptor or _is_file(descriptor)
        self._chunk_bytes = _MOST_BYTES if never_blocks else _SHARED_CHUNK_BYTES
        self._ready = select.poll()
        self._ready.register(self._target, select.POLLOUT)
        self._waiting: collections.deque[bytes] = collections.deque()
        self._waiting_bytes = 0
        self._dropped = 0
        # a collection inside `write` may run a destructor that logs
        self._lock = threading.RLock()

    @override
    def writable(self) -> bool:
        return True

    @override
    def fileno(self) -> int:
        return self._descriptor

    @override
    def isatty(self) -> bool:
        try:
            return os.isatty(self._descriptor)
        except OSError:
            return False

    @override
    def write(self, data: ReadableBuffer, /) -> int:
        """Takes everything, and passes on what can be written now."""
        line = bytes(data)
        with self._lock:
            if self._waiting_bytes + len(line) > _MOST_BYTES:
                self._dropped += 1
            else:
                self._keep(line)
            self._send()
            if self._dropped and not self._waiting:
                told = f"cortex: {self._dropped} writes to this log were dropped: nobody read it\n"
                self._dropped = 0
                self._keep(told.encode())
                self._send()
        return len(line)

    def _keep(self, line: bytes) -> None:
        self._waiting.append(line)
        self._waiting_bytes += len(line)

    def _send(self) -> None:
        """Writes until all is written, or the reader has to read first."""
        while self._waiting and self._ready.poll(0):
            line = self._waiting.popleft()
            self._waiting_bytes -= len(line)
            try:
                sent = os.write(self._target, line[: self._chunk_bytes])
            except BlockingIOError:  # another process was faster
                sent = 0
            except OSError:  # no reader, no space, no descriptor: nobody can be told
                sent = len(line)
            if sent < len(line):
                self._waiting.appendleft(line[sent:])
                self._waiting_bytes += len(line) - sent
            if sent == 0:
                return


def _own_pipe(descriptor: int) -> int:
    """Where this is a pipe: the same one opened anew, so that it blocks for nobody but others.

    Between the look and the write another process may fill the pipe that it shares with us, and
    O_NONBLOCK on the shared opening would surprise that process.
    """
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:  # no /proc, not ours to open, or nobody reads it
        pass
    return descriptor


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def unblock_standard_error() -> None:
    """Replaces `sys.stderr` by one that never blocks or raises; where it was closed, by nothing.

    What another program has put in its place is left alone.
    """
    if sys.stderr is None:  # started with `2>&-`: nothing else may get that number
        nothing = os.open(os.devnull, os.O_WRONLY)
        if nothing != _STANDARD_ERROR:
            os.dup2(nothing, _STANDARD_ERROR)
            os.close(nothing)
    elif sys.stderr is not sys.__stderr__:  # ours, or another program's
        return
    raw: Any = UnblockedFile(_STANDARD_ERROR)  # typed as if it had to be buffered
    sys.stderr = io.TextIOWrapper(
        raw, encoding="utf-8", errors="backslashreplace", write_through=True
    )
