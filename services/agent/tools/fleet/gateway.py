"""A gateway's operator endpoints (`/ui/…`), over HTTP; docs/console.md has them."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx2

from services.agent.core.settings import FleetToolSettings

_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 30.0  # the gateway says something every ten
_MOST_BYTES = 16 * 1024 * 1024
_FAILED = 400


class FleetGatewayError(Exception):
    """The gateway refused, failed or cannot be reached; the message is what the model reads."""


class FleetGateway:
    """Asks the gateway of a fleet as an operator."""

    def __init__(self, settings: FleetToolSettings) -> None:
        self._settings = settings

    async def explanation(self, model: str) -> dict[str, Any]:
        """Returns where a model would go and why; raises FleetGatewayError."""
        try:
            async with self._client() as client:
                answer = await client.get("/ui/explain", params={"model": model})
        except httpx2.HTTPError as error:
            raise self._away(error) from error
        if answer.status_code >= _FAILED:
            raise _refused(answer.status_code, answer.content)
        return _object(answer.content)

    async def snapshot(self) -> dict[str, Any]:
        """Returns what a console is shown first; raises FleetGatewayError."""
        async with aclosing(self._events("GET", "events")) as events:
            async for name, data in events:
                if name == "snapshot":
                    return data
        raise FleetGatewayError("the gateway ended its events before the first")

    async def order(self, operation: str, **body: Any) -> AsyncGenerator[dict[str, Any], None]:
        """Orders something and yields its steps; leaving early gives an attached load up.

        Raises:
            FleetGatewayError: it was refused, or failed on its way.
        """
        async with aclosing(self._events("POST", operation, body)) as events:
            async for name, data in events:
                if name == "step":
                    yield data
                elif name == "error":
                    raise FleetGatewayError(_message(data))
                elif name == "done":
                    return
        raise FleetGatewayError("the gateway broke off before it was done; see fleet_status")

    async def _events(
        self, method: str, name: str, body: dict[str, Any] | None = None
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        try:
            async with (
                self._client() as client,
                client.stream(method, f"/ui/{name}", json=body) as answer,
            ):
                if answer.status_code >= _FAILED:
                    raise _refused(answer.status_code, await answer.aread())
                event, size = "", 0
                async for line in answer.aiter_lines():
                    size += len(line)
                    if size > _MOST_BYTES:
                        raise FleetGatewayError("the gateway tells more than can be read")
                    field, _, value = line.partition(": ")
                    if field == "event":
                        event = value
                    elif field == "data":
                        yield event, _object(value)
        except httpx2.HTTPError as error:
            raise self._away(error) from error

    def _client(self) -> httpx2.AsyncClient:
        key = self._settings.api_key
        return httpx2.AsyncClient(
            base_url=self._settings.url.rstrip("/"),
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
        )

    def _away(self, error: httpx2.HTTPError) -> FleetGatewayError:
        reason = str(error) or type(error).__name__
        return FleetGatewayError(f"the gateway at {self._settings.url} failed: {reason}")


def _refused(status: int, content: bytes) -> FleetGatewayError:
    try:
        return FleetGatewayError(_message(_object(content)))
    except FleetGatewayError:
        return FleetGatewayError(f"the gateway answered with status {status}")


def _message(envelope: dict[str, Any]) -> str:
    error = envelope.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    if not isinstance(message, str):
        raise FleetGatewayError("the gateway failed without a word")
    return message


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise FleetGatewayError("the gateway's answer is not what a Cortex gateway says")
    return value
