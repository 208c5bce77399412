"""`cortex bench`: how fast a fleet answers, as a client sees it."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from services.cli.answers import first_model
from services.cli.options import DEFAULT_GATEWAY, GatewayOption, KeyOption
from services.cli.sse import ChatFailedError, ChatUsage, GatewayClient
from services.cli.tables import table_of
from services.cli.terminal import fail, show, waiting

_PROMPT = "Tell me a short story about a lighthouse keeper and the sea."


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """What one number of parallel streams gave.

    Attributes:
        streams: requests in flight at any time.
        answers: those that ended well.
        failures: words of those that did not.
        seconds: from the first request to the last answer.
    """

    streams: int
    answers: Sequence[ChatUsage]
    failures: Sequence[str]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """All streams together."""
        return sum(answer.completion_tokens for answer in self.answers) / self.seconds

    def first_token_seconds(self, percentile: int) -> float:
        """Time to first token at a percentile (1 to 99)."""
        times = [each.first_seconds for each in self.answers if each.first_seconds is not None]
        match times:
            case []:
                return 0.0
            case [only]:
                return only
            case _:
                return statistics.quantiles(times, n=100, method="inclusive")[percentile - 1]


def bench(
    model: Annotated[str, typer.Option("--model", "-m", help="Default: one that is loaded.")] = "",
    streams: Annotated[
        str, typer.Option("--streams", help="Numbers of parallel streams, in turn.")
    ] = "1,4,16",
    requests: Annotated[int, typer.Option("--requests", min=1, help="Per stream.")] = 2,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1)] = 64,
    prompt: Annotated[str, typer.Option("--prompt", help="What every request asks.")] = _PROMPT,
    gateway: GatewayOption = DEFAULT_GATEWAY,
    api_key: KeyOption = "",
) -> None:
    """Measure tokens per second and time to first token, as a client sees them."""
    try:
        counts = [int(text) for text in streams.split(",")]
    except ValueError:
        fail(f"--streams: {streams!r} is not a list of numbers")
        return
    client = GatewayClient(gateway, api_key=api_key)
    table = table_of(
        "streams", "answers", "failed", "tokens/s", "per stream", "first p50", "first p95"
    )
    answered = False
    try:
        chosen = model or first_model(client)
        for count in counts:
            with waiting(f"{chosen}: {count} streams"):
                done = _round(
                    client,
                    chosen,
                    prompt,
                    streams=count,
                    requests=requests,
                    max_tokens=max_tokens,
                )
            table.add_row(*_row(done))
            answered = answered or bool(done.answers)
    except (ChatFailedError, OSError) as error:
        fail(f"{gateway}: {error}")
    show(table)
    if not answered:
        fail(f"{gateway}: every answer failed")


def _round(
    client: GatewayClient, model: str, prompt: str, *, streams: int, requests: int, max_tokens: int
) -> Round:
    def one(number: int) -> ChatUsage | str:
        usage = ChatUsage()
        messages = [{"role": "user", "content": f"{prompt} ({number})"}]
        try:
            for _ in client.chat(model, messages, usage, max_tokens=max_tokens, temperature=0.8):
                pass
        except (ChatFailedError, OSError) as error:
            return str(error)
        return usage

    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        results = list(pool.map(one, range(streams * requests)))
    return Round(
        streams,
        [each for each in results if isinstance(each, ChatUsage)],
        [each for each in results if isinstance(each, str)],
        time.monotonic() - started,
    )


def _row(done: Round) -> tuple[str, ...]:
    per_stream = [answer.tokens_per_second for answer in done.answers]
    return (
        str(done.streams),
        str(len(done.answers)),
        f"{len(done.failures)} ({done.failures[0]})" if done.failures else "0",
        f"{done.tokens_per_second:.0f}",
        f"{statistics.median(per_stream):.0f}" if per_stream else "",
        f"{done.first_token_seconds(50):.3f} s",
        f"{done.first_token_seconds(95):.3f} s",
    )
