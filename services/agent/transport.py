"""JSON-RPC over standard input and output, a line each, tolerant of what editors really send."""

import asyncio
import json
from typing import Any

import acp
import structlog

from services.agent.options import DELETE_EXTENSION

log = structlog.get_logger(__name__)

_NOTIFICATIONS = frozenset({"session/cancel"})
LINE_BYTES = 64 * 1024 * 1024  # a prompt may carry pictures


class LineTransport:
    """Moves messages for the SDK's connection.

    A line that is no JSON object is answered with an error: the SDK's own reader would end.
    Notifications that nobody knows are passed over, as the protocol asks. What the SDK does not
    route becomes what it does: `session/set_model` the config option it now is, `session/delete`
    an extension, and `$/cancel_request` the cancelling of the prompt that it means.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._sending = asyncio.Lock()
        self._prompts: dict[str, Any] = {}  # of each prompt in flight, the request's id: session's

    async def send(self, message: dict[str, Any]) -> None:
        """Writes one message; waits while the editor does not read."""
        if "method" not in message:
            self._prompts.pop(_key(message.get("id")), None)
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
            if not line.strip():
                continue
            try:
                message = _decoded(line)
            except acp.RequestError as error:
                log.warning("message refused", reason=str(error), size_bytes=len(line))
                await self.send({"jsonrpc": "2.0", "id": None, "error": error.to_error_obj()})
                continue
            if (routed := self._routed(message)) is not None:
                return routed

    def _routed(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the message as the SDK takes it, None when there is nothing to do for it."""
        method, params = message.get("method"), message.get("params")
        if method == "session/prompt" and isinstance(params, dict) and "id" in message:
            self._prompts[_key(message["id"])] = params.get("sessionId")
        if method == "$/cancel_request" and isinstance(params, dict):
            session_id = self._prompts.get(_key(params.get("requestId")))
            message = {**message, "method": "session/cancel", "params": {"sessionId": session_id}}
            return message if session_id else None
        if method is None or "id" in message or method in _NOTIFICATIONS:
            return _modern(message)
        log.debug("notification passed over", method=str(method))
        return None

    async def close(self) -> None:
        """Stops writing; the streams themselves belong to the process."""
        self._writer.close()


def _key(request_id: Any) -> str:
    """Returns what tells ids apart: 1 and "1" are two."""
    return repr(request_id)


def _decoded(line: bytes) -> dict[str, Any]:
    """Returns the object of a line; raises RequestError with the code of JSON-RPC."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise acp.RequestError.parse_error({"reason": str(error)}) from error
    if not isinstance(message, dict):
        raise acp.RequestError.invalid_request({"reason": "not a JSON object"})
    return message


def _modern(message: dict[str, Any]) -> dict[str, Any]:
    params = message.get("params")
    if message.get("method") == "session/delete":
        return {**message, "method": f"_{DELETE_EXTENSION}"}
    if message.get("method") != "session/set_model" or not isinstance(params, dict):
        return message
    rewritten = {
        "sessionId": params.get("sessionId"),
        "configId": "model",
        "value": params.get("modelId"),
    }
    return {**message, "method": "session/set_config_option", "params": rewritten}
