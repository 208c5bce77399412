"""Canonical requests as OpenAI's bodies: read back by our own decoders, they are the same."""

import json
from typing import Any

import msgspec
import pytest

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.dialect import Head
from services.gateway.dialects.openai_chat import decode as chat
from services.gateway.dialects.openai_completions import decode as completions
from services.gateway.transports.upstream.encode import encode
from services.gateway.transports.upstream.settings import UpstreamSettings

HEAD = Head(request_id="r", created_unix_seconds=0, headers={}, query={}, principal="")
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)


def upstream(**more: Any) -> UpstreamSettings:
    made = {"name": "far", "url": "https://a/v1", "models": ("m",), **more}
    return UpstreamSettings(**made)


def sent(request: generation.GenerateRequest, tokens: int = 10, **more: Any) -> dict[str, Any]:
    return json.loads(encode(request, upstream(**more), model="theirs", prompt_tokens=tokens).body)


def asked(**more: Any) -> generation.GenerateRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **more}
    return chat.decode(msgspec.json.encode(body), HEAD).requests[0]


def bare() -> generation.GenerateRequest:
    request = generation.GenerateRequest()
    request.chat.messages.add(role=conversation.ROLE_USER).parts.add(text="Hi")
    return request


CONVERSATION = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "name": "ann", "content": [{"type": "text", "text": "See:"}, {"type": "image_url", "image_url": {"url": PIXEL}}]},
    {
        "role": "assistant",
        "reasoning_content": "Hm.",
        "content": "So.",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":2}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "42"},
    {"role": "user", "content": "And?"},
]  # fmt: skip
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "Does f.",
        "parameters": {"type": "object", "properties": {"b": {}, "a": {}}},
        "strict": True,
    },
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"messages": CONVERSATION},
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tools": [TOOL], "tool_choice": "none"},
        {
            "temperature": 0.25,
            "top_p": 0.5,
            "top_k": 7,
            "min_p": 0.125,
            "typical_p": 0.5,
            "repetition_penalty": 1.5,
            "frequency_penalty": 0.5,
            "presence_penalty": -0.5,
            "seed": 9,
            "logit_bias": {"5": -100},
        },
        {
            "max_tokens": 12,
            "min_tokens": 3,
            "stop": ["x", "y"],
            "stop_token_ids": [4],
            "ignore_eos": True,
            "include_stop_str_in_output": True,
        },
        {"response_format": {"type": "json_object"}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"schema": {"type": "object", "required": ["b", "a"]}},
            }
        },
        {"structured_outputs": {"regex": "a+"}},
        {"structured_outputs": {"grammar": "start: 'a'"}},
        {"reasoning_effort": "high"},
        {"reasoning_effort": "none"},
        {"enable_thinking": True, "thinking_budget": 100},
        {"chat_template_kwargs": {"x": 1, "enable_thinking": False}},
        {"logprobs": True, "top_logprobs": 3},
        {"logprobs": True},
    ],
)
def test_cortex_reads_the_same_request_again(more: dict[str, Any]):
    request = asked(**more)

    body = sent(request, extra_fields="cortex")
    again = chat.decode(msgspec.json.encode(body | {"model": "m"}), HEAD).requests[0]

    assert request == again
    assert ("theirs", True) == (body["model"], body["stream"])
    assert {"include_usage": True} == body["stream_options"]


def test_a_raw_prompt_is_a_completion():
    body = {"model": "m", "prompt": "Once", "max_tokens": 5, "logprobs": 2, "stop": "x"}
    request = completions.decode(msgspec.json.encode(body), HEAD).requests[0]

    encoded = encode(request, upstream(), model="m", prompt_tokens=1)

    assert "/completions" == encoded.path
    assert request == completions.decode(encoded.body, HEAD).requests[0]


def test_schemas_keep_the_order_of_their_keys():
    encoded = encode(asked(tools=[TOOL]), upstream(), model="m", prompt_tokens=1)

    assert b'"properties":{"b":{},"a":{}}' in encoded.body


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"top_k": 5}, "top_k"),
        ({"min_p": 0.5}, "min_p"),
        ({"typical_p": 0.5}, "typical_p"),
        ({"repetition_penalty": 1.5}, "repetition_penalty"),
        ({"min_tokens": 5}, "min_tokens"),
        ({"stop_token_ids": [5]}, "stop_token_ids"),
        ({"ignore_eos": True}, "ignore_eos"),
        ({"include_stop_str_in_output": True}, "include_stop_str_in_output"),
        ({"guided_regex": "a"}, "constraint"),
        ({"guided_grammar": "start: 'a'"}, "constraint"),
        ({"thinking_budget": 5}, "thinking_budget"),
        ({"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs"),
    ],
)
def test_what_openais_api_has_no_field_for_is_refused_by_name(more: dict[str, Any], field: str):
    with pytest.raises(FleetError, match="'far'") as refused:
        sent(asked(**more))

    assert (Reason.UNSUPPORTED_FIELD, field) == (refused.value.reason, refused.value.field)
    vllm = {"typical_p", "thinking_budget"}
    if field in vllm:
        with pytest.raises(FleetError):
            sent(asked(**more), extra_fields="vllm")
    else:
        sent(asked(**more), extra_fields="vllm")


def test_values_that_do_nothing_are_not_refused():
    body = sent(asked(top_k=0, min_p=0, typical_p=1, repetition_penalty=1))

    assert not {"top_k", "min_p", "typical_p", "repetition_penalty"} & body.keys()


def test_a_message_to_go_on_from_takes_a_server_that_can():
    request = bare()
    request.chat.continue_final_message = True

    with pytest.raises(FleetError, match="continue_final_message"):
        sent(request)
    body = sent(request, extra_fields="vllm")
    assert (True, False) == (body["continue_final_message"], body["add_generation_prompt"])


def test_token_ids_and_echoed_probabilities_are_refused():
    ids, echo = generation.GenerateRequest(), generation.GenerateRequest(echo_prompt=True)
    ids.token_ids.ids.append(1)
    echo.text = "Hi"

    for request, field in ((ids, "prompt"), (echo, "echo")):
        with pytest.raises(FleetError) as refused:
            sent(request, extra_fields="cortex")
        assert (Reason.UNSUPPORTED_FIELD, field) == (refused.value.reason, refused.value.field)


def test_pictures_in_results_of_tools_are_refused():
    request = bare()
    result = request.chat.messages.add(role=conversation.ROLE_TOOL).parts.add().tool_result
    result.parts.add().image.data = b"x"

    with pytest.raises(FleetError) as refused:
        sent(request)

    assert "messages.1" == refused.value.field


@pytest.mark.parametrize(("enabled", "effort"), [(True, "medium"), (False, "none")])
def test_thinking_is_switched_by_an_effort_where_there_is_no_switch(enabled: bool, effort: str):
    request = bare()
    request.reasoning.enabled = enabled

    assert effort == sent(request)["reasoning_effort"]
    assert {"enable_thinking": enabled} == sent(request, extra_fields="vllm")[
        "chat_template_kwargs"
    ]


def test_earlier_thoughts_go_only_where_they_have_a_field():
    request = asked(messages=CONVERSATION)

    assert "reasoning_content" not in sent(request)["messages"][2]
    assert "Hm." == sent(request, extra_fields="vllm")["messages"][2]["reasoning_content"]


def test_a_server_is_asked_to_count_unless_it_refuses_the_field():
    assert {"include_usage": True} == sent(asked())["stream_options"]
    assert "stream_options" not in sent(asked(), asks_usage=False)


def test_the_most_tokens_have_the_name_that_the_server_wants():
    body = sent(asked(max_tokens=5), max_tokens_field="max_completion_tokens")

    assert 5 == body["max_completion_tokens"]
    assert "max_tokens" not in body


@pytest.mark.parametrize(("most", "told"), [(None, 90), (50, 50), (200, 90)])
def test_prompt_and_answer_stay_within_the_context_of_the_principal(most: int | None, told: int):
    request = bare()
    request.max_context_tokens = 100
    if most is not None:
        request.stop.max_tokens = most

    assert told == sent(request)["max_tokens"]
    with pytest.raises(FleetError) as refused:
        sent(request, tokens=100)
    assert Reason.CONTEXT_TOO_LONG is refused.value.reason


def test_nothing_of_the_fleets_own_is_sent():
    request = asked()
    request.principal, request.work_class = "ann-of-acme", generation.WORK_CLASS_BATCH
    request.marks.head = b"secret-mark-0000"

    told = json.dumps(sent(request, extra_fields="cortex"))

    assert "acme" not in told
    assert {"model", "messages", "stream", "stream_options"} == json.loads(told).keys()
