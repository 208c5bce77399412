"""The anthropic SDK against a gateway, with any model that chats."""

from __future__ import annotations

from typing import Any, Final

import anthropic
from anthropic.types import MessageParam, ToolParam
from pydantic import BaseModel, ConfigDict

from services.cli.sdk_checks.suite import Suite, Target

suite: Final = Suite("anthropic (Python)", package="anthropic")

ASK: Final[list[MessageParam]] = [{"role": "user", "content": "Say hello."}]
ADD: Final[ToolParam] = {
    "name": "add",
    "description": "Adds two numbers.",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}


class Sum(BaseModel):
    """A shape to be filled."""

    model_config = ConfigDict(extra="forbid")
    a: int
    b: int


def client(target: Target) -> anthropic.Anthropic:
    """One that hides no failure behind a retry."""
    return anthropic.Anthropic(base_url=target.url, api_key="none", max_retries=0, timeout=120)


@suite.check("basics")
def message(target: Target) -> None:
    """A whole answer, its usage and its id."""
    answer = client(target).messages.create(
        model=target.model, max_tokens=16, system="Be brief.", messages=ASK
    )
    assert answer.content[0].type == "text"
    assert answer.content[0].text
    assert answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) > 0
    assert answer._request_id  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - documented so


@suite.check("basics")
def more_tokens_than_the_window(target: Target) -> None:
    """`max_tokens` beyond the window is cut, not refused: Claude Code always asks for 32 000."""
    answer = client(target).messages.create(
        model=target.model, max_tokens=1_000_000, messages=ASK, stop_sequences=["\n", "."]
    )
    assert answer.stop_reason in {"end_turn", "stop_sequence"}


@suite.check("basics")
def count_tokens(target: Target) -> None:
    """Tools and system are counted too."""
    with client(target) as gateway:
        bare = gateway.messages.count_tokens(model=target.model, messages=ASK)
        full = gateway.messages.count_tokens(
            model=target.model, messages=ASK, system="Be brief.", tools=[ADD]
        )
    assert 0 < bare.input_tokens < full.input_tokens


@suite.check("basics")
def models(target: Target) -> None:
    """Listed in the shape of this API, and retrieved by name."""
    with client(target) as gateway:
        listed = {model.id: model for model in gateway.models.list(limit=1000)}
        one = gateway.models.retrieve(target.model)
    assert listed[target.model].type == "model"
    assert (target.model, listed[target.model].created_at) == (one.id, one.created_at)


@suite.check("stream")
def message_stream_helper(target: Target) -> None:
    """`messages.stream`, its text and its final message."""
    with client(target).messages.stream(model=target.model, max_tokens=16, messages=ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].type == "text"
    assert final.content[0].text == text
    assert final.stop_reason
    assert final.usage.output_tokens > 0


@suite.check("stream")
def raw_events(target: Target) -> None:
    """The events and their order."""
    stream = client(target).messages.create(
        model=target.model, max_tokens=16, messages=ASK, stream=True
    )
    kinds = [event.type for event in stream]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@suite.check("stream")
async def asynchronous_stream(target: Target) -> None:
    """`AsyncAnthropic`."""
    async with (
        anthropic.AsyncAnthropic(base_url=target.url, api_key="none", max_retries=0) as gateway,
        gateway.messages.stream(model=target.model, max_tokens=16, messages=ASK) as stream,
    ):
        assert "".join([text async for text in stream.text_stream])


@suite.check("tools")
def any_tool(target: Target) -> None:
    """`tool_choice: any` makes a call whose input fits."""
    answer = client(target).messages.create(
        model=target.model,
        max_tokens=500,
        messages=ASK,
        tools=[ADD],
        tool_choice={"type": "any"},
        extra_body={"temperature": 0},
    )
    _is_sum(answer)


@suite.check("tools")
def named_tool_streamed(target: Target) -> None:
    """A named tool, its input in fragments."""
    with client(target).messages.stream(
        model=target.model,
        max_tokens=500,
        messages=ASK,
        tools=[ADD],
        tool_choice={"type": "tool", "name": "add"},
        extra_body={"temperature": 0},
    ) as stream:
        fragments = [event.partial_json for event in stream if event.type == "input_json"]
        _is_sum(stream.get_final_message())
    assert len(fragments) > 1


@suite.check("structured output")
def parse(target: Target) -> None:
    """`messages.parse` into a pydantic model."""
    answer = client(target).messages.parse(
        model=target.model,
        max_tokens=500,
        messages=ASK,
        output_format=Sum,
        extra_body={"temperature": 0},
    )
    assert isinstance(answer.parsed_output, Sum)


@suite.check("errors")
def unknown_model(target: Target) -> None:
    """404 and `not_found_error`, streamed or not."""
    for stream in (False, True):
        try:
            client(target).messages.create(
                model="no-such-model", max_tokens=9, messages=ASK, stream=stream
            )
        except anthropic.NotFoundError as error:
            assert _kind(error) == "not_found_error"  # noqa: PT017 - no pytest in here
        else:
            raise AssertionError("nothing was raised")


@suite.check("errors")
def prompt_beyond_the_window(target: Target) -> None:
    """The words that Claude Code reads, before the stream starts."""
    long: list[MessageParam] = [{"role": "user", "content": "word " * 40_000}]
    try:
        client(target).messages.create(model=target.model, max_tokens=9, messages=long, stream=True)
    except anthropic.BadRequestError as error:
        assert "prompt is too long: " in error.message  # noqa: PT017
        assert " maximum" in error.message  # noqa: PT017
    else:
        raise AssertionError("nothing was raised")


@suite.check("errors")
def malformed_request(target: Target) -> None:
    """A 400 that names the field."""
    wrong: Any = {"max_tokens": "many"}
    try:
        client(target).messages.create(model=target.model, messages=ASK, **wrong)
    except anthropic.BadRequestError as error:
        assert _kind(error) == "invalid_request_error"  # noqa: PT017
        assert "max_tokens" in error.message  # noqa: PT017
    else:
        raise AssertionError("nothing was raised")


@suite.check("cancel")
def leaving_a_stream(target: Target) -> None:
    """A stream that is left does not hold up what comes after it."""
    with client(target) as gateway:
        for _ in range(8):
            with gateway.messages.stream(
                model=target.model, max_tokens=4000, messages=ASK
            ) as stream:
                next(iter(stream))
        answer = gateway.messages.create(model=target.model, max_tokens=4, messages=ASK)
    assert answer.content


def _is_sum(answer: anthropic.types.Message) -> None:
    call = answer.content[-1]
    assert answer.stop_reason == "tool_use"
    assert call.type == "tool_use"
    assert call.name == "add"
    Sum.model_validate(call.input)


def _kind(error: anthropic.APIStatusError) -> str:
    body: Any = error.body
    return str(body["error"]["type"])
