"""Events added up to one answer."""

from __future__ import annotations

from cortex.v1 import generation_pb2 as generation
from services.gateway.streaming.collect import CollectSink

Event = generation.GenerateResponse


def tool(index: int, arguments: str, name: str = "") -> Event:
    delta = generation.ToolCallDelta(
        index=index, call_id=name and f"id-{name}", name=name, arguments_json=arguments
    )
    return Event(tool_call=delta)


async def test_parts_come_in_the_order_in_which_they_began() -> None:
    sink = CollectSink(0, window_tokens=8)
    sink.begin()
    sink.event(Event(reasoning=generation.ReasoningDelta(text="h")))
    sink.event(Event(reasoning=generation.ReasoningDelta(text="m")))
    sink.text("a", 1)
    sink.event(tool(0, "", "f"))
    sink.event(tool(1, "[", "g"))
    sink.event(tool(0, "{}"))
    sink.event(tool(1, "]"))
    sink.text("b", 1)
    sink.text("c", 1)
    sink.finished(generation.GenerationFinished(reason=generation.FINISH_REASON_TOOL_CALLS))

    whole = sink.collected()

    assert [kind for kind, _ in whole.parts] == [
        "reasoning", "text", "tool_call", "tool_call", "text",
    ]  # fmt: skip
    assert whole.reasoning() == "hm"
    assert whole.text() == "abc"
    assert [(c.name, c.arguments_json) for c in whole.tool_calls()] == [("f", "{}"), ("g", "[]")]
    assert whole.finished.reason == generation.FINISH_REASON_TOOL_CALLS


async def test_an_empty_piece_of_text_ends_no_part() -> None:
    sink = CollectSink(0, window_tokens=8)
    sink.begin()
    sink.event(Event(reasoning=generation.ReasoningDelta(text="h")))
    logprob = generation.TokenLogprob(token_id=5, logprob=-1)
    sink.event(Event(text=generation.TextDelta(token_ids=[5], logprobs=[logprob])))
    sink.text("", 1)
    sink.event(Event(reasoning=generation.ReasoningDelta(text="m")))
    sink.finished(generation.GenerationFinished())

    whole = sink.collected()

    assert whole.parts == [("reasoning", "hm")]
    assert (whole.token_ids, len(whole.logprobs)) == ([5], 1)


async def test_another_attempt_forgets_the_first() -> None:
    sink = CollectSink(0, window_tokens=8)
    sink.begin()
    sink.text("lost", 1)
    sink.event(tool(0, "{", "f"))

    sink.begin()
    sink.text("kept", 1)
    sink.finished(generation.GenerationFinished())

    assert sink.collected().text() == "kept"
    assert not sink.collected().tool_calls()


async def test_logprobs_and_token_ids_are_kept() -> None:
    sink = CollectSink(0, window_tokens=8)
    sink.begin()
    logprob = generation.TokenLogprob(token_id=5, logprob=-1)
    delta = generation.TextDelta(text="a", token_ids=[5], logprobs=[logprob])
    sink.event(Event(text=delta))
    sink.finished(generation.GenerationFinished())

    whole = sink.collected()

    assert whole.text() == "a"
    assert whole.token_ids == [5]
    assert [one.logprob for one in whole.logprobs] == [-1]
