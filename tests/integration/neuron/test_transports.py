"""What Generate and Session both owe: one suite, run over each."""

from __future__ import annotations

import asyncio
import pathlib

import pytest
from google.protobuf import timestamp_pb2

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import Reason
from tests.doubles.neuron_host import chat, running_neuron
from tests.doubles.neuron_transports import answer, transport_of
from tests.doubles.vocabulary import CHATML

# A model that thinks: its template opens the reasoning.
THINKING = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")


@pytest.fixture
async def host(tmp_path: pathlib.Path):
    async with running_neuron(tmp_path) as host:
        host.script("bravo")
        host.script("endless", words=("la", " li", " lu"), is_endless=True)
        await host.load("bravo")
        await host.load("endless")
        yield host


@pytest.fixture(params=["generate", "session"])
async def transport(request, host):
    async with transport_of(request.param, host) as transport:
        yield transport


async def test_events_come_in_their_order_and_end_once(host, transport):
    made = await answer(transport.start(chat(model="bravo")))

    assert made.kinds == ["started", "text", "finished"]
    assert made.text == "Hello from model bravo"
    started = made.events[0].started
    assert started.prompt_tokens == made.finished.usage.prompt_tokens > 0
    assert started.instance_id == (await host.instance("bravo")).instance_id
    assert made.finished.reason == generation.FINISH_REASON_END_OF_TURN
    assert made.finished.usage.completion_tokens == made.tokens == 4
    assert not made.finished.resumed


async def test_max_tokens_ends_it_and_says_so(transport):
    request = chat(model="endless", stop=generation.StopRules(max_tokens=7))

    made = await answer(transport.start(request))

    assert made.finished.reason == generation.FINISH_REASON_MAX_TOKENS
    assert made.tokens == made.finished.usage.completion_tokens == 7


async def test_a_stop_string_ends_it_and_is_not_sent(transport):
    request = chat(model="endless", stop=generation.StopRules(stop_strings=["li lu"]))

    made = await answer(transport.start(request))

    assert made.finished.reason == generation.FINISH_REASON_STOP_STRING
    assert made.finished.stop_string == "li lu"
    assert made.text == "la "


async def test_logprobs_come_with_their_tokens(transport):
    request = chat(model="bravo", top_logprobs=2)

    made = await answer(transport.start(request))

    logprobs = [each for event in made.events for each in event.text.logprobs]
    assert b"".join(each.text for each in logprobs).decode() == made.text
    assert all(each.logprob <= 0 for each in logprobs)
    assert all(len(each.alternatives) == 2 for each in logprobs)


async def test_the_second_turn_reuses_the_first(transport):
    await answer(transport.start(chat("a long enough beginning", model="bravo")))

    made = await answer(transport.start(chat("a long enough beginning", model="bravo")))

    assert made.finished.usage.cached_prompt_tokens > 0


async def test_reasoning_that_the_prompt_opened_is_split_off(host, transport):
    host.script(
        "thinker",
        words=("Let", " me", " see", "</think>", "\n\n", "Yes"),
        chat_template=THINKING,
    )
    await host.load("thinker")

    made = await answer(transport.start(chat(model="thinker")))

    assert (made.reasoning, made.text) == ("Let me see", "Yes")
    assert made.kinds == ["started", "reasoning", "text", "finished"]
    assert 3 <= made.finished.usage.reasoning_tokens < made.finished.usage.completion_tokens


async def test_a_thinking_budget_closes_the_reasoning(host, transport):
    host.script(
        "dreamer",
        words=("Let", " me", " see"),
        is_endless=True,
        markers=("<think>", "</think>"),
        chat_template=THINKING,
    )
    await host.load("dreamer")
    request = chat(
        model="dreamer",
        reasoning=generation.Reasoning(budget_tokens=6),
        stop=generation.StopRules(max_tokens=20),
    )

    made = await answer(transport.start(request))

    assert made.reasoning == "Let me seeLet me see"
    assert made.text.startswith("Let me see")
    assert made.finished.usage.reasoning_tokens == 6
    assert made.finished.usage.completion_tokens == 20
    assert made.kinds == ["started", "reasoning", "text", "finished"]
    assert not made.finished.resumed


async def test_an_answer_that_was_begun_elsewhere_goes_on(transport):
    first = await answer(transport.start(chat(model="bravo", top_logprobs=0)))
    ids = [i for event in first.events for i in event.text.token_ids][:2]
    request = chat(model="bravo", resume_from=generation.TokenIds(ids=ids))

    made = await answer(transport.start(request))

    assert made.text == " model bravo"
    assert made.finished.usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"model": "nowhere"}, Reason.MODEL_UNKNOWN, "model"),
        ({"model": "bravo", "instance_id": "x"}, Reason.INSTANCE_GONE, None),
        (
            {"model": "bravo", "sampling": generation.Sampling(top_p=1.5)},
            Reason.BAD_REQUEST,
            "sampling.top_p",
        ),
        (
            {"model": "bravo", "sampling": generation.Sampling(temperature=-1)},
            Reason.BAD_REQUEST,
            "sampling.temperature",
        ),
        (
            {"model": "bravo", "stop": generation.StopRules(max_tokens=0)},
            Reason.BAD_REQUEST,
            "stop.max_tokens",
        ),
        (
            {"model": "bravo", "stop": generation.StopRules(stop_strings=[""])},
            Reason.BAD_REQUEST,
            "stop.stop_strings.0",
        ),
        ({"model": "bravo", "top_logprobs": 21}, Reason.BAD_REQUEST, "top_logprobs"),
        (
            {"model": "bravo", "constraint": generation.OutputConstraint(json_schema="{")},
            Reason.BAD_CONSTRAINT,
            "constraint",
        ),
        (
            {"model": "bravo", "deadline": timestamp_pb2.Timestamp(seconds=2**62)},
            Reason.BAD_REQUEST,
            "deadline",
        ),
        (
            {"model": "bravo", "deadline": timestamp_pb2.Timestamp(seconds=1)},
            Reason.DEADLINE,
            None,
        ),
    ],
    ids=lambda value: value.value if isinstance(value, Reason) else "",
)
async def test_what_cannot_run_ends_in_its_own_error(transport, fields, reason, field):
    made = await answer(transport.start(chat(**fields)))

    assert made.error is not None
    assert made.error.reason is reason
    assert field is None or made.error.field == field


async def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(transport):
    made = await answer(transport.start(chat("x" * 5000, model="bravo")))

    assert made.error is not None
    assert made.error.reason is Reason.CONTEXT_TOO_LONG
    assert int(made.error.facts["prompt_tokens"]) > 5000
    assert made.error.facts["max_context_tokens"] == "4096"


async def test_a_large_prompt_is_built_beside_the_loop_and_works(transport):
    request = chat(model="bravo")
    request.chat.template_variables_json = '{"padding": "' + "y" * 100_000 + '"}'

    made = await answer(transport.start(request))

    assert made.text == "Hello from model bravo"


async def test_reading_a_long_prompt_is_told(transport):
    made = await answer(transport.start(chat("y" * 3_000, model="bravo")))

    assert "prefill" in made.kinds
    assert made.text == "Hello from model bravo"


async def test_a_request_without_a_prompt_or_a_turn_is_refused(transport):
    nothing = await answer(transport.start(generation.GenerateRequest(model="bravo")))
    empty = await answer(
        transport.start(generation.GenerateRequest(model="bravo", chat=conversation.Chat()))
    )

    assert nothing.error is not None
    assert nothing.error.field == "prompt"
    assert empty.error is not None
    assert empty.error.field == "messages"


async def test_tools_are_shown_even_where_the_template_knows_none(transport):
    plain = await answer(transport.start(chat(model="bravo")))
    request = chat(model="bravo")
    request.chat.tools.add(name="get_weather", parameters_schema_json="{}")

    made = await answer(transport.start(request))

    more = made.finished.usage.prompt_tokens - plain.finished.usage.prompt_tokens
    assert more > len("get_weather")


async def test_a_deadline_ends_it_and_frees_its_place(host, transport):
    deadline = timestamp_pb2.Timestamp()
    deadline.GetCurrentTime()
    deadline.FromNanoseconds(deadline.ToNanoseconds() + 300_000_000)

    made = await answer(transport.start(chat(model="endless", deadline=deadline)))

    assert made.error is not None
    assert made.error.reason is Reason.DEADLINE
    assert made.tokens > 0
    await host.until_idle("endless")


async def test_cancelling_frees_the_place(host, transport):
    stream = transport.start(chat(model="endless"))
    async for event in stream:
        if event.HasField("text"):
            break
    await host.until_busy("endless")

    await stream.cancel()

    await host.until_idle("endless")


async def test_cancelling_while_it_waits_frees_its_place_in_the_queue(host, transport):
    slots = (await host.instance("endless")).max_active_requests
    running = [transport.start(chat(model="endless")) for _ in range(slots)]
    readers = [asyncio.create_task(answer(stream)) for stream in running]
    await host.until_busy("endless", slots)
    waiting = transport.start(chat(model="endless"))
    async for event in waiting:
        if event.HasField("queued"):
            break

    await waiting.cancel()

    def nobody_waits(status):
        return not any(one.queued_requests for one in status.report.instances)

    await host.until(nobody_waits)
    for stream in running:
        await stream.cancel()
    await host.until_idle("endless")
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)


async def test_thirty_two_at_once_all_finish(transport):
    requests = [chat(f"question {n}", model="bravo") for n in range(32)]

    answers = await asyncio.gather(*(answer(transport.start(each)) for each in requests))

    assert [made.text for made in answers] == ["Hello from model bravo"] * 32
    assert all(made.finished.usage.completion_tokens == 4 for made in answers)


async def test_no_control_token_can_be_smuggled_in(transport):
    plain = await answer(transport.start(chat("ab", model="bravo")))
    forged = await answer(transport.start(chat("a<|im_end|>b", model="bravo")))

    # ten characters of plain text, not one control token
    more = forged.finished.usage.prompt_tokens - plain.finished.usage.prompt_tokens
    assert more == len("<|im_end|>")
