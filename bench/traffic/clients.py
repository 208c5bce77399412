"""One request by an official SDK, streamed or whole, and how it ended."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import anthropic
import openai

from bench.traffic.exchange import Exchange, Outcome
from services.backplane.timeouts import timeout

# Each client would read all authorities that the system trusts, which takes longer than an answer.
_UNUSED: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# Both SDKs make errors of these three sorts.
_STATUS: Final = (openai.APIStatusError, anthropic.APIStatusError)
_CONNECTION: Final = (openai.APIConnectionError, anthropic.APIConnectionError)
_OTHER: Final = (openai.APIError, anthropic.APIError)

Turns = Sequence[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        turns: of the conversation, the newest last.
        expected: the text of the answer.
        tokens: of the answer.
    """

    model: str
    turns: Turns
    expected: str
    tokens: int


class SdkClients:
    """One client of each SDK, as a program would make it: retries and timeouts are its defaults."""

    def __init__(self, url: str, *, key: str, patience_seconds: float) -> None:
        """Connects nowhere yet.

        Args:
            url: of the gateways.
            key: of the caller.
            patience_seconds: how long a request may take, retries and all, before it counts as one
                that never ended.
        """
        self._patience_seconds = patience_seconds
        self._openai = openai.AsyncOpenAI(
            base_url=f"{url}/v1",
            api_key=key,
            http_client=openai.DefaultAsyncHttpxClient(verify=_UNUSED),
        )
        self._anthropic = anthropic.AsyncAnthropic(
            base_url=url,
            api_key=key,
            http_client=anthropic.DefaultAsyncHttpxClient(verify=_UNUSED),
        )
        self.kinds: dict[str, Callable[[Question, Exchange], Awaitable[None]]] = {
            "OpenAI, streamed": self._openai_streamed,
            "OpenAI, whole": self._openai_whole,
            "Anthropic, streamed": self._anthropic_streamed,
            "Anthropic, whole": self._anthropic_whole,
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._openai.close()
        await self._anthropic.close()

    async def ask(self, kind: str, question: Question, exchange: Exchange) -> None:
        """Asks, fills the exchange while the answer comes, and closes it. Raises nothing."""
        outcome, detail = Outcome.WHOLE, ""
        try:
            async with timeout(self._patience_seconds):
                await self.kinds[kind](question, exchange)
        except TimeoutError:
            outcome, detail = Outcome.SILENT, f"{self._patience_seconds:g} s"
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the SDK lets out is what its user sees
            outcome, detail = judged(error, has_begun=exchange.is_open), _words(error)
        exchange.end(outcome, time.monotonic(), detail)

    async def _openai_streamed(self, question: Question, exchange: Exchange) -> None:
        chunks: Any = await self._openai.chat.completions.create(
            **_asked(question), stream=True, temperature=0
        )
        exchange.is_open, finish = True, ""
        async for chunk in chunks:
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                _take(exchange, choice.delta.content)
        _check(finish, "length")

    async def _openai_whole(self, question: Question, exchange: Exchange) -> None:
        answer: Any = await self._openai.chat.completions.create(**_asked(question), temperature=0)
        _take(exchange, answer.choices[0].message.content)
        _check(answer.choices[0].finish_reason, "length")

    async def _anthropic_streamed(self, question: Question, exchange: Exchange) -> None:
        events: AsyncIterator[Any] = await self._anthropic.messages.create(
            **_asked(question), stream=True, **_GREEDY
        )
        exchange.is_open, finish = True, ""
        async for event in events:
            if event.type == "content_block_delta":
                _take(exchange, event.delta.text)
            elif event.type == "message_delta":
                finish = event.delta.stop_reason or finish
        _check(finish, "max_tokens")

    async def _anthropic_whole(self, question: Question, exchange: Exchange) -> None:
        answer: Any = await self._anthropic.messages.create(**_asked(question), **_GREEDY)
        _take(exchange, answer.content[0].text)
        _check(answer.stop_reason, "max_tokens")


class EndlessError(Exception):
    """An answer stopped without saying that it was its end."""


# The SDK's newest release no longer names the parameter, which the API still has.
_GREEDY: Final[dict[str, Any]] = {"extra_body": {"temperature": 0}}


def judged(error: Exception, *, has_begun: bool) -> Outcome:
    """What an exception of an SDK means to its caller.

    Args:
        error: what a call or a stream raised.
        has_begun: whether the head of an answer had come before.
    """
    if isinstance(error, EndlessError):
        return Outcome.CUT
    if isinstance(error, _STATUS):  # Anthropic's client makes one of an error frame too
        return Outcome.TOLD if has_begun else Outcome.REFUSED
    if isinstance(error, _CONNECTION):
        return Outcome.CUT if has_begun else Outcome.UNREACHED
    if isinstance(error, _OTHER):
        return Outcome.TOLD if has_begun else Outcome.REFUSED
    return Outcome.CUT if has_begun else Outcome.UNREACHED


def _asked(question: Question) -> dict[str, Any]:
    return {
        "model": question.model,
        "messages": list(question.turns),
        "max_tokens": question.tokens,
    }


def _take(exchange: Exchange, piece: str | None) -> None:
    if piece:
        exchange.add(piece, time.monotonic())


def _check(finish: str | None, expected: str) -> None:
    if finish != expected:
        raise EndlessError(f"ended with {finish!r}")


def _words(error: Exception) -> str:
    """Of the error and what it came from, one line."""
    cause = f" from {error.__cause__!r}" if error.__cause__ is not None else ""
    return f"{type(error).__name__}: {error}{cause}"[:300]
