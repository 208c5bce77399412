"""The anthropic SDK: the packaged suite, and what only a scripted neuron can show."""

import time

import anthropic

from services.cli.sdk_checks import anthropic_sdk
from services.cli.sdk_checks.anthropic_sdk import ADD, client
from services.cli.sdk_checks.suite import Suite

suite = Suite("anthropic (Python)", package="anthropic")
suite.extend(anthropic_sdk.suite)
ORDER = {"role": "user", "content": '@call add {"a": 12, "b": 30}'}


@suite.check("tools")
def round_trip(target):
    """A call, its result, and the text about it."""
    with client(target) as gateway:
        first = gateway.messages.create(
            model=target.scripted, max_tokens=99, messages=[ORDER], tools=[ADD]
        )
        use = first.content[-1]
        result = {
            "type": "tool_result",
            "tool_use_id": use.id,
            "content": [{"type": "text", "text": str(sum(use.input.values()))}],
            "cache_control": {"type": "ephemeral"},
        }
        final = gateway.messages.create(
            model=target.scripted,
            max_tokens=99,
            messages=[
                ORDER,
                {"role": "assistant", "content": first.content},
                {"role": "user", "content": [result]},
            ],
            tools=[ADD],
        )
    assert final.content[0].text == "The tool said: 42"


@suite.check("tools")
def tool_runner(target):
    """The SDK's own agent loop."""
    made = []

    @anthropic.beta_tool
    def add(a: int, b: int) -> str:
        """Adds two numbers."""
        made.append((a, b))
        return str(a + b)

    runner = client(target).beta.messages.tool_runner(
        model=target.scripted, max_tokens=99, tools=[add], messages=[ORDER]
    )
    final = runner.until_done()
    assert made == [(12, 30)]
    assert final.content[0].text == "The tool said: 42"


@suite.check("stream")
def thinking(target):
    """Thinking blocks with a signature, which may come back."""
    ask = {"role": "user", "content": "@think Hm."}
    budget = {"type": "enabled", "budget_tokens": 1024}
    with client(target) as gateway:
        with gateway.messages.stream(
            model=target.scripted, max_tokens=2000, messages=[ask], thinking=budget
        ) as stream:
            thoughts = "".join(e.thinking for e in stream if e.type == "thinking")
            message = stream.get_final_message()
        again = gateway.messages.create(
            model=target.scripted,
            max_tokens=2000,
            messages=[ask, {"role": "assistant", "content": message.content}, ask],
            thinking=budget,
        )
    assert thoughts == message.content[0].thinking == "Hm. Done."
    assert message.content[0].signature
    assert [block.type for block in again.content] == ["thinking", "text"]


@suite.check("errors")
def worker_lost_in_mid_stream(target):
    """An `error` event behind the text."""
    text = ""
    try:
        with client(target).messages.stream(
            model=target.scripted, max_tokens=99, messages=[{"role": "user", "content": "@break"}]
        ) as stream:
            for piece in stream.text_stream:
                text += piece
    except anthropic.APIStatusError as error:
        assert error.body["error"]["type"] == "api_error"
    else:
        raise AssertionError("nothing was raised")
    assert text.startswith("one")


@suite.check("cancel")
def leaving_stops_the_model(target):
    """Closing a stream stops the generation itself."""
    with client(target) as gateway:
        before = cancelled(gateway, target)
        with gateway.messages.stream(
            model=target.scripted, max_tokens=99, messages=[{"role": "user", "content": "@stall"}]
        ) as stream:
            next(iter(stream))
        deadline = time.monotonic() + 10
        while cancelled(gateway, target) < before + 1:
            assert time.monotonic() < deadline, "the neuron was not told"
            time.sleep(0.05)


def cancelled(gateway, target):
    answer = gateway.messages.create(
        model=target.scripted, max_tokens=9, messages=[{"role": "user", "content": "@cancelled"}]
    )
    return int(answer.content[0].text)


if __name__ == "__main__":
    suite.main()
