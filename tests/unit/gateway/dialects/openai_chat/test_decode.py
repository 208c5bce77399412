"""What a chat completion body means, and how a bad one is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import Reason
from services.gateway.dialects.openai_chat.routes import OpenAIChat
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.answers import HEAD
from tests.unit.gateway.dialects.openai_chat.bodies import (
    TOOL,
    body_of,
    refusal,
    request_of,
    with_message,
)


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


def test_template_variables_travel_whole() -> None:
    found = request_of(chat_template_kwargs={"a": {"b": 1}}).chat

    assert {"a": {"b": 1}} == json.loads(found.template_variables_json)


def test_fields_that_change_no_token_are_passed_over() -> None:
    found = request_of(
        user="u", store=True, metadata={"a": "b"}, prompt_cache_key="k", service_tier="flex"
    )

    assert generation.WORK_CLASS_BATCH == found.work_class


def test_a_sampler_that_is_off_is_passed_over() -> None:
    assert not request_of(mirostat=0, xtc_probability=0.0, tfs_z=1).sampling.ListFields()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": decoding.HELLO}, "model"),
        ({"model": "m"}, "messages"),
        (body_of(model=""), "model"),
        (body_of(model=5), "model"),
        (body_of(messages=[]), "messages"),
        (body_of(messages="hi"), "messages"),
        (with_message({"content": "hi"}), "messages.0.role"),
        (with_message({"role": "wizard", "content": "hi"}), "messages.0.role"),
        (with_message({"role": "user", "content": 5}), "messages.0.content"),
        (with_message({"role": "user"}), "messages.0.content"),
        (
            with_message({"role": "user", "content": [{"type": "text"}]}),
            "messages.0.content.0.text",
        ),
        (with_message({"role": "user", "content": [{"text": "x"}]}), "messages.0.content.0.type"),
        (
            with_message({"role": "user", "content": [{"type": "video"}]}),
            "messages.0.content.0.type",
        ),
        (
            with_message(
                {"role": "user", "content": [{"type": "image_url", "image_url": "http://x/y"}]}
            ),
            "messages.0.content.0.image_url",
        ),
        (
            with_message(
                {"role": "user", "content": [{"type": "image_url", "image_url": "data:x"}]}
            ),
            "messages.0.content.0.image_url",
        ),
        (with_message({"role": "tool", "content": "x"}), "messages.0.tool_call_id"),
        (body_of(temperature=3), "temperature"),
        (body_of(temperature="hot"), "temperature"),
        (body_of(top_p=0), "top_p"),
        (body_of(n=0), "n"),
        (body_of(n=1000), "n"),
        (body_of(max_tokens=0), "max_tokens"),
        (body_of(max_completion_tokens=1.5), "max_completion_tokens"),
        (body_of(stop=[""]), "stop.0"),
        (body_of(stop=["x"] * 17), "stop"),
        (body_of(logit_bias={"cat": 1}), "logit_bias.cat"),
        (body_of(top_logprobs=3), "top_logprobs"),
        (body_of(logprobs=True, top_logprobs=21), "top_logprobs"),
        (body_of(tools=[{"type": "retrieval"}]), "tools.0.type"),
        (body_of(tools=[{"type": "function"}]), "tools.0.function"),
        (body_of(tools=[{"type": "function", "function": {"name": ""}}]), "tools.0.function.name"),
        (body_of(tools=[TOOL, TOOL]), "tools"),
        (body_of(tool_choice="required"), "tool_choice"),
        (body_of(tool_choice="sometimes", tools=[TOOL]), "tool_choice"),
        (
            body_of(tool_choice={"type": "function", "function": {"name": "g"}}, tools=[TOOL]),
            "tool_choice.function.name",
        ),
        (body_of(response_format={"type": "xml"}), "response_format.type"),
        (body_of(response_format={"type": "json_schema"}), "response_format.json_schema"),
        (body_of(reasoning_effort="enormous"), "reasoning_effort"),
        (body_of(modalities=["text", "audio"]), "modalities"),
        (body_of(mirostat=2), "mirostat"),
        (body_of(dry_multiplier=0.8), "dry_multiplier"),
        (body_of(frobnicate=1), "frobnicate"),
        (body_of(continue_final_message=True), "continue_final_message"),
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
    told = OpenAIChat().error(refusal(with_message({"role": "user", "content": 5})), HEAD)

    error = json.loads(told)["error"]
    assert "messages[0].content" == error["param"]
    assert "invalid_request_error" == error["type"]
    assert {"message", "type", "param", "code"} == set(error)
