"""A streaming chat over plain HTTP, for the commands that talk to a gateway as any client does."""

from __future__ import annotations

import dataclasses
import http.client
import json
import ssl
import time
import urllib.parse
from collections.abc import Generator, Sequence
from typing import Any, Final, Literal, NamedTuple

# A cold model may have to be loaded first; the gateway sends signs of life meanwhile.
SILENCE_SECONDS: Final = 60.0
_OK: Final = 200
_SILENCE: Final = b": keep-alive"


class ChatFailedError(Exception):
    """The gateway refused or broke off; the message is its own."""


class Piece(NamedTuple):
    """A part of an answer, or what it waits for.

    Attributes:
        kind: `text`, `reasoning`, or `waiting` for words of the gateway's own.
    """

    kind: Literal["text", "reasoning", "waiting"]
    text: str


@dataclasses.dataclass(slots=True)
class ChatUsage:
    """What one answer took.

    Attributes:
        prompt_tokens, completion_tokens: as the gateway counted.
        first_seconds: from sending to the first piece; None where none came.
        total_seconds: from sending to the end.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_seconds: float | None = None
    total_seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens behind the first over the time behind the first."""
        elapsed = self.total_seconds - (self.first_seconds or 0.0)
        return (self.completion_tokens - 1) / elapsed if elapsed > 0 else 0.0


class GatewayClient:
    """One gateway, one request at a time."""

    def __init__(self, url: str, *, api_key: str = "", certificate: str | None = None) -> None:
        """Connects when it is asked something.

        Args:
            url: of the gateway.
            api_key: sent with each request.
            certificate: a file in PEM; the gateway has to show just this one, for whatever name.
                None trusts what the system trusts.
        """
        self._url = urllib.parse.urlsplit(url)
        self._certificate = certificate
        self._headers = {"content-type": "application/json", "authorization": f"Bearer {api_key}"}

    def get(self, path: str, *, timeout: float = 10.0) -> tuple[int, Any]:
        """Status and JSON of a GET; the JSON is None where there is none.

        Raises:
            OSError: nobody answers.
        """
        return self.ask("GET", path, timeout=timeout)

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, timeout: float = 10.0
    ) -> tuple[int, Any]:
        """Status and JSON of a request; the JSON is None where there is none.

        Args:
            method: of HTTP.
            path: with its query.
            body: JSON; None for none.
            timeout: in seconds, of each step.

        Raises:
            OSError: nobody answers.
        """
        connection = self._connect(timeout)
        try:
            connection.request(method, path, body, headers=self._headers)
            response = connection.getresponse()
            return response.status, _json(response.read())
        finally:
            connection.close()

    def first_event(self, path: str, *, timeout: float = 10.0) -> Any:
        """The JSON of the first event of a stream, which is then left.

        Raises:
            ChatFailedError: with the gateway's words.
            OSError: nobody answers, or no event came in time.
        """
        connection = self._connect(timeout)
        try:
            connection.request("GET", path, headers=self._headers)
            response = connection.getresponse()
            if response.status != _OK:
                raise ChatFailedError(words_of(_json(response.read()), response.status))
            for line in response:
                if line.startswith(b"data: "):
                    return _json(line[6:])
        finally:
            connection.close()
        raise ChatFailedError("the gateway ended the stream without an event")

    def post(self, path: str, body: bytes, *, timeout: float = SILENCE_SECONDS) -> Any:
        """The JSON of a POST's answer.

        Raises:
            ChatFailedError: with the gateway's words.
            OSError: nobody answers.
        """
        status, answer = self.ask("POST", path, body, timeout=timeout)
        if status != _OK:
            raise ChatFailedError(words_of(answer, status))
        return answer

    def models(self) -> list[dict[str, Any]]:
        """The listed models.

        Raises:
            ChatFailedError: with the gateway's words.
            OSError: nobody answers.
        """
        status, body = self.get("/v1/models")
        if status != _OK:
            raise ChatFailedError(words_of(body, status))
        return list((body or {}).get("data", []))

    def chat(
        self, model: str, messages: Sequence[dict[str, str]], usage: ChatUsage, **options: object
    ) -> Generator[Piece]:
        """Pieces of the answer as they come; `usage` is filled in.

        Whoever closes the iterator leaves, and the gateway stops the model.

        Raises:
            ChatFailedError: with the gateway's words.
            OSError: nobody answers, or the gateway fell silent.
        """
        body = {
            "model": model,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **options,
        }
        connection = self._connect(SILENCE_SECONDS)
        started = time.monotonic()
        try:
            connection.request(
                "POST", "/v1/chat/completions", json.dumps(body), headers=self._headers
            )
            response = connection.getresponse()
            if response.status != _OK:
                raise ChatFailedError(words_of(_json(response.read()), response.status))
            for line in response:
                if line.startswith(b"data: {"):
                    yield from _pieces(json.loads(line[6:]), usage, started)
                elif line.startswith(b": ") and line.strip() != _SILENCE:
                    yield Piece("waiting", line[2:].decode().strip())
        finally:
            usage.total_seconds = time.monotonic() - started
            connection.close()

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "127.0.0.1", self._url.port
        if self._url.scheme != "https":
            return http.client.HTTPConnection(host, port, timeout=timeout)
        context = ssl.create_default_context(cafile=self._certificate)
        if self._certificate is not None:
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)


def _pieces(event: Any, usage: ChatUsage, started: float) -> Generator[Piece]:
    if "error" in event:
        raise ChatFailedError(words_of(event, 0))
    counts = event.get("usage")
    if counts:
        usage.prompt_tokens = counts["prompt_tokens"]
        usage.completion_tokens = counts["completion_tokens"]
    for choice in event.get("choices", ()):
        delta = choice.get("delta", {})
        reasoning, text = delta.get("reasoning_content"), delta.get("content")
        if usage.first_seconds is None and (reasoning or text):
            usage.first_seconds = time.monotonic() - started
        if reasoning:
            yield Piece("reasoning", reasoning)
        if text:
            yield Piece("text", text)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def words_of(body: Any, status: int) -> str:
    """What a gateway says of an error."""
    try:
        return str(body["error"]["message"])
    except (KeyError, TypeError):
        return f"the gateway answered with HTTP {status}"
