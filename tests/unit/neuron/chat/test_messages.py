from __future__ import annotations

import pytest

from cortex.v1 import conversation_pb2 as c
from services.backplane.errors import FleetError, Reason
from services.neuron.chat.messages import image_data, to_messages, to_tools


def text(value: str) -> c.Part:
    return c.Part(text=value)


def chat(*turns: c.Message, **fields) -> c.Chat:
    return c.Chat(messages=turns, **fields)


def test_text_parts_are_one_string():
    turns = chat(c.Message(role=c.ROLE_USER, parts=[text("a"), text("b")], name="ann"))

    assert to_messages(turns) == [{"role": "user", "content": "ab", "name": "ann"}]


def test_content_is_never_none_and_arguments_are_objects():
    call = c.ToolCall(call_id="1", name="f", arguments_json='{"x": {"y": [1]}}')
    turns = chat(c.Message(role=c.ROLE_ASSISTANT, parts=[c.Part(tool_call=call)]))

    (message,) = to_messages(turns)

    assert message["content"] == ""
    assert message["tool_calls"] == [
        {
            "id": "1",
            "type": "function",
            "function": {"name": "f", "arguments": {"x": {"y": [1]}}},
        }
    ]


@pytest.mark.parametrize(("raw", "read"), [("", {}), ("{oops", "{oops"), ("[1]", [1])])
def test_arguments_that_are_no_object_are_kept(raw, read):
    call = c.ToolCall(name="f", arguments_json=raw)
    turns = chat(c.Message(role=c.ROLE_ASSISTANT, parts=[c.Part(tool_call=call)]))

    (message,) = to_messages(turns)

    assert message["tool_calls"][0]["function"]["arguments"] == read


def test_each_tool_result_is_a_turn_before_the_text_that_came_with_it():
    results = [
        c.Part(tool_result=c.ToolResult(call_id=i, name="f", parts=[text(i)])) for i in ("1", "2")
    ]
    turns = chat(c.Message(role=c.ROLE_USER, parts=[*results, text("so?")]))

    made = to_messages(turns)

    assert [(m["role"], m["content"]) for m in made] == [
        ("tool", "1"),
        ("tool", "2"),
        ("user", "so?"),
    ]
    assert made[0] == {"role": "tool", "content": "1", "tool_call_id": "1", "name": "f"}


def test_a_turn_of_nothing_but_results_leaves_no_empty_turn():
    result = c.Part(tool_result=c.ToolResult(call_id="1", parts=[text("ok")]))

    assert len(to_messages(chat(c.Message(role=c.ROLE_TOOL, parts=[result])))) == 1


def test_earlier_reasoning_goes_in_its_own_field():
    part = c.Part(reasoning=c.ReasoningPart(text="hm"))
    turns = chat(c.Message(role=c.ROLE_ASSISTANT, parts=[part, text("yes")]))

    assert to_messages(turns) == [
        {"role": "assistant", "content": "yes", "reasoning_content": "hm"}
    ]


def test_images_make_a_turn_a_list_of_parts():
    image = c.Part(image=c.Image(data=b"png", mime_type="image/png"))
    turns = chat(c.Message(role=c.ROLE_USER, parts=[text("see"), image]))

    (message,) = to_messages(turns)

    assert message["content"] == [{"type": "text", "text": "see"}, {"type": "image"}]
    assert image_data(turns) == (b"png",)


def test_images_in_tool_results_count():
    image = c.Part(image=c.Image(data=b"png"))
    result = c.Part(tool_result=c.ToolResult(parts=[image]))

    assert image_data(chat(c.Message(role=c.ROLE_TOOL, parts=[result]))) == (b"png",)


def test_an_empty_turn_is_an_empty_string():
    assert to_messages(chat(c.Message(role=c.ROLE_USER))) == [{"role": "user", "content": ""}]


@pytest.mark.parametrize(
    ("turns", "field"),
    [(chat(), "messages"), (chat(c.Message()), "messages.0.role")],
)
def test_what_says_nothing_is_refused(turns, field):
    with pytest.raises(FleetError) as refused:
        to_messages(turns)

    assert refused.value.reason is Reason.BAD_REQUEST
    assert refused.value.field == field


def test_tools_have_the_shape_that_templates_know():
    tool = c.Tool(name="f", description="d", parameters_schema_json='{"b": 1, "a": 2}')

    (made,) = to_tools(chat(tools=[tool])) or []

    assert made["type"] == "function"
    assert list(made["function"]["parameters"]) == ["b", "a"]


def test_tools_that_may_not_be_called_are_not_shown():
    choice = c.ToolChoice(none=c.NoTool())

    assert to_tools(chat(tools=[c.Tool(name="f")], tool_choice=choice)) is None
    assert to_tools(chat()) is None


def test_a_schema_that_is_no_json_is_refused():
    with pytest.raises(FleetError) as refused:
        to_tools(chat(tools=[c.Tool(name="f", parameters_schema_json="{")]))

    assert refused.value.field == "tools.0.parameters_schema_json"


def calling(*ids: str) -> c.Message:
    parts = [c.Part(tool_call=c.ToolCall(call_id=i, name="f")) for i in ids]
    return c.Message(role=c.ROLE_ASSISTANT, parts=parts)


def result(call_id: str, *parts: c.Part) -> c.Part:
    return c.Part(tool_result=c.ToolResult(call_id=call_id, parts=parts or [text(call_id)]))


def answering(*ids: str) -> c.Message:
    return c.Message(role=c.ROLE_TOOL, parts=[result(i) for i in ids])


@pytest.mark.parametrize(
    ("turns", "shown"),
    [
        ([calling("a", "b", "c"), *map(answering, "cab")], "abc"),
        ([calling("a", "b"), answering("b", "a")], "ab"),
        ([calling("a", "b"), answering("a"), answering("b")], "ab"),
        ([calling("a", "b"), *map(answering, "bxa")], "axb"),
        ([calling("a", "b"), *map(answering, "xy")], "xy"),
        ([calling("", ""), answering("", ""), answering("b")], "b"),
        # the next calls may have the same ids
        (
            [calling("a", "b"), *map(answering, "ba"), calling("b", "a"), *map(answering, "ab")],
            "abba",
        ),
    ],
)
def test_results_have_the_order_of_their_calls(turns, shown):
    made = to_messages(chat(*turns))

    results = [message for message in made if message["role"] == "tool"]
    assert "".join(message["content"] for message in results) == shown
    assert all(message["content"] == message["tool_call_id"] for message in results)


def test_text_behind_results_stays_behind_them():
    user = c.Message(role=c.ROLE_USER, parts=[result("b"), result("a"), text("so?")])

    made = to_messages(chat(calling("a", "b"), user, answering("b")))

    assert [m["content"] for m in made] == ["", "a", "b", "so?", "b"]


def test_pictures_in_results_move_with_them():
    def seen(name: str) -> c.Part:
        return result(name, c.Part(image=c.Image(data=name.encode())))

    user = c.Message(role=c.ROLE_TOOL, parts=[seen("b"), seen("a")])

    assert image_data(chat(calling("a", "b"), user)) == (b"a", b"b")
