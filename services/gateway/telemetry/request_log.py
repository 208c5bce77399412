"""The log of requests: the same lines as everywhere, made with less and written in batches.

One line per request is a tenth of what a request costs, were it made and flushed like any other.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import BinaryIO, Final, Protocol

import msgspec
import structlog
from msgspec import UNSET, UnsetType

from services.backplane.logs import LogSettings

_FLUSH_BYTES: Final = 64 << 10
_FAILED: Final = "request.failed"
_ENCODE: Final = msgspec.json.Encoder().encode


class RequestLine(msgspec.Struct, kw_only=True):
    """What the log tells of one request; what is UNSET is not told.

    Attributes:
        event: `request.finished` or `request.failed`.
        model: as the client spelled it.
        reason: why it failed, and
        detail: the same in words.
    """

    event: str
    request_id: str
    dialect: str
    model: str
    stream: bool
    status: int
    elapsed_ms: float
    client_gone: bool
    principal: str | UnsetType = UNSET
    instance_id: str | UnsetType = UNSET
    neuron: str | UnsetType = UNSET
    attempts: int | UnsetType = UNSET
    first_token_ms: float | UnsetType = UNSET
    queue_ms: float | UnsetType = UNSET
    finish_reason: str | UnsetType = UNSET
    prompt_tokens: int | UnsetType = UNSET
    cached_tokens: int | UnsetType = UNSET
    completion_tokens: int | UnsetType = UNSET
    reasoning_tokens: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET
    service: str = "gateway"
    level: str = "info"
    timestamp: datetime | UnsetType = UNSET


class RequestLog(Protocol):
    """Where the lines of requests go."""

    def write(self, line: RequestLine) -> None:
        """Takes one line; level and time are added here."""
        ...

    def drain(self) -> None:
        """Sends what was kept; somebody calls this several times a second."""
        ...


class BufferedLog:
    """JSON lines that leave in batches. A failure takes everything before it along at once."""

    def __init__(self, stream: BinaryIO, *, failures_only: bool = False) -> None:
        self._stream = stream
        self._failures_only = failures_only
        self._lines: list[bytes] = []
        self._bytes = 0

    def write(self, line: RequestLine) -> None:
        """See `RequestLog.write`."""
        has_failed = line.event == _FAILED
        if has_failed:
            line.level = "warning"
        elif self._failures_only:
            return
        line.timestamp = datetime.now(UTC)
        data = _ENCODE(line)
        self._lines.append(data)
        self._bytes += len(data)
        if has_failed or self._bytes > _FLUSH_BYTES:
            self.drain()

    def drain(self) -> None:
        """See `RequestLog.drain`."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._bytes = 0
            self._stream.write(b"\n".join(lines) + b"\n")
            self._stream.flush()


class ConsoleLog:
    """Coloured lines that leave at once, for people who watch."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()

    def write(self, line: RequestLine) -> None:
        """See `RequestLog.write`."""
        facts = msgspec.structs.asdict(line)
        for name in ("event", "service", "level", "timestamp"):
            del facts[name]
        told = {name: value for name, value in facts.items() if value is not UNSET}
        say = self._log.warning if line.event == _FAILED else self._log.info
        say(line.event, **told)

    def drain(self) -> None:
        """Nothing is kept."""


def request_log(settings: LogSettings) -> RequestLog:
    """The log that the settings and standard error ask for."""
    on_terminal = settings.format == "auto" and sys.stderr.isatty()
    if on_terminal or settings.format == "console":
        return ConsoleLog()
    if settings.level == "error":
        return _Silent()
    return BufferedLog(sys.stderr.buffer, failures_only=settings.level == "warning")


class _Silent:
    """No line of a request is an error of the gateway's."""

    def write(self, line: RequestLine) -> None:
        """See `RequestLog.write`."""

    def drain(self) -> None:
        """Nothing is kept."""
