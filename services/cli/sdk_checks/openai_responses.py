"""The openai SDK's Responses API against a gateway, with any model that chats."""

from __future__ import annotations

from typing import Final

from services.cli.sdk_checks.openai_client import RESPONSE_TOOL, Sum, client
from services.cli.sdk_checks.suite import Suite, Target

suite: Final = Suite("openai (Python)", package="openai")


@suite.check("basics")
def response(target: Target) -> None:
    """A whole response, and the next one that stands on it."""
    with client(target) as gateway:
        first = gateway.responses.create(
            model=target.model, input="My name is Ann.", max_output_tokens=16
        )
        second = gateway.responses.create(
            model=target.model,
            input="Who am I?",
            previous_response_id=first.id,
            max_output_tokens=16,
        )
        found = gateway.responses.retrieve(second.id)
        gateway.responses.delete(first.id)
    assert first.output_text
    assert (second.id, second.output_text) == (found.id, found.output_text)


@suite.check("stream")
def response_stream_helper(target: Target) -> None:
    """`responses.stream`, which indexes by output and content."""
    # the helper raises where the limit ends the answer
    with client(target).responses.stream(
        model=target.model, input="Say hello.", extra_body={"stop": [".", "!", "?", "\n"]}
    ) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert final.output_text == text


@suite.check("tools")
def response_with_required_tool(target: Target) -> None:
    """A required tool call through the stream helper of the Responses API."""
    with client(target).responses.stream(
        model=target.model,
        input="Add 1 and 2.",
        tools=[RESPONSE_TOOL],
        tool_choice="required",
        temperature=0,
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    call = final.output[-1]
    assert call.type == "function_call"
    Sum.model_validate_json(call.arguments)


@suite.check("structured output")
def response_parse(target: Target) -> None:
    """`responses.parse` into a pydantic model."""
    answer = client(target).responses.parse(
        model=target.model, input="Add 1 and 2.", text_format=Sum, temperature=0
    )
    assert isinstance(answer.output_parsed, Sum)
