"""JSON-RPC over standard input and output, a line each, tolerant of what editors really send."""

import asyncio
import json
from typing import Any

import structlog

log = structlog.get_logger(__name__)

LINE_BYTES = 64 * 1024 * 1024  # a prompt may carry pictures


class LineTransport:
    """Moves messages for the SDK's connection.

    A line that is no JSON object is logged and skipped: the SDK's own reader would end.
    `session/set_model`, which the SDK no longer routes, becomes the config option it now is.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._sending = asyncio.Lock()

    async def send(self, message: dict[str, Any]) -> None:
        """Writes one message; waits while the editor does not read."""
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        async with self._sending:
            self._writer.write(data)
            await self._writer.drain()

    async def receive(self) -> dict[str, Any] | None:
        """Returns the next message, None when the editor has gone."""
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return None
            except (asyncio.LimitOverrunError, ConnectionError) as error:
                log.error("input cannot be read", reason=str(error))  # noqa: TRY400 - it says all
                return None
            message = _decoded(line)
            if message is not None:
                return _modern(message)

    async def close(self) -> None:
        """Stops writing; the streams themselves belong to the process."""
        self._writer.close()


def _decoded(line: bytes) -> dict[str, Any] | None:
    if not line.strip():
        return None
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        log.warning("message skipped", reason="not a JSON object", size_bytes=len(line))
        return None
    return message


def _modern(message: dict[str, Any]) -> dict[str, Any]:
    params = message.get("params")
    if message.get("method") != "session/set_model" or not isinstance(params, dict):
        return message
    rewritten = {
        "sessionId": params.get("sessionId"),
        "configId": "model",
        "value": params.get("modelId"),
    }
    return {**message, "method": "session/set_config_option", "params": rewritten}
