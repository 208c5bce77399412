"""The official SDKs, streaming and not, sync and async, against a running fleet."""

import asyncio

import anthropic
import openai
import pytest

from tests.system.conftest import ALPHA, BRAVO

QUESTION = [{"role": "user", "content": "Who are you?"}]
SAID = {"alpha": "".join(ALPHA), "bravo": "".join(BRAVO)}


@pytest.fixture
def openai_options(scripted_fleet):
    return {"base_url": f"{scripted_fleet.url}/v1", "api_key": "none", "max_retries": 0}


@pytest.fixture
def anthropic_options(scripted_fleet):
    return {"base_url": scripted_fleet.url, "api_key": "none", "max_retries": 0}


@pytest.mark.parametrize("model", ["alpha", "bravo"])
def test_openai_sync(openai_options, model):
    with openai.OpenAI(**openai_options) as client:
        completion = client.chat.completions.create(model=model, messages=QUESTION, temperature=0)

    choice = completion.choices[0]
    assert (SAID[model], "stop") == (choice.message.content, choice.finish_reason)
    assert len(ALPHA if model == "alpha" else BRAVO) == completion.usage.completion_tokens
    assert completion._request_id


@pytest.mark.parametrize("model", ["alpha", "bravo"])
def test_openai_sync_stream(openai_options, model):
    with openai.OpenAI(**openai_options) as client:
        stream = client.chat.completions.create(
            model=model, messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert SAID[model] == text
    assert chunks[-1].usage.completion_tokens > 0
    assert ["stop"] == [
        c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason
    ]


async def test_openai_async_both_ways(openai_options):
    async with openai.AsyncOpenAI(**openai_options) as client:
        whole, stream = await asyncio.gather(
            client.chat.completions.create(model="alpha", messages=QUESTION),
            client.chat.completions.create(model="bravo", messages=QUESTION, stream=True),
        )
        text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    assert SAID["alpha"] == whole.choices[0].message.content
    assert SAID["bravo"] == text


def test_openai_lists_and_retrieves_models(openai_options):
    with openai.OpenAI(**openai_options) as client:
        listed = {model.id for model in client.models.list()}
        one = client.models.retrieve("alpha")

    assert {"alpha", "bravo"} <= listed
    assert "alpha" == one.id


@pytest.mark.parametrize("model", ["alpha", "bravo"])
def test_anthropic_sync(anthropic_options, model):
    with anthropic.Anthropic(**anthropic_options) as client:
        message = client.messages.create(model=model, max_tokens=50, messages=QUESTION)

    assert (SAID[model], "end_turn") == (message.content[0].text, message.stop_reason)
    assert message.usage.output_tokens > 0
    assert message._request_id


def test_anthropic_sync_stream(anthropic_options):
    with (
        anthropic.Anthropic(**anthropic_options) as client,
        client.messages.stream(model="bravo", max_tokens=50, messages=QUESTION) as stream,
    ):
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert SAID["bravo"] == text == final.content[0].text
    assert "end_turn" == final.stop_reason


async def test_anthropic_async_both_ways(anthropic_options):
    async with anthropic.AsyncAnthropic(**anthropic_options) as client:
        whole = await client.messages.create(model="alpha", max_tokens=50, messages=QUESTION)
        async with client.messages.stream(model="alpha", max_tokens=2, messages=QUESTION) as stream:
            cut = await stream.get_final_message()

    assert SAID["alpha"] == whole.content[0].text
    assert ("max_tokens", "".join(ALPHA[:2])) == (cut.stop_reason, cut.content[0].text)


def test_anthropic_lists_models_in_its_own_shape(anthropic_options):
    with anthropic.Anthropic(**anthropic_options) as client:
        listed = client.models.list()

    assert {"alpha", "bravo"} <= {model.id for model in listed}


async def test_thirty_two_streams_at_once_all_finish(openai_options):
    async with openai.AsyncOpenAI(**openai_options) as client:

        async def one(number):
            model = "alpha" if number % 2 else "bravo"
            stream = await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": f"{number}"}], stream=True
            )
            parts = [c.choices[0].delta.content or "" async for c in stream if c.choices]
            return model, "".join(parts)

        answers = await asyncio.gather(*(one(number) for number in range(32)))

    assert all(SAID[model] == text for model, text in answers)


def test_a_stop_string_ends_an_answer_and_is_not_part_of_it(openai_options):
    with openai.OpenAI(**openai_options) as client:
        completion = client.chat.completions.create(
            model="alpha", messages=QUESTION, stop=[" model"]
        )

    choice = completion.choices[0]
    assert ("Hello from", "stop") == (choice.message.content, choice.finish_reason)


def test_the_second_turn_reuses_the_first(openai_options):
    turn = [{"role": "user", "content": "Tell me about the sea. " * 20}]
    with openai.OpenAI(**openai_options) as client:
        first = client.chat.completions.create(model="alpha", messages=turn)
        turn += [
            {"role": "assistant", "content": first.choices[0].message.content},
            {"role": "user", "content": "More."},
        ]
        second = client.chat.completions.create(model="alpha", messages=turn)

    assert second.usage.prompt_tokens_details.cached_tokens > 0
