"""The openai SDK: the packaged suite, and what only a scripted neuron can show."""

import json
import time

import openai

from services.cli.sdk_checks import openai_sdk
from services.cli.sdk_checks.openai_client import RESPONSE_TOOL, TOOLS, client
from services.cli.sdk_checks.suite import Suite

suite = Suite("openai (Python)", package="openai")
suite.extend(openai_sdk.suite)
ORDER = '@call add {"a": 12, "b": 30}'


@suite.check("tools")
def round_trip_in_chat(target):
    """The model decides to call; the result comes back; it speaks of it."""
    messages = [{"role": "user", "content": ORDER}]
    with client(target) as gateway:
        stream = gateway.chat.completions.stream(
            model=target.scripted, messages=messages, tools=TOOLS
        )
        with stream as events:
            kinds = {event.type for event in events}
            message = events.get_final_completion().choices[0].message
        call = message.tool_calls[0]
        messages.append(message.model_dump(exclude_none=True))
        result = sum(json.loads(call.function.arguments).values())
        messages.append({"role": "tool", "tool_call_id": call.id, "content": f"{result}"})
        final = gateway.chat.completions.create(
            model=target.scripted, messages=messages, tools=TOOLS
        )
    assert "tool_calls.function.arguments.done" in kinds
    assert final.choices[0].message.content == "The tool said: 42"


@suite.check("tools")
def round_trip_in_responses(target):
    """Both ways of going on: by the whole history and by the previous response."""
    with client(target) as gateway:
        first = gateway.responses.create(model=target.scripted, input=ORDER, tools=[RESPONSE_TOOL])
        call = first.output[-1]
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "42"}
        by_id = gateway.responses.create(
            model=target.scripted,
            input=[output],
            previous_response_id=first.id,
            tools=[RESPONSE_TOOL],
        )
        history = [{"role": "user", "content": ORDER}, *first.output, output]
        whole = gateway.responses.create(
            model=target.scripted, input=history, tools=[RESPONSE_TOOL], store=False
        )
    assert call.type == "function_call"
    assert "The tool said: 42" == by_id.output_text == whole.output_text


@suite.check("stream")
def reasoning(target):
    """Thoughts come apart from the answer, in both APIs."""
    with client(target) as gateway:
        chat = gateway.chat.completions.create(
            model=target.scripted, messages=[{"role": "user", "content": "@think Hm."}]
        )
        with gateway.responses.stream(
            model=target.scripted, input="@think Hm.", reasoning={"summary": "auto"}
        ) as stream:
            for _ in stream:
                pass
            response = stream.get_final_response()
    assert chat.choices[0].message.reasoning_content == "Hm. Done."
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output_text == chat.choices[0].message.content


@suite.check("stream")
def token_limit(target):
    """`length` in chat, `incomplete` in responses."""
    with client(target) as gateway:
        chat = gateway.chat.completions.create(
            model=target.scripted, messages=[{"role": "user", "content": "@cut"}]
        )
        response = gateway.responses.create(model=target.scripted, input="@cut")
    assert chat.choices[0].finish_reason == "length"
    assert ("incomplete", "max_output_tokens") == (
        response.status,
        response.incomplete_details.reason,
    )


@suite.check("errors")
def worker_lost_in_mid_stream(target):
    """The SDK raises; no truncated answer passes for a whole one."""
    stream = client(target).chat.completions.create(
        model=target.scripted, messages=[{"role": "user", "content": "@break"}], stream=True
    )
    text = ""
    try:
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    except openai.APIError as error:
        assert error.message
    else:
        raise AssertionError("nothing was raised")
    assert text.startswith("one")


@suite.check("errors")
def worker_lost_in_a_response(target):
    """The stream ends with `response.failed`."""
    stream = client(target).responses.create(model=target.scripted, input="@break", stream=True)
    last = list(stream)[-1]
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert last.response.error.message


@suite.check("cancel")
def leaving_stops_the_model(target):
    """Closing a stream, or an unstreamed request, stops the generation itself."""
    with client(target) as gateway:
        before = cancelled(gateway, target)
        messages = [{"role": "user", "content": "@stall"}]
        stream = gateway.chat.completions.create(
            model=target.scripted, messages=messages, stream=True
        )
        next(iter(stream))
        stream.close()
        try:
            gateway.with_options(timeout=1).chat.completions.create(
                model=target.scripted, messages=messages
            )
        except openai.APITimeoutError:
            pass
        deadline = time.monotonic() + 10
        while cancelled(gateway, target) < before + 2:
            assert time.monotonic() < deadline, "the neuron was not told"
            time.sleep(0.05)


def cancelled(gateway, target):
    answer = gateway.chat.completions.create(
        model=target.scripted, messages=[{"role": "user", "content": "@cancelled"}]
    )
    return int(answer.choices[0].message.content)


if __name__ == "__main__":
    suite.main()
