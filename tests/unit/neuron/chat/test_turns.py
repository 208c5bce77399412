from __future__ import annotations

import time

import pytest

from services.neuron.chat.turns import system_texts, variants


def turn(role: str, content: object, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


def call(call_id: str) -> dict[str, object]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": {}}}


IMAGE = {"type": "image"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def roles(messages) -> str:
    return "".join(message["role"][0] for message in messages)


def test_the_turns_as_they_came_are_tried_first():
    messages = [turn("user", "a"), turn("system", "s"), turn("user", "b")]

    assert next(variants(messages)) == messages


def test_an_ordinary_chat_has_no_other_order():
    messages = [turn("user", "a"), turn("assistant", "b"), turn("user", "c")]

    assert list(variants(messages)) == [messages]


def test_system_turns_move_to_the_front_in_their_order():
    messages = [turn("user", "a"), turn("system", "1"), turn("system", "2")]

    assert list(variants(messages))[1] == [turn("system", "1\n\n2"), turn("user", "a")]


def test_neighbours_join_then_the_system_turn_becomes_the_users():
    messages = [turn("user", "a"), turn("system", "s"), turn("user", "b")]

    found = list(variants(messages))

    assert [roles(each) for each in found] == ["usu", "suu", "su", "u"]
    assert found[-1] == [turn("user", "s\n\na\n\nb")]


def test_no_text_is_ever_lost():
    messages = [
        turn("system", "one"),
        turn("user", "two"),
        turn("assistant", "three", tool_calls=[call("123456789")], reasoning_content="r"),
        turn("assistant", "four", tool_calls=[call("abcdefghi")]),
        turn("tool", "five"),
        turn("tool", "six"),
        turn("system", "seven"),
        turn("user", [{"type": "text", "text": "eight"}, {"type": "image"}]),
        turn("user", "nine"),
    ]

    for variant in variants(messages):
        written = str(variant)
        for word in ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]:
            assert word in written
        assert "image" in written
        calls = [call for each in variant for call in each.get("tool_calls", [])]
        assert calls == [call("123456789"), call("abcdefghi")]
        assert sum(each["role"] == "tool" for each in variant) == 2


def test_a_lone_system_turn_becomes_a_users():
    assert list(variants([turn("system", "s")]))[-1] == [turn("user", "s")]


def test_texts_of_system_turns_are_found_in_parts_too():
    messages = [turn("system", [{"type": "text", "text": "a"}]), turn("system", "b")]

    assert system_texts(messages) == ["a", "b"]


def test_text_behind_a_result_joins_it_where_a_template_wants_that():
    messages = [
        turn("user", "a"),
        turn("assistant", "", tool_calls=[call("abcdefgh1")]),
        turn("tool", "42", tool_call_id="abcdefgh1"),
        turn("user", "and now?"),
    ]

    found = list(variants(messages))

    assert [roles(each) for each in found] == ["uatu", "uat"]
    assert found[-1][-1] == turn("tool", "42\n\nand now?", tool_call_id="abcdefgh1")


def test_ids_are_renamed_alike_in_a_call_and_its_result():
    messages = [
        turn("user", "a"),
        turn("assistant", "", tool_calls=[call("call_1"), call("call_2"), call("abcdefgh3")]),
        turn("tool", "x", tool_call_id="call_2"),
        turn("tool", "y", tool_call_id="abcdefgh3"),
    ]

    renamed = list(variants(messages))[1]

    ids = [each["id"] for each in renamed[1]["tool_calls"]]
    assert [ids[1], ids[2]] == [each["tool_call_id"] for each in renamed[2:]]
    assert ids[2] == "abcdefgh3"
    assert len(set(ids)) == 3
    assert all(len(each) == 9 and each.isalnum() for each in ids)
    assert messages[1]["tool_calls"] == [call("call_1"), call("call_2"), call("abcdefgh3")]


MANY = 30_000
LONG_CHATS = {
    "one speaker": [turn("user", f"message {i}") for i in range(MANY)],
    "text behind a result": [
        turn("tool", "x", tool_call_id="a"),
        *(turn("user", f"message {i}") for i in range(MANY)),
    ],
    "pictures": [turn("user", [{"type": "image"}]) for _ in range(MANY)],
    "calls": [
        turn("assistant", "", tool_calls=[call(f"call{i}") for i in range(MANY)]),
        *(turn("tool", "x", tool_call_id=f"call{i}") for i in reversed(range(MANY))),
    ],
    "thoughts": [turn("assistant", "", reasoning_content="hm " * 9) for _ in range(MANY)],
}


@pytest.mark.parametrize("messages", LONG_CHATS.values(), ids=LONG_CHATS)
def test_the_time_grows_with_the_turns_and_not_with_their_square(messages):
    begun = time.process_time()

    list(variants(messages))

    # by squares 5 to 30 s on a machine of one's own; a full one takes twice as long for all
    assert time.process_time() - begun < 5


def test_an_order_is_made_when_it_is_asked_for():
    broken = turn("assistant", "", tool_calls=["no call: whoever looks at it fails"])

    assert next(variants([broken])) == [broken]


def test_a_template_that_changes_its_turns_changes_no_later_order():
    found = variants([turn("system", "s"), turn("assistant", "a")])

    next(found).clear()

    assert roles(next(found)) == "sua"


@pytest.mark.parametrize(
    ("contents", "meant"),
    [
        (["a", "", "b"], "a\n\nb"),
        ([[IMAGE], [IMAGE]], [IMAGE, IMAGE]),
        (["a", [IMAGE]], [text("a\n\n"), IMAGE]),
        ([[IMAGE], "a", "b"], [IMAGE, text("\n\na"), text("\n\nb")]),
        ([[IMAGE], "a", [IMAGE]], [IMAGE, text("\n\na\n\n"), IMAGE]),
        (["", [IMAGE], ""], [IMAGE]),
    ],
)
def test_text_stays_apart_from_what_it_is_joined_with(contents, meant):
    assert list(variants([turn("user", each) for each in contents]))[-1] == [turn("user", meant)]
