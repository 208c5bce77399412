"""What a chat completion body means, and how a bad one is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.openai_chat.routes import OpenAIChat
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import HEAD, Answer, Segment, collect, events_of, stream

TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "d",
        "parameters": {"type": "object", "properties": {"z": {}, "a": {}}},
        "strict": True,
    },
}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)


def request_of(**fields: Any) -> generation.GenerateRequest:
    _, decoded = decoding.chat(**fields)
    return decoded.requests[0]


def refusal(body: dict[str, Any] | bytes) -> FleetError:
    with pytest.raises(FleetError) as raised:
        decoding.decode(OpenAIChat(), body)
    return raised.value


def parts(message: conversation.Message) -> list[tuple[str | None, Any]]:
    kinds = [part.WhichOneof("kind") for part in message.parts]
    return [
        (kind, getattr(part, kind)) for kind, part in zip(kinds, message.parts, strict=True) if kind
    ]


def test_every_sampling_field_has_its_place() -> None:
    found = request_of(
        temperature=0,
        top_p=0.5,
        top_k=40,
        min_p=0.05,
        typical_p=0.9,
        repetition_penalty=1.1,
        frequency_penalty=-1,
        presence_penalty=2,
        seed=-7,
        logit_bias={"12": -100, "7": 1.5},
    ).sampling

    assert (0, 0.5, 40, 0.05, 0.9, 1.1, -1, 2) == (
        found.temperature,
        found.top_p,
        found.top_k,
        found.min_p,
        found.typical_p,
        found.repetition_penalty,
        found.frequency_penalty,
        found.presence_penalty,
    )
    assert 2**64 - 7 == found.seed
    assert {12: -100, 7: 1.5} == dict(found.logit_bias)


def test_what_was_not_sent_stays_unset() -> None:
    found = request_of()

    assert not found.sampling.ListFields()
    assert not found.stop.ListFields()
    assert not found.HasField("constraint")
    assert not found.HasField("reasoning")
    assert not found.HasField("top_logprobs")


def test_the_new_spelling_of_the_limit_wins() -> None:
    assert 3 == request_of(max_tokens=100, max_completion_tokens=3).stop.max_tokens
    assert 100 == request_of(max_tokens=100).stop.max_tokens


@pytest.mark.parametrize(("stop", "strings"), [("a", ["a"]), (["a", "b"], ["a", "b"]), (None, [])])
def test_stop_strings(stop: Any, strings: list[str]) -> None:
    assert strings == request_of(stop=stop).stop.stop_strings


def test_local_stop_rules() -> None:
    found = request_of(
        ignore_eos=True, min_tokens=4, stop_token_ids=[2], include_stop_str_in_output=True
    ).stop

    assert [True, 4, [2], True] == [
        found.ignore_eos,
        found.min_tokens,
        list(found.stop_token_ids),
        found.include_stop_string,
    ]


def test_each_choice_has_a_seed_of_its_own() -> None:
    _, decoded = decoding.chat(n=3, seed=7)

    assert [7, 8, 9] == [one.sampling.seed for one in decoded.requests]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 5}, 5),
    ],
)
def test_logprobs(fields: dict[str, Any], wanted: int | None) -> None:
    found = request_of(**fields)

    assert wanted == (found.top_logprobs if found.HasField("top_logprobs") else None)


def test_a_conversation_of_an_agent() -> None:
    found = request_of(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "ann"},
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "hm",
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a": 1}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ],
        tools=[TOOL],
    ).chat
    system, user, assistant, tool = found.messages

    assert (conversation.ROLE_SYSTEM, [("text", "be brief")]) == (system.role, parts(system))
    assert ("ann", [("text", "hi")]) == (user.name, parts(user))
    assert ["reasoning", "tool_call"] == [kind for kind, _ in parts(assistant)]
    assert '{"a": 1}' == assistant.parts[1].tool_call.arguments_json
    assert conversation.ROLE_TOOL == tool.role
    assert ("c1", "f") == (tool.parts[0].tool_result.call_id, tool.parts[0].tool_result.name)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "assistant"},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": []},
    ],
)
def test_an_assistant_may_have_said_nothing(message: dict[str, Any]) -> None:
    found = request_of(messages=[*decoding.HELLO, message])

    assert [] == parts(found.chat.messages[1])


def test_arguments_may_come_as_an_object() -> None:
    called = {"id": "c", "function": {"name": "f", "arguments": {"a": [1]}}}
    found = request_of(messages=[{"role": "assistant", "tool_calls": [called]}])

    assert '{"a":[1]}' == found.chat.messages[0].parts[0].tool_call.arguments_json


def test_a_schema_keeps_the_order_of_its_keys() -> None:
    (tool,) = request_of(tools=[TOOL]).chat.tools

    assert ["z", "a"] == list(json.loads(tool.parameters_schema_json)["properties"])
    assert tool.strict


@pytest.mark.parametrize(
    ("choice", "mode"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "f"}}, "named"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "f"}}],
                },
            },
            "required",
        ),
    ],
)
def test_tool_choice(choice: Any, mode: str) -> None:
    found = request_of(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False).chat

    assert mode == found.tool_choice.WhichOneof("mode")
    assert found.HasField("parallel_tool_calls")
    assert not found.parallel_tool_calls


def test_the_old_functions_are_tools() -> None:
    found = request_of(
        functions=[TOOL["function"]],
        function_call={"name": "f"},
        messages=[
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "42"},
        ],
    ).chat

    assert "f" == found.tool_choice.named
    assert "f" == found.messages[0].parts[0].tool_call.name
    assert "f" == found.messages[1].parts[0].tool_result.call_id


@pytest.mark.parametrize(
    ("fields", "kind", "value"),
    [
        ({"response_format": {"type": "json_object"}}, "json_object", None),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "object"}},
                }
            },
            "json_schema",
            '{"type": "object"}',
        ),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"guided_choice": ["a.", "b"]}, "regex", "a\\.|b"),
        ({"structured_outputs": {"json": {"type": "object"}}}, "json_schema", '{"type": "object"}'),
    ],
)
def test_output_shapes(fields: dict[str, Any], kind: str, value: str | None) -> None:
    found = request_of(**fields).constraint

    assert kind == found.WhichOneof("kind")
    assert value is None or value == getattr(found, kind)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"reasoning_effort": "none"}, generation.Reasoning(enabled=False)),
        (
            {"reasoning_effort": "low"},
            generation.Reasoning(enabled=True, effort=generation.REASONING_EFFORT_LOW),
        ),
        ({"chat_template_kwargs": {"enable_thinking": False}}, generation.Reasoning(enabled=False)),
        ({"thinking": {"type": "disabled"}}, generation.Reasoning(enabled=False)),
        (
            {"enable_thinking": True, "thinking_budget": 99},
            generation.Reasoning(enabled=True, budget_tokens=99),
        ),
    ],
)
def test_reasoning_wishes(fields: dict[str, Any], wanted: generation.Reasoning) -> None:
    assert wanted == request_of(**fields).reasoning


def test_template_variables_travel_whole() -> None:
    found = request_of(chat_template_kwargs={"a": {"b": 1}}).chat

    assert {"a": {"b": 1}} == json.loads(found.template_variables_json)


def test_a_picture_comes_as_a_data_url() -> None:
    url = f"data:image/png;base64,{PIXEL}"
    content = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]
    image = (
        request_of(messages=[{"role": "user", "content": content}]).chat.messages[0].parts[0].image
    )

    assert "image/png" == image.mime_type
    assert image.data.startswith(b"\x89PNG")


def test_an_answer_may_be_continued() -> None:
    messages = [*decoding.HELLO, {"role": "assistant", "content": "I"}]

    assert request_of(messages=messages, continue_final_message=True).chat.continue_final_message
    assert not request_of(messages=messages).chat.continue_final_message


def test_fields_that_change_no_token_are_passed_over() -> None:
    found = request_of(
        user="u", store=True, metadata={"a": "b"}, prompt_cache_key="k", service_tier="flex"
    )

    assert generation.WORK_CLASS_BATCH == found.work_class


def test_a_sampler_that_is_off_is_passed_over() -> None:
    assert not request_of(mirostat=0, xtc_probability=0.0, tfs_z=1).sampling.ListFields()


def _chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": decoding.HELLO} | fields


def _with(message: Any) -> dict[str, Any]:
    return _chat(messages=[message])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": decoding.HELLO}, "model"),
        ({"model": "m"}, "messages"),
        (_chat(model=""), "model"),
        (_chat(model=5), "model"),
        (_chat(messages=[]), "messages"),
        (_chat(messages="hi"), "messages"),
        (_with({"content": "hi"}), "messages.0.role"),
        (_with({"role": "wizard", "content": "hi"}), "messages.0.role"),
        (_with({"role": "user", "content": 5}), "messages.0.content"),
        (_with({"role": "user"}), "messages.0.content"),
        (_with({"role": "user", "content": [{"type": "text"}]}), "messages.0.content.0.text"),
        (_with({"role": "user", "content": [{"text": "x"}]}), "messages.0.content.0.type"),
        (_with({"role": "user", "content": [{"type": "video"}]}), "messages.0.content.0.type"),
        (
            _with({"role": "user", "content": [{"type": "image_url", "image_url": "http://x/y"}]}),
            "messages.0.content.0.image_url",
        ),
        (
            _with({"role": "user", "content": [{"type": "image_url", "image_url": "data:x"}]}),
            "messages.0.content.0.image_url",
        ),
        (_with({"role": "tool", "content": "x"}), "messages.0.tool_call_id"),
        (_chat(temperature=3), "temperature"),
        (_chat(temperature="hot"), "temperature"),
        (_chat(top_p=0), "top_p"),
        (_chat(n=0), "n"),
        (_chat(n=1000), "n"),
        (_chat(max_tokens=0), "max_tokens"),
        (_chat(max_completion_tokens=1.5), "max_completion_tokens"),
        (_chat(stop=[""]), "stop.0"),
        (_chat(stop=["x"] * 17), "stop"),
        (_chat(logit_bias={"cat": 1}), "logit_bias.cat"),
        (_chat(top_logprobs=3), "top_logprobs"),
        (_chat(logprobs=True, top_logprobs=21), "top_logprobs"),
        (_chat(tools=[{"type": "retrieval"}]), "tools.0.type"),
        (_chat(tools=[{"type": "function"}]), "tools.0.function"),
        (_chat(tools=[{"type": "function", "function": {"name": ""}}]), "tools.0.function.name"),
        (_chat(tools=[TOOL, TOOL]), "tools"),
        (_chat(tool_choice="required"), "tool_choice"),
        (_chat(tool_choice="sometimes", tools=[TOOL]), "tool_choice"),
        (
            _chat(tool_choice={"type": "function", "function": {"name": "g"}}, tools=[TOOL]),
            "tool_choice.function.name",
        ),
        (_chat(response_format={"type": "xml"}), "response_format.type"),
        (_chat(response_format={"type": "json_schema"}), "response_format.json_schema"),
        (_chat(reasoning_effort="enormous"), "reasoning_effort"),
        (_chat(modalities=["text", "audio"]), "modalities"),
        (_chat(mirostat=2), "mirostat"),
        (_chat(dry_multiplier=0.8), "dry_multiplier"),
        (_chat(frobnicate=1), "frobnicate"),
        (_chat(continue_final_message=True), "continue_final_message"),
    ],
)
def test_a_bad_field_is_named(body: dict[str, Any], field: str) -> None:
    error = refusal(body)

    assert field == error.field
    assert error.reason in {Reason.BAD_REQUEST, Reason.UNSUPPORTED_FIELD}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b'{"model": "\xff", "messages": []}',
        b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "m", "messages": [], "tools": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    assert Reason.BAD_REQUEST is refusal(body).reason


def test_an_error_names_the_field_as_the_api_spells_paths() -> None:
    told = OpenAIChat().error(refusal(_with({"role": "user", "content": 5})), HEAD)

    error = json.loads(told)["error"]
    assert "messages[0].content" == error["param"]
    assert "invalid_request_error" == error["type"]
    assert {"message", "type", "param", "code"} == set(error)


def test_n_choices_share_one_stream() -> None:
    dialect, decoded = decoding.chat(n=2)
    projector = dialect.projector(decoded, HEAD)
    finished = generation.GenerationFinished(
        reason=generation.FINISH_REASON_END_OF_TURN,
        usage=generation.Usage(prompt_tokens=10, completion_tokens=3),
    )

    told = projector.open() + projector.text(1, "b", 1) + projector.text(0, "a", 1)
    first = projector.finish(1, finished)
    last = projector.finish(0, finished)

    assert told.count(b'"role":"assistant"') == 2
    assert b"[DONE]" not in first
    assert b"usage" not in first
    assert last.endswith(b"data: [DONE]\n\n")
    assert b'"prompt_tokens":10,"completion_tokens":6,"total_tokens":16' in last


def test_logprobs_are_told_with_their_bytes() -> None:
    dialect, decoded = decoding.chat(logprobs=True, top_logprobs=1)
    token = generation.TokenLogprob(
        token_id=1,
        text=b"\xe2\x82",
        logprob=-0.5,
        alternatives=[generation.TokenLogprob(token_id=2, text=b"x", logprob=-1)],
    )
    event = generation.GenerateResponse(
        text=generation.TextDelta(text="a", token_ids=[1], logprobs=[token])
    )

    told = dialect.projector(decoded, HEAD).event(0, event)

    (content,) = json.loads(told.removeprefix(b"data: "))["choices"][0]["logprobs"]["content"]
    assert [226, 130] == content["bytes"]
    assert -0.5 == content["logprob"]
    assert "x" == content["top_logprobs"][0]["token"]


def test_a_repair_is_visible() -> None:
    dialect, decoded = decoding.chat()
    delta = generation.ToolCallDelta(
        index=0, call_id="c", name="f", arguments_json="{}", repair="one } too many"
    )

    told = dialect.projector(decoded, HEAD).event(0, generation.GenerateResponse(tool_call=delta))

    assert b": repaired: one } too many\n" in told


def test_the_old_form_of_a_call_is_answered_in_the_old_form() -> None:
    answer = Answer((Segment("tool_call", '{"a": 1}', "f"),), generation.FINISH_REASON_TOOL_CALLS)
    dialect, decoded = decoding.chat(functions=[TOOL["function"]])

    body = json.loads(dialect.body(decoded, HEAD, [collect(answer, events_of(answer))]))
    events = legal.sse(stream(dialect, decoded, answer, events_of(answer, [4] * 9)))

    choice = body["choices"][0]
    assert {"name": "f", "arguments": '{"a": 1}'} == choice["message"]["function_call"]
    assert "function_call" == choice["finish_reason"]
    deltas = [chunk["choices"][0]["delta"] for _, chunk in events[:-1]]
    told = [delta["function_call"] for delta in deltas if "function_call" in delta]
    assert '{"a": 1}' == "".join(piece["arguments"] for piece in told)
    assert "f" == told[0]["name"]
    assert "function_call" == events[-2][1]["choices"][0]["finish_reason"]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_echoed_reasoning_is_read(field: str) -> None:
    found = request_of(messages=[{"role": "assistant", "content": "a", field: "hm"}])

    assert "hm" == found.chat.messages[0].parts[0].reasoning.text


def test_a_refusal_is_text() -> None:
    found = request_of(
        messages=[
            {"role": "assistant", "content": None, "refusal": "no"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "never"}]},
        ]
    ).chat.messages

    assert [[("text", "no")], [("text", "never")]] == [parts(one) for one in found]
