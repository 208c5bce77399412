"""Tools and schemas with the real 135M model: enforced while decoding, so that it cannot fail."""

import json

import anthropic
import openai
import pytest

pytestmark = pytest.mark.real

MODEL = "smollm2-135m"
ADD = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
QUESTION = [{"role": "user", "content": "Add 12 and 30."}]
TOOLS = [
    {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": ADD}}
]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture
def client(real_fleet):
    with openai.OpenAI(base_url=f"{real_fleet.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(
    "choice",
    ["required", {"type": "function", "function": {"name": "add"}}],
    ids=["required", "named"],
)
def test_a_required_call_is_made(client, choice):
    completion = client.chat.completions.create(
        model=MODEL, messages=QUESTION, tools=TOOLS, tool_choice=choice, temperature=0
    )

    choice = completion.choices[0]
    call = choice.message.tool_calls[0]
    assert ("tool_calls", "add") == (choice.finish_reason, call.function.name)
    assert {"a", "b"} == set(json.loads(call.function.arguments))


def test_a_required_call_streams_its_arguments(client):
    stream = client.chat.completions.create(
        model=MODEL, messages=QUESTION, tools=TOOLS, tool_choice="required", stream=True
    )

    deltas = [call for c in stream if c.choices for call in (c.choices[0].delta.tool_calls or ())]
    assert "add" == deltas[0].function.name
    assert {"a", "b"} == set(json.loads("".join(d.function.arguments or "" for d in deltas)))
    assert len(deltas) > 2


def test_anthropic_any_is_made(real_fleet):
    with anthropic.Anthropic(base_url=real_fleet.url, api_key="none") as client:
        message = client.messages.create(
            model=MODEL,
            max_tokens=200,
            messages=QUESTION,
            tools=[{"name": "add", "input_schema": ADD}],
            tool_choice={"type": "any"},
        )

    assert "tool_use" == message.stop_reason
    use = message.content[-1]
    assert ("tool_use", "add", {"a", "b"}) == (use.type, use.name, set(use.input))


@pytest.mark.parametrize("kind", ["json_schema", "json_object"])
def test_a_schema_is_kept(client, kind):
    wanted = {"type": kind}
    if kind == "json_schema":
        wanted["json_schema"] = {"name": "person", "schema": PERSON, "strict": True}
    completion = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Describe Ann, 30 years old, as JSON."}],
        response_format=wanted,
        temperature=0,
        max_tokens=300,
    )

    choice = completion.choices[0]
    if kind == "json_schema":
        person = json.loads(choice.message.content)
        assert ("stop", {"name", "age"}) == (choice.finish_reason, set(person))
        assert isinstance(person["age"], int)
    else:
        assert choice.message.content.startswith("{")


def test_a_bad_schema_is_refused_by_name(client):
    with pytest.raises(openai.BadRequestError, match="schema"):
        client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "nonsense"}},
            },
        )


def test_tools_are_shown_to_a_model_whose_template_knows_none(client):
    plain = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=1)
    shown = client.chat.completions.create(
        model=MODEL, messages=QUESTION, tools=TOOLS, max_tokens=1
    )

    assert shown.usage.prompt_tokens > plain.usage.prompt_tokens + 50
