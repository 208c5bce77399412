"""The log of requests: one line for each, written in batches.

Made and flushed like the other lines of the log, it would be a tenth of what a request costs.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import BinaryIO, Final, Protocol

import msgspec
import structlog
from msgspec import UNSET, UnsetType
from typing_extensions import override

from services.backplane.logs import LogSettings

_FLUSH_BYTES: Final = 64 << 10
_FAILED: Final = "request.failed"
_ENCODE: Final = msgspec.json.Encoder().encode


class RequestLine(msgspec.Struct, kw_only=True):
    """The log line of one request. Fields that are UNSET are left out.

    Attributes:
        event: `request.finished` or `request.failed`.
        model: as the client spelled it.
        upstream: the other server that has served it, in place of `instance_id` and `neuron`.
        joules: of the devices' energy, by what neurons tell of all choices.
        reason: why it failed: a name of the table of errors.
        detail: why it failed, in words.
        trace_id: of its trace, where it has one.
        elapsed_ms: from the head of the request to the end of its answer, milliseconds.
        timestamp: when it ended.
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
    upstream: str | UnsetType = UNSET
    attempts: int | UnsetType = UNSET
    first_token_ms: float | UnsetType = UNSET
    queue_ms: float | UnsetType = UNSET
    finish_reason: str | UnsetType = UNSET
    prompt_tokens: int | UnsetType = UNSET
    cached_tokens: int | UnsetType = UNSET
    completion_tokens: int | UnsetType = UNSET
    reasoning_tokens: int | UnsetType = UNSET
    joules: float | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET
    trace_id: str | UnsetType = UNSET
    service: str = "gateway"
    level: str = "info"
    timestamp: datetime


class RequestLog(Protocol):
    """Writes the lines of requests."""

    def write(self, line: RequestLine) -> None:
        """Writes one line; its level is added here."""
        ...

    def drain(self) -> None:
        """Writes out what was kept back; called several times a second."""
        ...


class BufferedLog(RequestLog):
    """JSON lines, written in batches; the line of a failure is written out at once.

    Args:
        stream: where they go.
        failures_only: leave the lines of requests that ended well out.
    """

    def __init__(self, stream: BinaryIO, *, failures_only: bool = False) -> None:
        self._stream = stream
        self._failures_only = failures_only
        self._lines: list[bytes] = []
        self._bytes = 0

    @override
    def write(self, line: RequestLine) -> None:
        has_failed = line.event == _FAILED
        if has_failed:
            line.level = "warning"
        elif self._failures_only:
            return
        data = _ENCODE(line)
        self._lines.append(data)
        self._bytes += len(data)
        if has_failed or self._bytes > _FLUSH_BYTES:
            self.drain()

    @override
    def drain(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._bytes = 0
            self._stream.write(b"\n".join(lines) + b"\n")
            self._stream.flush()


class ConsoleLog(RequestLog):
    """Coloured lines for people who watch, written at once."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()

    @override
    def write(self, line: RequestLine) -> None:
        facts = msgspec.structs.asdict(line)
        for name in ("event", "service", "level", "timestamp"):
            del facts[name]
        told = {name: value for name, value in facts.items() if value is not UNSET}
        say = self._log.warning if line.event == _FAILED else self._log.info
        say(line.event, **told)

    @override
    def drain(self) -> None:
        """Does nothing: nothing is kept back."""


def request_log(settings: LogSettings) -> RequestLog:
    """The kind of log that the settings ask for, and standard error allows."""
    on_terminal = settings.format == "auto" and sys.stderr.isatty()
    if on_terminal or settings.format == "console":
        return ConsoleLog()
    if settings.level == "error":
        return _Silent()
    return BufferedLog(sys.stderr.buffer, failures_only=settings.level == "warning")


class _Silent(RequestLog):
    """Writes nothing: at level `error` no line of a request is left."""

    @override
    def write(self, line: RequestLine) -> None:
        pass

    @override
    def drain(self) -> None:
        """Does nothing: nothing is kept back."""
