"""What a Responses body means, chained and not, and how a bad one is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.dialect import Head
from services.gateway.dialects.openai_responses import stored
from services.gateway.dialects.openai_responses.background import BackgroundRuns
from services.gateway.dialects.openai_responses.routes import OpenAIResponses, new_response_id
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import HEAD, Answer, Segment, collect, events_of, stream
from tests.unit.gateway.dialects.openai_chat.test_decode import PIXEL, parts

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
ANSWER = Answer((Segment("reasoning", "hm"), Segment("text", "hi")))


def request_of(store: ResponsesStore, **fields: Any) -> generation.GenerateRequest:
    _, decoded = decoding.responses(store, **fields)
    return decoded.requests[0]


def conversed(store: ResponsesStore, *items: Any, **fields: Any) -> list[conversation.Message]:
    return list(request_of(store, input=list(items), **fields).chat.messages)


def told(keeper: ResponsesStore, **fields: Any) -> dict[str, Any]:
    """An answered request: the response object."""
    dialect = OpenAIResponses(keeper)
    decoded = decoding.decode(dialect, {"model": "m", "input": "hello"} | fields)
    found = json.loads(dialect.body(decoded, HEAD, [collect(ANSWER, events_of(ANSWER))]))
    assert isinstance(found, dict)
    return found


async def look_up(
    kind: type[stored.RetrieveResponse | stored.DeleteResponse],
    store: ResponsesStore,
    response_id: str,
    principal: str = "",
) -> dict[str, Any]:
    head = Head("r", {}, {}, 1, path={"response_id": response_id}, principal=principal)
    lookup = kind(store, BackgroundRuns(store))
    return dict(json.loads(await lookup.answer(b"", head, _NoFleet())))


class _NoFleet:
    """Nothing here asks the fleet."""

    async def count_tokens(self, request: neuron.CountTokensRequest) -> neuron.CountTokensResponse:
        raise AssertionError(request)

    async def embed(self, request: neuron.EmbedRequest) -> neuron.EmbedResponse:
        raise AssertionError(request)

    def models(self) -> list[Any]:
        raise AssertionError


def test_every_input_shape(store: ResponsesStore) -> None:
    found = conversed(
        store,
        {"role": "user", "content": "bare"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "d"}]},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "t"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
                {"type": "input_brand_new"},
            ],
        },
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"text": "hm"}]},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "so", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "x"},
        {"type": "local_shell_call", "call_id": "c3", "action": {"command": ["ls"]}},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "ok"}],
        },
        {"type": "local_shell_call_output", "call_id": "c3", "output": "README"},
        instructions="be brief",
    )

    roles = [conversation.Role.Name(one.role).removeprefix("ROLE_") for one in found]
    assert ["SYSTEM", "USER", "SYSTEM", "USER", "ASSISTANT", "TOOL", "TOOL", "TOOL"] == roles
    assert ["text", "image"] == [kind for kind, _ in parts(found[3])]
    assistant = parts(found[4])
    assert ["reasoning", "text", "tool_call", "tool_call", "tool_call"] == [k for k, _ in assistant]
    assert '{"input":"x"}' == assistant[3][1].arguments_json
    assert '{"command":["ls"]}' == assistant[4][1].arguments_json
    assert ["f", "patch", "local_shell"] == [one.parts[0].tool_result.name for one in found[5:]]


def test_a_probe_with_empty_input_is_served(store: ResponsesStore) -> None:
    assert 1 == request_of(store, input="", max_output_tokens=1).stop.max_tokens


def test_unknown_kinds_of_tools_are_passed_over(store: ResponsesStore) -> None:
    found = request_of(
        store,
        tools=[
            TOOL,
            {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "g"}]},
            {"type": "web_search", "external_web_access": False},
            {"type": "custom", "name": "patch", "format": {"type": "text"}},
            {"type": "brand_new", "name": 5},
        ],
        tool_choice="auto",
    ).chat

    assert ["f", "g", "patch"] == [one.name for one in found.tools]


def test_calls_are_told_in_the_form_of_their_tools(store: ResponsesStore) -> None:
    answer = Answer(
        (
            Segment("tool_call", '{"a": 1}', "g"),
            Segment("tool_call", '{"input": "*** patch"}', "patch"),
        ),
        generation.FINISH_REASON_TOOL_CALLS,
    )
    fields: dict[str, Any] = {
        "tools": [
            {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "g"}]},
            {"type": "custom", "name": "patch"},
        ]
    }
    dialect, decoded = decoding.responses(store, **fields)

    events = legal.sse(stream(dialect, decoded, answer, events_of(answer, [5] * 20)))
    call, custom = events[-1][1]["response"]["output"]

    assert ("function_call", "agents", '{"a": 1}') == (
        call["type"],
        call["namespace"],
        call["arguments"],
    )
    assert ("custom_tool_call", "*** patch") == (custom["type"], custom["input"])
    deltas = [p["delta"] for name, p in events if name == "response.custom_tool_call_input.delta"]
    assert ["*** patch"] == deltas


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"text": {"format": {"type": "text"}}}, None),
        ({"text": {"format": {"type": "json_object"}}}, "json_object"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"a": 1}}}},
            "json_schema",
        ),
    ],
)
def test_text_format(store: ResponsesStore, fields: dict[str, Any], kind: str | None) -> None:
    assert kind == request_of(store, **fields).constraint.WhichOneof("kind")


def test_logprobs_are_asked_for_by_include(store: ResponsesStore) -> None:
    found = request_of(store, include=["message.output_text.logprobs"], top_logprobs=2)

    assert 2 == found.top_logprobs
    assert not request_of(store).HasField("top_logprobs")


def test_the_whole_object_is_told(store: ResponsesStore) -> None:
    """Every field that the Open Responses compliance suite checks."""
    found = told(store, tools=[TOOL], metadata={"a": "b"}, temperature=0.5)

    assert "completed" == found["status"]
    assert isinstance(found["completed_at"], int)
    for name in (
        "max_tool_calls", "max_output_tokens", "safety_identifier", "prompt_cache_key", "error",
        "incomplete_details", "instructions", "previous_response_id",
    ):  # fmt: skip
        assert found[name] is None, name
    assert (0.5, 1, 0, 0, 0) == (
        found["temperature"],
        found["top_p"],
        found["presence_penalty"],
        found["frequency_penalty"],
        found["top_logprobs"],
    )
    assert [
        {
            "type": "function",
            "name": "f",
            "description": None,
            "parameters": {"type": "object"},
            "strict": False,
        }
    ] == found["tools"]
    assert ("auto", "disabled", "default", True, False, True) == (
        found["tool_choice"],
        found["truncation"],
        found["service_tier"],
        found["store"],
        found["background"],
        found["parallel_tool_calls"],
    )
    assert 0 == found["usage"]["input_tokens_details"]["cache_write_tokens"]


def test_a_conversation_goes_on_from_its_last_response(store: ResponsesStore) -> None:
    first = told(store)
    second = told(
        store, input="and?", previous_response_id=first["id"], instructions="not carried over"
    )

    found = conversed(
        store, {"role": "user", "content": "third"}, previous_response_id=second["id"]
    )

    assert [
        [("text", "hello")],
        [("reasoning", conversation.ReasoningPart(text="hm")), ("text", "hi")],
        [("text", "and?")],
        [("reasoning", conversation.ReasoningPart(text="hm")), ("text", "hi")],
        [("text", "third")],
    ] == [parts(one) for one in found]


def test_a_streamed_response_is_stored_too(store: ResponsesStore) -> None:
    dialect, decoded = decoding.responses(store)
    stream(dialect, decoded, ANSWER, events_of(ANSWER))

    assert 3 == len(conversed(store, *decoding.HELLO, previous_response_id="resp_0123"))


def test_items_are_found_by_their_ids(store: ResponsesStore) -> None:
    response = told(store)
    reference = {"type": "item_reference", "id": response["output"][1]["id"]}

    assert [[("text", "hi")]] == [parts(one) for one in conversed(store, reference)]


def test_encrypted_reasoning_comes_back(store: ResponsesStore) -> None:
    response = told(store, include=["reasoning.encrypted_content"], reasoning={"summary": "auto"})
    item = response["output"][0]

    assert [{"type": "summary_text", "text": "hm"}] == item["summary"]
    (found,) = conversed(store, item | {"summary": []})
    assert "hm" == found.parts[0].reasoning.text


async def test_a_response_is_found_and_forgotten(store: ResponsesStore) -> None:
    response = told(store)

    assert response == await look_up(stored.RetrieveResponse, store, response["id"])
    receipt = await look_up(stored.DeleteResponse, store, response["id"])
    assert receipt["deleted"]
    with pytest.raises(FleetError) as raised:
        await look_up(stored.RetrieveResponse, store, response["id"])
    assert Reason.NOT_FOUND is raised.value.reason


async def test_what_shall_not_be_stored_is_not(store: ResponsesStore) -> None:
    response = told(store, store=False)

    with pytest.raises(FleetError):
        await look_up(stored.RetrieveResponse, store, response["id"])


async def test_a_response_is_found_by_its_owner_only(store: ResponsesStore) -> None:
    response = told(store)

    with pytest.raises(FleetError):
        await look_up(stored.RetrieveResponse, store, response["id"], principal="somebody else")


async def test_input_items_are_listed_page_by_page(store: ResponsesStore) -> None:
    response = told(store, input=[{"role": "user", "content": str(n)} for n in range(3)])
    lookup = stored.InputItems(store)

    async def page(**query: str) -> dict[str, Any]:
        head = Head("r", {}, query, 1, path={"response_id": response["id"]})
        return dict(json.loads(await lookup.answer(b"", head, _NoFleet())))

    first = await page(order="asc", limit="2")
    rest = await page(order="asc", after=first["last_id"])

    texts = [item["content"][0]["text"] for item in [*first["data"], *rest["data"]]]
    assert ["0", "1", "2"] == texts
    assert (True, False) == (first["has_more"], rest["has_more"])
    assert "2" == (await page())["data"][0]["content"][0]["text"]


async def test_a_finished_response_cannot_be_cancelled(store: ResponsesStore) -> None:
    response = told(store)
    head = Head("r", {}, {}, 1, path={"response_id": response["id"]})

    lookup = stored.CancelResponse(store, BackgroundRuns(store))
    with pytest.raises(FleetError, match="Cannot cancel a synchronous response"):
        await lookup.answer(b"", head, _NoFleet())


def test_ids_cannot_be_guessed() -> None:
    assert 100 == len({new_response_id() for _ in range(100)})
    assert len(new_response_id()) > 40


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model": ""}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [5]}, "input.0"),
        ({"input": [{"role": "wizard", "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": [{"type": 5}]}]}, "input.0.content.0.type"),
        (
            {
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_image", "image_url": "http://x/y"}],
                    }
                ]
            },
            "input.0.content.0.image_url",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input.0.content.0",
        ),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input.0.call_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1_2"}]}, "input.0.id"),
        ({"previous_response_id": "resp_unknown"}, "previous_response_id"),
        ({"background": True}, "stream"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "sometimes"}, "truncation"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "g"}, "tools": [TOOL]}, "tool_choice.name"),
        ({"tool_choice": {"type": "web_search"}, "tools": [TOOL]}, "tool_choice.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"reasoning": {"effort": "enormous"}}, "reasoning.effort"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"mirostat": 1}, "mirostat"),
        ({"frobnicate": 1}, "frobnicate"),
    ],
)
def test_a_bad_field_is_named(store: ResponsesStore, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(FleetError) as raised:
        decoding.responses(store, **fields)

    assert field == raised.value.field


def test_a_broken_stream_ends_with_response_failed(store: ResponsesStore) -> None:
    dialect, decoded = decoding.responses(store)
    projector = dialect.projector(decoded, HEAD)
    told_so_far = projector.open() + projector.text(0, "he", 1)

    said = legal.responses(
        told_so_far + projector.fail(FleetError(Reason.NEURON_LOST, "The neuron is gone."))
    )

    assert {"code": "server_error", "message": "The neuron is gone."} == said.error
    assert "he" == said.text


def test_a_response_in_the_background_has_to_be_stored(store: ResponsesStore) -> None:
    body = {"model": "m", "input": "hello", "background": True, "store": False}

    with pytest.raises(FleetError) as raised:
        decoding.decode(OpenAIResponses(store), body)

    assert "store" == raised.value.field


def test_allowed_tools_narrow_the_choice(store: ResponsesStore) -> None:
    wish = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "g"}],
    }
    chat = request_of(store, tools=[TOOL, TOOL | {"name": "g"}], tool_choice=wish).chat

    assert ["g"] == [one.name for one in chat.tools]
    assert "required" == chat.tool_choice.WhichOneof("mode")


def test_instructions_may_come_as_items(store: ResponsesStore) -> None:
    first, second = conversed(
        store, *decoding.HELLO, instructions=[{"role": "developer", "content": "be brief"}]
    )

    assert [("text", "be brief")] == parts(first)
    assert conversation.ROLE_USER == second.role


def test_effort_none_turns_reasoning_off(store: ResponsesStore) -> None:
    found = request_of(store, reasoning={"effort": "none"})

    assert found.reasoning.HasField("enabled")
    assert not found.reasoning.enabled


async def test_an_input_is_counted(store: ResponsesStore) -> None:
    class Counting(_NoFleet):
        async def count_tokens(
            self, request: neuron.CountTokensRequest
        ) -> neuron.CountTokensResponse:
            return neuron.CountTokensResponse(tokens=len(request.chat.messages))

    body = json.dumps({"model": "m", "input": "hi", "instructions": "s", "stream": True}).encode()

    told_count = json.loads(await stored.CountInput(store).answer(body, HEAD, Counting()))

    assert {"object": "response.input_tokens", "input_tokens": 2} == told_count
