import asyncio
import json
from typing import Any

import pytest

from services.agent.transport import LineTransport


class Writer:
    """Collects what is written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    async def drain(self) -> None:
        return


async def exchanged(*lines: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns what the SDK gets of some lines, and what was answered without it."""
    reader, writer = asyncio.StreamReader(limit=2**20), Writer()
    reader.feed_data("".join(f"{line}\n" for line in lines).encode())
    reader.feed_eof()
    transport: Any = LineTransport(reader, writer)  # type: ignore[arg-type]
    received: list[dict[str, Any]] = []
    while (message := await transport.receive()) is not None:
        received.append(message)
    return received, [json.loads(line) for line in writer.data.splitlines()]


@pytest.mark.parametrize(
    ("line", "code"), [("{oops", -32700), ("[" * 100_000, -32700), ("[1]", -32600), ("7", -32600)]
)
async def test_what_is_no_message_is_answered_with_the_code_for_it(line: str, code: int):
    received, answered = await exchanged(line, "", '{"id": 1, "method": "initialize"}')

    assert ["initialize"] == [message["method"] for message in received]
    assert [(None, code)] == [(each["id"], each["error"]["code"]) for each in answered]


async def test_notifications_that_nobody_knows_are_passed_over():
    lines = ['{"method": "editor/mood"}', '{"method": "$/later", "params": []}', '{"method": 7}']

    assert ([], []) == await exchanged(*lines)


async def test_cancelling_a_request_cancels_the_prompt_that_it_was():
    def cancel(request_id: object) -> str:
        params = {"requestId": request_id}
        return json.dumps({"method": "$/cancel_request", "params": params})

    prompt = '{"id": 4, "method": "session/prompt", "params": {"sessionId": "s"}}'

    received, _ = await exchanged(prompt, cancel(4), cancel("4"), cancel(5))

    assert [{"method": "session/cancel", "params": {"sessionId": "s"}}] == received[1:]


async def test_the_model_is_switched_by_the_method_of_older_editors_too():
    params = {"sessionId": "s", "modelId": "llama3:8b"}

    received, _ = await exchanged(
        json.dumps({"id": 1, "method": "session/set_model", "params": params})
    )

    option = {"sessionId": "s", "configId": "model", "value": "llama3:8b"}
    assert [{"id": 1, "method": "session/set_config_option", "params": option}] == received
