"""The openai SDK against a gateway, with any model that chats: all checks of the SDK together."""

from __future__ import annotations

import json
from typing import Any, Final

import openai

from services.cli.sdk_checks import openai_responses
from services.cli.sdk_checks.openai_client import ASK, TOOLS, Sum, client, expect_sum
from services.cli.sdk_checks.suite import Suite, Target

suite: Final = Suite("openai (Python)", package="openai")
suite.extend(openai_responses.suite)


@suite.check("basics")
def chat(target: Target) -> None:
    """A whole answer, its usage and its id."""
    answer = client(target).chat.completions.create(
        model=target.model, messages=ASK, max_completion_tokens=16
    )
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.completion_tokens > 0
    assert answer._request_id  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - documented so


@suite.check("basics")
def several_choices(target: Target) -> None:
    """`n`."""
    answer = client(target).chat.completions.create(
        model=target.model, messages=ASK, max_tokens=4, n=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1]


@suite.check("basics")
def log_probabilities(target: Target) -> None:
    """`logprobs` and `top_logprobs`."""
    answer = client(target).chat.completions.create(
        model=target.model, messages=ASK, max_tokens=4, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    assert all(len(token.top_logprobs) == 3 for token in logprobs.content)  # noqa: PLR2004


@suite.check("basics")
def legacy_completion(target: Target) -> None:
    """`/v1/completions`."""
    answer = client(target).completions.create(
        model=target.model, prompt="The sea is", max_tokens=8, echo=True
    )
    assert answer.choices[0].text.startswith("The sea is")


@suite.check("basics")
def models(target: Target) -> None:
    """Listed, and retrieved by name."""
    with client(target) as gateway:
        assert target.model in {model.id for model in gateway.models.list()}
        assert target.model == gateway.models.retrieve(target.model).id


@suite.check("basics")
def embeddings(target: Target) -> None:
    """As base64, which the SDK asks for by itself, and as numbers."""
    if not target.embedding:
        return
    with client(target) as gateway:
        packed = gateway.embeddings.create(model=target.embedding, input=["cat", "feline"])
        plain = gateway.embeddings.create(
            model=target.embedding, input="cat", encoding_format="float"
        )
    assert len(packed.data) == 2  # noqa: PLR2004
    pairs = zip(packed.data[0].embedding, plain.data[0].embedding, strict=True)
    assert all(abs(a - b) < 1e-3 for a, b in pairs)  # noqa: PLR2004


@suite.check("stream")
def chat_stream(target: Target) -> None:
    """Chunks, and the usage behind them."""
    chunks = list(
        client(target).chat.completions.create(
            model=target.model,
            messages=ASK,
            max_tokens=16,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert any(c.choices and c.choices[0].delta.content for c in chunks)
    assert chunks[-1].usage
    assert not chunks[-1].choices


@suite.check("stream")
def chat_stream_helper(target: Target) -> None:
    """`chat.completions.stream`, which accumulates by itself."""
    with client(target).chat.completions.stream(
        model=target.model, messages=ASK, stop=["\n"]
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].finish_reason == "stop"


@suite.check("stream")
async def asynchronous_stream(target: Target) -> None:
    """`AsyncOpenAI`."""
    async with openai.AsyncOpenAI(
        base_url=f"{target.url}/v1", api_key="none", max_retries=0
    ) as gateway:
        stream = await gateway.chat.completions.create(
            model=target.model, messages=ASK, max_tokens=16, stream=True
        )
        text = [c.choices[0].delta.content or "" async for c in stream if c.choices]
    assert "".join(text)


@suite.check("stream")
def legacy_completion_stream(target: Target) -> None:
    """`/v1/completions`, streamed."""
    stream = client(target).completions.create(
        model=target.model, prompt="The sea is", max_tokens=8, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices)


@suite.check("tools")
def required_tool(target: Target) -> None:
    """`tool_choice: required` makes a call whose arguments fit."""
    answer = client(target).chat.completions.create(
        model=target.model, messages=ASK, tools=TOOLS, tool_choice="required", temperature=0
    )
    expect_sum(answer.choices[0].message.tool_calls)
    assert answer.choices[0].finish_reason == "tool_calls"


@suite.check("tools")
def named_tool_streamed(target: Target) -> None:
    """A named tool, its arguments in fragments."""
    with client(target).chat.completions.stream(
        model=target.model,
        messages=ASK,
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "add"}},
        temperature=0,
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    expect_sum(final.choices[0].message.tool_calls)


@suite.check("structured output")
def chat_parse(target: Target) -> None:
    """`chat.completions.parse` into a pydantic model."""
    answer = client(target).chat.completions.parse(
        model=target.model, messages=ASK, response_format=Sum, temperature=0
    )
    assert isinstance(answer.choices[0].message.parsed, Sum)


@suite.check("structured output")
def any_json_object(target: Target) -> None:
    """`response_format: json_object`."""
    answer = client(target).chat.completions.create(
        model=target.model,
        messages=[{"role": "user", "content": "Answer in JSON: who are you?"}],
        response_format={"type": "json_object"},
        temperature=0,
        max_tokens=200,
    )
    choice = answer.choices[0]
    assert choice.message.content
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)
    else:
        assert choice.message.content.startswith("{")


@suite.check("errors")
def unknown_model(target: Target) -> None:
    """404 and a code, streamed or not."""
    for stream in (False, True):
        try:
            client(target).chat.completions.create(
                model="no-such-model", messages=ASK, stream=stream
            )
        except openai.NotFoundError as error:
            assert error.code == "model_not_found"  # noqa: PT017 - no pytest in here
        else:
            raise AssertionError("nothing was raised")


@suite.check("errors")
def prompt_beyond_the_window(target: Target) -> None:
    """The code that every client looks for, in both APIs, before a stream starts."""
    long = "word " * 40_000
    asks: list[Any] = [
        lambda: client(target).chat.completions.create(
            model=target.model, messages=[{"role": "user", "content": long}], stream=True
        ),
        lambda: client(target).responses.create(model=target.model, input=long),
    ]
    for ask in asks:
        try:
            ask()
        except openai.BadRequestError as error:
            assert error.code == "context_length_exceeded"  # noqa: PT017
            assert "maximum context length" in error.message  # noqa: PT017
        else:
            raise AssertionError("nothing was raised")


@suite.check("errors")
def malformed_request(target: Target) -> None:
    """A 400 that names the parameter."""
    wrong: Any = {"temperature": "hot"}
    try:
        client(target).chat.completions.create(model=target.model, messages=ASK, **wrong)
    except openai.BadRequestError as error:
        assert error.param == "temperature"  # noqa: PT017
    else:
        raise AssertionError("nothing was raised")


@suite.check("cancel")
def leaving_a_stream(target: Target) -> None:
    """A stream that is left does not hold up what comes after it."""
    with client(target) as gateway:
        for _ in range(8):
            stream = gateway.chat.completions.create(
                model=target.model, messages=ASK, stream=True, extra_body={"ignore_eos": True}
            )
            next(iter(stream))
            stream.close()
        answer = gateway.chat.completions.create(model=target.model, messages=ASK, max_tokens=4)
    assert answer.choices
